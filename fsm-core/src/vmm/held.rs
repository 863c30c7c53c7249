// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a session knows of its device, and the data_fds that it holds.

use crate::arc::Route;
use crate::op::Reply;
use crate::state::{Features, RawState, State};
use crate::vmm::Cause;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Held<F> {
    pub(super) features: Features,
    /// Where the device is believed to be; `None` behind an error, until GET tells, and in a state
    /// that only a later kernel knows.
    pub(super) at: Option<State>,
    fd: Option<F>,
    /// Whether the session of `fd` is believed to go on. No op but close is on one that does not.
    live: bool,
    /// A data_fd that another has taken the place of.
    old: Option<F>,
}

/// What a SET came to.
pub(super) enum Moved {
    /// A new session, as there should be: what its data_fd answers will tell whether it lives.
    Opened,
    /// No session was to begin and none did. Whether the device is there, only GET tells.
    Check,
    /// A session began where one was to go on, or none to be.
    Unexpected,
    Failed(Cause),
}

impl<F> Held<F> {
    pub(super) const fn new() -> Self {
        Self { features: Features::STOP_COPY, at: None, fd: None, live: false, old: None }
    }

    /// The route of a SET, from where the device is believed to be; `None` from a state that only a
    /// later kernel knows, whose routes it knows as well (R8).
    fn route(&self, to: State) -> Result<Option<Route>, Cause> {
        let Some(from) = self.at else { return Ok(None) };
        let route = Route::new(self.features, from, to);
        route.map(Some).map_err(|_refused| Cause::NoRoute { from, to })
    }

    pub(super) fn may_set(&self, to: State) -> Result<(), Cause> {
        self.route(to).map(|_route| ())
    }

    pub(super) fn set<B>(&mut self, to: State, reply: Reply<B, F>) -> Moved {
        let route = self.route(to).ok().flatten();
        let opens = route.is_some_and(|route| route.opens().is_some());
        match reply {
            Reply::Fd(new) => {
                let stays = self.at.is_some_and(|at| at.session() == to.session());
                self.live &= stays && !opens;
                self.at = Some(to);
                match (new, opens) {
                    (None, false) => Moved::Check,
                    (None, true) => Moved::Failed(Cause::NoDataFd { to }),
                    (Some(new), _) => {
                        self.old = self.fd.replace(new);
                        self.live = true;
                        if opens { Moved::Opened } else { Moved::Unexpected }
                    }
                }
            }
            Reply::Errno(errno) => {
                self.at = None;
                Moved::Failed(Cause::Set { to, errno })
            }
            _ => Moved::Failed(Cause::Nonsense { op: "set_state" }),
        }
    }

    /// What GET says. A state that we do not know is no belief to build on.
    pub(super) fn get<B>(&mut self, reply: Reply<B, F>) -> Result<RawState, Cause> {
        let state = match reply {
            Reply::State(state) => Ok(state),
            Reply::Errno(errno) => Err(Cause::Get { errno }),
            _ => Err(Cause::Nonsense { op: "get_state" }),
        };
        self.at = state.ok().and_then(RawState::known);
        state
    }

    /// The device has been reset.
    pub(super) const fn reset(&mut self) {
        self.at = Some(State::Running);
        self.live = false;
    }

    /// The session is over: its data_fd is only to be closed.
    pub(super) const fn end_session(&mut self) {
        self.live = false;
    }

    /// The data_fd to read or write.
    pub(super) const fn live_fd(&self) -> Option<&F> {
        if self.live { self.fd.as_ref() } else { None }
    }

    /// A data_fd that is of no more use (R10).
    pub(super) const fn to_close(&self) -> Option<&F> {
        match &self.old {
            Some(old) => Some(old),
            None if self.live => None,
            None => self.fd.as_ref(),
        }
    }

    /// That one is closed; here it is dropped, which for an owned descriptor is the closing.
    pub(super) fn closed(&mut self) {
        match self.old.take() {
            Some(_) => {}
            None => self.fd = None,
        }
    }
}
