-- SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
--
-- One VFIO device that migrates and one process that uses it, for Rumur.
--
-- Written from the prose of the uAPI header and of specs/requirements.toml, and from no code: see
-- specs/checked-twice.md for what is modelled and what it is compared with. `put` prints each edge
-- of the graph; `rumur --threads 1` prints them all, each once.

const
  P2P: 1;       -- the flags beside STOP_COPY; specs/check-twice.sh sets them
  PRE_COPY_: 1;

type
  bit: 0..1;
  -- The numbers are those of the uAPI; UNKNOWN is one that it does not define.
  target: enum { ERROR_, STOP, RUNNING, STOP_COPY, RESUMING, RUNNING_P2P, PRE_COPY, PRE_COPY_P2P,
                 UNKNOWN };
  distance: 0..9;
  position: 1..2;
  hop: 0..9;

  -- The session and what is in its stream.
  stream: enum {
    NO_SESSION,
    INITIAL, INITIAL_DIRTY, DIRTY, DRAINED,   -- pre-copy: which of the two kinds of bytes are left
    MORE, ALL_READ,                               -- STOP_COPY: something is left; all was read
    EMPTY, PART, WHOLE, BAD                   -- RESUMING: what was written
  };

  -- Who wrote the device's own registers last: nobody since the reset, the guest, or a load.
  content: enum { BLANK, TOUCHED, LOADED };

  -- An entry of the process' fd table. A data_fd is live while its session is.
  entry: enum { FREE, SAVE_LIVE, SAVE_DEAD, RESUME_LIVE, RESUME_DEAD };

  -- What goes wrong around a SET: the process' fd table is full, a reset arrives inside, or an arc
  -- of the route fails and leaves the device where the arc began or in ERROR.
  fault: enum {
    NONE, FULL, RESET_INSIDE,
    FAIL_0_SOURCE, FAIL_0_ERROR, FAIL_1_SOURCE, FAIL_1_ERROR,
    FAIL_2_SOURCE, FAIL_2_ERROR, FAIL_3_SOURCE, FAIL_3_ERROR
  };

  reply: enum {
    OK, FD, NO_FD,
    EINVAL, EIO, EBADF, EBUSY, EMFILE, ENODEV, ENOTTY,
    BYTES, END_FOR_NOW, END_OF_STREAM,
    READABLE, NOTHING, WRITABLE, HANGUP
  };

var
  opened: boolean;             -- the device is open
  st: target;                  -- device_state
  registers: content;
  data: stream;
  fds: array[position] of entry;  -- in the order of opening

---------------------------------------------------------------------------------------------------
-- States, arcs, routes

function Has(s: target): boolean;
begin
  switch s
    case ERROR_: return false;       -- is there, but cannot be asked for and has no arcs
    case UNKNOWN: return false;
    case RUNNING_P2P: return P2P = 1;
    case PRE_COPY: return PRE_COPY_ = 1;
    case PRE_COPY_P2P: return P2P = 1 & PRE_COPY_ = 1;
    else return true;
  end;
end;

function IsPreCopy(s: target): boolean;
begin
  return s = PRE_COPY | s = PRE_COPY_P2P;
end;

function InGroup(s: target): boolean;
begin
  return IsPreCopy(s) | s = STOP_COPY;
end;

-- The arcs that a driver implements, each as the header describes it.
function IsArc(a: target; b: target): boolean;
begin
  if !Has(a) | !Has(b) then return false; end;
  -- Stopping and starting goes by way of RUNNING_P2P where there is one.
  if (a = RUNNING & b = STOP) | (a = STOP & b = RUNNING) then return P2P = 0; end;
  if (a = RUNNING & b = RUNNING_P2P) | (a = RUNNING_P2P & b = RUNNING) then return true; end;
  if (a = RUNNING_P2P & b = STOP) | (a = STOP & b = RUNNING_P2P) then return true; end;
  -- The two sessions that begin and end in STOP.
  if (a = STOP & b = STOP_COPY) | (a = STOP_COPY & b = STOP) then return true; end;
  if (a = STOP & b = RESUMING) | (a = RESUMING & b = STOP) then return true; end;
  -- Pre-copy is entered and left beside the running state of the same kind.
  if (a = RUNNING & b = PRE_COPY) | (a = PRE_COPY & b = RUNNING) then return true; end;
  if (a = RUNNING_P2P & b = PRE_COPY_P2P) | (a = PRE_COPY_P2P & b = RUNNING_P2P) then
    return true;
  end;
  if (a = PRE_COPY & b = PRE_COPY_P2P) | (a = PRE_COPY_P2P & b = PRE_COPY) then return true; end;
  if a = PRE_COPY_P2P & b = STOP_COPY then return true; end;
  if a = PRE_COPY & b = STOP_COPY then return P2P = 0; end;
  return false;
end;

-- Whether a route between these two may pass through s: through no state of the saving group,
-- unless all of it lies in the group.
function MayPass(a: target; b: target; s: target): boolean;
begin
  return InGroup(s) = (InGroup(a) & InGroup(b));
end;

-- The state after a on the shortest route to b; ERROR_ if there is no route.
function Next(a: target; b: target): target;
var
  far: array[target] of distance;
begin
  -- STOP_COPY cannot be turned back into pre-copy.
  if !Has(a) | !Has(b) | (a = STOP_COPY & IsPreCopy(b)) then return ERROR_; end;
  for s: target do far[s] := 9; end;
  far[b] := 0;
  for round: 1..6 do
    for s: target do
      for n: target do
        if far[n] + 1 < far[s] & (n = b | MayPass(a, b, n)) & IsArc(s, n) then
          far[s] := far[n] + 1;
        end;
      end;
    end;
  end;
  for n: target do
    if far[n] + 1 = far[a] & (n = b | MayPass(a, b, n)) & IsArc(a, n) then return n; end;
  end;
  return ERROR_;
end;

function Routed(a: target; b: target): boolean;
begin
  return Has(a) & (a = b | Next(a, b) != ERROR_);
end;

function Length(a: target; b: target): hop;
var
  at: target; n: hop;
begin
  if !Routed(a, b) then return 0; end;
  at := a;
  n := 0;
  while at != b do
    at := Next(at, b);
    n := n + 1;
  end;
  return n;
end;

function FailingHop(f: fault): hop;
begin
  switch f
    case FAIL_0_SOURCE: return 0;
    case FAIL_0_ERROR: return 0;
    case FAIL_1_SOURCE: return 1;
    case FAIL_1_ERROR: return 1;
    case FAIL_2_SOURCE: return 2;
    case FAIL_2_ERROR: return 2;
    case FAIL_3_SOURCE: return 3;
    case FAIL_3_ERROR: return 3;
    else return 9;
  end;
end;

function IntoError(f: fault): boolean;
begin
  return f = FAIL_0_ERROR | f = FAIL_1_ERROR | f = FAIL_2_ERROR | f = FAIL_3_ERROR;
end;

---------------------------------------------------------------------------------------------------
-- What happens

procedure EndSession();
begin
  data := NO_SESSION;
  for i: position do
    if fds[i] = SAVE_LIVE then fds[i] := SAVE_DEAD; end;
    if fds[i] = RESUME_LIVE then fds[i] := RESUME_DEAD; end;
  end;
end;

procedure Reset();
begin
  EndSession();
  st := RUNNING;
  registers := BLANK;
end;

-- What an arc that succeeds does to the session. Says whether it opened one.
function Take(n: target): boolean;
var
  had: boolean; has: boolean;
begin
  if st = RESUMING then registers := LOADED; end;
  had := InGroup(st) | st = RESUMING;
  has := InGroup(n) | n = RESUMING;
  st := n;
  if has & !had then
    if n = RESUMING then data := EMPTY;
    elsif n = STOP_COPY then data := MORE;
    else data := INITIAL;
    end;
    return true;
  end;
  if had & !has then EndSession(); end;
  -- Behind what pre-copy has left there is the final part.
  if had & n = STOP_COPY then data := MORE; end;
  return false;
end;

-- SET, and what the kernel does with the file that the driver returned.
function Set(to_: target; f: fault): reply;
var
  n: hop; opens: boolean; failed: boolean; r: reply; e: entry;
begin
  if !opened then return EBADF; end;
  opens := false;
  failed := false;
  r := NO_FD;
  if !Routed(st, to_) then
    failed := true;
    r := EINVAL;
  end;
  n := 0;
  while !failed & st != to_ do
    if FailingHop(f) = n then
      failed := true;
      r := EIO;
      if IntoError(f) then
        EndSession();
        st := ERROR_;
      end;
    elsif st = RESUMING & data != WHOLE then
      -- What was written is no stream.
      failed := true;
      r := EINVAL;
    else
      opens := Take(Next(st, to_));
      n := n + 1;
    end;
  end;
  -- The reset waits for whoever moves the device, and is done before the fd is installed.
  e := SAVE_LIVE;
  if st = RESUMING then e := RESUME_LIVE; end;
  if f = RESET_INSIDE then
    Reset();
    if e = SAVE_LIVE then e := SAVE_DEAD; else e := RESUME_DEAD; end;
  end;
  if failed | !opens then return r; end;
  -- The device has moved whether or not there is room.
  if f = FULL | fds[2] != FREE then return EMFILE; end;
  if fds[1] = FREE then fds[1] := e; else fds[2] := e; end;
  return FD;
end;

function Read(i: position): reply;
begin
  if fds[i] = RESUME_LIVE | fds[i] = RESUME_DEAD then return EBADF; end;
  if fds[i] = SAVE_DEAD then return ENODEV; end;
  if data = DRAINED then return END_FOR_NOW; end;
  if data = ALL_READ then return END_OF_STREAM; end;
  -- Everything there is at the moment.
  if st = STOP_COPY then data := ALL_READ; else data := DRAINED; end;
  return BYTES;
end;

-- Write a whole stream, a half of one, or what is none.
function Write(i: position; after_empty: stream; after_part: stream): reply;
begin
  if fds[i] = SAVE_LIVE | fds[i] = SAVE_DEAD then return EBADF; end;
  if fds[i] = RESUME_DEAD then return ENODEV; end;
  if data = EMPTY then data := after_empty;
  elsif data = PART then data := after_part;
  else data := BAD;
  end;
  if data = BAD then return EINVAL; end;
  return OK;
end;

-- What PRECOPY_INFO refuses with; OK if it answers.
function InfoErrno(i: position): reply;
begin
  if fds[i] = RESUME_LIVE | fds[i] = RESUME_DEAD then return ENOTTY; end;
  if !IsPreCopy(st) then return EINVAL; end;
  if fds[i] = SAVE_DEAD then return ENODEV; end;
  return OK;
end;

function Poll(i: position): reply;
begin
  if fds[i] = SAVE_DEAD | fds[i] = RESUME_DEAD then return HANGUP; end;
  if fds[i] = RESUME_LIVE then return WRITABLE; end;
  if data = DRAINED then return NOTHING; end;
  return READABLE;
end;

---------------------------------------------------------------------------------------------------
-- The edges

procedure PutState();
begin
  if opened then put "OPEN "; else put "CLOSED "; end;
  put st; put " "; put registers; put " "; put data; put " "; put fds[1]; put " "; put fds[2];
end;

procedure PutReply(r: reply);
begin
  put " => "; put r; put " | ";
  PutState();
  put "\n";
end;

startstate
begin
  opened := true;
  st := RUNNING;
  registers := BLANK;
  data := NO_SESSION;
  fds[1] := FREE;
  fds[2] := FREE;
end;

rule "OPEN" true ==> var r: reply; begin
  put "EDGE "; PutState(); put " | OPEN";
  if opened then r := EBUSY; else r := OK; end;
  opened := true;
  PutReply(r);
end;

rule "CLOSE" true ==> var r: reply; begin
  put "EDGE "; PutState(); put " | CLOSE";
  if opened then
    EndSession();
    st := RUNNING;
    opened := false;
    r := OK;
  else
    r := EBADF;
  end;
  PutReply(r);
end;

rule "RESET" true ==> var r: reply; begin
  put "EDGE "; PutState(); put " | RESET";
  if opened then
    Reset();
    r := OK;
  else
    r := EBADF;
  end;
  PutReply(r);
end;

rule "GET" true ==> begin
  put "EDGE "; PutState(); put " | GET => ";
  if opened then put st; else put "EBADF"; end;
  put " | "; PutState(); put "\n";
end;

-- The guest uses the device where it may.
rule "TOUCH" opened & (st = RUNNING | st = PRE_COPY) ==> begin
  put "EDGE "; PutState(); put " | TOUCH";
  registers := TOUCHED;
  if data = INITIAL then data := INITIAL_DIRTY; end;
  if data = DRAINED then data := DIRTY; end;
  PutReply(OK);
end;

ruleset to_: target; f: fault do
  rule "SET" FailingHop(f) = 9 | FailingHop(f) < Length(st, to_) ==> var r: reply; begin
    put "EDGE "; PutState(); put " | SET "; put to_; put " "; put f;
    r := Set(to_, f);
    PutReply(r);
  end;
end;

ruleset i: position do
  rule "READ" fds[i] != FREE ==> var r: reply; begin
    put "EDGE "; PutState(); put " | READ "; put i;
    r := Read(i);
    PutReply(r);
  end;

  rule "WRITE_WHOLE" fds[i] != FREE ==> var r: reply; begin
    put "EDGE "; PutState(); put " | WRITE_WHOLE "; put i;
    r := Write(i, WHOLE, BAD);
    PutReply(r);
  end;

  rule "WRITE_HALF" fds[i] != FREE ==> var r: reply; begin
    put "EDGE "; PutState(); put " | WRITE_HALF "; put i;
    r := Write(i, PART, WHOLE);
    PutReply(r);
  end;

  rule "WRITE_JUNK" fds[i] != FREE ==> var r: reply; begin
    put "EDGE "; PutState(); put " | WRITE_JUNK "; put i;
    r := Write(i, BAD, BAD);
    PutReply(r);
  end;

  rule "PRECOPY_INFO" fds[i] != FREE ==> var r: reply; begin
    put "EDGE "; PutState(); put " | PRECOPY_INFO "; put i; put " => ";
    r := InfoErrno(i);
    if r = OK then put data; else put r; end;
    put " | "; PutState(); put "\n";
  end;

  rule "POLL" fds[i] != FREE ==> var r: reply; begin
    put "EDGE "; PutState(); put " | POLL "; put i;
    r := Poll(i);
    PutReply(r);
  end;

  rule "CLOSE_FD" fds[i] != FREE ==> begin
    put "EDGE "; PutState(); put " | CLOSE_FD "; put i;
    if i = 1 then fds[1] := fds[2]; end;
    fds[2] := FREE;
    PutReply(OK);
  end;
end;

---------------------------------------------------------------------------------------------------
-- What should be true of any such device

invariant "a session is there exactly in the states that have one"
  (data != NO_SESSION) = (InGroup(st) | st = RESUMING);

invariant "at most one data_fd is live, and only with a session"
  !(fds[1] = SAVE_LIVE & fds[2] = SAVE_LIVE) & !(fds[1] = RESUME_LIVE & fds[2] = RESUME_LIVE)
  & !(fds[1] = SAVE_LIVE & fds[2] = RESUME_LIVE) & !(fds[1] = RESUME_LIVE & fds[2] = SAVE_LIVE)
  & (data = NO_SESSION -> fds[1] != SAVE_LIVE & fds[1] != RESUME_LIVE
                        & fds[2] != SAVE_LIVE & fds[2] != RESUME_LIVE);

invariant "a closed device is in RUNNING"
  opened | st = RUNNING;
