// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// A save loop as a VMM in C has it, over a device in memory that the guest resets at a moment of the
// user's choice, and what vfio_fsm says of each answer: was it reset, and how can it go on?
//
//     cc -std=c11 -I ../include qemu_like.c libvfio_fsm.a -o qemu_like
//     ./qemu_like              without a reset
//     ./qemu_like read         while PRE_COPY is read
//     ./qemu_like stop         between PRE_COPY and SET(STOP_COPY)
//     ./qemu_like inside       inside SET(STOP_COPY), behind its last arc
//     ./qemu_like cancel       before the VMM gives up and goes back to RUNNING
//
// Exit: 0 the image is whole; 3 a reset was seen; 1 what must not be; 2 wrong use.

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "vfio_fsm.h"

// As in <linux/vfio.h>, which need not be installed to build this.
enum { STOP = 1, RUNNING = 2, STOP_COPY = 3, RESUMING = 4, RUNNING_P2P = 5, PRE_COPY = 6 };
enum { CAN_STOP_COPY = 1, CAN_PRE_COPY = 4 };

// ---- the device: in a VMM, the ioctls on its fd and the read of its data_fd

struct device {
    uint64_t flags;
    uint32_t state;
    int next_fd;
    int live_fd;      // -1: no session
    int left;         // bytes of the session that are not read yet
    bool reset_inside; // the guest's reset arrives within the next SET
};

static void device_reset(struct device *device)
{
    device->state = RUNNING;
    device->live_fd = -1;
}

static int device_set(struct device *device, uint32_t to, int32_t *data_fd)
{
    struct vfio_fsm_route route;

    *data_fd = -1;
    if (vfio_fsm_route(device->flags, device->state, to, &route) != VFIO_FSM_OK)
        return -EINVAL;
    device->state = to;
    if (route.opens) {
        device->live_fd = device->next_fd++;
        device->left = 3;
        *data_fd = device->live_fd;
    } else if (to == RUNNING || to == STOP) {
        device->live_fd = -1;
    } else if (to == STOP_COPY) {
        device->left += 1;
    }
    if (device->reset_inside) {
        device->reset_inside = false;
        device_reset(device);
    }
    return 0;
}

static int device_read(struct device *device, int fd)
{
    if (fd != device->live_fd)
        return -ENODEV;
    if (device->left > 0) {
        device->left--;
        return 1;
    }
    return device->state == STOP_COPY ? 0 : -ENOMSG;
}

// ---- the VMM

struct vmm {
    struct device *device;
    uint32_t believed;
    int data_fd;
    uint32_t discards_left;
};

static int was_reset(const struct vmm *vmm, const char *where, uint32_t evidence)
{
    static const char *const names[] = {
        "nothing", "a dead data_fd", "an unexpected data_fd", "in RUNNING already",
        "in RUNNING behind a SET that succeeded",
    };
    uint32_t choices = 0;

    if (vfio_fsm_choices(vmm->device->flags, vmm->discards_left, false, &choices) != VFIO_FSM_OK)
        return 1;
    printf("%s: reset, by %s; open:%s%s%s\n", where, names[evidence],
           choices & VFIO_FSM_ABORT ? " abort" : "", choices & VFIO_FSM_RESTART ? " restart" : "",
           choices & VFIO_FSM_STOP_COPY ? " stop-copy" : "");
    return 3;
}

// SET, and everything that it says. 0: the device is there.
static int set_state(struct vmm *vmm, uint32_t to)
{
    uint32_t evidence = 0;
    int32_t fd = -1;
    int code;

    // A pair that keeps an unpatched kernel spinning never gets that far.
    if (!vfio_fsm_is_legal(vmm->device->flags, vmm->believed, to)) {
        printf("SET(%s) in %s is not legal\n", vfio_fsm_state_name(to),
               vfio_fsm_state_name(vmm->believed));
        return 1;
    }
    if (device_set(vmm->device, to, &fd) != 0) {
        printf("SET(%s) failed: only GET tells where the device is\n", vfio_fsm_state_name(to));
        return 1;
    }
    code = vfio_fsm_evidence_of_set(vmm->device->flags, vmm->believed, to, fd, &evidence);
    if (code != VFIO_FSM_OK) {
        printf("SET(%s): %s\n", vfio_fsm_state_name(to), vfio_fsm_strerror(code));
        return 1;
    }
    if (fd >= 0)
        vmm->data_fd = fd; // also an unexpected one: what it reads is the device as it is now
    vmm->believed = to;
    if (evidence != VFIO_FSM_NO_EVIDENCE)
        return was_reset(vmm, "SET", evidence);
    if (vfio_fsm_evidence_behind_set(to, vmm->device->state, &evidence) != VFIO_FSM_OK)
        return 1;
    if (evidence != VFIO_FSM_NO_EVIDENCE)
        return was_reset(vmm, "GET behind SET", evidence);
    return 0;
}

// Reads what there is now. 0: the end of it.
static int read_all(struct vmm *vmm)
{
    for (;;) {
        int got = device_read(vmm->device, vmm->data_fd);
        uint32_t evidence = 0;

        if (got > 0)
            continue;
        if (got == 0 || got == -ENOMSG)
            return 0;
        if (vfio_fsm_evidence_of_call(-got, vmm->device->state, &evidence) != VFIO_FSM_OK)
            return 1;
        if (evidence != VFIO_FSM_NO_EVIDENCE)
            return was_reset(vmm, "read", evidence);
        printf("read: the device has failed with %d\n", -got);
        return 1;
    }
}

static int cancel(struct vmm *vmm)
{
    uint32_t evidence = 0;

    if (vfio_fsm_evidence_of_state(vmm->believed, vmm->device->state, &evidence) != VFIO_FSM_OK)
        return 1;
    if (evidence != VFIO_FSM_NO_EVIDENCE)
        return was_reset(vmm, "GET before going back", evidence);
    return set_state(vmm, RUNNING);
}

int main(int argc, char **argv)
{
    const char *when = argc > 1 ? argv[1] : "never";
    struct device device = {
        .flags = CAN_STOP_COPY | CAN_PRE_COPY, .state = RUNNING, .next_fd = 3, .live_fd = -1,
    };
    struct vmm vmm = { .device = &device, .believed = RUNNING, .data_fd = -1, .discards_left = 3 };
    int ended;

    if ((ended = set_state(&vmm, PRE_COPY)) != 0)
        return ended;
    if (strcmp(when, "read") == 0)
        device_reset(&device);
    if ((ended = read_all(&vmm)) != 0)
        return ended;
    if (strcmp(when, "stop") == 0 || strcmp(when, "cancel") == 0)
        device_reset(&device);
    if (strcmp(when, "cancel") == 0)
        return cancel(&vmm);
    if (strcmp(when, "inside") == 0)
        device.reset_inside = true;
    // Here the vCPUs halt.
    if ((ended = set_state(&vmm, STOP_COPY)) != 0)
        return ended;
    if ((ended = read_all(&vmm)) != 0)
        return ended;
    if ((ended = set_state(&vmm, STOP)) != 0)
        return ended;
    printf("the image is whole\n");
    return 0;
}
