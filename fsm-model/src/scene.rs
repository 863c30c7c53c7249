// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What every model has in common: worlds, what can happen in them, and rules that judge each step.

use std::fmt::Debug;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use stateright::{Model, Property as Always};
use thread_local::ThreadLocal;

use crate::check::Replay;
use crate::property::Property;
use crate::search::{Codec, Whole};

/// What is modelled.
pub(crate) trait Scene: Clone + Send + Sync + 'static {
    /// Everything there is at one moment.
    type World: Clone + Debug + Eq + Hash + Send + Sync;
    /// One thing that can happen.
    type Action: Copy + Debug + PartialEq + Send + Sync;

    /// What must hold; at most [`MOST`].
    fn properties(&self) -> Vec<&'static Property>;

    /// How it begins, judged.
    fn initial(&self, judge: &mut Judge) -> Self::World;

    /// What can happen in a world.
    fn actions(&self, world: &Self::World, actions: &mut Vec<Self::Action>);

    /// The world after it, judged.
    fn step(&self, before: &Self::World, action: Self::Action, judge: &mut Judge) -> Self::World;

    /// The run that these actions are, step by step, to read.
    fn narrate(&self, actions: &[Self::Action]) -> Vec<String> {
        let mut world = self.initial(&mut Judge::default());
        let line = |&action: &Self::Action| {
            let line = self.say(&world, action);
            world = self.step(&world, action, &mut Judge::default());
            line
        };
        actions.iter().map(line).collect()
    }

    /// The same, to be run again.
    fn replay(&self, _property: &'static str, _actions: &[Self::Action]) -> Option<Replay> {
        None
    }

    /// One step, to read.
    fn say(&self, before: &Self::World, action: Self::Action) -> String;

    /// A world, to read.
    fn show(&self, world: &Self::World) -> String;

    /// How worlds are kept by our own explorer.
    fn codec(&self) -> impl Codec<Self::World> {
        Whole::new()
    }

    /// The one of the worlds that cannot be told apart which stands for all of them.
    fn representative(&self, world: Self::World) -> Self::World {
        world
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Judge {
    judged: u32,
    violated: u32,
}

impl Judge {
    /// The n-th property has something to say.
    pub(crate) fn judge(&mut self, property: usize, holds: bool) {
        self.judged |= 1 << property;
        self.violated |= u32::from(!holds) << property;
    }

    /// Whether it had.
    pub(crate) const fn judged(&self, property: usize) -> bool {
        self.judged & 1 << property != 0
    }

    /// The properties that had, by number.
    pub(crate) fn all_judged(&self) -> impl Iterator<Item = usize> + use<> {
        let mut left = self.judged;
        std::iter::from_fn(move || {
            let property = left.trailing_zeros();
            left &= left.wrapping_sub(1);
            (property < u32::BITS).then_some(property as usize)
        })
    }

    /// Whether it does not hold.
    pub(crate) const fn violated(&self, property: usize) -> bool {
        self.violated & 1 << property != 0
    }

    /// Whether all hold that had something to say.
    pub(crate) const fn is_clean(&self) -> bool {
        self.violated == 0
    }
}

/// How often each property had something to say.
///
/// Steps are many and few counts change at a time, so they are added bit by bit: the n-th plane has
/// the n-th bit of every count.
pub(crate) struct Tally {
    planes: [u32; Self::PLANES],
    added: u32,
    counts: Vec<u64>,
}

impl Tally {
    const PLANES: usize = 8;

    pub(crate) fn new(properties: usize) -> Self {
        Self { planes: [0; Self::PLANES], added: 0, counts: vec![0; properties] }
    }

    pub(crate) fn add(&mut self, judge: &Judge) {
        let mut carry = judge.judged;
        for plane in &mut self.planes {
            (*plane, carry) = (*plane ^ carry, *plane & carry);
        }
        self.added += 1;
        if self.added == (1 << Self::PLANES) - 1 {
            self.empty();
        }
    }

    fn empty(&mut self) {
        for (property, count) in self.counts.iter_mut().enumerate() {
            for (bit, plane) in self.planes.iter().enumerate() {
                *count += u64::from(plane >> property & 1) << bit;
            }
        }
        (self.planes, self.added) = ([0; Self::PLANES], 0);
    }

    pub(crate) fn counts(mut self) -> Vec<u64> {
        self.empty();
        self.counts
    }
}

/// A scene on the checker's stage.
#[derive(Debug)]
pub(crate) struct Stage<S> {
    pub(crate) scene: S,
    asked: Asked,
    /// How often each property had something to judge, by thread: a count that threads share costs
    /// more than the step that is counted.
    judged: ThreadLocal<Vec<AtomicU64>>,
    /// Nothing goes on any more.
    stop: Arc<AtomicBool>,
}

/// What stateright calls all properties, asked at once.
pub(crate) const ALL: &str = "all";

/// What stateright is asked. It looks every property of every world up among those that are broken
/// already, which for thirty of them takes longer than all the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    /// Whether anything is broken. It stops at the first world in which something is.
    AtOnce,
    /// Which properties are broken, and a run for each.
    EachProperty,
}

/// A world, and which properties the step to here broke. Nothing goes on from such a world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Judged<W> {
    pub(crate) world: W,
    violated: u32,
}

/// By the world alone, as long as nothing is broken: every step is hashed.
impl<W: Hash> Hash for Judged<W> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.world.hash(state);
        if self.is_broken() {
            self.violated.hash(state);
        }
    }
}

impl<W> Judged<W> {
    pub(crate) const fn is_broken(&self) -> bool {
        self.violated != 0
    }
}

impl<S: Scene> Stage<S> {
    /// To be asked for each property.
    pub(crate) fn new(scene: S) -> Self {
        assert!(scene.properties().len() <= MOST, "a bit for each property");
        let judged = ThreadLocal::new();
        Self { scene, asked: Asked::EachProperty, judged, stop: Arc::default() }
    }

    /// To be asked whether all of them hold.
    pub(crate) fn at_once(scene: S) -> Self {
        Self { asked: Asked::AtOnce, ..Self::new(scene) }
    }

    /// What ends the check when it is set: no world has a step any more.
    pub(crate) fn stop(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.stop)
    }

    /// How often each property had something to judge.
    pub(crate) fn judged(&self) -> Vec<u64> {
        let mut counts = vec![0; self.scene.properties().len()];
        for thread in self.judged.iter() {
            for (count, more) in counts.iter_mut().zip(thread) {
                *count += more.load(Ordering::Relaxed);
            }
        }
        counts
    }

    /// How it begins.
    pub(crate) fn begin(&self) -> Judged<S::World> {
        self.judging(|judge| self.scene.initial(judge))
    }

    /// What becomes of it.
    pub(crate) fn go(&self, before: &Judged<S::World>, action: S::Action) -> Judged<S::World> {
        self.judging(|judge| self.scene.step(&before.world, action, judge))
    }

    fn judging<W>(&self, make: impl FnOnce(&mut Judge) -> W) -> Judged<W> {
        let mut judge = Judge::default();
        let world = make(&mut judge);
        let counts = self.judged.get_or(|| (0..MOST).map(|_| AtomicU64::new(0)).collect());
        for property in judge.all_judged() {
            // Nobody else writes it.
            let count = counts[property].load(Ordering::Relaxed) + 1;
            counts[property].store(count, Ordering::Relaxed);
        }
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
        if !state.is_broken() && !self.stop.load(Ordering::Relaxed) {
            self.scene.actions(&state.world, actions);
        }
    }

    fn next_state(&self, before: &Self::State, action: S::Action) -> Option<Self::State> {
        Some(self.go(before, action))
    }

    fn properties(&self) -> Vec<Always<Self>> {
        match self.asked {
            Asked::AtOnce => vec![Always::always(ALL, |_, state: &Judged<_>| !state.is_broken())],
            Asked::EachProperty => properties(&self.scene),
        }
    }
}

/// A state of a checker's model that knows which properties the step to it broke.
pub(crate) trait Verdicts {
    fn violated(&self) -> u32;
}

impl<W> Verdicts for Judged<W> {
    fn violated(&self) -> u32 {
        self.violated
    }
}

/// The properties of a scene, as stateright has them.
pub(crate) fn properties<S: Scene, M: Model<State: Verdicts>>(scene: &S) -> Vec<Always<M>> {
    // stateright takes plain functions, so there is one for each bit of `violated`.
    macro_rules! holds {
        ($($bit:literal)*) => { [$(|_, state| state.violated() & 1 << $bit == 0,)*] };
    }
    let holds: [fn(&M, &M::State) -> bool; MOST] = holds!(
        0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31
    );
    let named = scene.properties().into_iter().zip(holds);
    named.map(|(property, holds)| Always::always(property.id, holds)).collect()
}
