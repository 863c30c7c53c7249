/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * Loaded into a VMM in the lab, behind the recorder: VFIO_DEVICE_GET_INFO says that the device can be
 * reset.
 *
 * mtty carries VFIO_DEVICE_RESET out but does not announce it, so a VMM never makes the call, and what
 * it does about a reset during a migration could not be seen. Nothing but this one flag is changed; the
 * reset itself is the driver's own.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#define DEVICE_GET_INFO 0x3b6b /* ';', 100 + 7 */
#define FLAGS_RESET 1u         /* in the second word, behind argsz */

int ioctl(int fd, unsigned long request, ...)
{
	static int (*real_ioctl)(int, unsigned long, ...);
	va_list values;
	uint32_t *arg;
	int result;

	va_start(values, request);
	arg = va_arg(values, uint32_t *);
	va_end(values);
	if (!real_ioctl)
		*(void **)&real_ioctl = dlsym(RTLD_NEXT, "ioctl");
	result = real_ioctl(fd, request, arg);
	if ((unsigned)request == DEVICE_GET_INFO && result == 0 && arg)
		arg[1] |= FLAGS_RESET;
	return result;
}
