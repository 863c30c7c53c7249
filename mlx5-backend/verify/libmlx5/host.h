/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * What the shim and the client say to the process that has the firmware: one message and one reply at
 * a time, over a socket that is standard input.
 */
#ifndef HOST_H
#define HOST_H

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

/* The device, which no machine has: its place on the bus, and the number of its IOMMU group. */
#define PCI_NAME "ffff:ff:1f.7"
#define GROUP "999999"

enum {
	/* From the shim. The reply carries BAR0 and the memory for DMA, in which the offset is the IOVA. */
	SAY_HELLO = 1,
	/* IOVA and bytes. */
	SAY_MAP = 2,
	SAY_UNMAP = 3,
	/* A vector, and with the message its eventfd, if it has one. */
	SAY_VECTOR = 4,
	/* From the client: how many events that ask for how many pages each. */
	SAY_REQUEST_PAGES = 10,
	/* How many pages the firmware has. */
	SAY_PAGES = 11,
	/* A vhca_id, and what is written to the byte that its guest can see. */
	SAY_TOUCH = 12,
	/* A vhca_id. What its state is like. */
	SAY_DIGEST = 13,
	/* The status of the next command. */
	SAY_STATUS = 14,
	/* How many of what its driver makes the firmware has: PDs, memory keys, EQs, a byte each. */
	SAY_OBJECTS = 15,
	/* The nanoseconds of a round that is over, 0 if there was none; the reply begins the next. */
	SAY_ROUND = 16,
};

struct say {
	uint64_t what, a, b;
};

struct reply {
	uint64_t error, value;
};

/* For one thread. 0 or an errno. */
static inline int say(uint64_t what, uint64_t a, uint64_t b, int fd, uint64_t *value, int fds[2])
{
	struct say say = { what, a, b };
	struct reply reply = { EPIPE, 0 };
	union {
		char bytes[CMSG_SPACE(2 * sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov = { &say, sizeof(say) };
	struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1 };
	struct cmsghdr *header;

	if (fd >= 0) {
		memset(&control, 0, sizeof(control));
		message.msg_control = &control;
		message.msg_controllen = CMSG_SPACE(sizeof(int));
		header = CMSG_FIRSTHDR(&message);
		header->cmsg_level = SOL_SOCKET;
		header->cmsg_type = SCM_RIGHTS;
		header->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(header), &fd, sizeof(int));
	}
	if (sendmsg(0, &message, MSG_NOSIGNAL) != sizeof(say))
		return errno;
	iov = (struct iovec){ &reply, sizeof(reply) };
	message = (struct msghdr){ .msg_iov = &iov, .msg_iovlen = 1 };
	if (fds) {
		message.msg_control = &control;
		message.msg_controllen = sizeof(control);
	}
	if (recvmsg(0, &message, MSG_CMSG_CLOEXEC) != sizeof(reply))
		return EPIPE;
	if (fds && !reply.error) {
		header = CMSG_FIRSTHDR(&message);
		if (!header || header->cmsg_len != CMSG_LEN(2 * sizeof(int)))
			return EPROTO;
		memcpy(fds, CMSG_DATA(header), 2 * sizeof(int));
	}
	if (value)
		*value = reply.value;
	return (int)reply.error;
}

#endif
