// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a session costs: its size, and instructions for one step with its answer.
//!
//! `cargo bench -p vfio-fsm-core --bench session_steps` runs itself under valgrind, which counts
//! instructions and so does not care what else the machine does. The device is left out: its
//! replies are ready.

mod callgrind;

use std::hint::black_box;
use std::mem::size_of;
use std::process::ExitCode;

use vfio_fsm_core::vmm::frame::Frame;
use vfio_fsm_core::vmm::{Event, LoadPlan, Loader, Plan, Saver, Step, Wait};
use vfio_fsm_core::{EndOfStream, Op, PrecopyInfo, Reply, State};

use callgrind::instructions;

/// Chunks of one migration.
const CHUNKS: u64 = 1000;

/// Steps of a source that sends so many chunks, all of them in STOP_COPY.
fn save() -> Option<u64> {
    let mut saver = Saver::<i32>::new(Plan::LIVE);
    let (mut steps, mut chunks, mut state) = (0, CHUNKS, State::Running);
    loop {
        steps += 1;
        let reply = match saver.step() {
            Step::Do(op) => match op {
                Op::GetFeatures => Reply::Features(0b111),
                Op::GetState => Reply::State(state.into()),
                Op::SetState { to, .. } => {
                    state = to.known()?;
                    Reply::Fd((state == State::PreCopy).then_some(3))
                }
                Op::PrecopyInfo { .. } => Reply::Info(PrecopyInfo::default()),
                Op::DataSize => Reply::Size(CHUNKS << 18),
                Op::Read { .. } if chunks > 0 => {
                    chunks -= 1;
                    Reply::Bytes(1 << 18)
                }
                Op::Read { .. } => Reply::EndOfStream(EndOfStream::Permanent),
                _ => Reply::Ok,
            },
            Step::Send(frame) => {
                black_box(frame);
                saver.sent().ok()?;
                continue;
            }
            Step::Call(_) => {
                saver.called(true).ok()?;
                continue;
            }
            Step::Wait(_) => {
                saver.event(Event::Switchover).ok()?;
                continue;
            }
            Step::Decide(_) => return None,
            Step::End(verdict) => return verdict.is_complete().then_some(steps),
        };
        saver.reply(black_box(reply)).ok()?;
    }
}

/// Steps of a destination that loads so many chunks.
fn load() -> Option<u64> {
    let mut loader = Loader::<i32>::new(LoadPlan::default());
    let (mut steps, mut chunks, mut state) = (0, CHUNKS, State::Running);
    loop {
        steps += 1;
        let reply = match loader.step() {
            Step::Do(op) => match op {
                Op::GetFeatures => Reply::Features(0b111),
                Op::GetState => Reply::State(state.into()),
                Op::SetState { to, .. } => {
                    state = to.known()?;
                    Reply::Fd((state == State::Resuming).then_some(3))
                }
                Op::Write { bytes, .. } => Reply::Written(bytes.len),
                _ => Reply::Ok,
            },
            Step::Wait(Wait::Frame) => {
                let data = Frame::Data { epoch: 1, len: 1 << 18 };
                let frame = if chunks > 0 { data } else { Frame::End { epoch: 1 } };
                chunks = chunks.saturating_sub(1);
                loader.frame(black_box(frame)).ok()?;
                continue;
            }
            Step::Call(_) => {
                loader.called(true).ok()?;
                continue;
            }
            Step::Wait(_) => {
                loader.event(Event::Run).ok()?;
                continue;
            }
            Step::Send(_) | Step::Decide(_) => return None,
            Step::End(verdict) => return verdict.is_complete().then_some(steps),
        };
        loader.reply(black_box(reply)).ok()?;
    }
}

fn report() -> Result<(), String> {
    println!("size of Saver<i32>   {:>6} bytes", size_of::<Saver<i32>>());
    println!("size of Loader<i32>  {:>6} bytes", size_of::<Loader<i32>>());
    for (what, run) in [("save", save as fn() -> Option<u64>), ("load", load)] {
        let steps = run().ok_or("the session does not come to its end")?;
        // What starting the program costs falls out of the difference.
        let more = instructions(what, 20)?.saturating_sub(instructions(what, 10)?);
        let each = more as f64 / (10 * steps) as f64;
        println!("{what}: {each:>6.1} instructions for a step and its answer, of {steps} steps");
    }
    Ok(())
}

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let rounds = |args: &mut dyn Iterator<Item = String>| args.next()?.parse::<u64>().ok();
    let done = match args.next().as_deref() {
        Some("save") => (0..rounds(&mut args).unwrap_or(1)).all(|_| save().is_some()),
        Some("load") => (0..rounds(&mut args).unwrap_or(1)).all(|_| load().is_some()),
        // cargo gives --bench.
        _ => report().map_err(|error| eprintln!("session_steps: {error}")).is_ok(),
    };
    if done { ExitCode::SUCCESS } else { ExitCode::from(2) }
}
