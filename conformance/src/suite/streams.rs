// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What goes through the data_fd: any pieces, both ends of the stream, round trips from a source to
//! a destination and once more, and streams that are not whole.

use vfio_fsm_core::{Fd, Features, Op, State};

use crate::suite::Suite;
use crate::suite::script::{READ, Script};
use crate::trace::{Amount, Data, Expect, Trace};

const ROUND_TRIP: &[&str] = &["R11", "C21", "T5"];

pub(super) fn generate(features: Features) -> Vec<Trace> {
    let mut traces = Vec::new();
    for read in [1, 7, 64, READ] {
        for chunk in [1, 7, 64, READ] {
            traces.push(round_trips(features, read, chunk));
        }
    }
    traces.push(ends(features));
    traces.push(after_reset(features));
    if features.pre_copy() {
        traces.push(dirty_in_pre_copy(features));
    }
    for (name, damage) in damages() {
        traces.push(damaged(features, name, damage, Expect::Failure));
    }
    // A device may refuse what is too much, or it may have had all it needs.
    let too_long = vec![Data::slot(0), Data::Fill { byte: 0xa5, len: 64 }];
    let either = Expect::AnyOf(vec![Expect::NoFd, Expect::Failure]);
    traces.push(damaged(features, "too-long", too_long, either));
    traces
}

/// The pieces of a stream that is not whole; each is written by a write of its own.
fn damages() -> Vec<(&'static str, Vec<Data>)> {
    let slot = |part, of, drop, add| Data::Slot { slot: 0, part, of, drop, add };
    vec![
        ("nothing", vec![]),
        ("one-byte-short", vec![slot(0, 1, 1, 0)]),
        ("first-half", vec![slot(0, 2, 0, 0)]),
        ("second-half", vec![slot(1, 2, 0, 0)]),
        ("halves-swapped", vec![slot(1, 2, 0, 0), slot(0, 2, 0, 0)]),
        ("shifted", vec![slot(0, 1, 0, 1)]),
        ("zeros", vec![Data::Fill { byte: 0, len: 64 }]),
        ("garbage", vec![Data::Fill { byte: 0xa5, len: 4096 }]),
    ]
}

/// Save (through PRE_COPY where there is one), load, save again: twice over, the second time with
/// another state.
fn round_trips(features: Features, read: u32, chunk: u32) -> Trace {
    let name = format!("round-trip-read-{read}-write-{chunk}");
    let mut script = Script::new(Suite::Streams, features, &name, ROUND_TRIP);
    for value in [0x5a, 0xa5] {
        script.on(1).op(Op::Touch(0x33)).on(0).op(Op::Touch(value));
        let parts: &[u8] = if features.pre_copy() { &[1, 2] } else { &[0] };
        if features.pre_copy() {
            save_in_two(&mut script, read);
        }
        save(&mut script, read);
        script.on(1).set(State::Resuming);
        if let Some(fd) = script.last_fd() {
            for &part in parts {
                script.write_in(fd, Data::slot(part), chunk);
            }
            script.set(State::Running).get().op(Op::CloseFd { fd });
        }
        compare(&mut script);
    }
    script.finish()
}

/// The whole state of device 0, read in PRE_COPY into slot 1 and in STOP_COPY into slot 2.
fn save_in_two(script: &mut Script, read: u32) {
    script.set(State::PreCopy);
    if let Some(fd) = script.last_fd() {
        script.drain(fd, read, 1).set(State::StopCopy).drain(fd, read, 2);
        script.set(State::Stop).op(Op::CloseFd { fd });
    }
}

/// The whole state of device 0 into slot 0, from STOP_COPY alone.
fn save(script: &mut Script, read: u32) {
    script.set(State::StopCopy);
    if let Some(fd) = script.last_fd() {
        script.drain(fd, read, 0).set(State::Running).op(Op::CloseFd { fd });
    }
}

/// Device 1 says of itself what device 0 said.
fn compare(script: &mut Script) {
    script.on(1).set(State::StopCopy);
    if let Some(fd) = script.last_fd() {
        script.drain_same(fd, 0).set(State::Running).op(Op::CloseFd { fd });
    }
}

/// The end of the stream stays the end.
fn ends(features: Features) -> Trace {
    let mut script = Script::new(Suite::Streams, features, "ends", &[]);
    let fd = Fd(1);
    let again = |script: &mut Script| {
        script.op(Op::Read { fd, len: READ }).op(Op::UringRead { fd, len: READ });
        script.op(Op::Poll { fd }).op(Op::PrecopyInfo { fd });
    };
    if features.pre_copy() {
        script.set(State::PreCopy).drain(fd, READ, 0);
        again(&mut script);
    }
    script.set(State::StopCopy).drain(fd, READ, 0);
    again(&mut script);
    script.set(State::Stop).op(Op::Read { fd, len: READ }).get();
    script.finish()
}

/// What the guest changes while the first copy is read comes through the same data_fd, and arrives.
fn dirty_in_pre_copy(features: Features) -> Trace {
    let covers = ["R11", "R23", "R32", "R36"];
    let mut script = Script::new(Suite::Streams, features, "dirty-in-pre-copy", &covers);
    script.op(Op::Touch(0x11)).set(State::PreCopy);
    let fd = Fd(1);
    script.drain(fd, READ, 1).op(Op::Touch(0x22));
    let dirty = Expect::Info { initial: Amount::Any, dirty: Amount::Some };
    script.expect(Op::PrecopyInfo { fd }, dirty).op(Op::Poll { fd }).drain(fd, READ, 2);
    script.op(Op::PrecopyInfo { fd }).op(Op::Touch(0x33));
    script.set(State::StopCopy).drain(fd, READ, 3).set(State::Running).op(Op::CloseFd { fd });
    save(&mut script, READ);
    script.on(1).set(State::Resuming);
    if let Some(fd) = script.last_fd() {
        script.write(fd, Data::slot(1)).write(fd, Data::slot(2)).write(fd, Data::slot(3));
        script.set(State::Running).op(Op::CloseFd { fd });
    }
    compare(&mut script);
    script.finish()
}

/// The state of a device straight after a reset is a state like any other (B16).
fn after_reset(features: Features) -> Trace {
    let mut script = Script::new(Suite::Streams, features, "after-reset", ROUND_TRIP);
    script.on(1).op(Op::Touch(0x33)).on(0).op(Op::Touch(0x5a)).op(Op::Reset);
    save(&mut script, READ);
    script.on(1).set(State::Resuming);
    if let Some(fd) = script.last_fd() {
        script.write(fd, Data::slot(0)).set(State::Running).op(Op::CloseFd { fd });
    }
    compare(&mut script);
    script.finish()
}

/// A stream that is not whole: some write may fail, RESUMING to STOP must (R29).
fn damaged(features: Features, name: &str, damage: Vec<Data>, loaded: Expect) -> Trace {
    let covers = ["R29", "C20", "C21"];
    let name = format!("damaged-{name}");
    let mut script = Script::new(Suite::Streams, features, &name, &covers);
    // What the destination says of itself when it is fresh.
    script.on(1).set(State::StopCopy);
    if let Some(fd) = script.last_fd() {
        script.drain(fd, READ, 3).set(State::Running).op(Op::CloseFd { fd });
    }
    script.on(0).op(Op::Touch(0x5a));
    save(&mut script, READ);
    script.on(1).set(State::Resuming);
    if let Some(fd) = script.last_fd() {
        for bytes in damage {
            let either = Expect::AnyOf(vec![Expect::Written, Expect::Failure]);
            script.expect(Op::Write { fd, bytes }, either);
        }
        let must_fail = loaded == Expect::Failure;
        script.expect(Op::set(State::Stop), loaded);
        if must_fail {
            script.get();
        }
        script.op(Op::Reset).get().op(Op::CloseFd { fd });
    }
    // Nothing of it was loaded, or else the reset has wiped it out.
    script.set(State::StopCopy);
    if let Some(fd) = script.last_fd() {
        script.drain_same(fd, 3).set(State::Running).op(Op::CloseFd { fd });
    }
    // And after the reset a good stream is as good as ever.
    script.set(State::Resuming);
    if let Some(fd) = script.last_fd() {
        script.write(fd, Data::slot(0)).set(State::Running).get();
    }
    compare(&mut script);
    script.finish()
}
