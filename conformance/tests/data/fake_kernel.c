/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * Plays the kernel below the recorder, for one device with the flag STOP_COPY: any descriptor of
 * /dev/null is the device. Its data_fds are pipes, and a read of one whose session is over fails.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <unistd.h>

#define FEATURE 0x3b75
#define RESET 0x3b6f

struct feature {
	uint32_t argsz, flags;
	union {
		uint64_t value;
		struct {
			uint32_t state;
			int32_t data_fd;
		};
	};
};

static int state = 2, live = -1, dead = -1;

static int set(struct feature *feature)
{
	int ends[2];

	if (feature->state < 1 || feature->state > 3) {
		errno = EINVAL;
		return -1;
	}
	feature->data_fd = -1;
	if (feature->state == 3 && state != 3) {
		if (pipe(ends) || write(ends[1], "0123456789", 10) != 10)
			return -1;
		close(ends[1]);
		live = feature->data_fd = ends[0];
	} else if (feature->state != 3) {
		dead = live;
	}
	state = (int)feature->state;
	return 0;
}

int ioctl(int fd, unsigned long request, ...)
{
	static int (*next)(int, unsigned long, ...);
	struct feature *feature;
	va_list values;

	va_start(values, request);
	feature = va_arg(values, struct feature *);
	va_end(values);
	switch (request) {
	case RESET:
		state = 2;
		dead = live;
		return 0;
	case FEATURE:
		break;
	default:
		*(void **)&next = dlsym(RTLD_NEXT, "ioctl");
		return next(fd, request, feature);
	}
	switch (feature->flags) {
	case 0x10001:
		feature->value = 1;
		return 0;
	case 0x10002:
		feature->state = (uint32_t)state;
		feature->data_fd = -1;
		return 0;
	case 0x20002:
		return set(feature);
	case 0x10009:
		feature->value = 10;
		return 0;
	}
	errno = ENOTTY;
	return -1;
}

ssize_t read(int fd, void *buffer, size_t len)
{
	static ssize_t (*next)(int, void *, size_t);

	if (fd >= 0 && fd == dead) {
		errno = ENODEV;
		return -1;
	}
	*(void **)&next = dlsym(RTLD_NEXT, "read");
	return next(fd, buffer, len);
}
