// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* What the parts of the harness have of each other, and the driver does not see. */
#ifndef VERIFY_HARNESS_H
#define VERIFY_HARNESS_H

#include <kernel.h>
#include <linux/vfio.h>

#include "wire.h"

extern struct stats kernel_stats;
extern int kernel_in_interrupt;
extern bool kernel_fd_table_full;
extern bool kernel_workers_first;
extern struct pci_driver *const kernel_pci_driver;

void kernel_pages_init(size_t count);
void kernel_pages_limit(int64_t left);
void kernel_settle(void);
void kernel_let_workers_run(void);
struct file *kernel_file(int64_t fd);
int kernel_close(int64_t fd);

/* Serves ops until the tester lets the wait go on; its verdict. */
int harness_wait(const char *what, bool interruptible);
/* Serves ops until the tester has answered the command. Returns what it says of the delivery. */
int harness_command(const void *in, size_t in_size, void *out, size_t out_size, u64 id, int how);

/* mlx5_core.c, for ops */
void mlx5_core_read_capabilities(void);
int mlx5_core_complete(u64 id, int delivery, const void *out, size_t out_size);
int mlx5_core_notify(unsigned long event);
void mlx5_core_object_change(u32 id);

/* vfio_main.c, between the symbols that are named in src/verify/driver/build.rs */
long verify_device_feature(struct vfio_device *device, struct vfio_device_feature *feature);

#endif
