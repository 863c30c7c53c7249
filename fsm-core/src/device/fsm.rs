// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The state and the session of one device, and what may happen to them.

use crate::arc::{Arc, Refused, Route, SessionEffect, allowed};
use crate::device::{ArcActions, Bug, DeviceData, Planted};
use crate::op::{Errno, Leaves, PrecopyInfo, Readiness};
use crate::state::{Direction, Features, RawState, State, StateSet};

/// Which session a data_fd belongs to. Two can be compared for equality, and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Epoch(u64);

impl Epoch {
    const BEFORE_THE_FIRST: Self = Self(0);

    /// For renumbering alone; a driver has no use for which session was earlier.
    pub(super) const fn is_before(self, other: Self) -> bool {
        self.0 < other.0
    }

    pub(super) const fn nth(n: usize) -> Self {
        Self(n as u64)
    }
}

/// The state machine of a driver: which state, which session, and which arc comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DeviceFsm {
    features: Features,
    state: State,
    session: Option<Epoch>,
    /// The session opened last, alive or not. Never goes back, so no epoch comes twice.
    latest: Epoch,
    precopy_v2: bool,
    planted: Planted,
}

/// A `SET` that did not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetError {
    /// Refused before its first arc: device, session and data_fd are as they were (C7).
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Failed on the way: the device may have moved (R8).
    #[error(transparent)]
    Failed(#[from] Failed),
}

/// A `SET` that failed on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "SET({asked}) in {from} failed with {errno} on {arc}, the device is in {at}; allowed there: {} \
     (a reset always is)",
    self.allowed()
)]
pub struct Failed {
    /// The state that was asked for.
    pub asked: State,
    /// Where the device was.
    pub from: State,
    /// The arc that failed.
    pub arc: Arc,
    /// What the driver reported.
    pub errno: Errno,
    /// Where the device is now: at the beginning of the arc, or in ERROR.
    pub at: State,
    /// What the device can do.
    pub features: Features,
}

impl Failed {
    /// What may be asked for now.
    pub const fn allowed(&self) -> StateSet {
        allowed(self.features, self.at)
    }
}

impl SetError {
    /// What the ioctl returns.
    pub const fn errno(self) -> Errno {
        match self {
            Self::Refused(_) => Errno::EINVAL,
            Self::Failed(failed) => failed.errno,
        }
    }
}

impl DeviceFsm {
    /// A device that was just opened: RUNNING, and no session.
    pub const fn new(features: Features) -> Self {
        Self::with_bug(features, Planted::NONE)
    }

    pub(super) const fn with_bug(features: Features, planted: Planted) -> Self {
        Self {
            features,
            state: State::Running,
            session: None,
            latest: Epoch::BEFORE_THE_FIRST,
            precopy_v2: false,
            planted,
        }
    }

    /// The flags that the device advertises.
    pub const fn features(&self) -> Features {
        self.features
    }

    /// The device_state, as `GET` reports it.
    pub const fn state(&self) -> State {
        self.state
    }

    /// The session that is alive. There is one exactly in the states that have one.
    pub const fn session(&self) -> Option<Epoch> {
        self.session
    }

    /// Whether the user asked for `VFIO_PRECOPY_INFO_REINIT`.
    pub const fn precopy_v2(&self) -> bool {
        self.precopy_v2
    }

    pub(super) const fn planted(&self) -> Planted {
        self.planted
    }

    /// `SET`: walk the route to `to`, arc by arc. Says which session was opened, if one was.
    ///
    /// The caller makes an fd of the session. If it cannot, the device has moved all the same, and
    /// the session is open without anybody to read or write it (C2).
    pub fn set_state(
        &mut self,
        to: RawState,
        actions: &mut impl ArcActions,
    ) -> Result<Option<Direction>, SetError> {
        let from = self.state;
        let route = match self.route(to) {
            Ok(route) => route,
            Err(_) if self.planted.is(Bug::ErrorLeftBySet) && from.is(State::Error) => {
                self.state = State::Running;
                return Ok(None);
            }
            Err(refused) => {
                if self.planted.is(Bug::RefusalEndsSession) {
                    self.end_session(actions);
                }
                return Err(refused.into());
            }
        };
        if route.is_empty() && self.session.is_some() && self.planted.is(Bug::SameStateRestarts) {
            return Ok(self.open_session(self.state));
        }
        let short = self.planted.is(Bug::StopsShort) && route.len() > 2;
        let mut opened = None;
        for arc in route.arcs().take(route.len() - usize::from(short)) {
            opened = self.walk(arc, actions).map_err(|errno| {
                let (asked, at, features) = (route.to(), self.state, self.features);
                Failed { asked, from, arc, errno, at, features }
            })?;
        }
        Ok(opened)
    }

    pub(super) fn would_open(&self, to: RawState) -> bool {
        self.route(to).is_ok_and(|route| route.opens().is_some())
    }

    /// Whether a SET would look for its way for ever.
    pub(super) fn would_not_return(&self, to: RawState) -> bool {
        self.planted.is(Bug::SeekBlockedPair)
            && self.route(to).is_err_and(|refused| refused.is_blocked())
    }

    fn route(&self, to: RawState) -> Result<Route, Refused> {
        let refused = Refused { asked: to.0, from: self.state, features: self.features };
        let asked = to.known().ok_or(refused)?;
        let ignored = self.planted.is(Bug::IgnoreFlags);
        let features = if ignored { Features::ALL } else { self.features };
        let route = Route::new(features, self.state, asked);
        if self.planted.is(Bug::WalkBlockedPair) && route.is_err_and(|refused| refused.is_blocked())
        {
            return Route::new(self.features, self.state, State::Stop);
        }
        route
    }

    fn walk(
        &mut self,
        arc: Arc,
        actions: &mut impl ArcActions,
    ) -> Result<Option<Direction>, Errno> {
        if let Err(failure) = actions.arc(arc) {
            match failure.leaves {
                Leaves::Source if self.planted.is(Bug::FailedArcMoves) => self.state = arc.to(),
                Leaves::Source => {}
                Leaves::Error => {
                    self.state = State::Error;
                    if !self.planted.is(Bug::ErrorKeepsSession) {
                        self.end_session(actions);
                    }
                }
            }
            return Err(failure.errno);
        }
        self.state = arc.to();
        match arc.session() {
            SessionEffect::Opens(_) => Ok(self.open_session(arc.to())),
            SessionEffect::Ends if self.planted.is(Bug::EndKeepsSession) => Ok(None),
            SessionEffect::Ends => {
                self.end_session(actions);
                Ok(None)
            }
            SessionEffect::Keeps if self.planted.is(Bug::FreshFdInSavingGroup) => {
                Ok(self.open_session(arc.to()))
            }
            SessionEffect::Keeps | SessionEffect::None => Ok(None),
        }
    }

    fn open_session(&mut self, at: State) -> Option<Direction> {
        self.latest = Epoch(self.latest.0 + 1);
        self.session = Some(self.latest);
        at.session()
    }

    fn end_session(&mut self, actions: &mut impl ArcActions) {
        if self.session.take().is_some() {
            actions.end_session();
        }
    }

    /// The device was reset: RUNNING from wherever it was, and no session (R14, C15).
    ///
    /// Call it with the state lock held, see [`ResetGate`](crate::device::ResetGate).
    pub fn reset(&mut self, actions: &mut impl ArcActions) {
        if !self.planted.is(Bug::ResetKeepsData) {
            actions.reset();
        }
        if !self.planted.is(Bug::ResetKeepsSession) {
            self.end_session(actions);
        }
        if self.planted.is(Bug::EpochReused) {
            self.latest = Epoch::BEFORE_THE_FIRST;
        }
        let stays = self.planted.is(Bug::ResetKeepsState)
            || self.planted.is(Bug::ResetStaysInError) && self.state == State::Error;
        if !stays {
            self.state = State::Running;
        }
    }

    /// The device was closed: the session ends, and the next user finds it in RUNNING (C26).
    pub fn close(&mut self, actions: &mut impl ArcActions) {
        if !self.planted.is(Bug::CloseKeepsSession) {
            self.end_session(actions);
        }
        self.precopy_v2 = false;
        if self.planted.is(Bug::OpensInStop) {
            self.state = State::Stop;
        } else if !self.planted.is(Bug::CloseKeepsState) {
            self.state = State::Running;
        }
    }

    /// From now on PRECOPY_INFO may report `REINIT`. `ENOTTY` without the PRE_COPY flag.
    pub const fn opt_in_precopy_v2(&mut self) -> Result<(), Errno> {
        if !self.features.pre_copy() {
            return Err(Errno::ENOTTY);
        }
        self.precopy_v2 = true;
        Ok(())
    }

    fn alive(&self, epoch: Epoch) -> Result<(), Errno> {
        if self.session == Some(epoch) { Ok(()) } else { Err(Errno::ENODEV) }
    }

    /// Read from a saving session. 0 is an end: which one, [`Self::at_permanent_end`] says.
    pub fn read(
        &mut self,
        epoch: Epoch,
        buf: &mut [u8],
        data: &mut impl DeviceData,
    ) -> Result<usize, Errno> {
        if !(self.planted.is(Bug::StaleFdReads) && self.state.is_saving()) {
            self.alive(epoch)?;
        }
        data.read(buf)
    }

    /// Whether a stream that has come to an end has come to it for good (R31, R32).
    pub const fn at_permanent_end(&self) -> bool {
        if self.planted.is(Bug::PreCopyEndsForGood) {
            return true;
        }
        if self.planted.is(Bug::StopCopyEndsForNow) {
            return false;
        }
        !self.state.is_pre_copy()
    }

    /// Write to a resuming session. Says how much was taken.
    pub fn write(
        &mut self,
        epoch: Epoch,
        bytes: &[u8],
        data: &mut impl DeviceData,
    ) -> Result<u32, Errno> {
        if !(self.planted.is(Bug::StaleFdWrites) && self.state == State::Resuming) {
            self.alive(epoch)?;
        }
        // write(2) never takes more than MAX_RW_COUNT, which is below 2 GiB.
        let most = bytes.len().min(0x7fff_f000);
        data.write(&bytes[..most]).map(|taken| taken.min(most) as u32)
    }

    /// PRECOPY_INFO: `EINVAL` outside the pre-copy states (R33), `ENODEV` if the fd is dead.
    pub fn precopy_info(
        &mut self,
        epoch: Epoch,
        data: &mut impl DeviceData,
    ) -> Result<PrecopyInfo, Errno> {
        let forgotten =
            self.planted.is(Bug::PreCopyP2pForgotten) && self.state == State::PreCopyP2p;
        let allowed = self.state.is_pre_copy() && !forgotten;
        if !allowed && !self.planted.is(Bug::InfoInAnyState) {
            return Err(Errno::EINVAL);
        }
        if !self.planted.is(Bug::StaleFdHasInfo) {
            self.alive(epoch)?;
        }
        let info = data.precopy_info()?;
        Ok(PrecopyInfo { reinit: info.reinit && self.precopy_v2, ..info })
    }

    /// What `poll` says of a data_fd, at once.
    pub fn poll(&self, epoch: Epoch, direction: Direction, data: &impl DeviceData) -> Readiness {
        if self.alive(epoch).is_err() {
            // Whatever it waits for will not come: the next read says ENODEV.
            let returns = !self.planted.is(Bug::DeadPollHangs);
            return Readiness { readable: returns, writable: false, hangup: returns };
        }
        let saving = direction == Direction::Saving;
        Readiness {
            readable: saving && (!self.state.is_pre_copy() || data.readable()),
            writable: !saving,
            hangup: false,
        }
    }

    pub(super) const fn latest(&self) -> Epoch {
        self.latest
    }

    pub(super) fn rename(&mut self, rename: impl Fn(Epoch) -> Epoch) {
        self.session = self.session.map(&rename);
        self.latest = rename(self.latest);
    }
}
