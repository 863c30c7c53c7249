--------------------------- MODULE VfioMigration ---------------------------
\* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
(*
One VFIO device that migrates and one process that uses it.

Written from the prose of the uAPI header and of specs/requirements.toml, and from
no code: specs/checked-twice.md says what is modelled, how to run it, and what it
is compared with. The R- and C-numbers are the ids of specs/requirements.toml.

A state is a record `dev`; `Do(dev, op)` is what an operation makes of it and what
it replies. The reply is no part of the state: TLC's "states generated" less one
(the start) is then the number of edges, and "distinct states" that of states.
*)
EXTENDS Naturals, Sequences

CONSTANTS
    P2P,        \* the flags beside STOP_COPY: TRUE or FALSE
    PRECOPY

VARIABLE dev

(***************************************************************************)
(* States, arcs and routes                                                 *)
(***************************************************************************)

\* Those that can be asked for (R2, R4, R13). ERROR is there, too, and has no arcs.
States == {"STOP", "RUNNING", "STOP_COPY", "RESUMING"}
    \cup (IF P2P THEN {"RUNNING_P2P"} ELSE {})
    \cup (IF PRECOPY THEN {"PRE_COPY"} ELSE {})
    \cup (IF P2P /\ PRECOPY THEN {"PRE_COPY_P2P"} ELSE {})

\* What a user can ask for, right or wrong. UNKNOWN is a number without a meaning.
Targets == {"ERROR", "STOP", "RUNNING", "STOP_COPY", "RESUMING", "RUNNING_P2P",
            "PRE_COPY", "PRE_COPY_P2P", "UNKNOWN"}

IsPreCopy(s) == s \in {"PRE_COPY", "PRE_COPY_P2P"}
InGroup(s) == IsPreCopy(s) \/ s = "STOP_COPY"
HasSession(s) == InGroup(s) \/ s = "RESUMING"

\* The arcs that a driver implements. Stopping and starting goes by way of
\* RUNNING_P2P where there is one; pre-copy is entered and left beside the running
\* state of the same kind.
BothWays == {<<"RUNNING", "RUNNING_P2P">>, <<"RUNNING_P2P", "STOP">>,
             <<"STOP", "STOP_COPY">>, <<"STOP", "RESUMING">>,
             <<"RUNNING", "PRE_COPY">>, <<"RUNNING_P2P", "PRE_COPY_P2P">>,
             <<"PRE_COPY", "PRE_COPY_P2P">>}
    \cup (IF P2P THEN {} ELSE {<<"RUNNING", "STOP">>})

OneWay == {<<"PRE_COPY_P2P", "STOP_COPY">>}
    \cup (IF P2P THEN {} ELSE {<<"PRE_COPY", "STOP_COPY">>})

IsArc(x, y) ==
    /\ x \in States
    /\ y \in States
    /\ \/ <<x, y>> \in BothWays
       \/ <<y, x>> \in BothWays
       \/ <<x, y>> \in OneWay

\* A route from a to b may go through n on its way unless n is in the saving group;
\* it may if all of the route lies in the group (R17).
MayPass(a, b, n) == n = b \/ InGroup(n) = (InGroup(a) /\ InGroup(b))

\* x is at most k arcs away from b, on routes for a to b.
RECURSIVE Within(_, _, _, _)
Within(x, a, b, k) ==
    \/ x = b
    \/ /\ k > 0
       /\ \E n \in States : IsArc(x, n) /\ MayPass(a, b, n) /\ Within(n, a, b, k - 1)

\* STOP_COPY cannot be turned back into pre-copy (R16).
IsRouted(a, b) ==
    /\ a \in States
    /\ b \in States
    /\ ~(a = "STOP_COPY" /\ IsPreCopy(b))
    /\ Within(a, a, b, 5)

Far(x, a, b) ==
    CHOOSE k \in 0..5 : Within(x, a, b, k) /\ \A j \in 0..5 : j < k => ~Within(x, a, b, j)

\* The states on the shortest way from x to b, for a route from a to b.
RECURSIVE Way(_, _, _)
Way(x, a, b) ==
    IF x = b THEN <<>>
    ELSE LET n == CHOOSE m \in States :
                    /\ IsArc(x, m)
                    /\ MayPass(a, b, m)
                    /\ Within(m, a, b, Far(x, a, b) - 1)
         IN <<n>> \o Way(n, a, b)

Routed == {p \in States \X States : IsRouted(p[1], p[2])}
Routes == [p \in Routed |-> Way(p[1], p[1], p[2])]

(***************************************************************************)
(* What there is                                                           *)
(***************************************************************************)

Contents == {"BLANK", "TOUCHED", "LOADED"}  \* who wrote the registers last

Streams == {"NO_SESSION",
            "INITIAL", "INITIAL_DIRTY", "DIRTY", "DRAINED",  \* pre-copy: what is left
            "MORE", "ALL_READ",                              \* STOP_COPY
            "EMPTY", "PART", "WHOLE", "BAD"}                 \* RESUMING: what was written

\* An open data_fd. It is live while its session is.
Entries == {"SAVE_LIVE", "SAVE_DEAD", "RESUME_LIVE", "RESUME_DEAD"}

\* The process has room for two data_fds, which stand in the order of opening.
Room == 2

TypeOK ==
    /\ dev.opened \in BOOLEAN
    /\ dev.st \in States \cup {"ERROR"}
    /\ dev.registers \in Contents
    /\ dev.data \in Streams
    /\ Len(dev.fds) <= Room
    /\ \A i \in 1..Len(dev.fds) : dev.fds[i] \in Entries

Init == dev = [opened |-> TRUE, st |-> "RUNNING", registers |-> "BLANK",
               data |-> "NO_SESSION", fds |-> <<>>]

(***************************************************************************)
(* What happens                                                            *)
(***************************************************************************)

Killed(entry) ==
    CASE entry = "SAVE_LIVE" -> "SAVE_DEAD"
      [] entry = "RESUME_LIVE" -> "RESUME_DEAD"
      [] OTHER -> entry

\* The session is over, and with it its data_fd (R26, R30).
Ended(d) == [d EXCEPT !.data = "NO_SESSION",
                      !.fds = [i \in 1..Len(d.fds) |-> Killed(d.fds[i])]]

\* A reset: RUNNING, no session, blank (R14, R50).
Reset(d) == [Ended(d) EXCEPT !.st = "RUNNING", !.registers = "BLANK"]

\* An arc to n that succeeds, and what it does to the session (R24 to R27, R29).
Moved(d, n) ==
    LET m == [d EXCEPT !.st = n,
                       !.registers = IF d.st = "RESUMING" THEN "LOADED" ELSE @]
    IN CASE HasSession(n) /\ ~HasSession(d.st) ->
              [m EXCEPT !.data = IF n = "RESUMING" THEN "EMPTY"
                                 ELSE IF n = "STOP_COPY" THEN "MORE" ELSE "INITIAL"]
         [] HasSession(d.st) /\ ~HasSession(n) -> Ended(m)
            \* Behind what pre-copy has left there is the final part.
         [] n = "STOP_COPY" -> [m EXCEPT !.data = "MORE"]
         [] OTHER -> m

\* The rest of a route: the device, the reply, and whether a session was opened last.
\* `fault` says which arc fails (`hop`, counted from 0), and into what.
RECURSIVE Walk(_, _, _, _)
Walk(d, route, at, fault) ==
    IF at = Len(route) THEN
        [d |-> d, r |-> "NO_FD", opens |-> FALSE]
    ELSE IF fault.kind \in {"SOURCE", "ERROR"} /\ fault.hop = at THEN
        [d |-> IF fault.kind = "ERROR" THEN [Ended(d) EXCEPT !.st = "ERROR"] ELSE d,
         r |-> "EIO", opens |-> FALSE]                               \* R8, R13
    ELSE IF d.st = "RESUMING" /\ d.data /= "WHOLE" THEN
        [d |-> d, r |-> "EINVAL", opens |-> FALSE]                   \* R29
    ELSE LET n == route[at + 1]
             last == Walk(Moved(d, n), route, at + 1, fault)
         IN IF at + 1 = Len(route)
            THEN [last EXCEPT !.opens = HasSession(n) /\ ~HasSession(d.st)]
            ELSE last

\* SET, and what the kernel does with the file that the driver returned.
Set(d, to, fault) ==
    LET walked == IF <<d.st, to>> \in Routed
                  THEN Walk(d, Routes[<<d.st, to>>], 0, fault)
                  ELSE [d |-> d, r |-> "EINVAL", opens |-> FALSE]    \* R4, R13, R16
        live == IF walked.d.st = "RESUMING" THEN "RESUME_LIVE" ELSE "SAVE_LIVE"
        \* A reset inside is done before the fd is installed, which is dead then (O4).
        inside == fault.kind = "RESET_INSIDE"
        after == IF inside THEN Reset(walked.d) ELSE walked.d
        entry == IF inside THEN Killed(live) ELSE live
    IN IF ~walked.opens THEN [d |-> after, r |-> walked.r]
       \* The device has moved whether or not there is room (C2).
       ELSE IF fault.kind = "FULL" \/ Len(after.fds) = Room THEN [d |-> after, r |-> "EMFILE"]
       ELSE [d |-> [after EXCEPT !.fds = Append(@, entry)], r |-> "FD"]

IsSave(entry) == entry \in {"SAVE_LIVE", "SAVE_DEAD"}

\* Everything there is at the moment (R31, R32).
Read(d, i) ==
    IF ~IsSave(d.fds[i]) THEN [d |-> d, r |-> "EBADF"]
    ELSE IF d.fds[i] = "SAVE_DEAD" THEN [d |-> d, r |-> "ENODEV"]
    ELSE IF d.data = "DRAINED" THEN [d |-> d, r |-> "END_FOR_NOW"]
    ELSE IF d.data = "ALL_READ" THEN [d |-> d, r |-> "END_OF_STREAM"]
    ELSE [d |-> [d EXCEPT !.data = IF d.st = "STOP_COPY" THEN "ALL_READ" ELSE "DRAINED"],
          r |-> "BYTES"]

\* Write a whole stream, a half of one, or what is none (R28, R29).
Write(d, i, after_empty, after_part) ==
    LET after == CASE d.data = "EMPTY" -> after_empty
                   [] d.data = "PART" -> after_part
                   [] OTHER -> "BAD"
    IN IF IsSave(d.fds[i]) THEN [d |-> d, r |-> "EBADF"]
       ELSE IF d.fds[i] = "RESUME_DEAD" THEN [d |-> d, r |-> "ENODEV"]
       ELSE [d |-> [d EXCEPT !.data = after], r |-> IF after = "BAD" THEN "EINVAL" ELSE "OK"]

PrecopyInfo(d, i) ==                                                 \* R33
    IF ~IsSave(d.fds[i]) THEN "ENOTTY"
    ELSE IF ~IsPreCopy(d.st) THEN "EINVAL"
    ELSE IF d.fds[i] = "SAVE_DEAD" THEN "ENODEV"
    ELSE d.data

Poll(d, i) ==
    CASE d.fds[i] \in {"SAVE_DEAD", "RESUME_DEAD"} -> "HANGUP"
      [] d.fds[i] = "RESUME_LIVE" -> "WRITABLE"
      [] d.data = "DRAINED" -> "NOTHING"
      [] OTHER -> "READABLE"

Touch(d) ==
    [d EXCEPT !.registers = "TOUCHED",
              !.data = CASE @ = "INITIAL" -> "INITIAL_DIRTY"
                         [] @ = "DRAINED" -> "DIRTY"
                         [] OTHER -> @]

\* What an operation makes of a device, and the reply. A closed device has no ioctls.
Do(d, op) ==
    CASE op.name = "OPEN" ->
            [d |-> [d EXCEPT !.opened = TRUE], r |-> IF d.opened THEN "EBUSY" ELSE "OK"]
      [] op.name = "READ" -> Read(d, op.i)
      [] op.name = "WRITE_WHOLE" -> Write(d, op.i, "WHOLE", "BAD")
      [] op.name = "WRITE_HALF" -> Write(d, op.i, "PART", "WHOLE")
      [] op.name = "WRITE_JUNK" -> Write(d, op.i, "BAD", "BAD")
      [] op.name = "PRECOPY_INFO" -> [d |-> d, r |-> PrecopyInfo(d, op.i)]
      [] op.name = "POLL" -> [d |-> d, r |-> Poll(d, op.i)]
      [] op.name = "CLOSE_FD" ->
            [d |-> [d EXCEPT !.fds = SubSeq(@, 1, op.i - 1) \o SubSeq(@, op.i + 1, Len(@))],
             r |-> "OK"]
      [] op.name = "TOUCH" -> [d |-> Touch(d), r |-> "OK"]
      [] ~d.opened /\ op.name \in {"CLOSE", "RESET", "GET", "SET"} -> [d |-> d, r |-> "EBADF"]
      [] d.opened /\ op.name = "CLOSE" ->                            \* C26
            [d |-> [Ended(d) EXCEPT !.st = "RUNNING", !.opened = FALSE], r |-> "OK"]
      [] d.opened /\ op.name = "RESET" -> [d |-> Reset(d), r |-> "OK"]
      [] d.opened /\ op.name = "GET" -> [d |-> d, r |-> d.st]
      [] d.opened /\ op.name = "SET" -> Set(d, op.to, op.fault)

(***************************************************************************)
(* What can happen                                                         *)
(***************************************************************************)

\* Without fault, with no room for an fd, with a reset inside, or with one arc of the
\* route failing.
Faults(d, to) ==
    {[kind |-> k, hop |-> 0] : k \in {"NONE", "FULL", "RESET_INSIDE"}}
    \cup IF <<d.st, to>> \in Routed
         THEN {[kind |-> k, hop |-> h - 1] :
                k \in {"SOURCE", "ERROR"}, h \in 1..Len(Routes[<<d.st, to>>])}
         ELSE {}

FdOps == {"READ", "WRITE_WHOLE", "WRITE_HALF", "WRITE_JUNK", "PRECOPY_INFO", "POLL", "CLOSE_FD"}

Next ==
    \/ \E name \in {"OPEN", "CLOSE", "RESET", "GET"} : dev' = Do(dev, [name |-> name]).d
       \* The guest touches the device where it may (R22).
    \/ dev.opened /\ dev.st \in {"RUNNING", "PRE_COPY"} /\ dev' = Do(dev, [name |-> "TOUCH"]).d
    \/ \E to \in Targets : \E fault \in Faults(dev, to) :
          dev' = Do(dev, [name |-> "SET", to |-> to, fault |-> fault]).d
    \/ \E i \in 1..Len(dev.fds) : \E name \in FdOps :
          dev' = Do(dev, [name |-> name, i |-> i]).d

Spec == Init /\ [][Next]_dev

(***************************************************************************)
(* What should be true of any such device                                  *)
(***************************************************************************)

\* A session is there exactly in the states that have one (R24 to R27).
SessionIffState == (dev.data /= "NO_SESSION") = HasSession(dev.st)

\* At most one data_fd is live, and only with a session (C13, C14).
OneLive ==
    LET live == {i \in 1..Len(dev.fds) : dev.fds[i] /= Killed(dev.fds[i])}
    IN /\ \A i \in live : \A j \in live : i = j
       /\ live /= {} => dev.data /= "NO_SESSION"

\* A closed device is in RUNNING (C26).
ClosedIsRunning == dev.opened \/ dev.st = "RUNNING"

\* Reset brings it to RUNNING from everywhere, and kills every data_fd (R14, R15, R30).
ResetHelps ==
    dev.opened =>
        LET after == Do(dev, [name |-> "RESET"]).d
        IN after.st = "RUNNING" /\ \A i \in 1..Len(after.fds) : Poll(after, i) = "HANGUP"

\* A SET that is refused changes nothing (C7).
RefusalChangesNothing ==
    dev.opened => \A to \in Targets : <<dev.st, to>> \notin Routed =>
        Do(dev, [name |-> "SET", to |-> to, fault |-> [kind |-> "NONE", hop |-> 0]])
            = [d |-> dev, r |-> "EINVAL"]
=============================================================================
