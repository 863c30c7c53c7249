/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * A VFIO device in the place of the kernel's, for a process that has this library preloaded. The device
 * is in another process, which is at the other end of standard input; see host.h.
 *
 * BAR0 is memory that both processes map. So is what is mapped for DMA: its pages are exchanged, in
 * place, for those of a file that both have, at the offset that is the IOVA. Four functions of libc are
 * all that stands between; whatever is not about this device goes on to the kernel.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/vfio.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "host.h"

#define PAGE 4096ull
#define SYSFS "/sys/bus/pci/devices/" PCI_NAME "/"
/* IOVAs. The end is also that of the file. */
#define FIRST_IOVA 0x100000ull
#define END_IOVA 0x40000000ull
#define VECTORS 4
#define CONFIG_BYTES 4096ull

static int bar_fd = -1, arena_fd = -1;
static uint64_t bar_bytes;

static struct mapping {
	char *at;
	uint64_t iova, size;
} mappings[4096];

__attribute__((constructor)) static void connect_host(void)
{
	struct stat bar;
	int fds[2];
	int error;

	/* Never left behind, and no core either. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	prctl(PR_SET_DUMPABLE, 0);
	error = say(SAY_HELLO, 0, 0, -1, NULL, fds);
	if (error || fstat(fds[0], &bar)) {
		fprintf(stderr, "shim: nobody is at the other end of standard input: %s\n", strerror(error));
		_exit(2);
	}
	bar_fd = fds[0];
	arena_fd = fds[1];
	bar_bytes = (uint64_t)bar.st_size;
	/* Configuration space comes after BAR0. */
	if (ftruncate(bar_fd, (off_t)(bar_bytes + CONFIG_BYTES)))
		_exit(2);
}

static int refuse(int error)
{
	errno = error;
	return -1;
}

/* A file that has a text. */
static int text_fd(const char *text)
{
	int fd = memfd_create("shim", MFD_CLOEXEC);

	if (fd >= 0 && pwrite(fd, text, strlen(text), 0) < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

int open(const char *path, int flags, ...)
{
	va_list rest;
	mode_t mode = 0;

	if (!strncmp(path, SYSFS, strlen(SYSFS))) {
		const char *name = strrchr(path, '/') + 1;

		/* Mellanox, ConnectX-7. */
		if (!strcmp(name, "vendor"))
			return text_fd("0x15b3\n");
		if (!strcmp(name, "device"))
			return text_fd("0x1021\n");
		return refuse(ENOENT);
	}
	if (!strcmp(path, "/dev/vfio/vfio") || !strcmp(path, "/dev/vfio/" GROUP))
		return text_fd("");
	if (flags & (O_CREAT | O_TMPFILE)) {
		va_start(rest, flags);
		mode = va_arg(rest, mode_t);
		va_end(rest);
	}
	return openat(AT_FDCWD, path, flags, mode);
}

int stat(const char *restrict path, struct stat *restrict buf)
{
	if (!strcmp(path, SYSFS) || !strcmp(path, "/dev/vfio/" GROUP)) {
		memset(buf, 0, sizeof(*buf));
		return 0;
	}
	return fstatat(AT_FDCWD, path, buf, 0);
}

ssize_t readlink(const char *restrict path, char *restrict buf, size_t size)
{
	static const char group[] = "../../../kernel/iommu_groups/" GROUP;

	if (!strcmp(path, SYSFS "iommu_group")) {
		size = size < strlen(group) ? size : strlen(group);
		memcpy(buf, group, size);
		return (ssize_t)size;
	}
	return readlinkat(AT_FDCWD, path, buf, size);
}

/* Exchanges shared memory for private memory that has the same contents. */
static int give_back(struct mapping *mapping)
{
	void *own = mmap(NULL, mapping->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (own == MAP_FAILED)
		return -1;
	memcpy(own, mapping->at, mapping->size);
	if (mremap(own, mapping->size, mapping->size, MREMAP_MAYMOVE | MREMAP_FIXED, mapping->at) == MAP_FAILED)
		return -1;
	fallocate(arena_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)mapping->iova,
		  (off_t)mapping->size);
	*mapping = (struct mapping){ 0 };
	return 0;
}

/* The memory in the file, and the file in its place. */
static int exchange(const struct mapping *mapping)
{
	uint64_t done = 0;

	while (done < mapping->size) {
		ssize_t written = pwrite(arena_fd, mapping->at + done, mapping->size - done,
					 (off_t)(mapping->iova + done));

		if (written <= 0)
			return -1;
		done += (uint64_t)written;
	}
	if (mmap(mapping->at, mapping->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, arena_fd,
		 (off_t)mapping->iova) == MAP_FAILED)
		return -1;
	return 0;
}

static bool overlap(uint64_t a, uint64_t b, uint64_t a_size, uint64_t b_size)
{
	return a < b + b_size && b < a + a_size;
}

static int map_dma(const struct vfio_iommu_type1_dma_map *map)
{
	struct mapping *place = NULL;
	int error;

	if (map->argsz < sizeof(*map) || !map->size || (map->vaddr | map->iova | map->size) % PAGE ||
	    map->flags != (VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE))
		return refuse(EINVAL);
	if (map->iova < FIRST_IOVA || map->size > END_IOVA || map->iova > END_IOVA - map->size)
		return refuse(EINVAL);
	for (size_t i = 0; i < sizeof(mappings) / sizeof(mappings[0]); i++) {
		struct mapping *other = &mappings[i];

		if (!other->size) {
			place = place ? place : other;
			continue;
		}
		/* A kernel allows the second. Memory here can be in one place of the file only. */
		if (overlap(map->iova, other->iova, map->size, other->size) ||
		    overlap(map->vaddr, (uintptr_t)other->at, map->size, other->size))
			return refuse(EEXIST);
	}
	if (!place)
		return refuse(ENOSPC);
	*place = (struct mapping){ (char *)(uintptr_t)map->vaddr, map->iova, map->size };
	if (exchange(place)) {
		place->size = 0;
		return -1;
	}
	error = say(SAY_MAP, map->iova, map->size, -1, NULL, NULL);
	if (error) {
		give_back(place);
		return refuse(error);
	}
	return 0;
}

static int unmap_dma(struct vfio_iommu_type1_dma_unmap *unmap)
{
	for (size_t i = 0; i < sizeof(mappings) / sizeof(mappings[0]); i++) {
		int error;

		if (!unmap->size || mappings[i].iova != unmap->iova || mappings[i].size != unmap->size)
			continue;
		error = say(SAY_UNMAP, unmap->iova, unmap->size, -1, NULL, NULL);
		return error ? refuse(error) : give_back(&mappings[i]);
	}
	/* What is not mapped is not unmapped, which is no error. */
	unmap->size = 0;
	return 0;
}

/* The IOVAs that there are, which come after the rest if there is room. */
static int iommu_info(struct vfio_iommu_type1_info *info)
{
	struct ranges {
		struct vfio_iommu_type1_info info;
		struct vfio_iommu_type1_info_cap_iova_range cap;
		struct vfio_iova_range range;
	} *all = (struct ranges *)info;
	uint32_t room = info->argsz;

	if (room < offsetof(struct vfio_iommu_type1_info, cap_offset))
		return refuse(EINVAL);
	info->flags = VFIO_IOMMU_INFO_PGSIZES | VFIO_IOMMU_INFO_CAPS;
	info->iova_pgsizes = PAGE;
	info->argsz = sizeof(*all);
	if (room < sizeof(*all)) {
		if (room >= sizeof(*info))
			info->cap_offset = 0;
		return 0;
	}
	info->cap_offset = offsetof(struct ranges, cap);
	all->cap = (struct vfio_iommu_type1_info_cap_iova_range){
		.header = { .id = VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE, .version = 1 },
		.nr_iovas = 1,
	};
	all->range = (struct vfio_iova_range){ .start = FIRST_IOVA, .end = END_IOVA - 1 };
	return 0;
}

static int region_info(struct vfio_region_info *region)
{
	if (region->argsz < sizeof(*region))
		return refuse(EINVAL);
	region->flags = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;
	region->cap_offset = 0;
	switch (region->index) {
	case VFIO_PCI_BAR0_REGION_INDEX:
		region->flags |= VFIO_REGION_INFO_FLAG_MMAP;
		region->offset = 0;
		region->size = bar_bytes;
		return 0;
	case VFIO_PCI_CONFIG_REGION_INDEX:
		region->offset = bar_bytes;
		region->size = CONFIG_BYTES;
		return 0;
	default:
		region->offset = region->size = 0;
		return 0;
	}
}

static int set_irqs(const struct vfio_irq_set *set)
{
	const uint32_t flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER;
	int fd;

	if (set->index != VFIO_PCI_MSIX_IRQ_INDEX || set->flags != flags || set->count > VECTORS ||
	    set->start > VECTORS - set->count || set->argsz < sizeof(*set) + set->count * sizeof(fd))
		return refuse(EINVAL);
	for (uint32_t i = 0; i < set->count; i++) {
		int error;

		memcpy(&fd, set->data + i * sizeof(fd), sizeof(fd));
		error = say(SAY_VECTOR, set->start + i, 0, fd, NULL, NULL);
		if (error)
			return refuse(error);
	}
	return 0;
}

static int vfio(unsigned long request, void *argument)
{
	switch (request) {
	case VFIO_GET_API_VERSION:
		return VFIO_API_VERSION;
	case VFIO_CHECK_EXTENSION:
		return (uintptr_t)argument == VFIO_TYPE1v2_IOMMU;
	case VFIO_GROUP_GET_STATUS:
		((struct vfio_group_status *)argument)->flags = VFIO_GROUP_FLAGS_VIABLE;
		return 0;
	case VFIO_GROUP_SET_CONTAINER:
	case VFIO_SET_IOMMU:
		return 0;
	case VFIO_GROUP_GET_DEVICE_FD:
		if (strcmp(argument, PCI_NAME))
			return refuse(ENODEV);
		return fcntl(bar_fd, F_DUPFD_CLOEXEC, 0);
	case VFIO_IOMMU_GET_INFO:
		return iommu_info(argument);
	case VFIO_IOMMU_MAP_DMA:
		return map_dma(argument);
	case VFIO_IOMMU_UNMAP_DMA:
		return unmap_dma(argument);
	case VFIO_DEVICE_GET_REGION_INFO:
		return region_info(argument);
	case VFIO_DEVICE_GET_IRQ_INFO:
		((struct vfio_irq_info *)argument)->flags = VFIO_IRQ_INFO_EVENTFD;
		((struct vfio_irq_info *)argument)->count = VECTORS;
		return 0;
	case VFIO_DEVICE_SET_IRQS:
		return set_irqs(argument);
	default:
		fprintf(stderr, "shim: no answer to VFIO's ioctl %lu\n", _IOC_NR(request) - VFIO_BASE);
		return refuse(ENOTTY);
	}
}

int ioctl(int fd, unsigned long request, ...)
{
	va_list rest;
	void *argument;

	va_start(rest, request);
	argument = va_arg(rest, void *);
	va_end(rest);
	/* There is no other VFIO in this process. */
	if (_IOC_TYPE(request) == VFIO_TYPE)
		return vfio(request, argument);
	return (int)syscall(SYS_ioctl, fd, request, argument);
}
