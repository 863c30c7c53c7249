// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A model to walk through by hand, in stateright's Explorer: worlds and steps in words.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::io;
use std::net::{SocketAddr, TcpListener};

use stateright::{Model, Property};

use crate::case::Case;
use crate::scene::{self, Judged, OnScene, Scene, Stage, Verdicts};

/// Serve stateright's Explorer for a case at an address, for as long as the process lives.
///
/// `GET /` is a page for a browser, `/.status` how far it is, `/.states/` the world that it begins
/// with, and `/.states/FINGERPRINT/…` what can happen at the end of that way.
///
/// # Errors
///
/// The address cannot be listened at.
pub fn exhibit(case: &'static Case, address: SocketAddr) -> io::Result<()> {
    // stateright panics where it cannot listen.
    drop(TcpListener::bind(address)?);
    case.with(Exhibiting(address));
    Ok(())
}

struct Exhibiting(SocketAddr);

impl OnScene for Exhibiting {
    type Output = ();

    fn on<S: Scene>(self, scene: S) {
        let _served = Exhibit(Stage::new(scene)).checker().serve(self.0);
    }
}

/// The stage again, with words for what is on it.
struct Exhibit<S>(Stage<S>);

/// A world, and what it is in words, which is no part of it.
#[derive(Clone)]
struct Shown<W> {
    judged: Judged<W>,
    words: String,
}

/// What can happen in a world, and what it is in words.
struct Offered<A> {
    action: A,
    words: String,
}

impl<S: Scene> Exhibit<S> {
    fn shown(&self, judged: Judged<S::World>) -> Shown<S::World> {
        let words = self.0.scene.show(&judged.world);
        Shown { judged, words }
    }
}

impl<S: Scene> Model for Exhibit<S> {
    type State = Shown<S::World>;
    type Action = Offered<S::Action>;

    fn init_states(&self) -> Vec<Self::State> {
        self.0.init_states().into_iter().map(|judged| self.shown(judged)).collect()
    }

    fn actions(&self, state: &Self::State, offered: &mut Vec<Self::Action>) {
        let mut actions = Vec::new();
        self.0.actions(&state.judged, &mut actions);
        offered.extend(actions.into_iter().map(|action| {
            let words = self.0.scene.say(&state.judged.world, action);
            Offered { action, words }
        }));
    }

    fn next_state(&self, before: &Self::State, offered: Self::Action) -> Option<Self::State> {
        let after = self.0.next_state(&before.judged, offered.action);
        after.map(|judged| self.shown(judged))
    }

    fn properties(&self) -> Vec<Property<Self>> {
        scene::properties(&self.0.scene)
    }
}

impl<W> Verdicts for Shown<W> {
    fn violated(&self) -> u32 {
        self.judged.violated()
    }
}

impl<W: Hash> Hash for Shown<W> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.judged.hash(state);
    }
}

impl<W: PartialEq> PartialEq for Shown<W> {
    fn eq(&self, other: &Self) -> bool {
        self.judged == other.judged
    }
}

/// The Explorer shows what `Debug` says.
impl<W> fmt::Debug for Shown<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

impl<A> fmt::Debug for Offered<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

impl<A: PartialEq> PartialEq for Offered<A> {
    fn eq(&self, other: &Self) -> bool {
        self.action == other.action
    }
}
