// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which calls meet: every three, from every state in which they differ.

use vfio_fsm_core::State;

use crate::locks::call::Call;
use crate::locks::world::{CALLERS, Program};

const fn one(call: Call) -> Program {
    [Some(call), None]
}

const fn two(first: Call, second: Call) -> Program {
    [Some(first), Some(second)]
}

const NOBODY: Program = [None, None];

/// What a thread may be about to do, whatever state the device is in.
const ANYWHERE: &[Program] = &[
    one(Call::Get),
    one(Call::Reset),
    one(Call::HostReset),
    one(Call::Close),
    one(Call::Detach),
    one(Call::Fault),
];

/// What it may besides.
fn only_in(start: State) -> &'static [Program] {
    match start {
        State::PreCopy => {
            &const {
                [
                    // The first of its arcs ends the session.
                    one(Call::Set(State::Stop)),
                    // Its arcs keep it, unless a reset came first: then it opens another.
                    two(Call::Set(State::StopCopy), Call::Read),
                    one(Call::Read),
                    one(Call::Info),
                ]
            }
        }
        State::StopCopy => {
            &const {
                [
                    // Ends a session, and opens another.
                    one(Call::Set(State::Resuming)),
                    one(Call::Read),
                    one(Call::Filled),
                ]
            }
        }
        State::Resuming => {
            &const {
                [
                    // Loads what was written, if it is whole.
                    one(Call::Set(State::Running)),
                    one(Call::Write),
                    two(Call::Write, Call::Set(State::Running)),
                ]
            }
        }
        _ => {
            &const {
                [
                    // Uses what it has opened, dead or alive.
                    two(Call::Set(State::PreCopy), Call::Read),
                    // Three arcs.
                    one(Call::Set(State::StopCopy)),
                ]
            }
        }
    }
}

/// Every two of them, whether the same or not, that can meet, and every three.
pub(crate) fn from(start: State) -> Vec<[Program; CALLERS]> {
    let programs = [ANYWHERE, only_in(start)].concat();
    let mut scenarios = pairs(start);
    for (index, &one) in programs.iter().enumerate() {
        for (other, &two) in programs.iter().enumerate().skip(index) {
            let threes = programs.iter().skip(other).map(|&three| [one, two, three]);
            scenarios.extend(threes.filter(can_meet));
        }
    }
    scenarios
}

/// Every two. What three can do includes it, but two are easier to read about.
pub(crate) fn pairs(start: State) -> Vec<[Program; CALLERS]> {
    let programs = [ANYWHERE, only_in(start)].concat();
    let mut scenarios = Vec::new();
    for (index, &one) in programs.iter().enumerate() {
        let pairs = programs.iter().skip(index).map(|&two| [one, two, NOBODY]);
        scenarios.extend(pairs.filter(can_meet));
    }
    scenarios
}

fn can_meet(programs: &[Program; CALLERS]) -> bool {
    let calls = || programs.iter().flatten().flatten().copied();
    let closes = calls().any(|call| call == Call::Close);
    let once = |call: Call| calls().filter(|&other| other == call).count() == 1;
    let long = programs.iter().filter(|program| program[1].is_some()).count();
    long <= 1
        && calls().all(|call| !(closes && call.is_on_device()) && (!call.is_alone() || once(call)))
}

/// The scenario, to read.
pub(crate) fn describe(start: State, programs: &[Program; CALLERS]) -> String {
    let somebody = programs.iter().filter(|program| **program != NOBODY);
    let calls: Vec<String> = somebody
        .map(|program| {
            let calls: Vec<_> = program.iter().flatten().map(ToString::to_string).collect();
            calls.join(", ")
        })
        .collect();
    format!("the device is in {start}, and there meet: {}", calls.join(" | "))
}
