------------------------- MODULE VfioMigrationEdges -------------------------
\* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
(*
The same, and each edge is printed: for TLC with one worker. What it prints is what
`vfio-conform graph --edges` writes, after the quoting that specs/checked-twice.md
takes off.
*)
EXTENDS VfioMigration, TLC

Entry(d, i) == IF i <= Len(d.fds) THEN d.fds[i] ELSE "FREE"

Shown(d) == <<IF d.opened THEN "OPEN" ELSE "CLOSED", d.st, d.registers, d.data,
              Entry(d, 1), Entry(d, 2)>>

Edge(op, words) ==
    LET done == Do(dev, op)
    IN /\ dev' = done.d
       /\ PrintT(<<"EDGE">> \o Shown(dev) \o <<"|">> \o words \o <<"=>", done.r, "|">>
                 \o Shown(done.d))

FaultWords(fault) ==
    IF fault.kind \in {"SOURCE", "ERROR"} THEN <<"FAIL", fault.hop, fault.kind>>
    ELSE <<fault.kind>>

NextPrinted ==
    \/ \E name \in {"OPEN", "CLOSE", "RESET", "GET"} : Edge([name |-> name], <<name>>)
    \/ dev.opened /\ dev.st \in {"RUNNING", "PRE_COPY"} /\ Edge([name |-> "TOUCH"], <<"TOUCH">>)
    \/ \E to \in Targets : \E fault \in Faults(dev, to) :
          Edge([name |-> "SET", to |-> to, fault |-> fault], <<"SET", to>> \o FaultWords(fault))
    \/ \E i \in 1..Len(dev.fds) : \E name \in FdOps :
          Edge([name |-> name, i |-> i], <<name, i>>)
=============================================================================
