// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The devices of one VM, stopped and started in order.
//!
//! With DMA between devices, one that is stopped must not be written to by one that is not: so all
//! first cease to start such DMA, and only when all have, they stop; on the way back all first
//! answer it again before one starts any (R21). And the guest is halted before the first device
//! leaves its running states, and runs when the last one is back in them (R22).
//!
//! ```text
//!            Freeze         Quiesced                       Startable        Thaw
//!  running ----|--- *_P2P -----|--- STOP_COPY, STOP --- RUNNING_P2P ---|--- RUNNING ---|--- running
//! ```
//!
//! Each session has a thread or a turn of its own, and so drains beside the others. At each `|` it
//! calls a [`Hook`], and the group says when it may go on: when all have arrived. A session that
//! gives up turns back, and so do all the others.

use crate::state::{Direction, Features};
use crate::vmm::{Hook, Verdict};

/// The order over the devices of one VM, for one migration.
///
/// Takes no locks: whoever runs the sessions keeps it under his own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Group {
    members: usize,
    direction: Direction,
    two_phases: bool,
    ranks: [Rank; Self::MOST],
    /// Members that are on their way back, a bit each.
    aborting: u64,
    /// Gates that all have reached, and at which the VMM is at work.
    due: Gates,
    /// Gates that are open.
    open: Gates,
    broken: bool,
}

/// How far a member has come. Only ever forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Rank {
    Free,
    Freeze,
    Quiesced,
    /// Complete, and in STOP: goes on only if the group breaks.
    Stopped,
    Startable,
    Thaw,
    Ended,
}

/// A set of gates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Gates(u8);

/// Whether a member may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Gate {
    /// Others have not arrived.
    Wait,
    /// Go on: answer the hook with `called(true)`.
    Open,
    /// Another member has failed: answer with `called(false)`, and what was done is undone.
    Broken,
}

/// Devices that cannot be migrated together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GroupRefused {
    /// More than [`Group::MOST`].
    #[error("{devices} devices, and a group has at most {}", Group::MOST)]
    TooMany {
        /// How many there were.
        devices: usize,
    },
    /// One cannot be quiet while it runs.
    #[error(
        "device {index} of {devices} has {features} and no P2P: while it stops, it or another would \
         write to a device that has stopped. Migrate it alone, or map no device memory for DMA"
    )]
    NoP2p {
        /// Which, counted from 0.
        index: usize,
        /// How many there are.
        devices: usize,
        /// What it has.
        features: Features,
    },
}

/// A member that is where it cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("member {member} is no member, or is at {hook}, which it cannot come to now")]
pub struct OutOfOrder {
    /// Which, counted from 0.
    pub member: usize,
    /// Where it says it is.
    pub hook: Hook,
}

impl Gates {
    const fn with(self, rank: Rank) -> Self {
        Self(self.0 | 1 << rank as u8)
    }

    const fn has(self, rank: Rank) -> bool {
        self.0 & 1 << rank as u8 != 0
    }
}

impl Group {
    /// The most devices of a group.
    pub const MOST: usize = 64;

    /// A group of devices with these features, at the source (saving) or the destination
    /// (resuming).
    ///
    /// `peer_dma` is whether devices can reach each other's memory: `false` only if the VMM maps
    /// none of it for DMA. Several devices with it must all have P2P.
    pub fn new(
        direction: Direction,
        devices: &[Features],
        peer_dma: bool,
    ) -> Result<Self, GroupRefused> {
        let members = devices.len();
        if members > Self::MOST {
            return Err(GroupRefused::TooMany { devices: members });
        }
        let two_phases = members > 1 && peer_dma;
        if let Some(index) = devices.iter().position(|device| two_phases && !device.p2p()) {
            let features = devices[index];
            return Err(GroupRefused::NoP2p { index, devices: members, features });
        }
        Ok(Self {
            members,
            direction,
            two_phases,
            ranks: [Rank::Free; Self::MOST],
            aborting: 0,
            due: Gates(0),
            open: Gates(0),
            broken: false,
        })
    }

    /// Whether the sessions are to stop and start in two phases: for the `group` of their plans.
    pub const fn in_two_phases(&self) -> bool {
        self.two_phases
    }

    /// Whether a member has failed: then the others have to be cancelled, those that are complete
    /// included.
    pub const fn is_broken(&self) -> bool {
        self.broken
    }

    /// The VMM gives up, or a member is about to: whoever waits to stop does not wait any longer.
    pub fn fail(&mut self) {
        self.broken = true;
    }

    /// A session calls this hook, on its way forwards or, `aborting`, back. Ask [`Self::due`], and
    /// then [`Self::gate`].
    pub fn arrive(&mut self, member: usize, hook: Hook, aborting: bool) -> Result<(), OutOfOrder> {
        let rank = rank(hook).ok_or(OutOfOrder { member, hook })?;
        let now = self.ranks[..self.members].get_mut(member).ok_or(OutOfOrder { member, hook })?;
        let turned = aborting && self.aborting & 1 << member == 0;
        if *now > rank || *now == rank && !turned {
            return Err(OutOfOrder { member, hook });
        }
        *now = rank;
        if aborting {
            self.aborting |= 1 << member;
            self.broken = true;
        }
        Ok(())
    }

    /// A session has ended. `stopped` is whether its device stays in STOP, as it does at the source
    /// with [`Then::Stop`](crate::vmm::Then): it can still be cancelled. Ask [`Self::due`] then.
    pub fn end(&mut self, member: usize, verdict: &Verdict, stopped: bool) {
        if let Some(rank) = self.ranks[..self.members].get_mut(member) {
            let complete = verdict.is_complete();
            *rank = if stopped && complete { Rank::Stopped } else { Rank::Ended };
            self.broken |= !complete;
            self.aborting |= u64::from(!complete) << member;
        }
    }

    /// A hook that all members have arrived at: the VMM does its part of it, once for all, and then
    /// says so with [`Self::done`]. Each is returned once.
    pub fn due(&mut self) -> Option<Hook> {
        let hooks = [Hook::Freeze, Hook::Quiesced, Hook::Startable, Hook::Thaw];
        let hook = hooks.into_iter().find(|&hook| self.is_due(hook))?;
        self.due = rank(hook).map_or(self.due, |rank| self.due.with(rank));
        Some(hook)
    }

    fn is_due(&self, hook: Hook) -> bool {
        let Some(rank) = rank(hook) else { return false };
        let members = &self.ranks[..self.members];
        let reached = members.iter().all(|&member| member >= rank) && members.contains(&rank);
        let in_vain = |member| self.turns(member, rank);
        let blocked = self.broken && (0..self.members).any(in_vain);
        reached && !self.due.has(rank) && !blocked
    }

    /// Whether a gate leads on, and not back to where the devices were.
    const fn is_forwards(&self, rank: Rank) -> bool {
        match self.direction {
            Direction::Saving => matches!(rank, Rank::Freeze | Rank::Quiesced),
            Direction::Resuming => !matches!(rank, Rank::Thaw),
        }
    }

    /// Whether a member that waits there has to turn back, now that the group is broken: at every
    /// gate that leads on, and at the last one of a destination, where it has been loaded in vain.
    const fn turns(&self, member: usize, rank: Rank) -> bool {
        let loaded = matches!(self.direction, Direction::Resuming);
        self.is_forwards(rank) || loaded && self.aborting & 1 << member == 0
    }

    /// The VMM has done its part of a hook that was due, or could not.
    pub fn done(&mut self, hook: Hook, done: bool) {
        let Some(rank) = rank(hook) else { return };
        if done || !self.is_forwards(rank) {
            self.open = self.open.with(rank);
        } else {
            self.broken = true;
        }
    }

    /// Whether a member that has arrived may go on.
    pub fn gate(&self, member: usize) -> Gate {
        match self.ranks[..self.members].get(member) {
            Some(&rank) if self.open.has(rank) => Gate::Open,
            Some(&rank) if self.broken && self.turns(member, rank) => Gate::Broken,
            Some(_) => Gate::Wait,
            None => Gate::Broken,
        }
    }
}

/// The gate of a hook, if it is one that a group keeps.
const fn rank(hook: Hook) -> Option<Rank> {
    match hook {
        Hook::Freeze => Some(Rank::Freeze),
        Hook::Quiesced => Some(Rank::Quiesced),
        Hook::Startable => Some(Rank::Startable),
        Hook::Thaw => Some(Rank::Thaw),
        Hook::InitialBytesLoaded | Hook::RestoreConfig | Hook::RestoreInterrupts => None,
    }
}
