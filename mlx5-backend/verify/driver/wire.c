// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/*
 * The only file that speaks to the host: standard input is the socket to the tester, standard
 * output the memory that both sides share. Neither is used for anything else.
 */
#include "wire.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* A tester that is gone ends this process in silence: it has nobody to tell. */
static void all(ssize_t (*step)(void *, size_t), void *data, size_t length)
{
	char *at = data;

	while (length) {
		ssize_t done = step(at, length);

		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0)
			_exit(0);
		at += done;
		length -= (size_t)done;
	}
}

static ssize_t out(void *data, size_t length)
{
	return write(0, data, length);
}

static ssize_t in(void *data, size_t length)
{
	return read(0, data, length);
}

void wire_send(uint32_t kind, int64_t a, int64_t b, int64_t c, const void *data, size_t length)
{
	struct frame frame = { kind, (uint32_t)length, a, b, c };

	all(out, &frame, sizeof(frame));
	all(out, (void *)data, length);
}

void wire_receive(struct frame *frame, unsigned char **data)
{
	all(in, frame, sizeof(*frame));
	*data = malloc(frame->length + 1);
	if (!*data)
		abort();
	all(in, *data, frame->length);
}

void *wire_map(size_t length)
{
	void *at = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, 1, 0);

	if (at == MAP_FAILED)
		abort();
	return at;
}

void wire_exit(int code)
{
	/* exit() and not _exit(): the leak checker reports at exit. */
	exit(code);
}
