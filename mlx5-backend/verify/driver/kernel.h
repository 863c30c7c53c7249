// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/*
 * What mlx5-vfio-pci uses of the kernel, in one process with one thread. Every header the driver
 * includes and that is not the driver's subject is this file under another name.
 *
 * Each part says what it takes the kernel to do. What it checks beyond that (locks that would
 * deadlock or sleep where nobody may, pages freed twice or while mapped) ends the process with the
 * reason.
 */
#ifndef VERIFY_KERNEL_H
#define VERIFY_KERNEL_H

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/types.h>

/* Types. Sparse's marks mean nothing to a compiler. */
typedef uint8_t u8, __u8;
typedef uint16_t u16, __u16, __be16;
typedef uint32_t u32, __u32, __be32, __le32;
typedef uint64_t u64, __aligned_u64;
typedef unsigned long long __u64, __be64, __le64;
typedef int32_t s32, __s32;
typedef u64 dma_addr_t;
typedef unsigned int gfp_t, __poll_t;
#define __user
#define __iomem
#define __force
#define __rcu
#define __packed __attribute__((packed))
#define DECLARE_FLEX_ARRAY(type, name) \
	struct { struct { } empty_##name; type name[]; }
#define BITS_PER_LONG 64
#ifndef __LITTLE_ENDIAN
#define __LITTLE_ENDIAN 1234
#endif
#define struct_group(name, ...) \
	union { \
		struct { __VA_ARGS__ }; \
		struct { __VA_ARGS__ } name; \
	}

/* Byte order. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "written for a little-endian machine");
#define cpu_to_le64(x) ((__le64)(x))
#define cpu_to_le32(x) ((__le32)(x))
#define le64_to_cpup(p) unaligned_u64(p)
#define le32_to_cpup(p) unaligned_u32(p)
#define cpu_to_be64(x) __builtin_bswap64(x)
#define cpu_to_be32(x) __builtin_bswap32(x)
#define cpu_to_be16(x) __builtin_bswap16(x)
#define be64_to_cpu(x) __builtin_bswap64(x)
#define be32_to_cpu(x) __builtin_bswap32(x)
#define be16_to_cpu(x) __builtin_bswap16(x)
static inline u64 unaligned_u64(const void *p)
{
	u64 value;

	memcpy(&value, p, sizeof(value));
	return value;
}
static inline u32 unaligned_u32(const void *p)
{
	u32 value;

	memcpy(&value, p, sizeof(value));
	return value;
}

/* Arithmetic and the compiler. */
#define likely(x) (x)
#define unlikely(x) (x)
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define BIT(n) (1UL << (n))
#define BIT_ULL(n) (1ULL << (n))
#define GENMASK(high, low) ((~0UL << (low)) & (~0UL >> (63 - (high))))
#define min(a, b) ({ __auto_type a_ = (a); __auto_type b_ = (b); a_ < b_ ? a_ : b_; })
#define max(a, b) ({ __auto_type a_ = (a); __auto_type b_ = (b); a_ > b_ ? a_ : b_; })
#define min_t(type, a, b) min((type)(a), (type)(b))
#define DIV_ROUND_UP(n, d) (((n) + (d) - 1) / (d))
#define DIV_ROUND_UP_ULL(n, d) DIV_ROUND_UP((unsigned long long)(n), d)
#define round_up(n, d) ((((n) - 1) | ((__typeof__(n))(d) - 1)) + 1)
#define IS_ALIGNED(n, d) (((n) & ((__typeof__(n))(d) - 1)) == 0)
#define is_power_of_2(n) ((n) != 0 && ((n) & ((n) - 1)) == 0)
#define check_add_overflow(a, b, d) __builtin_add_overflow(a, b, d)
#define ilog2(n) (63 - __builtin_clzll(n))
#define roundup_pow_of_two(n) ((n) <= 1 ? 1UL : 1UL << (ilog2((n) - 1) + 1))
#define container_of(p, type, member) ((type *)((char *)(p) - offsetof(type, member)))
#define sizeof_field(type, member) sizeof(((type *)0)->member)
#define offsetofend(type, member) (offsetof(type, member) + sizeof_field(type, member))
#define BUILD_BUG_ON(condition) _Static_assert(!(condition), #condition)
#define BUILD_BUG_ON_ZERO(condition) ((int)sizeof(struct { int : -!!(condition); }))
#define IS_ENABLED(option) 0
#define SZ_4K 0x1000
#define SZ_2M 0x200000
#define SZ_8M 0x800000
#define ERESTARTSYS 512
#define EPOLLIN 0x001
#define EPOLLOUT 0x004
#define EPOLLRDNORM 0x040
#define EPOLLWRNORM 0x100
#define EPOLLRDHUP 0x2000

/* A pointer that may be an errno. */
#define IS_ERR(p) ((unsigned long)(p) >= (unsigned long)-4095)
#define ERR_PTR(e) ((void *)(long)(e))
#define PTR_ERR(p) ((long)(p))
#define ERR_CAST(p) ((void *)(p))

/* WARN_ON is told to the tester, who decides whether it was to be. */
void kernel_warning(const char *condition, const char *file, int line);
void kernel_fatal(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));
#define WARN_ON(condition) ({ \
	bool warned_ = (condition); \
	if (warned_) \
		kernel_warning(#condition, __FILE__, __LINE__); \
	warned_; \
})
#define WARN_ON_ONCE(condition) WARN_ON(condition)

/* A module. */
#define THIS_MODULE NULL
#define KBUILD_MODNAME "mlx5_vfio_pci"
struct module;
#define EXPORT_SYMBOL_GPL(symbol)
#define MODULE_DEVICE_TABLE(bus, table)
#define MODULE_IMPORT_NS(name)
#define MODULE_LICENSE(text)
#define MODULE_AUTHOR(text)
#define MODULE_DESCRIPTION(text)

/* Doubly linked lists. */
struct list_head {
	struct list_head *next, *prev;
};
static inline void INIT_LIST_HEAD(struct list_head *head)
{
	head->next = head->prev = head;
}
static inline bool list_empty(const struct list_head *head)
{
	return head->next == head;
}
static inline void list_between(struct list_head *one, struct list_head *prev, struct list_head *next)
{
	one->prev = prev;
	one->next = next;
	prev->next = next->prev = one;
}
static inline void list_add(struct list_head *one, struct list_head *head)
{
	list_between(one, head, head->next);
}
static inline void list_add_tail(struct list_head *one, struct list_head *head)
{
	list_between(one, head->prev, head);
}
/* Taken out, an element points nowhere: to take it out again is found by the sanitizer. */
static inline void list_del(struct list_head *one)
{
	one->prev->next = one->next;
	one->next->prev = one->prev;
	one->next = one->prev = NULL;
}
static inline void list_del_init(struct list_head *one)
{
	list_del(one);
	INIT_LIST_HEAD(one);
}
/* As in the kernel, `from` is left as it was and must not be used again. */
static inline void list_splice(const struct list_head *from, struct list_head *head)
{
	if (list_empty(from))
		return;
	from->prev->next = head->next;
	head->next->prev = from->prev;
	head->next = from->next;
	from->next->prev = head;
}
#define list_first_entry(head, type, member) container_of((head)->next, type, member)
#define list_first_entry_or_null(head, type, member) \
	(list_empty(head) ? NULL : list_first_entry(head, type, member))
#define list_for_each_entry_safe(at, next_, head, member) \
	for (at = container_of((head)->next, __typeof__(*at), member), \
	     next_ = container_of(at->member.next, __typeof__(*at), member); \
	     &at->member != (head); \
	     at = next_, next_ = container_of(next_->member.next, __typeof__(*at), member))

/*
 * Locks. With one thread a lock that is held when it is wanted is never let go: that is a deadlock,
 * or a wait of one op for another that this harness cannot run. A spinlock held, or the context of
 * an interrupt, forbids sleep.
 */
struct mutex {
	bool ready, held;
};
typedef struct {
	bool ready, held;
} spinlock_t;
void mutex_init(struct mutex *lock);
void mutex_destroy(struct mutex *lock);
void mutex_lock(struct mutex *lock);
bool mutex_trylock(struct mutex *lock);
void mutex_unlock(struct mutex *lock);
void spin_lock_init(spinlock_t *lock);
void spin_lock(spinlock_t *lock);
void spin_unlock(spinlock_t *lock);
#define spin_lock_irq(lock) spin_lock(lock)
#define spin_unlock_irq(lock) spin_unlock(lock)
#define spin_lock_irqsave(lock, flags) ((flags) = 0, spin_lock(lock))
#define spin_unlock_irqrestore(lock, flags) ((void)(flags), spin_unlock(lock))
void kernel_assert_held(const struct mutex *lock, const char *name);
#define lockdep_assert_held(lock) kernel_assert_held(lock, #lock)
void kernel_might_sleep(const char *what);
struct rw_semaphore {
	int unused;
};
typedef struct {
	int count;
} refcount_t;
static inline void refcount_inc(refcount_t *refs)
{
	refs->count++;
}
static inline bool refcount_dec_and_test(refcount_t *refs)
{
	return --refs->count == 0;
}

/*
 * Waiting. kernel_block() lets something happen, a work item or whatever the tester does next, and
 * says -ERESTARTSYS if a signal ends the wait. Who waits in a queue looks again only when somebody
 * has woken the queue, so that a wake-up which is forgotten is missed.
 */
int kernel_block(const char *what, bool interruptible);
typedef struct wait_queue_head {
	unsigned int woken;
} wait_queue_head_t;
typedef struct {
	int unused;
} wait_queue_entry_t;
#define init_waitqueue_head(queue) ((queue)->woken = 0)
#define wake_up_interruptible(queue) ((void)(queue)->woken++)
#define wait_event_interruptible(queue, condition) ({ \
	int ended_ = 0; \
	while (!ended_ && !(condition)) { \
		unsigned int seen_ = (queue).woken; \
		while (!ended_ && (queue).woken == seen_) \
			ended_ = kernel_block(#condition, true); \
	} \
	ended_; \
})
struct completion {
	unsigned int done;
};
static inline void init_completion(struct completion *it)
{
	it->done = 0;
}
static inline void complete(struct completion *it)
{
	it->done++;
}
int kernel_wait_for(struct completion *it, bool interruptible);
#define wait_for_completion_interruptible(it) kernel_wait_for(it, true)
#define wait_for_completion(it) ((void)kernel_wait_for(it, false))

/*
 * Work. One ordered queue; an item runs when an op ends or blocks, never within another item. One
 * that is queued already is not queued again, and one that begins by waiting for a lock begins anew
 * when the lock is free. Whether a worker comes before who waits for an event, when both can go on,
 * is the tester's choice: kernel_workers_first.
 */
struct work_struct {
	struct list_head item;
	bool queued;
	void (*function)(struct work_struct *work);
};
struct workqueue_struct {
	struct list_head items;
};
#define INIT_WORK(work, f) do { \
	INIT_LIST_HEAD(&(work)->item); \
	(work)->queued = false; \
	(work)->function = (f); \
} while (0)
struct workqueue_struct *alloc_ordered_workqueue(const char *name, unsigned int flags);
void destroy_workqueue(struct workqueue_struct *queue);
bool queue_work(struct workqueue_struct *queue, struct work_struct *work);
bool cancel_work_sync(struct work_struct *work);

/* Memory: the C library's, counted. */
#define GFP_KERNEL 0
#define GFP_KERNEL_ACCOUNT 0
void *kzalloc(size_t size, gfp_t flags);
void kfree(const void *block);
#define kvzalloc(size, flags) kzalloc(size, flags)
#define kvcalloc(n, size, flags) kzalloc((n) * (size), flags)
#define kmalloc_array(n, size, flags) kzalloc((n) * (size), flags)
#define kvfree(block) kfree(block)

/*
 * Pages: 4096 bytes each, all in one piece of memory that the tester shares. A page's number is its
 * place in there, and its bus address is that place after DMA_BASE. Neighbours may or may not be
 * handed out one after the other, as in the kernel. Contents are left over from whoever had it
 * last.
 */
#define PAGE_SHIFT 12
#define PAGE_SIZE 4096UL
#define DMA_BASE 0x4000000000ULL
struct page {
	u32 state;
};
struct page *kernel_nth(struct page *page, unsigned long n);
#define nth_page(page, n) kernel_nth(page, n)
void *kmap_local_page(struct page *page);
#define kunmap_local(address) ((void)(address))
void __free_page(struct page *page);
/* May hand out fewer than asked for. Fills the empty places of the array. */
unsigned long alloc_pages_bulk_array(gfp_t flags, unsigned long n, struct page **pages);

/* Scatter lists: linked, so that growing one moves nothing. */
struct scatterlist {
	struct scatterlist *next;
	struct page *page;
	unsigned int length;
	dma_addr_t dma_address;
};
struct sg_table {
	struct scatterlist *sgl;
	unsigned int nents, orig_nents;
};
struct sg_append_table {
	struct sg_table sgt;
	struct scatterlist *last;
};
struct sg_page_iter {
	struct scatterlist *sg;
	unsigned int page;
};
struct sg_dma_page_iter {
	struct sg_page_iter base;
};
#define SG_MAX_SINGLE_ALLOC 128
#define sg_page(sg) ((sg)->page)
#define for_each_sg(list, sg, n, i) \
	for (i = 0, sg = (list); i < (n) && sg; i++, sg = sg->next)
bool kernel_next_page(struct sg_table *table, struct sg_page_iter *at, unsigned int *left);
#define for_each_sgtable_page(table, at, from) \
	for (unsigned int left_ = ((at)->sg = NULL, (table)->orig_nents); \
	     kernel_next_page(table, at, &left_);)
#define for_each_sgtable_dma_page(table, at, from) \
	for (unsigned int left_ = ((at)->base.sg = NULL, (table)->nents); \
	     kernel_next_page(table, &(at)->base, &left_);)
#define sg_page_iter_page(at) kernel_nth((at)->sg->page, (at)->page)
#define sg_page_iter_dma_address(at) ((at)->base.sg->dma_address + (at)->base.page * PAGE_SIZE)
/* Neighbouring pages become one entry. */
int sg_alloc_append_table_from_pages(struct sg_append_table *table, struct page **pages,
				     unsigned int n, unsigned int offset, unsigned long size,
				     unsigned int max_segment, unsigned int left_pages,
				     gfp_t flags);
void sg_free_append_table(struct sg_append_table *table);

/* DMA: bus addresses are linear, nothing bounces, mapping does not fail. */
enum dma_data_direction { DMA_BIDIRECTIONAL, DMA_TO_DEVICE, DMA_FROM_DEVICE, DMA_NONE };
struct device;
int dma_map_sgtable(struct device *device, struct sg_table *table, enum dma_data_direction dir,
		    unsigned long attributes);
void dma_unmap_sgtable(struct device *device, struct sg_table *table, enum dma_data_direction dir,
		       unsigned long attributes);
dma_addr_t dma_map_page(struct device *device, struct page *page, size_t offset, size_t size,
			enum dma_data_direction dir);
void dma_unmap_single(struct device *device, dma_addr_t address, size_t size,
		      enum dma_data_direction dir);
#define dma_mapping_error(device, address) 0
#define dma_wmb() ((void)0)
#define rmb() ((void)0)
#define wmb() ((void)0)
#define __raw_writeq(value, address) ((void)(value), (void)(address))

/*
 * Files. The last reference releases a file when the op ends, as the kernel does it on the way back
 * to user space. What read(2) and its like do before they reach the driver is in host.c.
 */
struct inode {
	int unused;
};
struct file;
typedef struct poll_table_struct {
	int unused;
} poll_table;
struct vm_area_struct;
struct file_operations {
	struct module *owner;
	ssize_t (*read)(struct file *file, char __user *to, size_t n, loff_t *position);
	ssize_t (*write)(struct file *file, const char __user *from, size_t n, loff_t *position);
	__poll_t (*poll)(struct file *file, struct poll_table_struct *table);
	long (*unlocked_ioctl)(struct file *file, unsigned int request, unsigned long argument);
	long (*compat_ioctl)(struct file *file, unsigned int request, unsigned long argument);
	int (*release)(struct inode *inode, struct file *file);
};
struct file {
	const struct file_operations *f_op;
	void *private_data;
	struct inode *f_inode;
	unsigned int f_flags;
	bool stream;
	loff_t f_pos;
	int references;
	struct list_head dying;
};
#define compat_ptr_ioctl NULL
struct file *anon_inode_getfile(const char *name, const struct file_operations *ops, void *data,
				int flags);
int stream_open(struct inode *inode, struct file *file);
struct file *get_file(struct file *file);
void fput(struct file *file);
int get_unused_fd_flags(unsigned int flags);
void put_unused_fd(unsigned int fd);
void fd_install(unsigned int fd, struct file *file);
static inline void poll_wait(struct file *file, wait_queue_head_t *queue,
			     struct poll_table_struct *table)
{
}

/* User memory: this process's own, and always there. */
#define u64_to_user_ptr(address) ((void *)(uintptr_t)(address))
static inline unsigned long copy_to_user(void __user *to, const void *from, unsigned long n)
{
	memcpy(to, from, n);
	return 0;
}
static inline unsigned long copy_from_user(void *to, const void __user *from, unsigned long n)
{
	memcpy(to, from, n);
	return 0;
}

/* Intervals, ordered by where they begin; for some hundreds of them a list does. */
struct interval_tree_node {
	unsigned long start, last;
	struct interval_tree_node *next;
};
struct rb_root_cached {
	struct interval_tree_node *first;
};
#define RB_ROOT_CACHED (struct rb_root_cached){ NULL }
struct interval_tree_node *interval_tree_iter_first(struct rb_root_cached *root,
						    unsigned long start, unsigned long last);
struct interval_tree_node *interval_tree_iter_next(struct interval_tree_node *node,
						   unsigned long start, unsigned long last);
void interval_tree_insert(struct interval_tree_node *node, struct rb_root_cached *root);
void interval_tree_remove(struct interval_tree_node *node, struct rb_root_cached *root);

/* The bitmap of a report, walked in one piece and not in pieces of pinned pages. */
struct iova_bitmap;
typedef int (*iova_bitmap_fn_t)(struct iova_bitmap *bitmap, unsigned long iova, size_t length,
				void *opaque);
struct iova_bitmap *iova_bitmap_alloc(unsigned long iova, size_t length, unsigned long page_size,
				      u64 __user *data);
void iova_bitmap_free(struct iova_bitmap *bitmap);
int iova_bitmap_for_each(struct iova_bitmap *bitmap, void *opaque, iova_bitmap_fn_t function);
void iova_bitmap_set(struct iova_bitmap *bitmap, unsigned long iova, size_t length);

/* Notifiers. */
struct notifier_block {
	int (*notifier_call)(struct notifier_block *block, unsigned long event, void *data);
};
#define NOTIFY_OK 1

/* Devices and PCI: one VF, number 0, of one PF. */
struct device {
	void *driver_data;
};
/* A device has one reference: its driver's. */
void put_device(struct device *device);
/* Members of the structures of vfio_pci_core that neither it nor the driver touch here. */
struct cdev {
	int unused;
};
struct rcu_head {
	int unused;
};
struct xarray {
	int unused;
};
typedef int pci_ers_result_t, pci_channel_state_t;
#define dev_set_drvdata(device, data) ((device)->driver_data = (data))
#define dev_get_drvdata(device) ((device)->driver_data)
#define PCI_STD_NUM_BARS 6
#define PCI_VENDOR_ID_MELLANOX 0x15b3
struct pci_dev {
	struct device dev;
	bool is_virtfn;
};
struct pci_device_id {
	u32 vendor, device;
};
#define PCI_DRIVER_OVERRIDE_DEVICE_VFIO(v, d) .vendor = (v), .device = (d)
struct pci_error_handlers {
	void *error_detected;
	void (*reset_done)(struct pci_dev *device);
};
struct pci_driver {
	const char *name;
	const struct pci_device_id *id_table;
	int (*probe)(struct pci_dev *device, const struct pci_device_id *id);
	void (*remove)(struct pci_dev *device);
	const struct pci_error_handlers *err_handler;
	bool driver_managed_dma;
};
#define pci_iov_vf_id(device) 0
#define module_pci_driver(driver) struct pci_driver *const kernel_pci_driver = &driver

#define raw_smp_processor_id() 0
#define cache_line_size() 64

#endif
