/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
 *
 * One VFIO device that migrates and one process that uses it, for Spin.
 *
 * Written from the prose of the uAPI header and of specs/requirements.toml, and from no code: see
 * specs/checked-twice.md for what is modelled and what it is compared with.
 *
 *     spin -DP2P=1 -DPRE_COPY_=1 -a vfio_migration.pml
 *     gcc -O2 -DSAFETY -DNOREDUCE -DVECTORSZ=2048 -DPRINTF -o pan pan.c && ./pan -E
 *
 * -DPRINTF makes the verifier print each edge of the graph, once. Everything that can happen is one
 * d_step of a process of its own, so that Spin's states are those of the device, and one more: the
 * first step of all computes the routes.
 */

#ifndef P2P
#define P2P 1       /* the flags beside STOP_COPY */
#endif
#ifndef PRE_COPY_
#define PRE_COPY_ 1
#endif

/* UNKNOWN is a number that the uAPI does not define. */
mtype:state = { ERROR, STOP, RUNNING, STOP_COPY, RESUMING, RUNNING_P2P, PRE_COPY, PRE_COPY_P2P,
                UNKNOWN };
#define STATES 9

/* Who wrote the device's own registers last: nobody since the reset, the guest, or a load. */
mtype:content = { BLANK, TOUCHED, LOADED };

/* The session and what is in its stream. */
mtype:stream = {
    NO_SESSION,
    INITIAL, INITIAL_DIRTY, DIRTY, DRAINED,     /* pre-copy: which kinds of bytes are left */
    MORE, ALL_READ,                             /* STOP_COPY: something is left; all was read */
    EMPTY, PART, WHOLE, BAD                     /* RESUMING: what was written */
};

/* An entry of the process' fd table. A data_fd is live while its session is. */
mtype:entry = { FREE, SAVE_LIVE, SAVE_DEAD, RESUME_LIVE, RESUME_DEAD };

mtype:reply = {
    OK, FD, NO_FD,
    EINVAL, EIO, EBADF, EBUSY, EMFILE, ENODEV, ENOTTY,
    BYTES, END_FOR_NOW, END_OF_STREAM,
    READABLE, NOTHING, WRITABLE, HANGUP
};

bool opened = true;                 /* the device is open */
mtype:state st = RUNNING;           /* device_state */
mtype:content registers = BLANK;
mtype:stream data = NO_SESSION;
mtype:entry fd1 = FREE;             /* in the order of opening */
mtype:entry fd2 = FREE;

/* The routes, once and for all: the next state on the way, and how many arcs are left. */
#define PAIR(a, b) ((a) * 10 + (b))
#define NO_ROUTE 9
byte next[100];
byte left[100];
bool ready = false;

/* -------------------------------------------------------------------------------------------------
 * States, arcs, routes
 */

/* ERROR is there, but cannot be asked for and has no arcs. */
#define HAS(s) ( (s) == STOP || (s) == RUNNING || (s) == STOP_COPY || (s) == RESUMING \
    || (s) == RUNNING_P2P && P2P || (s) == PRE_COPY && PRE_COPY_ \
    || (s) == PRE_COPY_P2P && P2P && PRE_COPY_ )

#define IS_PRE_COPY(s) ((s) == PRE_COPY || (s) == PRE_COPY_P2P)
#define IN_GROUP(s) (IS_PRE_COPY(s) || (s) == STOP_COPY)
#define HAS_SESSION(s) (IN_GROUP(s) || (s) == RESUMING)

#define EITHER_WAY(a, b, x, y) ((a) == x && (b) == y || (a) == y && (b) == x)

/* The arcs that a driver implements, each as the header describes it. Stopping and starting goes by
 * way of RUNNING_P2P where there is one, and pre-copy is entered and left beside the running state
 * of the same kind. */
#define IS_ARC(a, b) ( HAS(a) && HAS(b) && ( \
    EITHER_WAY(a, b, RUNNING, STOP) && !P2P \
    || EITHER_WAY(a, b, RUNNING, RUNNING_P2P) \
    || EITHER_WAY(a, b, RUNNING_P2P, STOP) \
    || EITHER_WAY(a, b, STOP, STOP_COPY) \
    || EITHER_WAY(a, b, STOP, RESUMING) \
    || EITHER_WAY(a, b, RUNNING, PRE_COPY) \
    || EITHER_WAY(a, b, RUNNING_P2P, PRE_COPY_P2P) \
    || EITHER_WAY(a, b, PRE_COPY, PRE_COPY_P2P) \
    || (a) == PRE_COPY_P2P && (b) == STOP_COPY \
    || (a) == PRE_COPY && (b) == STOP_COPY && !P2P ) )

/* Whether a route between a and b may go through s on its way: through no state of the saving
 * group, unless all of it lies in the group. */
#define MAY_PASS(a, b, s) ((s) == (b) || (IN_GROUP(s) == (IN_GROUP(a) && IN_GROUP(b))))

hidden byte a, b, s, n, pass;
hidden byte far[10];

/* The shortest route for every pair. STOP_COPY cannot be turned back into pre-copy, which the header
 * says and the rule of MAY_PASS implies. */
inline compute_routes() {
    for (a : 1 .. STATES) {
        for (b : 1 .. STATES) {
            for (s : 1 .. STATES) { far[s] = NO_ROUTE }
            if
            :: HAS(a) && HAS(b) && !(a == STOP_COPY && IS_PRE_COPY(b)) ->
                far[b] = 0;
                for (pass : 1 .. STATES) {
                    for (s : 1 .. STATES) {
                        for (n : 1 .. STATES) {
                            if
                            :: IS_ARC(s, n) && MAY_PASS(a, b, n) && far[n] + 1 < far[s] ->
                                far[s] = far[n] + 1
                            :: else
                            fi
                        }
                    }
                }
            :: else
            fi;
            left[PAIR(a, b)] = far[a];
            for (n : 1 .. STATES) {
                if
                :: far[a] != NO_ROUTE && IS_ARC(a, n) && MAY_PASS(a, b, n) && far[n] + 1 == far[a] ->
                    next[PAIR(a, b)] = n
                :: else
                fi
            }
        }
    }
    a = 0; b = 0; s = 0; n = 0; pass = 0
}

/* -------------------------------------------------------------------------------------------------
 * What happens. `reply` is what the call returns.
 */

hidden mtype:reply reply;
hidden byte arc;            /* which arc of the route comes next */
hidden byte failed, opens, had;
hidden mtype:state to;
hidden mtype:entry entry;

inline end_session() {
    data = NO_SESSION;
    if :: fd1 == SAVE_LIVE -> fd1 = SAVE_DEAD :: fd1 == RESUME_LIVE -> fd1 = RESUME_DEAD :: else fi;
    if :: fd2 == SAVE_LIVE -> fd2 = SAVE_DEAD :: fd2 == RESUME_LIVE -> fd2 = RESUME_DEAD :: else fi
}

inline reset() {
    end_session();
    st = RUNNING;
    registers = BLANK
}

/* An arc that succeeds, and what it does to the session. */
inline take(to_) {
    to = to_;
    if :: st == RESUMING -> registers = LOADED :: else fi;
    had = HAS_SESSION(st);
    st = to;
    opens = HAS_SESSION(st) && !had;
    if
    :: opens && st == RESUMING -> data = EMPTY
    :: opens && IS_PRE_COPY(st) -> data = INITIAL
    :: st == STOP_COPY -> data = MORE       /* new, or the final part behind what was left */
    :: had && !HAS_SESSION(st) -> end_session()
    :: else
    fi
}

/* SET, and what the kernel does with the file that the driver returned. A fault is one of: none;
 * the fd table is full; a reset arrives inside; an arc fails and leaves the device where the arc
 * began, or in ERROR. */
#define NO_FAULT 0
#define FULL 1
#define RESET_INSIDE 2
#define FAILS(fault) ((fault) >= 3)
#define FAILING_ARC(fault) (((fault) - 3) / 2)
#define INTO_ERROR(fault) (((fault) - 3) % 2 == 1)
#define FAULTS 11

inline set(target, fault) {
    arc = 0;
    opens = false;
    failed = left[PAIR(st, target)] == NO_ROUTE;
    reply = (failed -> EINVAL : NO_FD);
    do
    :: failed || st == target -> break
    :: else ->
        if
        :: FAILS(fault) && FAILING_ARC(fault) == arc ->
            failed = true;
            reply = EIO;
            if :: INTO_ERROR(fault) -> end_session(); st = ERROR :: else fi
        :: else ->
            if
            :: st == RESUMING && data != WHOLE ->
                /* What was written is no stream. */
                failed = true;
                reply = EINVAL
            :: else ->
                take(next[PAIR(st, target)]);
                arc++
            fi
        fi
    od;
    /* The reset waits for whoever moves the device, and is done before the fd is installed. */
    entry = (st == RESUMING -> RESUME_LIVE : SAVE_LIVE);
    if
    :: fault == RESET_INSIDE ->
        reset();
        entry = (entry == RESUME_LIVE -> RESUME_DEAD : SAVE_DEAD)
    :: else
    fi;
    /* The device has moved whether or not there is room. */
    if
    :: failed || !opens
    :: else ->
        if
        :: fault == FULL || fd2 != FREE -> reply = EMFILE
        :: else ->
            reply = FD;
            if :: fd1 == FREE -> fd1 = entry :: else -> fd2 = entry fi
        fi
    fi
}

#define IS_RESUME(fd) ((fd) == RESUME_LIVE || (fd) == RESUME_DEAD)

/* Everything there is at the moment. */
inline read(fd) {
    if
    :: IS_RESUME(fd) -> reply = EBADF
    :: fd == SAVE_DEAD -> reply = ENODEV
    :: fd == SAVE_LIVE && data == DRAINED -> reply = END_FOR_NOW
    :: fd == SAVE_LIVE && data == ALL_READ -> reply = END_OF_STREAM
    :: else ->
        reply = BYTES;
        data = (st == STOP_COPY -> ALL_READ : DRAINED)
    fi
}

/* Write a whole stream, a half of one, or what is none. */
inline write(fd, after_empty, after_part) {
    if
    :: !IS_RESUME(fd) -> reply = EBADF
    :: fd == RESUME_DEAD -> reply = ENODEV
    :: else ->
        if
        :: data == EMPTY -> data = after_empty
        :: data == PART -> data = after_part
        :: else -> data = BAD
        fi;
        reply = (data == BAD -> EINVAL : OK)
    fi
}

/* OK stands for what is left of the two kinds of bytes. */
inline precopy_info(fd) {
    if
    :: IS_RESUME(fd) -> reply = ENOTTY
    :: !IS_RESUME(fd) && !IS_PRE_COPY(st) -> reply = EINVAL
    :: fd == SAVE_DEAD && IS_PRE_COPY(st) -> reply = ENODEV
    :: else -> reply = OK
    fi
}

inline poll(fd) {
    if
    :: fd == SAVE_DEAD || fd == RESUME_DEAD -> reply = HANGUP
    :: fd == RESUME_LIVE -> reply = WRITABLE
    :: fd == SAVE_LIVE && data == DRAINED -> reply = NOTHING
    :: else -> reply = READABLE
    fi
}

/* -------------------------------------------------------------------------------------------------
 * The edges
 */

inline put_state() {
    if :: opened -> printf("OPEN ") :: else -> printf("CLOSED ") fi;
    printm(st); printf(" "); printm(registers); printf(" "); printm(data);
    printf(" "); printm(fd1); printf(" "); printm(fd2)
}

inline before() {
    printf("EDGE "); put_state(); printf(" | ")
}

inline after() {
    printf(" => "); printm(reply); printf(" | "); put_state(); printf("\n")
}

inline put_set(target, fault) {
    printf("SET "); printm(target);
    if
    :: fault == NO_FAULT -> printf(" NONE")
    :: fault == FULL -> printf(" FULL")
    :: fault == RESET_INSIDE -> printf(" RESET_INSIDE")
    :: else ->
        printf(" FAIL_%d_", FAILING_ARC(fault));
        if :: INTO_ERROR(fault) -> printf("ERROR") :: else -> printf("SOURCE") fi
    fi
}

/* One process for each target and fault; Spin numbers the processes from 0 in their order here. */
#define FAULT (_pid / STATES)

active [STATES * FAULTS] proctype Set() {
    mtype:state target = 1 + _pid % STATES;
    do
    :: d_step {
        ready && (!FAILS(FAULT)
            || left[PAIR(st, target)] != NO_ROUTE && FAILING_ARC(FAULT) < left[PAIR(st, target)]) ->
        before(); put_set(target, FAULT);
        if :: opened -> set(target, FAULT) :: else -> reply = EBADF fi;
        after()
       }
    od
}

inline close_fd(number) {
    if :: number == 1 -> fd1 = fd2 :: else fi;
    fd2 = FREE;
    reply = OK
}

#define FILE(fd, number) \
    do \
    :: d_step { ready && fd != FREE -> \
        before(); printf("READ %d", number); read(fd); after() } \
    :: d_step { ready && fd != FREE -> \
        before(); printf("WRITE_WHOLE %d", number); write(fd, WHOLE, BAD); after() } \
    :: d_step { ready && fd != FREE -> \
        before(); printf("WRITE_HALF %d", number); write(fd, PART, WHOLE); after() } \
    :: d_step { ready && fd != FREE -> \
        before(); printf("WRITE_JUNK %d", number); write(fd, BAD, BAD); after() } \
    :: d_step { ready && fd != FREE -> \
        before(); printf("PRECOPY_INFO %d => ", number); precopy_info(fd); \
        if :: reply == OK -> printm(data) :: else -> printm(reply) fi; \
        printf(" | "); put_state(); printf("\n") } \
    :: d_step { ready && fd != FREE -> \
        before(); printf("POLL %d", number); poll(fd); after() } \
    :: d_step { ready && fd != FREE -> \
        before(); printf("CLOSE_FD %d", number); close_fd(number); after() } \
    od

active proctype FirstFile() { FILE(fd1, 1) }
active proctype SecondFile() { FILE(fd2, 2) }

/* The device itself. The guest touches it where it may. */
active proctype Device() {
    do
    :: d_step { ready ->
        before(); printf("OPEN"); reply = (opened -> EBUSY : OK); opened = true; after() }
    :: d_step { ready ->
        before(); printf("CLOSE");
        if
        :: opened -> end_session(); st = RUNNING; opened = false; reply = OK
        :: else -> reply = EBADF
        fi;
        after() }
    :: d_step { ready ->
        before(); printf("RESET");
        if :: opened -> reset(); reply = OK :: else -> reply = EBADF fi;
        after() }
    :: d_step { ready ->
        before(); printf("GET => ");
        if :: opened -> printm(st) :: else -> printf("EBADF") fi;
        printf(" | "); put_state(); printf("\n") }
    :: d_step { ready && opened && (st == RUNNING || st == PRE_COPY) ->
        before(); printf("TOUCH");
        registers = TOUCHED;
        if :: data == INITIAL -> data = INITIAL_DIRTY :: data == DRAINED -> data = DIRTY :: else fi;
        reply = OK;
        after() }
    od
}

active proctype Begin() {
    d_step { compute_routes(); ready = true };
    false       /* and nothing more */
}
