// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which requirements a step is evidence for, by what it does and what must come of it. So a trace
//! names what it really asks, and nothing else.

use vfio_fsm_core::{
    Direction, EndOfStream, Errno, Fault, Leaves, Op, RawState, Reply, Route, State, Why,
};

use crate::trace::Data;

/// What is known before a step.
pub(super) struct Before {
    /// Where the device is.
    pub(super) state: State,
    /// The flags of the device.
    pub(super) features: vfio_fsm_core::Features,
    /// The op before this one, on the same device.
    pub(super) previous: Option<Op<Data>>,
    /// The data_fd of the op: which way it goes, and whether its session is alive.
    pub(super) fd: Option<(Direction, bool)>,
}

/// The requirements.
pub(super) fn of(before: &Before, op: &Op<Data>, reply: &Reply<usize>) -> &'static [&'static str] {
    let dead = before.fd.is_some_and(|(_, alive)| !alive);
    match (op, reply) {
        (Op::SetState { to, fault: None }, reply) => of_set(before, *to, reply),
        (Op::SetState { fault: Some(Fault::FdTableFull), .. }, Reply::Errno(Errno::EMFILE)) => {
            &["C2"]
        }
        (Op::SetState { fault: Some(Fault::ResetInside), .. }, _) => &["O4", "C29", "C32"],
        (Op::SetState { fault: Some(Fault::ArcFails { leaves, .. }), .. }, Reply::Errno(_)) => {
            match leaves {
                Leaves::Source => &["R8", "C9"],
                Leaves::Error => &["R8", "R13", "C9"],
            }
        }
        (Op::GetState, _) => match before.previous {
            Some(Op::Reset) => &["R12", "R14", "C15", "C34"],
            Some(Op::Open) => &["R12", "C26"],
            _ => &["R12"],
        },
        (Op::Reset, _) if before.state == State::Resuming => &["R15"],
        (Op::GetFeatures, _) => &["R1"],
        (Op::DataSize, _) => &["R39"],
        (Op::FdFlags { .. }, Reply::FdFlags(_)) => &["C4"],
        (Op::Seek { .. } | Op::Pread { .. }, Reply::Errno(Errno::ESPIPE)) => &["C22"],
        (Op::PrecopyInfo { .. }, reply) => match reply {
            Reply::Info(_) => &["R34"],
            Reply::Errno(Errno::ENOTTY) => &["C24"],
            Reply::Errno(Errno::EINVAL) if dead => &["R33", "C19"],
            Reply::Errno(Errno::EINVAL) => &["R33"],
            _ => &["C19"],
        },
        (Op::Poll { .. }, _) if dead => &["C17"],
        (Op::Poll { .. }, _) if before.state == State::StopCopy => &["R31"],
        (_, Reply::Errno(Errno::ENODEV)) => &["R30", "C16"],
        (_, Reply::Errno(Errno::EBADF)) if before.fd.is_some() => &["C23"],
        (_, Reply::EndOfStream(EndOfStream::Permanent)) => &["R31"],
        (_, Reply::EndOfStream(EndOfStream::Temporary)) => &["R32"],
        _ => &[],
    }
}

fn of_set(before: &Before, to: RawState, reply: &Reply<usize>) -> &'static [&'static str] {
    let Some(asked) = to.known() else { return &["C6", "C7"] };
    let route = match Route::new(before.features, before.state, asked) {
        Ok(route) => route,
        Err(refused) => {
            return match refused.why() {
                Why::Blocked => &["R16", "C7", "C10"],
                Why::InError => &["R14", "C8"],
                Why::ErrorAsked => &["R13", "C6", "C7"],
                _ => &["R4", "R5", "C6", "C7"],
            };
        }
    };
    match (reply, route.opens(), before.state.session(), asked.session()) {
        (Reply::Errno(_), ..) => &["R29"],
        _ if route.is_empty() => &["C5"],
        (_, Some(Direction::Saving), ..) => &["R6", "R9", "R24"],
        (_, Some(Direction::Resuming), ..) => &["R6", "R9", "R27"],
        (_, None, Some(_), Some(_)) => &["R6", "R25"],
        (_, None, Some(Direction::Resuming), None) => &["R6", "R29"],
        (_, None, Some(_), None) => &["R6", "R26"],
        _ => &["R6"],
    }
}
