// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

#ifndef VFIO_FSM_H
#define VFIO_FSM_H

// Made by cbindgen of fsm-core/c/src; see fsm-core/c/README.md.

#include <stdbool.h>
#include <stdint.h>

// Done, and the answer is written.
#define VFIO_FSM_OK 0

// The pointer for the answer is null.
#define VFIO_FSM_NULL -1

// The flags are not one of the four legal sets: treat the device as not migratable (R3).
#define VFIO_FSM_FLAGS -2

// A number is no device_state.
#define VFIO_FSM_UNKNOWN -3

// The device does not advertise the flag that brings the state asked for (R4).
#define VFIO_FSM_UNSUPPORTED -4

// ERROR cannot be asked for (R13).
#define VFIO_FSM_ERROR_ASKED -5

// Only VFIO_DEVICE_RESET leaves ERROR (R14).
#define VFIO_FSM_IN_ERROR -6

// The device does not have the state that it is said to be in.
#define VFIO_FSM_IMPOSSIBLE -7

// STOP_COPY to PRE_COPY or PRE_COPY_P2P: an unpatched kernel never returns from it; go through STOP
// (R16).
#define VFIO_FSM_BLOCKED -8

// No SET leads there, for a reason that this header has no name for.
#define VFIO_FSM_REFUSED -9

// A data_fd was due and none came: the driver is at fault.
#define VFIO_FSM_NO_DATA_FD -10

// An errno is a positive number, as in <errno.h>.
#define VFIO_FSM_ERRNO -11

// The session of a data_fd that is read: PRE_COPY, PRE_COPY_P2P, STOP_COPY.
#define VFIO_FSM_SAVING 1

// The session of a data_fd that is written: RESUMING.
#define VFIO_FSM_RESUMING 2

// Nothing says that there was a reset. This is no proof that there was none.
#define VFIO_FSM_NO_EVIDENCE 0

// A call on the data_fd failed as it does when the session is over (O1).
#define VFIO_FSM_DEAD_FD 1

// A SET that goes on with a session returned a data_fd, so it began another: keep the new one,
// what it reads is the device after the reset (O2).
#define VFIO_FSM_UNEXPECTED_FD 2

// The device is in RUNNING already, so that SET(RUNNING) would hide the reset (O3).
#define VFIO_FSM_ALREADY_RUNNING 3

// A SET succeeded and the device is in RUNNING: the reset was done inside it (O4).
#define VFIO_FSM_DEFERRED_INTO_SET 4

// Give the migration up. Always open.
#define VFIO_FSM_ABORT 1

// Let the receiver discard what it has, and begin this device's PRE_COPY anew.
#define VFIO_FSM_RESTART 2

// Let the receiver discard what it has, stop the vCPUs and send all in STOP_COPY.
#define VFIO_FSM_STOP_COPY 4

// The states that one SET walks through.
struct vfio_fsm_route {
  // The states behind `from`, in order; the last is the one asked for. Beyond `len`: 0.
  uint32_t hops[4];
  // How many: 0, when there is nothing to do, to 4.
  uint32_t len;
  // VFIO_FSM_SAVING or VFIO_FSM_RESUMING if the SET begins such a session and returns its
  // data_fd; otherwise 0, and data_fd is -1.
  uint32_t opens;
};

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// What a code means, in a sentence that lives as long as the program. Never NULL.
const char *vfio_fsm_strerror(int code);

// Into `hop`: the state that a device in `from` goes to first on SET(`to`), which is `from` itself
// when nothing is to be done.
//
// # Safety
//
// `hop` is null or can be written.
int vfio_fsm_next_hop(uint64_t flags, uint32_t from, uint32_t to, uint32_t *hop);

// Into `route`: every state that SET(`to`) walks through from `from`, and whether it returns a
// data_fd.
//
// # Safety
//
// `route` is null or can be written.
int vfio_fsm_route(uint64_t flags, uint32_t from, uint32_t to, struct vfio_fsm_route *route);

// Whether SET(`to`) may be sent to a device in `from`. Not of the pair that keeps an unpatched
// kernel spinning, nor of any number that is no state.
bool vfio_fsm_is_legal(uint64_t flags, uint32_t from, uint32_t to);

// Whether `flags` are one of the four legal sets, and so the device can be migrated.
bool vfio_fsm_is_migratable(uint64_t flags);

// The name of a device_state, without the VFIO_DEVICE_STATE_ in front. Never NULL.
const char *vfio_fsm_state_name(uint32_t state);

// Into `evidence`: what the data_fd says that came with SET(`to`), which succeeded, from `from`, the
// state that the device was believed to be in. `data_fd` is that of struct
// vfio_device_feature_mig_state, -1 if there is none.
//
// When it says nothing, ask GET and vfio_fsm_evidence_behind_set().
//
// # Safety
//
// `evidence` is null or can be written.
int vfio_fsm_evidence_of_set(uint64_t flags,
                             uint32_t from,
                             uint32_t to,
                             int32_t data_fd,
                             uint32_t *evidence);

// Into `evidence`: what the state `got` says that GET gives behind SET(`to`), which succeeded. `got`
// may be any number: a later kernel may have states that are not known here.
//
// # Safety
//
// `evidence` is null or can be written.
int vfio_fsm_evidence_behind_set(uint32_t to,
                                 uint32_t got,
                                 uint32_t *evidence);

// Into `evidence`: what it says that a call on the data_fd (read, write,
// VFIO_MIG_GET_PRECOPY_INFO) failed with the errno `err`, a positive number, and that GET says `got`
// behind it. Where it says nothing, the device or its driver has failed.
//
// ENOMSG in PRE_COPY is the end of what there is for now, and EAGAIN no failure: do not ask then.
//
// # Safety
//
// `evidence` is null or can be written.
int vfio_fsm_evidence_of_call(int err,
                              uint32_t got,
                              uint32_t *evidence);

// Into `evidence`: what the state `got` says that GET gives before a device that is `believed` to be
// in some state is sent back to RUNNING, or at the destination is started.
//
// # Safety
//
// `evidence` is null or can be written.
int vfio_fsm_evidence_of_state(uint32_t believed,
                               uint32_t got,
                               uint32_t *evidence);

// Into `choices`: what can be done about a reset, as a sum of VFIO_FSM_ABORT, VFIO_FSM_RESTART and
// VFIO_FSM_STOP_COPY.
//
// `discards_left` is how often the stream may still be discarded: a guest that resets its device
// for ever must not migrate for ever. `held` is whether the guest is stopped and other devices
// wait for this one, which cannot go on without them then.
//
// # Safety
//
// `choices` is null or can be written.
int vfio_fsm_choices(uint64_t flags, uint32_t discards_left, bool held, uint32_t *choices);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* VFIO_FSM_H */
