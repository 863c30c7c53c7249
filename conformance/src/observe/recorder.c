/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * Loaded into a VMM in front of libc: writes down what the VMM does to devices that migrate.
 *
 * A device is known by its VFIO_DEVICE_FEATURE ioctls about migration, a data_fd by the SET that
 * returned it. Other files cost one load from a table. A line is one write(2) to a file that is
 * opened O_APPEND, so lines of several threads do not mix. specs/recording-format.md has the lines.
 *
 * Not seen: calls that do not come through these functions of libc, and copies of a descriptor.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#define DEVICE_RESET 0x3b6f   /* ';', 100 + 11 */
#define DEVICE_FEATURE 0x3b75 /* ';', 100 + 17 */
#define PRECOPY_INFO 0x3b79   /* ';', 100 + 21 */

#define FEATURE_GET (1u << 16)
#define FEATURE_SET (1u << 17)
#define FEATURE_PROBE (1u << 18)
#define HEADER 8 /* argsz and flags */

enum feature {
	MIGRATION = 1,
	DEVICE_STATE = 2,
	LOG_START = 6,
	LOG_STOP = 7,
	LOG_REPORT = 8,
	DATA_SIZE = 9,
	PRECOPY_V2 = 12,
};

#define FDS 65536
#define DEVICES 1024

/* What a descriptor is: 0 unknown, DEVICE | number, DATA | device | epoch, perhaps with CLOSED. */
#define DEVICE (1ull << 62)
#define DATA (1ull << 61)
#define CLOSED (1ull << 60)
#define NUMBER(entry) ((unsigned)((entry) >> 32 & 0xffff))
#define EPOCH(entry) ((unsigned)(entry))

static _Atomic uint64_t table[FDS];
static _Atomic unsigned epochs[DEVICES];
static _Atomic unsigned char opted_in[DEVICES];
static _Atomic unsigned devices;
static _Atomic int output = -1;
static pid_t owner;

static int (*real_ioctl)(int, unsigned long, ...);
static ssize_t (*real_read)(int, void *, size_t);
static ssize_t (*real_write)(int, const void *, size_t);
static int (*real_close)(int);
static int (*real_poll)(struct pollfd *, nfds_t, int);

/* The names that the format has for states and errnos; others go by their numbers. */
static const char *const states[] = {
	"ERROR", "STOP", "RUNNING", "STOP_COPY", "RESUMING", "RUNNING_P2P", "PRE_COPY", "PRE_COPY_P2P",
};

static void resolve(void)
{
	if (!real_poll) {
		*(void **)&real_ioctl = dlsym(RTLD_NEXT, "ioctl");
		*(void **)&real_read = dlsym(RTLD_NEXT, "read");
		*(void **)&real_write = dlsym(RTLD_NEXT, "write");
		*(void **)&real_close = dlsym(RTLD_NEXT, "close");
		*(void **)&real_poll = dlsym(RTLD_NEXT, "poll");
	}
}

__attribute__((constructor)) static void begin(void)
{
	const char *path = getenv("VFIO_CONFORM_RECORDING");
	const char *loaded = getenv("VFIO_CONFORM_LOADED");
	int fd;

	resolve();
	owner = getpid();
	if (loaded && (fd = open(loaded, O_WRONLY | O_CREAT | O_CLOEXEC, 0600)) >= 0)
		real_close(fd);
	if (!path || (fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC)) < 0)
		return;
	/* Out of the way of programs that choose their descriptors themselves. */
	int high = fcntl(fd, F_DUPFD_CLOEXEC, 512);
	if (high >= 0) {
		real_close(fd);
		fd = high;
	}
	output = fd;
}

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

/* What a descriptor is. A child of fork() has nothing to do with its parent's devices. */
static uint64_t known(int fd)
{
	uint64_t entry = fd >= 0 && fd < FDS ? table[fd] : 0;

	if (entry && getpid() != owner) {
		for (int i = 0; i < FDS; i++)
			table[i] = 0;
		devices = 0;
		memset((void *)epochs, 0, sizeof(epochs));
		memset((void *)opted_in, 0, sizeof(opted_in));
		owner = getpid();
		return 0;
	}
	return entry;
}

struct call {
	uint64_t at;
	unsigned device;
	int failed; /* an errno, or 0 */
};

/* One line: what was done, as JSON, and what was answered if it did not fail. */
__attribute__((format(printf, 3, 4)))
static void tell(struct call call, const char *done, const char *answered, ...)
{
	char reply[160], line[512];
	uint64_t end = now();
	va_list values;
	int len;

	if (call.failed) {
		snprintf(reply, sizeof(reply), "{\"errno\":%d}", call.failed);
	} else {
		va_start(values, answered);
		vsnprintf(reply, sizeof(reply), answered, values);
		va_end(values);
	}
	len = snprintf(line, sizeof(line),
		       "{\"at\":%llu,\"took\":%llu,\"pid\":%d,\"tid\":%d,\"device\":%u,%s,\"reply\":%s}\n",
		       (unsigned long long)call.at, (unsigned long long)(end - call.at), (int)getpid(),
		       (int)syscall(SYS_gettid), call.device, done, reply);
	if (output >= 0 && len > 0 && len < (int)sizeof(line))
		(void)!real_write(output, line, (size_t)len);
}

static void state_name(char *text, size_t size, uint32_t state)
{
	if (state < 8)
		snprintf(text, size, "\"%s\"", states[state]);
	else
		snprintf(text, size, "%u", state);
}

static uint32_t word(const void *arg, size_t offset)
{
	uint32_t value;

	memcpy(&value, (const char *)arg + offset, sizeof(value));
	return value;
}

static uint64_t wide(const void *arg, size_t offset)
{
	uint64_t value;

	memcpy(&value, (const char *)arg + offset, sizeof(value));
	return value;
}

/* The number of the device behind this descriptor, which may be a new one. */
static int device_of(int fd)
{
	static pthread_mutex_t first = PTHREAD_MUTEX_INITIALIZER;
	uint64_t entry;

	if (fd < 0 || fd >= FDS)
		return -1;
	pthread_mutex_lock(&first);
	entry = table[fd];
	if (!(entry & DEVICE)) {
		if (devices >= DEVICES) {
			pthread_mutex_unlock(&first);
			return -1;
		}
		entry = DEVICE | (uint64_t)devices++ << 32;
		table[fd] = entry;
	}
	pthread_mutex_unlock(&first);
	return (int)NUMBER(entry);
}

static void tell_set(struct call call, uint32_t asked, int data_fd)
{
	char name[24], done[64];

	state_name(name, sizeof(name), asked);
	snprintf(done, sizeof(done), "\"op\":{\"set_state\":{\"to\":%s}}", name);
	if (call.failed || data_fd < 0) {
		tell(call, done, "{\"fd\":null}");
		return;
	}
	unsigned epoch = ++epochs[call.device];
	if (data_fd < FDS)
		table[data_fd] = DATA | (uint64_t)call.device << 32 | epoch;
	tell(call, done, "{\"fd\":%u}", epoch);
}

/* VFIO_DEVICE_FEATURE, which is made here too. The number is that of another ioctl on other files. */
static int feature(int fd, void *arg)
{
	uint64_t at = now();
	uint32_t argsz = word(arg, 0), flags = word(arg, 4);
	uint32_t which = flags & 0xffff, asked = 0;
	int mine = flags & (FEATURE_GET | FEATURE_SET) && !(flags & FEATURE_PROBE);
	int result, failed, device;
	char name[24];

	if (mine && which == DEVICE_STATE && argsz >= HEADER + 8)
		asked = word(arg, HEADER);
	result = real_ioctl(fd, DEVICE_FEATURE, arg);
	failed = result < 0 ? errno : 0;
	switch (mine ? which : 0) {
	case MIGRATION:
	case DEVICE_STATE:
	case DATA_SIZE:
		mine = argsz >= HEADER + 8;
		break;
	case LOG_START:
	case LOG_STOP:
	case LOG_REPORT:
	case PRECOPY_V2:
		break;
	default:
		mine = 0;
	}
	/* A file that knows no migration, and was not known before, is none of ours. */
	if (!mine || (failed && !(known(fd) & DEVICE)))
		goto out;
	known(fd);
	device = device_of(fd);
	if (device < 0)
		goto out;
	struct call call = { at, (unsigned)device, failed };
	if (which == MIGRATION) {
		tell(call, "\"op\":\"get_features\"", "{\"features\":%llu}",
		     (unsigned long long)wide(arg, HEADER));
	} else if (which == DEVICE_STATE && flags & FEATURE_SET) {
		tell_set(call, asked, (int)word(arg, HEADER + 4));
	} else if (which == DEVICE_STATE) {
		state_name(name, sizeof(name), word(arg, HEADER));
		tell(call, "\"op\":\"get_state\"", "{\"state\":%s}", name);
	} else if (which == DATA_SIZE) {
		tell(call, "\"op\":\"data_size\"", "{\"size\":%llu}",
		     (unsigned long long)wide(arg, HEADER));
	} else if (which == PRECOPY_V2) {
		opted_in[device] |= !failed;
		tell(call, "\"op\":\"opt_in_precopy_v2\"", "\"ok\"");
	} else {
		const char *done = which == LOG_START ? "\"dma_logging\":\"start\"" :
				   which == LOG_STOP  ? "\"dma_logging\":\"stop\"" :
							"\"dma_logging\":\"report\"";
		tell(call, done, "\"ok\"");
	}
out:
	errno = failed ? failed : errno;
	return result;
}

static int precopy_info(int fd, void *arg, uint64_t entry)
{
	struct call call = { now(), NUMBER(entry), 0 };
	int result = real_ioctl(fd, PRECOPY_INFO, arg);
	int saved = errno;
	char done[64];

	call.failed = result < 0 ? saved : 0;
	snprintf(done, sizeof(done), "\"op\":{\"precopy_info\":{\"fd\":%u}}", EPOCH(entry));
	/* argsz, flags, initial_bytes, dirty_bytes; flags says nothing without an opt-in. */
	tell(call, done, "{\"info\":{\"initial_bytes\":%llu,\"dirty_bytes\":%llu,\"reinit\":%s}}",
	     (unsigned long long)(result < 0 ? 0 : wide(arg, 8)),
	     (unsigned long long)(result < 0 ? 0 : wide(arg, 16)),
	     result >= 0 && opted_in[call.device] && word(arg, 4) & 1 ? "true" : "false");
	errno = saved;
	return result;
}

int ioctl(int fd, unsigned long request, ...)
{
	va_list values;
	uint64_t entry;
	void *arg;

	va_start(values, request);
	arg = va_arg(values, void *);
	va_end(values);
	resolve();
	request = (unsigned)request;
	if (request == DEVICE_FEATURE && arg)
		return feature(fd, arg);
	entry = known(fd);
	if (request == PRECOPY_INFO && arg && entry & DATA && !(entry & CLOSED))
		return precopy_info(fd, arg, entry);
	if (request == DEVICE_RESET && entry & DEVICE) {
		struct call call = { now(), NUMBER(entry), 0 };
		int result = real_ioctl(fd, request, arg);
		int saved = errno;

		call.failed = result < 0 ? saved : 0;
		tell(call, "\"op\":\"reset\"", "\"ok\"");
		errno = saved;
		return result;
	}
	return real_ioctl(fd, request, arg);
}

/* A read or write of what may have been a data_fd once: what the descriptor is now, the errno says. */
static int still_closed(int fd, uint64_t entry, ssize_t result)
{
	if (!(entry & CLOSED))
		return 1;
	if (result < 0 && errno == EBADF)
		return 1;
	atomic_compare_exchange_strong(&table[fd], &entry, 0);
	return 0;
}

static void tell_read(struct call call, uint64_t entry, size_t len, ssize_t result)
{
	char done[80];

	if (len > UINT32_MAX)
		len = UINT32_MAX;
	snprintf(done, sizeof(done), "\"op\":{\"read\":{\"fd\":%u,\"len\":%zu}}", EPOCH(entry), len);
	if (call.failed == ENOMSG) {
		call.failed = 0;
		tell(call, done, "{\"end_of_stream\":\"temporary\"}");
	} else if (result == 0 && len) {
		tell(call, done, "{\"end_of_stream\":\"permanent\"}");
	} else {
		tell(call, done, "{\"bytes\":%zd}", result);
	}
}

ssize_t read(int fd, void *buffer, size_t len)
{
	uint64_t entry;
	ssize_t result;
	int saved;

	resolve();
	entry = known(fd);
	if (!(entry & DATA))
		return real_read(fd, buffer, len);
	struct call call = { now(), NUMBER(entry), 0 };
	result = real_read(fd, buffer, len);
	saved = errno;
	call.failed = result < 0 ? saved : 0;
	if (still_closed(fd, entry, result))
		tell_read(call, entry, len, result);
	errno = saved;
	return result;
}

/* What a compiler makes of read() where it knows the size of the buffer. */
ssize_t __read_chk(int fd, void *buffer, size_t len, size_t size)
{
	if (len > size)
		abort();
	return read(fd, buffer, len);
}

ssize_t write(int fd, const void *buffer, size_t len)
{
	uint64_t entry;
	ssize_t result;
	char done[80];
	int saved;

	resolve();
	entry = known(fd);
	if (!(entry & DATA))
		return real_write(fd, buffer, len);
	struct call call = { now(), NUMBER(entry), 0 };
	result = real_write(fd, buffer, len);
	saved = errno;
	call.failed = result < 0 ? saved : 0;
	snprintf(done, sizeof(done), "\"op\":{\"write\":{\"fd\":%u,\"bytes\":%zu}}", EPOCH(entry), len);
	if (still_closed(fd, entry, result))
		tell(call, done, "{\"written\":%zd}", result);
	errno = saved;
	return result;
}

int poll(struct pollfd *fds, nfds_t count, int timeout)
{
	uint64_t at = 0, entry;
	int result, saved;
	char done[64];

	resolve();
	for (nfds_t i = 0; i < count && !at; i++)
		at = known(fds[i].fd) & DATA ? now() : 0;
	result = real_poll(fds, count, timeout);
	saved = errno;
	for (nfds_t i = 0; i < count && at && result >= 0; i++) {
		entry = known(fds[i].fd);
		if (!(entry & DATA) || entry & CLOSED)
			continue;
		struct call call = { at, NUMBER(entry), 0 };
		short is = fds[i].revents;
		snprintf(done, sizeof(done), "\"op\":{\"poll\":{\"fd\":%u}}", EPOCH(entry));
		tell(call, done, "{\"ready\":{\"readable\":%s,\"writable\":%s,\"hangup\":%s}}",
		     is & POLLIN ? "true" : "false", is & POLLOUT ? "true" : "false",
		     is & (POLLHUP | POLLRDHUP | POLLERR) ? "true" : "false");
	}
	errno = saved;
	return result;
}

int close(int fd)
{
	uint64_t entry;
	int result, saved;
	char done[64];

	resolve();
	/* A program that closes everything does not mean the recording. */
	if (fd >= 0 && fd == output)
		return 0;
	entry = known(fd);
	if (!entry)
		return real_close(fd);
	struct call call = { now(), NUMBER(entry), 0 };
	/* Before the descriptor is free: another thread may be given it at once. */
	table[fd] = entry & DATA ? entry | CLOSED : 0;
	result = real_close(fd);
	saved = errno;
	call.failed = result < 0 ? saved : 0;
	snprintf(done, sizeof(done), "\"op\":{\"close_fd\":{\"fd\":%u}}", EPOCH(entry));
	if (entry & DEVICE)
		tell(call, "\"op\":\"close\"", "\"ok\"");
	else if (still_closed(fd, entry, result))
		tell(call, done, "\"ok\"");
	errno = saved;
	return result;
}
