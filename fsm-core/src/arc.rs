// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The arc table, and what follows from it: next hops, routes, legality.
//!
//! [`FULL`] is the single source. The tables of the smaller flag sets are built from it by the
//! rule that skips what a device does not have, and at compile time the prose of the uAPI is
//! proved to give the same four tables (T1).

use core::fmt;

use crate::state::{Direction, Features, RawState, State, StateSet};

type Table = [[State; 8]; 8];

/// The next hop from each state (row) towards each state (column) of a device with every flag.
///
/// Line by line the `vfio_from_fsm_table` of `vfio_mig_get_next_state()`. ERROR stands where there
/// is no way.
const FULL: Table = {
    use State::{
        Error as ERROR, PreCopy as PC, PreCopyP2p as PC2, Resuming as RES, Running as RUN,
        RunningP2p as RUN2, Stop as STOP, StopCopy as SC,
    };
    #[rustfmt::skip]
    let table = [
        // from \ to  ERROR  STOP   RUN    SC     RES    RUN2   PC     PC2
        /* ERROR */ [ERROR, ERROR, ERROR, ERROR, ERROR, ERROR, ERROR, ERROR],
        /* STOP  */ [ERROR, STOP,  RUN2,  SC,    RES,   RUN2,  RUN2,  RUN2 ],
        /* RUN   */ [ERROR, RUN2,  RUN,   RUN2,  RUN2,  RUN2,  PC,    RUN2 ],
        /* SC    */ [ERROR, STOP,  STOP,  SC,    STOP,  STOP,  ERROR, ERROR],
        /* RES   */ [ERROR, STOP,  STOP,  STOP,  RES,   STOP,  STOP,  STOP ],
        /* RUN2  */ [ERROR, STOP,  RUN,   STOP,  STOP,  RUN2,  RUN,   PC2  ],
        /* PC    */ [ERROR, RUN,   RUN,   PC2,   RUN,   RUN,   PC,    PC2  ],
        /* PC2   */ [ERROR, RUN2,  RUN2,  SC,    RUN2,  RUN2,  PC,    PC2  ],
    ];
    table
};

/// The tables of [`Features::SETS`], each a row of [`FULL`] with what the set lacks skipped.
const TABLES: [Table; 4] = {
    let mut tables = [FULL; 4];
    let mut set = 0;
    while set < 4 {
        tables[set] = reduce(Features::SETS[set]);
        set += 1;
    }
    tables
};

const fn reduce(features: Features) -> Table {
    let mut table = [[State::Error; 8]; 8];
    let mut from = 0;
    while from < 8 {
        let mut to = 0;
        while to < 8 {
            if features.has(State::ALL[from]) && features.has(State::ALL[to]) {
                table[from][to] = skip_missing(features, FULL[from][to], to);
            }
            to += 1;
        }
        from += 1;
    }
    table
}

/// A hop through a state that the device lacks is replaced by that state's own next hop.
const fn skip_missing(features: Features, mut hop: State, to: usize) -> State {
    while !features.has(hop) {
        hop = FULL[hop as usize][to];
    }
    hop
}

/// The hop, or ERROR where there is none: one load from the table.
#[inline]
const fn hop(features: Features, from: State, to: State) -> State {
    TABLES[features.index()][from as usize][to as usize]
}

/// The state that `SET(to)` goes to first in `from`, as `vfio_mig_get_next_state()` answers.
///
/// Total: every pair of states has an answer, `from` itself when nothing is to be done. Refused are
/// ERROR at either end, states that the device does not have (R4, R5) and the two blocked pairs
/// (R16).
#[inline]
pub const fn next_hop(features: Features, from: State, to: State) -> Result<State, Refused> {
    match hop(features, from, to) {
        State::Error => Err(Refused { asked: to.number(), from, features }),
        hop => Ok(hop),
    }
}

/// The states that `SET` may ask for in `from`.
pub const fn allowed(features: Features, from: State) -> StateSet {
    let mut set = StateSet::EMPTY;
    let mut to = 0;
    while to < 8 {
        if !hop(features, from, State::ALL[to]).is(State::Error) {
            set = set.with(State::ALL[to]);
        }
        to += 1;
    }
    set
}

/// Every arc that a driver with these flags implements: 6, 8, 9 or 15.
pub fn arcs(features: Features) -> impl Iterator<Item = Arc> {
    let pairs = State::ALL.into_iter().flat_map(|from| State::ALL.map(|to| (from, to)));
    pairs.filter_map(move |(from, to)| Arc::new(features, from, to))
}

/// One step that a driver carries out as a whole. Only the arcs of the table can be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Arc {
    from: State,
    to: State,
}

/// What an arc does to the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SessionEffect {
    /// There is none before or after.
    None,
    /// A new session begins and `SET` returns its data_fd (R24, R27).
    Opens(Direction),
    /// The session goes on: the data_fd is neither replaced nor ended (R25).
    Keeps,
    /// The session ends and its data_fd with it (R26, R29).
    Ends,
}

impl SessionEffect {
    /// What becomes of the data_fd, as diagrams have it; nothing if there is none.
    pub const fn label(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Opens(Direction::Saving) => "fd to read",
            Self::Opens(Direction::Resuming) => "fd to write",
            Self::Keeps => "same fd",
            Self::Ends => "fd ends",
        }
    }
}

impl Arc {
    /// The arc between two states of a device with these flags, if there is one.
    pub const fn new(features: Features, from: State, to: State) -> Option<Self> {
        let direct = !to.is(State::Error) && !from.is(to) && hop(features, from, to).is(to);
        if direct { Some(Self { from, to }) } else { None }
    }

    /// Where the arc begins.
    pub const fn from(self) -> State {
        self.from
    }

    /// Where the arc ends.
    pub const fn to(self) -> State {
        self.to
    }

    /// What the arc does to the session: follows from which of its ends have one.
    pub const fn session(self) -> SessionEffect {
        match (self.from.session(), self.to.session()) {
            (None, None) => SessionEffect::None,
            (None, Some(direction)) => SessionEffect::Opens(direction),
            // Both ends are of the saving group: no arc joins it to RESUMING (proved below).
            (Some(_), Some(_)) => SessionEffect::Keeps,
            (Some(_), None) => SessionEffect::Ends,
        }
    }
}

impl fmt::Display for Arc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}", self.from, self.to)
    }
}

/// The most arcs that one `SET` walks: RESUMING to PRE_COPY (T3).
const LONGEST: usize = 4;

/// The arcs that one `SET` walks, in order; none when the device is there already.
///
/// Only the last of them may open a session (T2), so that one data_fd is enough for the answer.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Route {
    from: State,
    hops: [State; LONGEST],
    len: u8,
}

impl Route {
    /// The route that the kernel takes, or why it refuses.
    pub const fn new(features: Features, from: State, to: State) -> Result<Self, Refused> {
        let mut hops = [State::Error; LONGEST];
        let mut at = match next_hop(features, from, to) {
            Ok(first) => first,
            Err(refused) => return Err(refused),
        };
        if from.is(to) {
            return Ok(Self { from, hops, len: 0 });
        }
        // Ends at `to`, and never with ERROR: the proof below walks every route of every flag set.
        // The bound says no more than LONGEST does, but the compiler sees it.
        let mut len = 0;
        while len < LONGEST {
            hops[len] = at;
            len += 1;
            if at.is(to) {
                break;
            }
            at = hop(features, at, to);
        }
        Ok(Self { from, hops, len: len as u8 })
    }

    /// Where the route begins.
    pub const fn from(&self) -> State {
        self.from
    }

    /// Where the route ends.
    pub const fn to(&self) -> State {
        match self.last() {
            Some(arc) => arc.to,
            None => self.from,
        }
    }

    /// How many arcs the route has: 0 to 4.
    pub const fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether there is nothing to do.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The arcs in order.
    pub fn arcs(&self) -> impl Iterator<Item = Arc> + use<> {
        let Self { from, hops, len } = *self;
        let hops = hops.into_iter().take(len as usize);
        hops.scan(from, |at, to| Some(Arc { from: core::mem::replace(at, to), to }))
    }

    /// The last arc. By pattern and not by index, which the compiler could not see to be in bounds:
    /// what is linked into a VMM in C has no panic in it.
    const fn last(&self) -> Option<Arc> {
        let [first, second, third, fourth] = self.hops;
        let (from, to) = match self.len {
            0 => return None,
            1 => (self.from, first),
            2 => (first, second),
            3 => (second, third),
            _ => (third, fourth),
        };
        Some(Arc { from, to })
    }

    /// The session that the route opens, and with it whether `SET` returns a data_fd.
    ///
    /// A VMM that expects the one answer and gets the other has found a reset (O2).
    pub const fn opens(&self) -> Option<Direction> {
        let Some(last) = self.last() else { return None };
        match last.session() {
            SessionEffect::Opens(direction) => Some(direction),
            _ => None,
        }
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.from)?;
        self.arcs().try_for_each(|arc| write!(f, " -> {}", arc.to))
    }
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Route({self})")
    }
}

/// A request that no legal route answers: nothing was sent, nothing has moved. errno: `EINVAL`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("SET({}) in {from}: {}; allowed here: {}", RawState(*.asked), self.why(), self.allowed())]
pub struct Refused {
    /// The device_state that was asked for, as a number: it may be no state at all.
    pub asked: u32,
    /// Where the device was, and is.
    pub from: State,
    /// What the device can do.
    pub features: Features,
}

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Why {
    /// The number is not a device_state of this uAPI.
    #[error("there is no such device_state")]
    Unknown,
    /// The device does not advertise the flag that brings the state (R4).
    #[error("the device lacks the flag for this state")]
    Unsupported,
    /// ERROR is where a device ends up, never where it is sent (R13).
    #[error("ERROR cannot be asked for")]
    ErrorAsked,
    /// Only `VFIO_DEVICE_RESET` leaves ERROR (R14).
    #[error("only VFIO_DEVICE_RESET leaves ERROR")]
    InError,
    /// The device lacks the flag for the state it claims to be in: no driver may answer so.
    #[error("the device is in a state that its flags do not have")]
    Impossible,
    /// STOP_COPY to PRE_COPY or PRE_COPY_P2P: kernels before the fix of 2026 never return (R16).
    #[error("this pair is blocked, and an unpatched kernel never returns from it; go through STOP")]
    Blocked,
}

impl Refused {
    /// The reason.
    pub const fn why(&self) -> Why {
        let Some(asked) = State::from_number(self.asked) else { return Why::Unknown };
        if self.from.is(State::Error) {
            Why::InError
        } else if asked.is(State::Error) {
            Why::ErrorAsked
        } else if !self.features.has(self.from) {
            Why::Impossible
        } else if !self.features.has(asked) {
            Why::Unsupported
        } else {
            Why::Blocked
        }
    }

    /// Whether this is one of the two pairs that hang an unpatched kernel.
    pub const fn is_blocked(&self) -> bool {
        matches!(self.why(), Why::Blocked)
    }

    /// What may be asked for instead.
    pub const fn allowed(&self) -> StateSet {
        allowed(self.features, self.from)
    }
}

/// T1 to T4, settled by the compiler: if one were false, this crate would not build.
#[expect(clippy::panic, reason = "a panic here is a compile error")]
mod proof {
    use super::{Arc, FULL, LONGEST, Route, SessionEffect, TABLES, hop};
    use crate::state::{Features, State};

    const UNREACHED: usize = usize::MAX;

    const _: () = {
        let mut set = 0;
        while set < 4 {
            let features = Features::SETS[set];
            assert!(features.index() == set, "SETS is in the order of index()");
            let mut from = 0;
            while from < 8 {
                let mut to = 0;
                while to < 8 {
                    check(features, State::ALL[from], State::ALL[to]);
                    to += 1;
                }
                from += 1;
            }
            set += 1;
        }
    };

    /// The numbers of arcs that the comment in `vfio_mig_get_next_state()` lists.
    const _: () = {
        let counts = [6, 8, 9, 15];
        let mut set = 0;
        while set < 4 {
            let mut count = 0;
            let mut pair = 0;
            while pair < 64 {
                let (from, to) = (State::ALL[pair / 8], State::ALL[pair % 8]);
                if Arc::new(Features::SETS[set], from, to).is_some() {
                    count += 1;
                }
                pair += 1;
            }
            assert!(count == counts[set], "T1: the number of arcs");
            set += 1;
        }
        let mut to = 0;
        while to < 64 {
            let last = TABLES[Features::ALL.index()][to / 8][to % 8];
            assert!(last.is(FULL[to / 8][to % 8]), "the set with every flag skips nothing");
            to += 1;
        }
    };

    const fn check(features: Features, from: State, to: State) {
        let hop = hop(features, from, to);
        if from.is(State::Error) || to.is(State::Error) {
            assert!(hop.is(State::Error), "no way into or out of ERROR by SET");
        } else if !features.has(from) || !features.has(to) {
            assert!(hop.is(State::Error), "no way to or from what the device lacks");
        } else if from.is(to) {
            assert!(hop.is(from), "nothing to do");
        } else if from.is(State::StopCopy) && to.is_pre_copy() {
            // The rule would take this pair through STOP; the uAPI blocks it on top (R16, T4).
            assert!(hop.is(State::Error), "T4: blocked");
        } else {
            assert!(hop.is(by_rule(features, from, to)), "T1: the table is the rule");
            walk(features, from, to);
        }
    }

    /// T2 and T3: the route ends within four arcs and opens a session with the last at most.
    const fn walk(features: Features, from: State, to: State) {
        let Ok(route) = Route::new(features, from, to) else { panic!("T4: not blocked") };
        assert!(route.len as usize <= LONGEST && route.to().is(to), "T3: ends in four arcs");
        let (mut at, mut i) = (from, 0);
        while i < route.len as usize {
            let Some(arc) = Arc::new(features, at, route.hops[i]) else { panic!("not an arc") };
            let last = i + 1 == route.len as usize;
            let opens = matches!(arc.session(), SessionEffect::Opens(_));
            assert!(last || !opens, "T2: only the last arc opens a session");
            let joins = at.is_saving() && arc.to.is(State::Resuming)
                || at.is(State::Resuming) && arc.to.is_saving();
            assert!(!joins, "no arc joins the saving group to RESUMING");
            at = arc.to;
            i += 1;
        }
    }

    /// The prose (R17): the shortest path over the arcs, on which no state of the saving group is
    /// interior unless the whole path stays in that group. Exactly one first hop may be best.
    const fn by_rule(features: Features, from: State, to: State) -> State {
        let inside = from.is_saving() && to.is_saving();
        let (mut best, mut length, mut ties) = (State::Error, UNREACHED, 0);
        let mut i = 1;
        while i < 8 {
            let via = State::ALL[i];
            if Arc::new(features, from, via).is_some() {
                let rest = distance(features, via, to, inside);
                if rest < length {
                    (best, length, ties) = (via, rest, 1);
                } else if rest == length && rest != UNREACHED {
                    ties += 1;
                }
            }
            i += 1;
        }
        assert!(ties == 1, "T1: the shortest path is unique");
        best
    }

    /// Arcs from `via` to `to`, where `via` and what follows are interior (until `to` is reached).
    const fn distance(features: Features, via: State, to: State, inside: bool) -> usize {
        let mut distances = [UNREACHED; 8];
        distances[to as usize] = 0;
        let mut round = 0;
        while round < 8 {
            let mut pair = 0;
            while pair < 64 {
                let (a, b) = (State::ALL[pair / 8], State::ALL[pair % 8]);
                let onward = distances[b as usize];
                if a.is_saving() == inside
                    && onward != UNREACHED
                    && onward + 1 < distances[a as usize]
                    && Arc::new(features, a, b).is_some()
                {
                    distances[a as usize] = onward + 1;
                }
                pair += 1;
            }
            round += 1;
        }
        distances[via as usize]
    }
}
