// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* The stand-ins that are declared in kernel.h. */
#include <kernel.h>
#include <linux/vfio.h>

#include "harness.h"
#include "wire.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(at, n) ((void)(at))
#define ASAN_UNPOISON_MEMORY_REGION(at, n) ((void)(at))
#endif

struct stats kernel_stats;

/* ---- What the kernel would not survive ---- */

void kernel_warning(const char *condition, const char *file, int line)
{
	char text[256];
	int n = snprintf(text, sizeof(text), "%s:%d: %s", file, line, condition);

	kernel_stats.warnings++;
	wire_send(FRAME_WARNING, 0, 0, 0, text, (size_t)n);
}

void kernel_fatal(const char *format, ...)
{
	char text[256];
	va_list arguments;
	int n;

	va_start(arguments, format);
	n = vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	wire_send(FRAME_FATAL, 0, 0, 0, text, (size_t)n);
	wire_exit(3);
}

/* ---- Locks ---- */

static int spinning;
int kernel_in_interrupt;

/* A worker that has run into a lock which is held; it has done nothing yet, so it can begin anew. */
static jmp_buf worker_waits;
static bool worker_is_fresh;

void kernel_might_sleep(const char *what)
{
	if (spinning)
		kernel_fatal("%s while a spinlock is held", what);
	if (kernel_in_interrupt)
		kernel_fatal("%s in an interrupt", what);
}

void mutex_init(struct mutex *lock)
{
	*lock = (struct mutex){ .ready = true };
}

void mutex_destroy(struct mutex *lock)
{
	if (lock->held)
		kernel_fatal("a mutex is destroyed that is held");
	lock->ready = false;
}

void mutex_lock(struct mutex *lock)
{
	kernel_might_sleep("mutex_lock()");
	if (lock->ready && lock->held && worker_is_fresh)
		longjmp(worker_waits, 1);
	worker_is_fresh = false;
	if (!mutex_trylock(lock))
		kernel_fatal("mutex_lock() of a mutex that the blocked op below holds");
}

bool mutex_trylock(struct mutex *lock)
{
	if (!lock->ready)
		kernel_fatal("a mutex is locked that is not initialised");
	if (lock->held)
		return false;
	lock->held = true;
	return true;
}

void mutex_unlock(struct mutex *lock)
{
	if (!lock->held)
		kernel_fatal("mutex_unlock() of a mutex that nobody holds");
	lock->held = false;
}

void kernel_assert_held(const struct mutex *lock, const char *name)
{
	if (!lock->held)
		kernel_fatal("%s is not held", name);
}

void spin_lock_init(spinlock_t *lock)
{
	*lock = (spinlock_t){ .ready = true };
}

void spin_lock(spinlock_t *lock)
{
	if (!lock->ready || lock->held)
		kernel_fatal("spin_lock() of a spinlock that is %s", lock->ready ? "held" : "not initialised");
	lock->held = true;
	spinning++;
}

void spin_unlock(spinlock_t *lock)
{
	if (!lock->held)
		kernel_fatal("spin_unlock() of a spinlock that nobody holds");
	lock->held = false;
	spinning--;
}

/* ---- Waiting and work ---- */

static struct list_head queued = { &queued, &queued };
static struct work_struct *working;
bool kernel_workers_first;

static void enqueue(struct work_struct *work, bool at_the_end)
{
	work->queued = true;
	kernel_stats.work++;
	if (at_the_end)
		list_add_tail(&work->item, &queued);
	else
		list_add(&work->item, &queued);
}

static void dequeue(struct work_struct *work)
{
	list_del_init(&work->item);
	work->queued = false;
	kernel_stats.work--;
}

static bool run_one(void)
{
	if (working || list_empty(&queued))
		return false;
	working = list_first_entry(&queued, struct work_struct, item);
	dequeue(working);
	if (setjmp(worker_waits)) {
		worker_is_fresh = false;
		enqueue(working, false);
		working = NULL;
		return false;
	}
	worker_is_fresh = true;
	/* The item may free itself. */
	working->function(working);
	worker_is_fresh = false;
	working = NULL;
	return true;
}

void kernel_let_workers_run(void)
{
	while (run_one())
		;
}

int kernel_block(const char *what, bool interruptible)
{
	kernel_might_sleep(what);
	return run_one() ? 0 : harness_wait(what, interruptible);
}

int kernel_wait_for(struct completion *it, bool interruptible)
{
	kernel_might_sleep("wait_for_completion()");
	while (!it->done) {
		int ended = kernel_block("a completion", interruptible);

		if (ended)
			return ended;
	}
	it->done--;
	return 0;
}

struct workqueue_struct *alloc_ordered_workqueue(const char *name, unsigned int flags)
{
	struct workqueue_struct *queue = kzalloc(sizeof(*queue), 0);

	return queue;
}

void destroy_workqueue(struct workqueue_struct *queue)
{
	kernel_let_workers_run();
	kfree(queue);
}

bool queue_work(struct workqueue_struct *queue, struct work_struct *work)
{
	if (!queue || !work->function)
		kernel_fatal("queue_work() of work or a queue that is not initialised");
	if (work->queued)
		return false;
	enqueue(work, true);
	return true;
}

bool cancel_work_sync(struct work_struct *work)
{
	kernel_might_sleep("cancel_work_sync()");
	if (!work->queued)
		return false;
	dequeue(work);
	return true;
}

/* ---- Memory ---- */

void *kzalloc(size_t size, gfp_t flags)
{
	void *block;

	kernel_might_sleep("kzalloc(GFP_KERNEL)");
	block = calloc(1, size ? size : 1);
	if (block)
		kernel_stats.blocks++;
	return block;
}

void kfree(const void *block)
{
	if (block)
		kernel_stats.blocks--;
	free((void *)block);
}

/*
 * The shared memory: as many pages as the tester says, before them four bytes for the state of
 * each, so that the tester can tell what a device may reach.
 */
enum { PAGE_ALLOCATED = 1, PAGE_MAPPING = 2 };
static struct page *pages;
static unsigned char *contents;
static size_t page_count, next_page;
static int64_t pages_left = -1;

void kernel_pages_init(size_t count)
{
	size_t table = round_up(count * sizeof(struct page), PAGE_SIZE);
	unsigned char *at = wire_map(table + count * PAGE_SIZE);

	pages = (struct page *)at;
	contents = at + table;
	page_count = count;
	ASAN_POISON_MEMORY_REGION(contents, count * PAGE_SIZE);
}

void kernel_pages_limit(int64_t left)
{
	pages_left = left;
}

static unsigned char *page_at(struct page *page)
{
	return contents + (size_t)(page - pages) * PAGE_SIZE;
}

struct page *kernel_nth(struct page *page, unsigned long n)
{
	if ((size_t)(page - pages) + n >= page_count)
		kernel_fatal("a page behind the last one is named");
	return page + n;
}

void *kmap_local_page(struct page *page)
{
	if (!(page->state & PAGE_ALLOCATED))
		kernel_fatal("a page is mapped that was freed");
	return page_at(page);
}

static struct page *alloc_page(void)
{
	if (!pages_left)
		return NULL;
	for (size_t tried = 0; tried < page_count; tried++) {
		struct page *page = &pages[next_page];

		next_page = (next_page + 1) % page_count;
		if (page->state)
			continue;
		page->state = PAGE_ALLOCATED;
		ASAN_UNPOISON_MEMORY_REGION(page_at(page), PAGE_SIZE);
		if (pages_left > 0)
			pages_left--;
		if (++kernel_stats.pages > kernel_stats.most_pages)
			kernel_stats.most_pages = kernel_stats.pages;
		return page;
	}
	return NULL;
}

/*
 * Every hundredth page is left out, so that lists of pages have seams. What is handed out is the
 * same in every run.
 */
unsigned long alloc_pages_bulk_array(gfp_t flags, unsigned long n, struct page **array)
{
	unsigned long filled = 0;

	kernel_might_sleep("alloc_pages_bulk_array(GFP_KERNEL)");
	while (filled < n && array[filled])
		filled++;
	while (filled < n && (array[filled] = alloc_page())) {
		if (next_page % 100 == 99)
			next_page = (next_page + 1) % page_count;
		filled++;
	}
	return filled;
}

void __free_page(struct page *page)
{
	if (!(page->state & PAGE_ALLOCATED))
		kernel_fatal("a page is freed twice");
	if (page->state != PAGE_ALLOCATED)
		kernel_fatal("a page is freed that is mapped for DMA");
	page->state = 0;
	kernel_stats.pages--;
	ASAN_POISON_MEMORY_REGION(page_at(page), PAGE_SIZE);
}

/* ---- Scatter lists and DMA ---- */

bool kernel_next_page(struct sg_table *table, struct sg_page_iter *at, unsigned int *left)
{
	if (!at->sg) {
		*at = (struct sg_page_iter){ table->sgl, 0 };
	} else if ((size_t)++at->page * PAGE_SIZE >= at->sg->length) {
		*at = (struct sg_page_iter){ at->sg->next, 0 };
		--*left;
	}
	return *left && at->sg;
}

static struct scatterlist *grow(struct sg_append_table *table)
{
	struct scatterlist *one = kzalloc(sizeof(*one), 0);

	if (!one)
		return NULL;
	if (table->last)
		table->last->next = one;
	else
		table->sgt.sgl = one;
	table->last = one;
	table->sgt.orig_nents++;
	table->sgt.nents = table->sgt.orig_nents;
	return one;
}

int sg_alloc_append_table_from_pages(struct sg_append_table *table, struct page **array,
				     unsigned int n, unsigned int offset, unsigned long size,
				     unsigned int max_segment, unsigned int left_pages, gfp_t flags)
{
	if (offset || size != n * PAGE_SIZE)
		kernel_fatal("a scatter list of parts of pages is asked for");
	for (unsigned int i = 0; i < n; i++) {
		struct scatterlist *last = table->last;

		if (last && last->page + last->length / PAGE_SIZE == array[i] &&
		    last->length <= max_segment - PAGE_SIZE) {
			last->length += PAGE_SIZE;
			continue;
		}
		last = grow(table);
		if (!last)
			return -ENOMEM;
		last->page = array[i];
		last->length = PAGE_SIZE;
	}
	return 0;
}

void sg_free_append_table(struct sg_append_table *table)
{
	struct scatterlist *at = table->sgt.sgl;

	while (at) {
		struct scatterlist *next = at->next;

		kfree(at);
		at = next;
	}
	*table = (struct sg_append_table){};
}

static dma_addr_t map_page(struct page *page)
{
	if (!(page->state & PAGE_ALLOCATED))
		kernel_fatal("a page is mapped for DMA that was freed");
	page->state += PAGE_MAPPING;
	kernel_stats.mapped_pages++;
	return DMA_BASE + (u64)(page - pages) * PAGE_SIZE;
}

static void unmap_page(struct page *page)
{
	if (page->state < PAGE_MAPPING)
		kernel_fatal("a page is unmapped that is not mapped for DMA");
	page->state -= PAGE_MAPPING;
	kernel_stats.mapped_pages--;
}

int dma_map_sgtable(struct device *device, struct sg_table *table, enum dma_data_direction dir,
		    unsigned long attributes)
{
	if (dir != DMA_TO_DEVICE && dir != DMA_FROM_DEVICE)
		kernel_fatal("a mapping for DMA has no direction");
	for (struct scatterlist *at = table->sgl; at; at = at->next) {
		for (size_t i = 0; i < at->length / PAGE_SIZE; i++)
			map_page(at->page + i);
		at->dma_address = DMA_BASE + (u64)(at->page - pages) * PAGE_SIZE;
	}
	return 0;
}

void dma_unmap_sgtable(struct device *device, struct sg_table *table, enum dma_data_direction dir,
		       unsigned long attributes)
{
	for (struct scatterlist *at = table->sgl; at; at = at->next)
		for (size_t i = 0; i < at->length / PAGE_SIZE; i++)
			unmap_page(at->page + i);
}

dma_addr_t dma_map_page(struct device *device, struct page *page, size_t offset, size_t size,
			enum dma_data_direction dir)
{
	return map_page(page) + offset;
}

void dma_unmap_single(struct device *device, dma_addr_t address, size_t size,
		      enum dma_data_direction dir)
{
	unmap_page(&pages[(address - DMA_BASE) / PAGE_SIZE]);
}

/* ---- Files ---- */

static struct list_head dying = { &dying, &dying };

struct file *anon_inode_getfile(const char *name, const struct file_operations *ops, void *data,
				int flags)
{
	static struct inode inode;
	struct file *file = kzalloc(sizeof(*file), 0);

	if (!file)
		return ERR_PTR(-ENOMEM);
	*file = (struct file){ ops, data, &inode, (unsigned int)flags, false, 0, 1 };
	kernel_stats.files++;
	return file;
}

int stream_open(struct inode *inode, struct file *file)
{
	file->stream = true;
	return 0;
}

struct file *get_file(struct file *file)
{
	if (file->references < 1)
		kernel_fatal("get_file() of a file that is gone");
	file->references++;
	return file;
}

void fput(struct file *file)
{
	if (file->references < 1)
		kernel_fatal("fput() of a file that is gone");
	if (!--file->references)
		list_add_tail(&file->dying, &dying);
}

static bool release_one(void)
{
	struct file *file;

	if (list_empty(&dying))
		return false;
	file = list_first_entry(&dying, struct file, dying);
	list_del(&file->dying);
	file->f_op->release(file->f_inode, file);
	kernel_stats.files--;
	kfree(file);
	return true;
}

/* What the kernel does on the way back to user space, and its worker threads meanwhile. */
void kernel_settle(void)
{
	while (run_one() || release_one())
		;
}

/* The file descriptors of one user. A number is never used twice. */
enum { MOST_FDS = 1 << 16 };
static struct file *installed[MOST_FDS];
static int next_fd = 1;
bool kernel_fd_table_full;

int get_unused_fd_flags(unsigned int flags)
{
	if (kernel_fd_table_full || next_fd == MOST_FDS)
		return -EMFILE;
	if (flags != O_CLOEXEC)
		kernel_fatal("a data_fd is not to be closed on exec");
	return next_fd++;
}

void put_unused_fd(unsigned int fd)
{
}

void fd_install(unsigned int fd, struct file *file)
{
	installed[fd] = file;
}

struct file *kernel_file(int64_t fd)
{
	return fd > 0 && fd < MOST_FDS ? installed[fd] : NULL;
}

int kernel_close(int64_t fd)
{
	struct file *file = kernel_file(fd);

	if (!file)
		return -EBADF;
	installed[fd] = NULL;
	fput(file);
	return 0;
}

/* ---- Intervals and bitmaps ---- */

struct interval_tree_node *interval_tree_iter_next(struct interval_tree_node *node,
						   unsigned long start, unsigned long last)
{
	for (node = node->next; node; node = node->next)
		if (node->start <= last && node->last >= start)
			return node;
	return NULL;
}

struct interval_tree_node *interval_tree_iter_first(struct rb_root_cached *root,
						    unsigned long start, unsigned long last)
{
	struct interval_tree_node before = { .next = root->first };

	return interval_tree_iter_next(&before, start, last);
}

void interval_tree_insert(struct interval_tree_node *node, struct rb_root_cached *root)
{
	struct interval_tree_node **at = &root->first;

	while (*at && (*at)->start < node->start)
		at = &(*at)->next;
	node->next = *at;
	*at = node;
}

void interval_tree_remove(struct interval_tree_node *node, struct rb_root_cached *root)
{
	struct interval_tree_node **at = &root->first;

	while (*at != node)
		at = &(*at)->next;
	*at = node->next;
}

struct iova_bitmap {
	unsigned long iova, page_size;
	size_t length;
	u64 *data;
};

struct iova_bitmap *iova_bitmap_alloc(unsigned long iova, size_t length, unsigned long page_size,
				      u64 *data)
{
	struct iova_bitmap *bitmap = kzalloc(sizeof(*bitmap), 0);

	if (!bitmap)
		return ERR_PTR(-ENOMEM);
	*bitmap = (struct iova_bitmap){ iova, page_size, length, data };
	return bitmap;
}

void iova_bitmap_free(struct iova_bitmap *bitmap)
{
	kfree(bitmap);
}

int iova_bitmap_for_each(struct iova_bitmap *bitmap, void *opaque, iova_bitmap_fn_t function)
{
	return function(bitmap, bitmap->iova, bitmap->length, opaque);
}

void iova_bitmap_set(struct iova_bitmap *bitmap, unsigned long iova, size_t length)
{
	/* What is outside the range asked for is dropped. */
	for (size_t at = 0; at < length; at += bitmap->page_size) {
		unsigned long bit = (iova + at - bitmap->iova) / bitmap->page_size;

		if (iova + at >= bitmap->iova && iova + at - bitmap->iova < bitmap->length)
			bitmap->data[bit / 64] |= 1ULL << bit % 64;
	}
}
