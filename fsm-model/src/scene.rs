// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What every model has in common: worlds, what can happen in them, and rules that judge each step.

use std::fmt::Debug;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};

use stateright::{Model, Property as Always};

use crate::check::Replay;
use crate::property::Property;

/// What is modelled.
pub(crate) trait Scene: Send + Sized + Sync + 'static {
    /// Everything there is at one moment.
    type World: Clone + Debug + Eq + Hash + Send + Sync;
    /// One thing that can happen.
    type Action: Copy + Debug + PartialEq + Send + Sync;

    /// What must hold; at most [`MOST`].
    fn properties(&self) -> Vec<&'static Property>;

    /// How it begins, judged.
    fn initial(&self, judge: &mut Judge<'_>) -> Self::World;

    /// What can happen in a world.
    fn actions(&self, world: &Self::World, actions: &mut Vec<Self::Action>);

    /// The world after it, judged.
    fn step(
        &self,
        before: &Self::World,
        action: Self::Action,
        judge: &mut Judge<'_>,
    ) -> Self::World;

    /// The run that these actions are, step by step, to read.
    fn narrate(&self, actions: &[Self::Action]) -> Vec<String>;

    /// The same, to be run again.
    fn replay(&self, _property: &'static str, _actions: &[Self::Action]) -> Option<Replay> {
        None
    }
}

/// What is done with a scene, of whichever kind it is.
pub(crate) trait OnScene {
    type Output;

    fn on<S: Scene>(self, scene: S) -> Self::Output;
}

/// The most properties that one scene can have: a bit for each.
const MOST: usize = 32;

/// Takes down what the properties say of one step.
pub(crate) struct Judge<'a> {
    judged: &'a [AtomicU64],
    violated: u32,
}

impl Judge<'_> {
    /// The n-th property has something to say.
    pub(crate) fn judge(&mut self, property: usize, holds: bool) {
        self.judged[property].fetch_add(1, Ordering::Relaxed);
        self.violated |= u32::from(!holds) << property;
    }
}

/// A scene on the checker's stage.
#[derive(Debug)]
pub(crate) struct Stage<S> {
    pub(crate) scene: S,
    /// How often each property had something to judge.
    judged: Vec<AtomicU64>,
}

/// A world, and which properties the step to here broke. Nothing goes on from such a world.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Judged<W> {
    pub(crate) world: W,
    violated: u32,
}

impl<W> Judged<W> {
    pub(crate) const fn is_broken(&self) -> bool {
        self.violated != 0
    }
}

impl<S: Scene> Stage<S> {
    pub(crate) fn new(scene: S) -> Self {
        let properties = scene.properties().len();
        assert!(properties <= MOST, "a bit for each property");
        let judged = (0..properties).map(|_| AtomicU64::new(0)).collect();
        Self { scene, judged }
    }

    /// How often each property had something to judge.
    pub(crate) fn judged(&self) -> Vec<(&'static str, u64)> {
        let counts = self.judged.iter().map(|count| count.load(Ordering::Relaxed));
        self.scene.properties().into_iter().map(|property| property.id).zip(counts).collect()
    }

    /// How it begins.
    pub(crate) fn begin(&self) -> Judged<S::World> {
        self.judging(|judge| self.scene.initial(judge))
    }

    /// What becomes of it.
    pub(crate) fn go(&self, before: &Judged<S::World>, action: S::Action) -> Judged<S::World> {
        self.judging(|judge| self.scene.step(&before.world, action, judge))
    }

    fn judging<W>(&self, make: impl FnOnce(&mut Judge<'_>) -> W) -> Judged<W> {
        let mut judge = Judge { judged: &self.judged, violated: 0 };
        let world = make(&mut judge);
        Judged { world, violated: judge.violated }
    }
}

impl<S: Scene> Model for Stage<S> {
    type State = Judged<S::World>;
    type Action = S::Action;

    fn init_states(&self) -> Vec<Self::State> {
        vec![self.begin()]
    }

    fn actions(&self, state: &Self::State, actions: &mut Vec<S::Action>) {
        if !state.is_broken() {
            self.scene.actions(&state.world, actions);
        }
    }

    fn next_state(&self, before: &Self::State, action: S::Action) -> Option<Self::State> {
        Some(self.go(before, action))
    }

    fn properties(&self) -> Vec<Always<Self>> {
        // stateright takes plain functions, so there is one for each bit of `violated`.
        macro_rules! holds {
            ($($bit:literal)*) => { [$(|_, judged| judged.violated & 1 << $bit == 0,)*] };
        }
        let holds: [fn(&Self, &Self::State) -> bool; MOST] = holds!(
            0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31
        );
        let named = self.scene.properties().into_iter().zip(holds);
        named.map(|(property, holds)| Always::always(property.id, holds)).collect()
    }
}
