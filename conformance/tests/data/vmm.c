/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* A VMM that saves a device: well, or ("bad") with what it must not do, or with a fork and a thread. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

struct feature {
	uint32_t argsz, flags, state;
	int32_t data_fd;
};

static int device, data_fd;

static struct feature call(uint32_t flags, uint32_t state)
{
	struct feature feature = { 16, flags, state, -1 };

	(void)!ioctl(device, 0x3b75, &feature);
	return feature;
}

static void *drain(void *unused)
{
	char buffer[4];

	while (read(data_fd, buffer, sizeof(buffer)) > 0)
		;
	return unused;
}

int main(int count, char **arguments)
{
	const char *how = count > 1 ? arguments[1] : "";
	char byte;

	if (!strcmp(how, "nothing"))
		return 0;
	device = open("/dev/null", O_RDWR);
	call(0x10001, 0);
	call(0x10009, 0);
	data_fd = call(0x20002, 3).data_fd;
	if (!strcmp(how, "thread")) {
		pthread_t thread;
		pthread_create(&thread, NULL, drain, NULL);
		pthread_join(thread, NULL);
		/* What a child closes is not its parent's. */
		pid_t child = fork();
		if (!child) {
			close(data_fd);
			_exit(0);
		}
		waitpid(child, NULL, 0);
	} else {
		drain(NULL);
	}
	close(data_fd);
	if (!strcmp(how, "bad")) {
		call(0x20002, 6); /* PRE_COPY, which the device lacks */
		(void)!read(data_fd, &byte, 1);
	}
	call(0x20002, 1);
	call(0x10002, 0);
	call(0x20002, 2);
	ioctl(device, 0x3b6f, NULL);
	close(device);
	/* The descriptor is something else now, and none of the recorder's business. */
	if (open("/dev/zero", O_RDONLY) >= 0)
		(void)!read(device, &byte, 1);
	return 7;
}
