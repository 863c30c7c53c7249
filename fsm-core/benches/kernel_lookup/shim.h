/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * What vfio_mig_get_next_state() needs around it to compile outside of the kernel.
 *
 * The names are those that the function uses. The numbers are spelled out here because the
 * <linux/vfio.h> of a distribution may be older than its newest kernel.
 */
#ifndef SHIM_H
#define SHIM_H

#include <errno.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint32_t u32;
typedef uint64_t u64;

enum vfio_device_mig_state {
	VFIO_DEVICE_STATE_ERROR = 0,
	VFIO_DEVICE_STATE_STOP = 1,
	VFIO_DEVICE_STATE_RUNNING = 2,
	VFIO_DEVICE_STATE_STOP_COPY = 3,
	VFIO_DEVICE_STATE_RESUMING = 4,
	VFIO_DEVICE_STATE_RUNNING_P2P = 5,
	VFIO_DEVICE_STATE_PRE_COPY = 6,
	VFIO_DEVICE_STATE_PRE_COPY_P2P = 7,
};

#define VFIO_MIGRATION_STOP_COPY 1
#define VFIO_MIGRATION_P2P 2
#define VFIO_MIGRATION_PRE_COPY 4

/* The one field that the function looks at. */
struct vfio_device {
	u64 migration_flags;
};

/* The kernel's also reports; what that costs is not on the path that is counted. */
#define WARN_ON(condition) __builtin_expect(!!(condition), 0)
#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))
#define EXPORT_SYMBOL_GPL(symbol) struct shim_takes_the_semicolon

int vfio_mig_get_next_state(struct vfio_device *device, enum vfio_device_mig_state cur_fsm,
			    enum vfio_device_mig_state new_fsm,
			    enum vfio_device_mig_state *next_fsm);

#endif
