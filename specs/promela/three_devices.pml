/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
 *
 * Devices beside each other, for Spin: the model by which checkers are measured, as
 * fsm-model/src/devices.rs has it in Rust.
 *
 *     spin -a -DDEVICES=3 three_devices.pml
 *     gcc -O2 -DSAFETY -DNOREDUCE -o pan pan.c && ./pan -m10000000
 *
 * A device is its state, the state that a SET under way leads to, its data_fd and how much went
 * through that. A SET begins, and goes on arc by arc, or fails into ERROR; bytes go through the
 * data_fd and it is closed, meanwhile or not; one reset happens in all, to one of the devices. What
 * happens is one d_step, so Spin's states are those of the devices: 2 * 126^DEVICES. What must hold
 * is asserted behind each.
 */

#ifndef DEVICES
#define DEVICES 3
#endif

#define ERROR 0
#define STOP 1
#define RUNNING 2
#define STOP_COPY 3
#define RESUMING 4
#define RUNNING_P2P 5
#define PRE_COPY 6
#define PRE_COPY_P2P 7

/* The arc that comes first on the way from s to t, of a device with every flag. */
#define NEXT(s, t) ( \
    (s) == STOP -> ((t) == STOP_COPY || (t) == RESUMING -> (t) : RUNNING_P2P) : ( \
    (s) == RUNNING -> ((t) == PRE_COPY -> PRE_COPY : RUNNING_P2P) : ( \
    (s) == STOP_COPY || (s) == RESUMING -> STOP : ( \
    (s) == RUNNING_P2P -> ((t) == RUNNING || (t) == PRE_COPY -> RUNNING : \
        ((t) == PRE_COPY_P2P -> PRE_COPY_P2P : STOP)) : ( \
    (s) == PRE_COPY -> ((t) == PRE_COPY_P2P || (t) == STOP_COPY -> PRE_COPY_P2P : RUNNING) : \
    ((t) == STOP_COPY || (t) == PRE_COPY -> (t) : RUNNING_P2P))))))

/* STOP_COPY cannot be turned back into pre-copy, and nothing leaves ERROR but a reset. */
#define HAS_ROUTE(s, t) ((s) != ERROR && \
    !((s) == STOP_COPY && ((t) == PRE_COPY || (t) == PRE_COPY_P2P)))

#define SAVES(s) ((s) == STOP_COPY || (s) == PRE_COPY || (s) == PRE_COPY_P2P)

/* The data_fd: none, of a saving session, of a resuming one. */
#define NONE 0
#define SAVING 1
#define LOADING 2
#define SESSION(s) (SAVES(s) -> SAVING : ((s) == RESUMING -> LOADING : NONE))

#define ALL 2       /* as much as can go through a data_fd */

byte state[DEVICES] = RUNNING;
byte target[DEVICES] = RUNNING;     /* the state itself if no SET is under way */
byte fd[DEVICES];
byte data[DEVICES];
bool was_reset;

#define ME _pid
#define AT_REST (state[ME] == target[ME])

inline end_session() { fd[ME] = NONE; data[ME] = 0 }

/* The properties of fsm-model/src/devices.rs that can fail here: a second reset has a guard before it,
 * and no process names the variables of another. */
inline judge() {
    assert(fd[ME] == NONE || fd[ME] == SESSION(state[ME]));
    assert(AT_REST || HAS_ROUTE(state[ME], target[ME]))
}

#define SET(t) \
    :: d_step { AT_REST && state[ME] != t && HAS_ROUTE(state[ME], t) -> target[ME] = t; judge() }

active [DEVICES] proctype Device() {
    do
    SET(STOP)
    SET(RUNNING)
    SET(STOP_COPY)
    SET(RESUMING)
    SET(RUNNING_P2P)
    SET(PRE_COPY)
    SET(PRE_COPY_P2P)
    :: d_step { !AT_REST ->
        if
        :: SESSION(state[ME]) != SESSION(NEXT(state[ME], target[ME])) ->
            end_session();
            fd[ME] = SESSION(NEXT(state[ME], target[ME]));
            assert(data[ME] == 0)
        :: else
        fi;
        state[ME] = NEXT(state[ME], target[ME]);
        judge() }
    :: d_step { !AT_REST -> end_session(); state[ME] = ERROR; target[ME] = ERROR; judge() }
    :: d_step { fd[ME] != NONE && data[ME] < ALL -> data[ME]++; judge() }
    :: d_step { fd[ME] != NONE -> end_session(); judge() }
    :: d_step { !was_reset ->
        was_reset = true; end_session(); state[ME] = RUNNING; target[ME] = RUNNING;
        assert(fd[ME] == NONE && data[ME] == 0) }
    od
}
