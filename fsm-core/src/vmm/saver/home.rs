// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The way home: closing what is of no more use, going back to where the device was, and the reset
//! that is the last resort.

use super::{Course, Next, Phase, Saver};
use crate::op::{Errno, Reply};
use crate::state::{RawState, State};
use crate::vmm::Evidence;
use crate::vmm::frame::Frame;
use crate::vmm::step::{Cause, Guest, Hook, Verdict};

impl<F> Saver<F> {
    pub(super) fn close(&mut self, next: Next) {
        if self.held.to_close().is_some() {
            self.phase = Phase::Close(next);
            return;
        }
        match next {
            Next::AfterDiscard if self.course == Course::Restart => self.homeward(),
            Next::AfterDiscard => self.stop(),
            Next::End => self.phase = Phase::Send(Frame::End { epoch: self.epoch }),
            Next::LeaveHome if self.frozen => self.phase = Phase::Call(Hook::Thaw),
            Next::LeaveHome => self.left_home(),
            Next::Over(verdict) => self.phase = Phase::Over(verdict),
        }
    }

    pub(super) fn abort(&mut self, cause: Cause) {
        self.in_sight = 0;
        self.course = Course::Abort(cause);
        self.phase = Phase::Locate { again: false };
    }

    pub(super) fn locate(&mut self, again: bool, reply: Reply<u32, F>) {
        let believed = self.held.at;
        match self.held.get(reply) {
            Ok(state) => {
                let seen = believed.and_then(|believed| Evidence::of_state(believed, state));
                if let Some(evidence) = seen {
                    self.note_reset(evidence);
                }
                self.homeward();
            }
            // A SET from nobody knows where is no way out: in ERROR it makes kernels complain.
            Err(_) if again => self.phase = Phase::LastResort,
            Err(_) => self.phase = Phase::Locate { again: true },
        }
    }

    /// Towards where the device was, one step; also from a state that only a later kernel knows.
    pub(super) fn homeward(&mut self) {
        match self.held.at {
            Some(at) if at.is(self.home()) => {
                self.held.end_session();
                self.close(Next::LeaveHome);
            }
            Some(State::Error) => self.phase = Phase::LastResort,
            Some(State::RunningP2p) if self.in_two_phases() => {
                self.phase = Phase::Call(Hook::Startable);
            }
            Some(_) if self.in_two_phases() => self.set(State::RunningP2p),
            _ => self.set(self.home()),
        }
    }

    pub(super) fn thawed(&mut self) {
        (self.frozen, self.quiesced) = (false, false);
        self.left_home();
    }

    fn left_home(&mut self) {
        match self.course {
            Course::Save | Course::Restart => {
                self.course = Course::Save;
                self.set(State::PreCopy);
            }
            Course::Back => self.phase = Phase::Over(Verdict::Complete { guest: self.guest }),
            Course::Abort(cause) => self.over(cause),
        }
    }

    pub(super) fn over(&mut self, cause: Cause) {
        self.phase = Phase::Over(Verdict::Aborted { cause, guest: self.guest });
    }

    pub(super) fn last_look(&mut self, reply: Reply<u32, F>) {
        match self.held.get(reply) {
            Ok(state) if state == self.home().into() => self.homeward(),
            // Once is enough: what fails behind a reset, too, will fail again.
            Ok(state) if self.guest == Guest::LostByUs => self.stuck(Some(state), None),
            Ok(_) | Err(_) => self.phase = Phase::LastResort,
        }
    }

    pub(super) fn have_reset(&mut self, reply: &Reply<u32, F>) {
        let at = self.held.at.map(RawState::from);
        match *reply {
            Reply::Ok => {
                self.guest = Guest::LostByUs;
                self.held.reset();
                self.phase = Phase::Revived;
            }
            Reply::Errno(errno) => self.stuck(at, Some(errno)),
            _ => self.stuck(at, None),
        }
    }

    pub(super) fn revived(&mut self, reply: Reply<u32, F>) {
        match self.held.get(reply) {
            Ok(state) if state == State::Running.into() => self.homeward(),
            Ok(state) => self.stuck(Some(state), None),
            Err(Cause::Get { errno }) => self.stuck(None, Some(errno)),
            Err(_) => self.stuck(None, None),
        }
    }

    fn stuck(&mut self, at: Option<RawState>, errno: Option<Errno>) {
        let cause = if let Course::Abort(cause) = self.course { cause } else { Cause::Cancelled };
        // The session has touched it last: what is wrong with it now is its doing.
        let guest = Guest::LostByUs;
        self.held.end_session();
        self.close(Next::Over(Verdict::Stuck { cause, at, errno, guest }));
    }
}
