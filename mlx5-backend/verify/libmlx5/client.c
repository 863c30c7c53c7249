/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * A user of libmlx5's VFIO driver. It brings a function up, and migrates one VHCA of it to another, by
 * commands that are encoded here by hand. One line a check on standard output: "ok" or "no", what is
 * checked, and what there was. Exit status: 0 all ok, 1 not all, 2 wrong use.
 *
 *     client SECONDS check PAGES IMAGE_BYTES SOURCE DESTINATION
 *     client SECONDS rate COMMANDS VHCA
 *
 * SECONDS is the longest that it lives.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <infiniband/mlx5dv.h>
#include <infiniband/verbs.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "host.h"

#define MR_BYTES (4u << 20)
#define CHUNK_BYTES (1u << 20)
#define PAGE 4096u

enum {
	QUERY_HCA_CAP = 0x100,
	SUSPEND = 0x115,
	RESUME = 0x116,
	QUERY = 0x117,
	SAVE = 0x118,
	LOAD = 0x119,
	QUERY_ISSI = 0x10a,
	NO_SUCH_COMMAND = 0x11f,
};

enum {
	OK = 0,
	BAD_OP = 2,
	BAD_PARAM = 3,
	BAD_RES = 5,
	BAD_RES_STATE = 9,
	BAD_OUTPUT_LEN = 0x51,
};

/* Variants of SUSPEND and of RESUME, which are not the same. */
enum { SUSPEND_INITIATOR = 0, SUSPEND_RESPONDER = 1 };
enum { RESUME_RESPONDER = 0, RESUME_INITIATOR = 1 };

/* Bits of the third dword of QUERY and of SAVE. */
#define INCREMENTAL 0x80000000u
#define CHUNK 0x40000000u
#define TRACK 0x40000000u

static bool all_ok = true;
static struct ibv_context *context;
/* Seconds that libmlx5 believes to have passed beyond those that have. */
static time_t ahead;

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
	struct timespec real;

	(void)zone;
	clock_gettime(CLOCK_REALTIME, &real);
	*now = (struct timeval){ real.tv_sec + ahead, real.tv_nsec / 1000 };
	return 0;
}

__attribute__((format(printf, 2, 3))) static bool check(bool ok, const char *format, ...)
{
	va_list rest;

	va_start(rest, format);
	fputs(ok ? "ok " : "no ", stdout);
	vprintf(format, rest);
	putchar('\n');
	va_end(rest);
	all_ok &= ok;
	return ok;
}

/* Something without which there is no use in going on. */
static void need(bool there, const char *what)
{
	if (!check(there, "%s", what))
		exit(1);
}

static uint64_t host(uint64_t what, uint64_t a, uint64_t b)
{
	uint64_t value = 0;
	int error = say(what, a, b, -1, &value, NULL);

	if (error) {
		fprintf(stderr, "client: no answer from the firmware's side: %s\n", strerror(error));
		exit(2);
	}
	return value;
}

static void put(unsigned char *at, uint64_t value, int bytes)
{
	while (bytes--) {
		at[bytes] = (unsigned char)value;
		value >>= 8;
	}
}

static uint64_t get(const unsigned char *at, int bytes)
{
	uint64_t value = 0;

	while (bytes--)
		value = value << 8 | *at++;
	return value;
}

/* A command, and what came of it. */
struct command {
	unsigned char in[32], out[64];
	int result;
};

static bool run(struct command *command, size_t in_bytes, size_t out_bytes)
{
	memset(command->out, 0xee, sizeof(command->out));
	command->result = mlx5dv_devx_general_cmd(context, command->in, in_bytes, command->out, out_bytes);
	return command->result == 0;
}

static unsigned status(const struct command *command)
{
	return command->out[0];
}

/* The status that is wanted, a syndrome and an error of the call exactly if it is not OK. */
static void expect(const struct command *command, unsigned wanted, const char *what)
{
	unsigned syndrome = (unsigned)get(command->out + 4, 4);
	bool ok = status(command) == wanted && (command->result == 0) == (wanted == OK) &&
		  (syndrome == 0) == (wanted == OK);

	check(ok, "%s: status %#x (%#x), syndrome %#x, result %d", what, status(command), wanted,
		     syndrome, command->result);
}

static void begin(struct command *command, unsigned opcode, unsigned op_mod, uint32_t flags, unsigned vhca)
{
	memset(command->in, 0, sizeof(command->in));
	put(command->in, opcode, 2);
	put(command->in + 6, op_mod, 2);
	put(command->in + 8, flags | vhca, 4);
}

static void suspend(unsigned vhca, unsigned side, unsigned wanted, const char *what)
{
	struct command command;

	begin(&command, SUSPEND, side, 0, vhca);
	run(&command, 16, 16);
	expect(&command, wanted, what);
}

static void resume(unsigned vhca, unsigned side, unsigned wanted, const char *what)
{
	struct command command;

	begin(&command, RESUME, side, 0, vhca);
	run(&command, 16, 16);
	expect(&command, wanted, what);
}

/* required_umem_size. In chunk mode also remaining_total_size. */
static uint32_t query(unsigned vhca, uint32_t flags, uint64_t *remaining, const char *what)
{
	struct command command;

	begin(&command, QUERY, 0, flags, vhca);
	run(&command, 16, 64);
	expect(&command, OK, what);
	if (remaining)
		*remaining = get(command.out + 0x18, 8);
	return (uint32_t)get(command.out + 0x10, 4);
}

static uint32_t dirty_state(unsigned vhca)
{
	struct command command;

	begin(&command, QUERY, 0, 0, vhca);
	run(&command, 16, 64);
	return command.out[12] >> 4;
}

static void transfer(struct command *command, unsigned opcode, uint32_t flags, unsigned vhca, const void *at,
		     uint32_t key, uint32_t bytes)
{
	begin(command, opcode, 0, flags, vhca);
	put(command->in + 0x10, (uintptr_t)at, 8);
	put(command->in + 0x18, key, 4);
	put(command->in + 0x1c, bytes, 4);
	run(command, 32, 16);
}

/* actual_image_size. In chunk mode also next_required_umem_size. */
static uint32_t save(uint32_t flags, unsigned vhca, const void *at, uint32_t key, uint32_t bytes,
		     uint32_t *next, const char *what)
{
	struct command command;

	transfer(&command, SAVE, flags, vhca, at, key, bytes);
	expect(&command, OK, what);
	if (next)
		*next = (uint32_t)get(command.out + 12, 4);
	return status(&command) ? 0 : (uint32_t)get(command.out + 8, 4);
}

static void load(unsigned vhca, const void *at, uint32_t key, uint32_t bytes, unsigned wanted, const char *what)
{
	struct command command;

	transfer(&command, LOAD, 0, vhca, at, key, bytes);
	expect(&command, wanted, what);
}

static void open_device(void)
{
	struct mlx5dv_vfio_context_attr attr = { .pci_name = PCI_NAME };
	struct ibv_device **list = mlx5dv_get_vfio_device_list(&attr);

	Dl_info library;

	if (dladdr(dlsym(RTLD_DEFAULT, "mlx5dv_devx_general_cmd"), &library))
		printf("uses %s\n", library.dli_fname);
	need(list && list[0], "libmlx5 finds the device");
	context = ibv_open_device(list[0]);
	need(context, "libmlx5 brings the function up");
	ibv_free_device_list(list);
}

/* Whether all bytes from `at` on are this one. */
static bool untouched(const unsigned char *at, size_t bytes, unsigned char byte)
{
	while (bytes--)
		if (*at++ != byte)
			return false;
	return true;
}

static bool objects(unsigned pds, unsigned mkeys, unsigned eqs)
{
	uint64_t there = host(SAY_OBJECTS, 0, 0);

	return check(there == (pds | mkeys << 8 | eqs << 16), "objects: %u PDs (%u), %u memory keys (%u), %u EQs (%u)",
		     (unsigned)(there & 0xff), pds, (unsigned)(there >> 8 & 0xff), mkeys,
		     (unsigned)(there >> 16 & 0xff), eqs);
}

/* What mlx5-vfio-pci asks of the function of a VF before it registers. */
static void capabilities(unsigned function, unsigned vhca)
{
	unsigned char in[16] = { 0 }, out[4112];

	put(in, QUERY_HCA_CAP, 2);
	put(in + 6, 0x20 << 1, 2);
	put(in + 8, 0x80000000u | function, 4);
	check(!mlx5dv_devx_general_cmd(context, in, sizeof(in), out, sizeof(out)) && out[0x10 + 0x10] & 0x80,
	      "function %u is migratable", function);
	put(in + 6, 0 << 1 | 1, 2);
	check(!mlx5dv_devx_general_cmd(context, in, sizeof(in), out, sizeof(out)) &&
		      get(out + 0x10 + 6, 2) == vhca,
	      "function %u has vhca_id %#x (%#x)", function, (unsigned)get(out + 0x10 + 6, 2), vhca);
	/* The last bytes of the last of nine mailboxes. */
	check(untouched(out + 4096, 16, 0), "an answer of 4112 bytes is there to its end");
	put(in + 8, 0, 4);
	check(!mlx5dv_devx_general_cmd(context, in, sizeof(in), out, sizeof(out)) && !(out[0x10 + 0x42] & 0xc0),
	      "command checksums are off");
	put(in + 6, 0 << 1, 2);
	check(!mlx5dv_devx_general_cmd(context, in, sizeof(in), out, sizeof(out)) &&
		      out[0x10 + 0xd1] & 4 && out[0x10 + 0x42] & 0xc0,
	      "the physical function can migrate others, and could have command checksums");
}

/* Whatever the firmware answers to a command arrives. */
static void statuses(unsigned vhca)
{
	static const unsigned all[] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 0xa, 0xf, 0x10, 0x30, 0x40, 0x50, 0x51 };
	struct command command;
	unsigned seen = 0;

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		host(SAY_STATUS, all[i], 0);
		begin(&command, QUERY, 0, 0, vhca);
		seen += !run(&command, 16, 64) && status(&command) == all[i];
	}
	check(seen == sizeof(all) / sizeof(all[0]), "%u of %zu statuses arrive as they are", seen,
	      sizeof(all) / sizeof(all[0]));
}

/* What is refused, of the five commands and around them, without any effect. */
static void refusals(unsigned source, unsigned destination, const struct ibv_mr *mr, const struct ibv_mr *read_only)
{
	struct command command;
	uint64_t before = host(SAY_DIGEST, source, 0);

	begin(&command, NO_SUCH_COMMAND, 0, 0, source);
	run(&command, 16, 16);
	expect(&command, BAD_OP, "a command that does not exist");
	begin(&command, QUERY, 0, 0, 0x7777);
	run(&command, 16, 64);
	expect(&command, BAD_PARAM, "QUERY of a VHCA that does not exist");
	begin(&command, QUERY, 0, 0, source);
	run(&command, 16, 16);
	expect(&command, BAD_OUTPUT_LEN, "QUERY without room for its answer");
	begin(&command, QUERY, 0, INCREMENTAL, source);
	run(&command, 16, 64);
	expect(&command, BAD_RES_STATE, "incremental QUERY of what is not tracked");
	suspend(source, SUSPEND_RESPONDER, BAD_RES_STATE, "SUSPEND of the responder first");
	suspend(source, 2, BAD_PARAM, "SUSPEND of neither side");
	resume(source, RESUME_INITIATOR, BAD_RES_STATE, "RESUME of what runs");
	transfer(&command, SAVE, 0, source, mr->addr, mr->lkey, MR_BYTES);
	expect(&command, BAD_RES_STATE, "SAVE of what runs");
	transfer(&command, LOAD, 0, destination, mr->addr, mr->lkey, PAGE);
	expect(&command, BAD_RES_STATE, "LOAD into what runs");

	suspend(source, SUSPEND_INITIATOR, OK, "SUSPEND of the source's initiator");
	suspend(source, SUSPEND_INITIATOR, BAD_RES_STATE, "SUSPEND of what is suspended");
	suspend(source, SUSPEND_RESPONDER, OK, "SUSPEND of the source's responder");
	transfer(&command, SAVE, TRACK, source, mr->addr, mr->lkey, MR_BYTES);
	expect(&command, BAD_RES_STATE, "SAVE with tracking of what is suspended");
	transfer(&command, SAVE, 0, source, mr->addr, mr->lkey ^ 1, MR_BYTES);
	expect(&command, BAD_RES, "SAVE with another's low byte of the key");
	transfer(&command, SAVE, 0, source, mr->addr, mr->lkey ^ 0x10000, MR_BYTES);
	expect(&command, BAD_RES, "SAVE with a key that does not exist");
	transfer(&command, SAVE, 0, source, (char *)mr->addr + 1, mr->lkey, MR_BYTES);
	expect(&command, BAD_PARAM, "SAVE beyond the end of the memory region");
	transfer(&command, SAVE, 0, source, read_only->addr, read_only->lkey, MR_BYTES);
	expect(&command, BAD_PARAM, "SAVE into memory that is not to be written");
	transfer(&command, SAVE, 0, source, mr->addr, mr->lkey, PAGE);
	expect(&command, BAD_PARAM, "SAVE into too short a buffer");
	check(untouched(mr->addr, MR_BYTES, 0xa5), "what is refused writes nothing");
	check(host(SAY_DIGEST, source, 0) == before, "what is refused changes nothing");
}

/* STOP_COPY: one image. The source is suspended, and the destination runs. */
static void stop_copy(unsigned source, unsigned destination, uint32_t image, struct ibv_mr *mr, struct ibv_mr *other)
{
	unsigned char *at = mr->addr, *copy = other->addr;
	uint32_t required = query(source, 0, NULL, "QUERY of the source");
	uint32_t saved;

	check(required == (image + PAGE - 1) / PAGE * PAGE, "QUERY: %u bytes are required (image of %u)", required,
	      image);
	check(dirty_state(source) == 1, "QUERY: migration_state %u (1, idle)", dirty_state(source));
	/* Not at the beginning of the memory region. */
	saved = save(0, source, at + PAGE, mr->lkey, MR_BYTES - PAGE, NULL, "SAVE of the source");
	if (!check(saved == image, "SAVE: %u bytes written (%u)", saved, image))
		exit(1);
	check(untouched(at, PAGE, 0xa5) && untouched(at + PAGE + saved, MR_BYTES - PAGE - saved, 0xa5) &&
		      !untouched(at + PAGE, saved / 2, 0xa5) && !untouched(at + PAGE + saved / 2, saved / 2, 0xa5),
	      "SAVE writes where it is to, and nowhere else");

	suspend(destination, SUSPEND_INITIATOR, OK, "SUSPEND of the destination's initiator");
	suspend(destination, SUSPEND_RESPONDER, OK, "SUSPEND of the destination's responder");
	check(host(SAY_DIGEST, source, 0) != host(SAY_DIGEST, destination, 0), "the two VHCAs differ");
	memcpy(copy, at + PAGE, saved);
	copy[saved - 1] ^= 1;
	load(destination, copy, other->lkey, saved, BAD_PARAM, "LOAD of an image with a bit flipped");
	copy[saved - 1] ^= 1;
	load(destination, copy, other->lkey, saved - 1, BAD_PARAM, "LOAD of an image without its last byte");
	load(destination, copy, other->lkey, saved, OK, "LOAD of the image");
	check(host(SAY_DIGEST, source, 0) == host(SAY_DIGEST, destination, 0), "the two VHCAs are equal");

	resume(destination, RESUME_INITIATOR, BAD_RES_STATE, "RESUME of the initiator first");
	resume(destination, RESUME_RESPONDER, OK, "RESUME of the destination's responder");
	resume(destination, RESUME_INITIATOR, OK, "RESUME of the destination's initiator");
	resume(source, RESUME_RESPONDER, OK, "RESUME of the source's responder");
	resume(source, RESUME_INITIATOR, OK, "RESUME of the source's initiator");
}

/* PRE_COPY: images while the source runs, and a last one. */
static void pre_copy(unsigned source, unsigned destination, uint32_t image, struct ibv_mr *mr)
{
	unsigned char *at = mr->addr;
	uint32_t bytes[3] = { 0 }, left;

	host(SAY_TOUCH, destination, 1);
	bytes[0] = save(TRACK, source, at, mr->lkey, MR_BYTES, NULL, "SAVE that begins to track");
	check(bytes[0] == image, "SAVE that begins to track: %u bytes (%u)", bytes[0], image);
	check(dirty_state(source) == 2, "QUERY: migration_state %u (2, ready)", dirty_state(source));
	left = query(source, INCREMENTAL, NULL, "incremental QUERY");
	check(left == 0, "incremental QUERY: %u bytes (0)", left);
	host(SAY_TOUCH, source, 77);
	check(dirty_state(source) == 3, "QUERY: migration_state %u (3, dirty)", dirty_state(source));
	left = query(source, INCREMENTAL, NULL, "incremental QUERY of what was touched");
	check(left > 0 && left < image, "incremental QUERY of what was touched: %u bytes", left);
	bytes[1] = save(INCREMENTAL | TRACK, source, at + bytes[0], mr->lkey, left, NULL, "SAVE of what was touched");
	check(bytes[1] > 0 && bytes[1] <= left, "SAVE of what was touched: %u bytes", bytes[1]);
	host(SAY_TOUCH, source, 78);
	suspend(source, SUSPEND_INITIATOR, OK, "SUSPEND of the source's initiator");
	suspend(source, SUSPEND_RESPONDER, OK, "SUSPEND of the source's responder");
	left = query(source, INCREMENTAL, NULL, "last QUERY");
	bytes[2] = save(INCREMENTAL, source, at + bytes[0] + bytes[1], mr->lkey, left, NULL, "last SAVE");
	check(bytes[2] > 0 && bytes[2] <= left, "last SAVE: %u bytes of %u", bytes[2], left);

	suspend(destination, SUSPEND_INITIATOR, OK, "SUSPEND of the destination's initiator");
	suspend(destination, SUSPEND_RESPONDER, OK, "SUSPEND of the destination's responder");
	load(destination, at, mr->lkey, bytes[0], OK, "LOAD of the first image");
	check(host(SAY_DIGEST, source, 0) != host(SAY_DIGEST, destination, 0), "one image of three is not enough");
	load(destination, at + bytes[0], mr->lkey, bytes[1], OK, "LOAD of the second image");
	load(destination, at + bytes[0] + bytes[1], mr->lkey, bytes[2], OK, "LOAD of the last image");
	check(host(SAY_DIGEST, source, 0) == host(SAY_DIGEST, destination, 0), "the two VHCAs are equal after PRE_COPY");
	resume(destination, RESUME_RESPONDER, OK, "RESUME of the destination's responder");
	resume(destination, RESUME_INITIATOR, OK, "RESUME of the destination's initiator");
	/* The source stays suspended. */
}

/* STOP_COPY in chunks of a quarter of what the memory region has. */
static void chunks(unsigned source, unsigned destination, uint32_t image, struct ibv_mr *mr)
{
	unsigned char *at = mr->addr;
	uint64_t remaining = 0;
	uint32_t next = query(source, CHUNK, &remaining, "QUERY for chunks"), all = 0, count = 0;

	check(remaining == image, "QUERY for chunks: %llu bytes in all (%u)", (unsigned long long)remaining, image);
	host(SAY_TOUCH, destination, 2);
	suspend(destination, SUSPEND_INITIATOR, OK, "SUSPEND of the destination's initiator");
	suspend(destination, SUSPEND_RESPONDER, OK, "SUSPEND of the destination's responder");
	for (; next && count < 8; count++) {
		uint32_t bytes = save(count ? INCREMENTAL : 0, source, at, mr->lkey, CHUNK_BYTES, &next, "SAVE of a chunk");

		load(destination, at, mr->lkey, bytes, OK, "LOAD of a chunk");
		all += bytes;
	}
	check(count > 2 && all >= image && !next, "%u chunks with %u bytes", count, all);
	check(host(SAY_DIGEST, source, 0) == host(SAY_DIGEST, destination, 0), "the two VHCAs are equal after chunks");
	resume(destination, RESUME_RESPONDER, OK, "RESUME of the destination's responder");
	resume(destination, RESUME_INITIATOR, OK, "RESUME of the destination's initiator");
	resume(source, RESUME_RESPONDER, OK, "RESUME of the source's responder");
	resume(source, RESUME_INITIATOR, OK, "RESUME of the source's initiator");
}

/* Pages by event: libmlx5 answers from the application's thread. */
static void page_requests(unsigned events, unsigned pages)
{
	struct pollfd fd = { .fd = mlx5dv_vfio_get_events_fd(context), .events = POLLIN };
	uint64_t wanted = host(SAY_PAGES, 0, 0) + events * pages;

	host(SAY_REQUEST_PAGES, events, pages);
	while (host(SAY_PAGES, 0, 0) < wanted) {
		/* If nothing comes, the end of this process's time does. */
		if (poll(&fd, 1, -1) < 0 || mlx5dv_vfio_process_events(context))
			break;
	}
	check(host(SAY_PAGES, 0, 0) == wanted, "pages that are asked for by event: %llu (%llu)",
	      (unsigned long long)host(SAY_PAGES, 0, 0), (unsigned long long)wanted);
}

/* More commands than the event queue has entries, so that it goes round. */
static void round_and_round(unsigned commands)
{
	unsigned char in[16] = { 0 }, out[112];
	unsigned good = 0;

	put(in, QUERY_ISSI, 2);
	for (unsigned i = 0; i < commands; i++) {
		memset(out, 0xee, sizeof(out));
		good += !mlx5dv_devx_general_cmd(context, in, sizeof(in), out, sizeof(out)) &&
			get(out + 10, 2) == 1 && get(out + 0x6c, 4) == 3;
	}
	check(good == commands, "%u of %u commands with events", good, commands);
}

/* libmlx5 looks after the health counter once in a second, and aborts at the third time that it stands. */
static void health(void)
{
	for (int i = 0; i < 6; i++) {
		ahead += 2;
		if (!check(!mlx5dv_vfio_process_events(context), "events are processed, and the device is healthy"))
			break;
		round_and_round(10);
	}
}

/* At an address that says how: libmlx5 makes a page of a region if no multiple of that page's size is in it. */
static struct ibv_mr *region(struct ibv_pd *pd, uintptr_t where, int access, const char *what)
{
	void *at = mmap((void *)where, MR_BYTES, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	struct ibv_mr *mr;

	if (at == MAP_FAILED) {
		perror("client: no memory for a memory region");
		exit(2);
	}
	memset(at, 0xa5, MR_BYTES);
	mr = ibv_reg_mr(pd, at, MR_BYTES, access);
	need(mr, what);
	return mr;
}

static void check_all(uint64_t pages, uint32_t image, unsigned source, unsigned destination)
{
	struct ibv_mr *mrs[3];
	struct ibv_pd *pd;

	open_device();
	check(host(SAY_PAGES, 0, 0) == pages, "the firmware has %llu pages (%llu)",
	      (unsigned long long)host(SAY_PAGES, 0, 0), (unsigned long long)pages);
	objects(0, 0, 1);
	capabilities(1, source);
	capabilities(2, destination);

	pd = ibv_alloc_pd(context);
	need(pd, "a protection domain");
	/* The first begins in the middle of its page of 8 MiB. */
	mrs[0] = region(pd, 0x200000100000, IBV_ACCESS_LOCAL_WRITE, "a memory region of 4 MiB");
	mrs[1] = region(pd, 0x200001000000, IBV_ACCESS_LOCAL_WRITE, "another one, which is one page");
	mrs[2] = region(pd, 0x200002000000, 0, "one that is only read");
	check(mrs[0]->lkey >> 8 != mrs[1]->lkey >> 8 && mrs[0]->lkey >> 8, "memory keys %#x and %#x differ",
	      mrs[0]->lkey, mrs[1]->lkey);
	objects(1, 3, 1);
	check(ibv_dealloc_pd(pd) != 0, "a protection domain with memory keys in it stays");

	statuses(source);
	refusals(source, destination, mrs[0], mrs[2]);
	stop_copy(source, destination, image, mrs[0], mrs[1]);
	page_requests(2, 40);
	pre_copy(source, destination, image, mrs[0]);
	chunks(source, destination, image, mrs[1]);
	round_and_round(1500);
	page_requests(1, 600);
	health();

	for (int i = 0; i < 3; i++) {
		void *at = mrs[i]->addr;

		check(!ibv_dereg_mr(mrs[i]), "a memory region is given up");
		munmap(at, MR_BYTES);
	}
	objects(1, 0, 1);
	check(!ibv_dealloc_pd(pd), "the protection domain is given up");
	check(!ibv_close_device(context), "libmlx5 takes the function down");
	objects(0, 0, 0);
}

/* Round after round of the same command, between those of others. */
static void rate(unsigned commands, unsigned vhca)
{
	struct command command;
	struct timespec since, until;
	uint64_t passed = 0;

	open_device();
	begin(&command, QUERY, 0, 0, vhca);
	while (host(SAY_ROUND, passed, 0)) {
		clock_gettime(CLOCK_MONOTONIC, &since);
		for (unsigned i = 0; i < commands; i++)
			if (mlx5dv_devx_general_cmd(context, command.in, 16, command.out, 64) || command.out[0]) {
				check(false, "command %u of a round", i);
				return;
			}
		clock_gettime(CLOCK_MONOTONIC, &until);
		passed = (uint64_t)(until.tv_sec - since.tv_sec) * 1000000000u + (uint64_t)until.tv_nsec -
			 (uint64_t)since.tv_nsec;
	}
	check(!ibv_close_device(context), "libmlx5 takes the function down");
}

static unsigned number(const char *text)
{
	return (unsigned)strtoul(text, NULL, 0);
}

int main(int argc, char **argv)
{
	setlinebuf(stdout);
	if (argc > 2)
		alarm(number(argv[1]));
	if (argc == 7 && !strcmp(argv[2], "check"))
		check_all(number(argv[3]), number(argv[4]), number(argv[5]), number(argv[6]));
	else if (argc == 5 && !strcmp(argv[2], "rate"))
		rate(number(argv[3]), number(argv[4]));
	else
		return 2;
	return all_ok ? 0 : 1;
}
