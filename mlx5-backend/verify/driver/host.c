// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/*
 * The user of the device and the kernel around the driver: carries out ops, one after the other or,
 * where the driver waits, one within the other.
 */
#include <kernel.h>
#include <linux/vfio.h>
#include <linux/vfio_pci_core.h>

#include "harness.h"
#include "wire.h"

#include <stdlib.h>

static struct pci_dev function = { .is_virtfn = true };
static struct vfio_device *device;
static int depth;

/* ---- vfio-pci: it registers, opens and closes whatever it is given ---- */

struct vfio_device *_vfio_alloc_device(size_t size, struct device *dev,
				       const struct vfio_device_ops *ops)
{
	struct vfio_device *made = kzalloc(size, 0);

	if (!made)
		return ERR_PTR(-ENOMEM);
	made->dev = dev;
	made->ops = ops;
	container_of(made, struct vfio_pci_core_device, vdev)->pdev = &function;
	/* init() is the driver's; it looks the PF up and asks it what the VF can do. */
	if (ops->init(made)) {
		kfree(made);
		return ERR_PTR(-ENODEV);
	}
	return made;
}

void put_device(struct device *embedded)
{
	struct vfio_device *gone = container_of(embedded, struct vfio_device, device);

	gone->ops->release(gone);
	kfree(gone);
}

int vfio_pci_core_init_dev(struct vfio_device *vdev)
{
	return 0;
}

void vfio_pci_core_release_dev(struct vfio_device *vdev)
{
}

int vfio_pci_core_register_device(struct vfio_pci_core_device *core)
{
	device = &core->vdev;
	return 0;
}

void vfio_pci_core_unregister_device(struct vfio_pci_core_device *core)
{
	device = NULL;
}

int vfio_pci_core_enable(struct vfio_pci_core_device *core)
{
	return 0;
}

void vfio_pci_core_finish_enable(struct vfio_pci_core_device *core)
{
}

/* The tester resets the function in its firmware; the driver's reset_done() is an op of its own. */
void vfio_pci_core_close_device(struct vfio_device *vdev)
{
}

int vfio_pci_core_ioctl_feature(struct vfio_device *vdev, u32 flags, void *arg, size_t size)
{
	return -ENOTTY;
}

/* Named in the driver's table of operations, and beside the subject. */
#define BESIDE(name, result, ...) \
	result name(__VA_ARGS__) \
	{ \
		kernel_fatal(#name "() is called"); \
	}
BESIDE(vfio_pci_core_ioctl, long, struct vfio_device *d, unsigned int request, unsigned long arg)
BESIDE(vfio_pci_core_read, ssize_t, struct vfio_device *d, char *to, size_t n, loff_t *position)
BESIDE(vfio_pci_core_write, ssize_t, struct vfio_device *d, const char *from, size_t n,
       loff_t *position)
BESIDE(vfio_pci_core_mmap, int, struct vfio_device *d, struct vm_area_struct *area)
BESIDE(vfio_pci_core_request, void, struct vfio_device *d, unsigned int count)
BESIDE(vfio_pci_core_match, int, struct vfio_device *d, char *name)
BESIDE(vfio_pci_core_aer_err_detected, pci_ers_result_t, struct pci_dev *d,
       pci_channel_state_t state)

/* ---- The conversation ---- */

static void serve(const struct frame *frame, unsigned char *data);

/* Serves ops until a frame of this kind comes. */
static void until(uint32_t kind, struct frame *frame, unsigned char **data)
{
	for (;;) {
		wire_receive(frame, data);
		if (frame->kind == kind)
			return;
		if (frame->kind < FRAME_OP)
			kernel_fatal("frame %u where %u is due", frame->kind, kind);
		serve(frame, *data);
		free(*data);
	}
}

int harness_wait(const char *what, bool interruptible)
{
	struct frame frame;
	unsigned char *data;

	wire_send(FRAME_WAIT, interruptible, 0, 0, what, strlen(what));
	until(FRAME_RESUME, &frame, &data);
	free(data);
	if (frame.a && !interruptible)
		kernel_fatal("%s will never come, and no signal ends the wait", what);
	if (kernel_workers_first)
		kernel_let_workers_run();
	return (int)frame.a;
}

int harness_command(const void *in, size_t in_size, void *out, size_t out_size, u64 id, int how)
{
	struct frame frame;
	unsigned char *data;

	wire_send(FRAME_COMMAND, (int64_t)id, (int64_t)out_size, how, in, in_size);
	until(FRAME_ANSWER, &frame, &data);
	memcpy(out, data, min((size_t)frame.length, out_size));
	free(data);
	return (int)frame.a;
}

/* ---- Ops ---- */

struct reply {
	int64_t result, b, c;
	void *data; /* to be freed */
	size_t length;
};

/* As read(2) and its like do: what the file was opened for, what it has, and streams no position. */
static void do_read(struct file *file, size_t n, bool at_position, struct reply *reply)
{
	if ((file->f_flags & O_ACCMODE) == O_WRONLY) {
		reply->result = at_position && file->stream ? -ESPIPE : -EBADF;
		return;
	}
	if (at_position && file->stream) {
		reply->result = -ESPIPE;
		return;
	}
	reply->data = malloc(n + 1);
	reply->result = file->f_op->read(file, reply->data, n, file->stream ? NULL : &file->f_pos);
	reply->length = reply->result > 0 ? (size_t)reply->result : 0;
}

static int64_t do_write(struct file *file, const void *data, size_t n)
{
	if ((file->f_flags & O_ACCMODE) == O_RDONLY)
		return -EBADF;
	return file->f_op->write(file, data, n, file->stream ? NULL : &file->f_pos);
}

static int64_t do_poll(struct file *file)
{
	struct poll_table_struct table;

	if (!file->f_op->poll)
		return EPOLLIN | EPOLLOUT | EPOLLRDNORM | EPOLLWRNORM;
	return file->f_op->poll(file, &table);
}

static int64_t do_feature(const struct frame *frame, unsigned char *data, struct reply *reply)
{
	size_t size = sizeof(struct vfio_device_feature) + frame->length;
	struct vfio_device_feature *feature = malloc(size);
	long result;

	feature->argsz = (u32)size;
	feature->flags = (u32)frame->a;
	memcpy(feature->data, data, frame->length);
	kernel_fd_table_full = frame->b;
	result = verify_device_feature(device, feature);
	kernel_fd_table_full = false;
	reply->data = malloc(frame->length + 1);
	reply->length = frame->length;
	memcpy(reply->data, feature->data, frame->length);
	free(feature);
	return result;
}

static int64_t do_log(u32 flags, const void *control, size_t length)
{
	size_t size = sizeof(struct vfio_device_feature) + length;
	struct vfio_device_feature *feature = malloc(size);
	long result;

	feature->argsz = (u32)size;
	feature->flags = flags;
	memcpy(feature->data, control, length);
	result = verify_device_feature(device, feature);
	free(feature);
	return result;
}

static int64_t do_log_start(const struct frame *frame, unsigned char *data)
{
	struct vfio_device_feature_dma_logging_control control = {
		.page_size = (u64)frame->a,
		.num_ranges =
			frame->length / sizeof(struct vfio_device_feature_dma_logging_range),
		.ranges = (u64)(uintptr_t)data,
	};

	return do_log(VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_DMA_LOGGING_START, &control,
		      sizeof(control));
}

static int64_t do_log_report(const struct frame *frame, struct reply *reply)
{
	size_t words = (u64)frame->b / (u64)frame->c / 64 + 1;
	struct vfio_device_feature_dma_logging_report report = {
		.iova = (u64)frame->a,
		.length = (u64)frame->b,
		.page_size = (u64)frame->c,
	};

	reply->data = calloc(words, 8);
	reply->length = words * 8;
	report.bitmap = (u64)(uintptr_t)reply->data;
	return do_log(VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT, &report,
		      sizeof(report));
}

static int64_t do_probe(const struct frame *frame)
{
	kernel_workers_first = frame->a;
	mlx5_core_read_capabilities();
	return kernel_pci_driver->probe(&function, kernel_pci_driver->id_table);
}

static void on_device(const struct frame *frame, unsigned char *data, struct reply *reply)
{
	switch (frame->kind) {
	case OP_REMOVE:
		kernel_pci_driver->remove(&function);
		break;
	case OP_OPEN:
		reply->result = device->ops->open_device(device);
		break;
	case OP_CLOSE:
		device->ops->close_device(device);
		break;
	case OP_FEATURE:
		reply->result = do_feature(frame, data, reply);
		break;
	case OP_RESET:
		kernel_pci_driver->err_handler->reset_done(&function);
		break;
	case OP_LOG_START:
		reply->result = do_log_start(frame, data);
		break;
	case OP_LOG_STOP:
		reply->result = do_log(VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP,
				       "", 0);
		break;
	case OP_LOG_REPORT:
		reply->result = do_log_report(frame, reply);
		break;
	default:
		kernel_fatal("no op %u", frame->kind);
	}
}

static void on_file(const struct frame *frame, unsigned char *data, struct reply *reply)
{
	struct file *file = kernel_file(frame->a);

	if (!file) {
		reply->result = -EBADF;
		return;
	}
	/* The op has a reference of its own, as every system call on a file. */
	get_file(file);
	switch (frame->kind) {
	case OP_READ:
		do_read(file, (size_t)frame->b, frame->c, reply);
		break;
	case OP_WRITE:
		reply->result = do_write(file, data, frame->length);
		break;
	case OP_POLL:
		reply->result = do_poll(file);
		break;
	case OP_IOCTL:
		if (!file->f_op->unlocked_ioctl) {
			reply->result = -ENOTTY;
			break;
		}
		reply->result = file->f_op->unlocked_ioctl(file, (unsigned int)frame->b,
							   (unsigned long)data);
		reply->data = malloc(frame->length + 1);
		reply->length = frame->length;
		memcpy(reply->data, data, frame->length);
		break;
	case OP_FD_FLAGS:
		reply->b = file->f_flags & O_ACCMODE;
		reply->c = 1;
		break;
	case OP_SEEK:
		reply->result = file->stream ? -ESPIPE : 0;
		break;
	case OP_NONBLOCK:
		file->f_flags |= O_NONBLOCK;
		break;
	case OP_CLOSE_FD:
		reply->result = kernel_close(frame->a);
		break;
	}
	fput(file);
}

static void serve(const struct frame *frame, unsigned char *data)
{
	struct reply reply = {};

	depth++;
	switch (frame->kind) {
	case OP_PROBE:
		reply.result = do_probe(frame);
		break;
	case OP_READ:
	case OP_WRITE:
	case OP_POLL:
	case OP_IOCTL:
	case OP_FD_FLAGS:
	case OP_SEEK:
	case OP_NONBLOCK:
	case OP_CLOSE_FD:
		on_file(frame, data, &reply);
		break;
	case OP_COMPLETE:
		reply.result = mlx5_core_complete((u64)frame->a, (int)frame->b, data, frame->length);
		break;
	case OP_NOTIFY:
		reply.result = mlx5_core_notify((unsigned long)frame->a);
		break;
	case OP_OBJECT_CHANGE:
		mlx5_core_object_change((u32)frame->a);
		break;
	case OP_STATS:
		reply.length = sizeof(kernel_stats);
		reply.data = malloc(reply.length);
		memcpy(reply.data, &kernel_stats, reply.length);
		break;
	case OP_FAIL_PAGES:
		kernel_pages_limit(frame->a);
		break;
	default:
		if (!device) {
			reply.result = -ENODEV;
			break;
		}
		on_device(frame, data, &reply);
	}
	/* Within a blocked op the locks below may be held: worker threads come to it later. */
	if (depth == 1)
		kernel_settle();
	depth--;
	wire_send(FRAME_REPLY, reply.result, reply.b, reply.c, reply.data, reply.length);
	free(reply.data);
}

int main(int argc, char **argv)
{
	struct frame frame;
	unsigned char *data;

	if (argc != 2)
		wire_exit(2);
	kernel_pages_init(strtoull(argv[1], NULL, 10));
	until(FRAME_RESUME, &frame, &data);
	free(data);
	wire_exit(0);
}
