/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * A user of the shim without libmlx5: what VFIO answers, and one firmware command by hand. Lines and exit
 * status as of client.c.
 *
 *     by_hand SECONDS
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/vfio.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host.h"

#define PAGE 4096u
#define IOVA 0x200000ull

static bool all_ok = true;
static int container;

static void check(bool ok, const char *what)
{
	printf("%s %s\n", ok ? "ok" : "no", what);
	all_ok &= ok;
}

static int map(void *at, uint64_t iova, uint64_t bytes)
{
	struct vfio_iommu_type1_dma_map map = {
		.argsz = sizeof(map),
		.flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
		.vaddr = (uintptr_t)at,
		.iova = iova,
		.size = bytes,
	};

	return ioctl(container, VFIO_IOMMU_MAP_DMA, &map) ? errno : 0;
}

static uint64_t unmap(uint64_t iova, uint64_t bytes)
{
	struct vfio_iommu_type1_dma_unmap unmap = { .argsz = sizeof(unmap), .iova = iova, .size = bytes };

	return ioctl(container, VFIO_IOMMU_UNMAP_DMA, &unmap) ? UINT64_MAX : unmap.size;
}

static void passes_on(void)
{
	char text[16];
	struct stat root;
	int fds[2], bytes = 0, fd = open("/proc/self/stat", O_RDONLY);

	check(fd >= 0 && read(fd, text, sizeof(text)) > 0, "another file is opened");
	check(!stat("/", &root) && S_ISDIR(root.st_mode), "another file is looked at");
	check(readlink("/proc/self/exe", text, sizeof(text)) > 0, "another link is read");
	check(!pipe(fds) && write(fds[1], "mlx5", 4) == 4 && !ioctl(fds[0], FIONREAD, &bytes) && bytes == 4,
	      "another ioctl is done");
	check(open("/sys/bus/pci/devices/" PCI_NAME "/resource", O_RDONLY) < 0 && errno == ENOENT,
	      "what the device does not have is not there");
}

static int open_device(void)
{
	int group = open("/dev/vfio/" GROUP, O_RDWR);

	container = open("/dev/vfio/vfio", O_RDWR);
	check(ioctl(container, VFIO_GET_API_VERSION) == VFIO_API_VERSION &&
		      ioctl(container, VFIO_CHECK_EXTENSION, VFIO_TYPE1v2_IOMMU) == 1 &&
		      ioctl(container, VFIO_CHECK_EXTENSION, VFIO_SPAPR_TCE_IOMMU) == 0,
	      "the container is one of type 1 v2");
	check(!ioctl(group, VFIO_GROUP_SET_CONTAINER, &container) &&
		      !ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU),
	      "the group joins the container");
	check(ioctl(group, VFIO_GROUP_GET_DEVICE_FD, "0000:00:00.0") < 0 && errno == ENODEV,
	      "another device is not in the group");
	return ioctl(group, VFIO_GROUP_GET_DEVICE_FD, PCI_NAME);
}

/* ENABLE_HCA in the first entry. */
static bool enable_hca(volatile uint32_t *bar, volatile unsigned char *entry, uint64_t iova)
{
	for (unsigned i = 0; i < 64; i++)
		entry[i] = 0;
	entry[0] = 7;
	entry[7] = entry[0x3b] = 16;
	entry[0x10] = 0x01;
	entry[0x11] = 0x04;
	entry[0x3f] = 1;
	__sync_synchronize();
	bar[4] = 0;
	bar[5] = __builtin_bswap32((uint32_t)iova);
	__sync_synchronize();
	bar[6] = __builtin_bswap32(1);
	while (entry[0x3f] & 1)
		sched_yield();
	return entry[0x3f] == 0 && entry[0x20] == 0;
}

static void interrupts(int device)
{
	struct {
		struct vfio_irq_set set;
		int fds[5];
	} irqs = { .set = { .argsz = sizeof(irqs), .flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER,
			    .index = VFIO_PCI_MSIX_IRQ_INDEX, .count = 4 },
		   .fds = { eventfd(0, EFD_CLOEXEC), -1, -1, -1, -1 } };
	struct vfio_irq_info info = { .argsz = sizeof(info), .index = VFIO_PCI_MSIX_IRQ_INDEX };

	check(!ioctl(device, VFIO_DEVICE_GET_IRQ_INFO, &info) && info.count == 4, "there are 4 vectors");
	check(!ioctl(device, VFIO_DEVICE_SET_IRQS, &irqs), "each vector has an eventfd or none");
	irqs.set.count = 5;
	check(ioctl(device, VFIO_DEVICE_SET_IRQS, &irqs) < 0 && errno == EINVAL, "there is no fifth vector");
}

int main(int argc, char **argv)
{
	struct vfio_region_info region = { .argsz = sizeof(region), .index = VFIO_PCI_BAR0_REGION_INDEX };
	volatile uint32_t *bar;
	unsigned char *memory;
	int device;

	setlinebuf(stdout);
	if (argc != 2)
		return 2;
	alarm((unsigned)atoi(argv[1]));
	passes_on();
	device = open_device();
	check(device >= 0 && !ioctl(device, VFIO_DEVICE_GET_REGION_INFO, &region) && region.size, "BAR0 is there");
	bar = mmap(NULL, region.size, PROT_READ | PROT_WRITE, MAP_SHARED, device, (off_t)region.offset);
	memory = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (bar == MAP_FAILED || memory == MAP_FAILED)
		return 2;
	check(__builtin_bswap32(bar[1]) >> 16 == 5, "BAR0 has the command interface's revision");
	interrupts(device);

	memory[PAGE - 1] = 77;
	check(map(memory, IOVA, 2 * PAGE) == 0, "memory is mapped");
	check(memory[PAGE - 1] == 77, "what was in it stays");
	check(map(memory + 2 * PAGE, IOVA + PAGE, PAGE) == EEXIST, "an IOVA is not mapped twice");
	check(map(memory + PAGE, IOVA + 4 * PAGE, PAGE) == EEXIST, "memory is not mapped twice");
	check(map(memory + 2 * PAGE + 1, IOVA + 4 * PAGE, PAGE) == EINVAL, "only whole pages are mapped");
	check(map(memory + 2 * PAGE, 1ull << 40, PAGE) == EINVAL, "IOVAs have an end");
	check(map(memory + 2 * PAGE, 0, PAGE) == EINVAL, "IOVAs have a beginning");
	check(enable_hca(bar, memory, IOVA), "a command in mapped memory is answered there");
	check(unmap(IOVA, PAGE) == 0, "a part is not unmapped");
	check(unmap(IOVA, 2 * PAGE) == 2 * PAGE, "memory is unmapped");
	check(unmap(IOVA, 2 * PAGE) == 0, "memory is unmapped once");
	check(memory[0] == 7 && memory[PAGE - 1] == 77, "what was in it stays again");
	check(map(memory + 2 * PAGE, IOVA, PAGE) == 0 && memory[2 * PAGE] == 0,
	      "other memory takes the IOVA, and nothing of what was there");
	check(map(memory, IOVA + PAGE, PAGE) == 0 && !enable_hca(bar, memory, IOVA + PAGE),
	      "a command at another IOVA is answered there, and refused the second time");
	check(unmap(IOVA, PAGE) == PAGE && unmap(IOVA + PAGE, PAGE) == PAGE, "all is unmapped");
	return all_ok ? 0 : 1;
}
