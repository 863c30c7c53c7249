// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/*
 * The conversation between the process that runs the driver and the one that tests it: frames of
 * one header and a payload, in the byte order of the machine, strictly in turn. Whoever holds the
 * turn is the tester until it sends an OP or RESUME or ANSWER, and the driver until it sends a
 * REPLY, COMMAND or WAIT. The same numbers stand in src/verify/driver/wire.rs.
 */
#ifndef VERIFY_WIRE_H
#define VERIFY_WIRE_H

#include <stddef.h>
#include <stdint.h>

struct frame {
	uint32_t kind;
	uint32_t length; /* of the payload behind this header */
	int64_t a, b, c;
};

/* Kinds that the driver's process sends. */
enum {
	FRAME_REPLY = 1,   /* a = result or -errno, b and c by op, payload by op */
	FRAME_COMMAND = 2, /* a = id, b = bytes of room for the output, c = enum frame_command */
	FRAME_WAIT = 3,    /* a = 1 if a signal may end the wait; payload = what is waited for */
	FRAME_FATAL = 4,   /* payload = what the kernel would not have survived; the last frame */
	FRAME_WARNING = 5, /* payload = where; no answer */
};

enum frame_command { COMMAND_SYNC = 0, COMMAND_ASYNC = 1, COMMAND_OF_CORE = 2 };

/* Kinds that the tester sends. */
enum {
	FRAME_ANSWER = 16, /* to COMMAND: a = 0 or -errno of the delivery, payload = output;
			    * to an asynchronous one: a = 0 or -errno of the posting */
	FRAME_RESUME = 17, /* to WAIT: a = 0 look again, or -ERESTARTSYS */
	FRAME_OP = 32,     /* and upwards: an op */
};

enum {
	OP_PROBE = FRAME_OP, /* a = 1: workers come before who waits */
	OP_REMOVE,
	OP_OPEN,
	OP_CLOSE,
	OP_FEATURE,  /* a = VFIO_DEVICE_FEATURE flags, b = 1: no fd is to be had; payload in and out */
	OP_RESET,    /* the bus has reset the function */
	OP_READ,     /* a = fd, b = bytes, c = 1: at a position */
	OP_WRITE,    /* a = fd */
	OP_POLL,     /* a = fd */
	OP_IOCTL,    /* a = fd, b = request; payload in and out */
	OP_FD_FLAGS, /* a = fd; b = access mode, c = 1: close on exec */
	OP_CLOSE_FD, /* a = fd */
	OP_SEEK,     /* a = fd */
	OP_NONBLOCK, /* a = fd */
	OP_COMPLETE, /* a = id, b = 0 or -errno of the delivery; payload = output */
	OP_NOTIFY,   /* a = event of the PF's SR-IOV notifier */
	OP_LOG_START, /* a = page size; payload = pairs of u64: iova, length */
	OP_LOG_STOP,
	OP_LOG_REPORT,	  /* a = iova, b = length, c = page size; payload out = bitmap */
	OP_OBJECT_CHANGE, /* a = object id: the firmware's event of that name */
	OP_STATS,	  /* payload out = struct stats */
	OP_FAIL_PAGES,	  /* a = pages that may still be allocated, -1 = no limit */
};

struct stats {
	uint64_t pages, most_pages, blocks, files, mapped_pages, warnings, async, work;
};

/* Plain C, so that no header of the C library's system side meets the kernel's names. */
void wire_send(uint32_t kind, int64_t a, int64_t b, int64_t c, const void *data, size_t length);
/* The payload is to be freed with free(). */
void wire_receive(struct frame *frame, unsigned char **data);
void *wire_map(size_t length);
void wire_exit(int code) __attribute__((noreturn));

#endif
