// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The machines of complete suites, taken from the core's device, and their tests as traces.
//!
//! A machine is found by trying every input in every state that the core's device gets into; what it
//! answers, widened as in every suite, is the output. Where the uAPI leaves a device a choice that
//! the rest depends on, the machine has no transition, so that it is deterministic for every device.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use vfio_fsm_core::{Fd, Features, Op, State};

use crate::complete::learn::System;
use crate::complete::{Alike, Complete, Machine, Node, Output, Symbol};
use crate::replay::{Target, TargetError};
use crate::suite::Suite;
use crate::suite::script::{READ, Script};
use crate::suite::tester::{Answer, Input, Kind, Live, NEVER, STREAM, Tester, Which};
use crate::target::MemoryDevice;
use crate::trace::Trace;

/// A script with a tester, which knows what means the same to every device.
impl Tester<Script> {
    /// A fresh device, and a stream to feed it with.
    fn script(kind: Kind, features: Features, name: &str) -> Self {
        let mut script = Script::new(Suite::Complete, features, name, &[]);
        script.set(State::StopCopy);
        let fd = script.last_fd().unwrap_or(Fd(1));
        script.drain(fd, READ, STREAM).set(State::Running).op(Op::CloseFd { fd });
        Self::new(kind, script, fd)
    }

    fn is_defined(&self, input: Input) -> bool {
        let device = self.hands.first();
        let (state, features) = (device.fsm().state(), device.fsm().features());
        let empty = state == State::Resuming && !device.actions().is_loadable();
        match input {
            // What was not fed may be refused or not, and a refusal leaves one of two states (R29).
            Input::Set(to) if empty => to
                .known()
                .is_none_or(|to| matches!(to, State::Resuming | State::Error) || !features.has(to)),
            // The usual driver loop succeeds at nothing, others refuse.
            Input::Set(to) => state != State::Error || to != State::Error.into(),
            // A device may take more than a whole stream, and find out later.
            Input::Write(which) => {
                empty || state != State::Resuming || !device.is_live(self.fd(which).0)
            }
            _ => true,
        }
    }

    /// What the rest depends on.
    fn identity(&self) -> Identity {
        let (last, earlier) = (self.fd(Which::Last), self.fd(Which::Earlier));
        (self.hands.first().renumbered(), last.1, earlier.1 && earlier.0 != last.0)
    }
}

type Identity = (MemoryDevice, bool, bool);

/// What a device is held against: a machine, and what its numbers mean.
#[derive(Clone, Debug)]
pub struct Specification {
    /// Which machine.
    pub kind: Kind,
    /// The flags of the device.
    pub features: Features,
    /// The machine, minimal.
    pub machine: Machine,
    inputs: Vec<Input>,
    outputs: Vec<Answer>,
    /// Of each state the device_state, and a number where more than one has it.
    states: Vec<String>,
}

impl Specification {
    /// Take it from the core's device.
    ///
    /// Without `dangerous`, the SET that hangs older kernels is not among the inputs; without
    /// `faults`, arcs do not fail, so that ERROR is not reached.
    pub fn new(kind: Kind, features: Features, dangerous: bool, faults: bool) -> Self {
        Self::with_inputs(kind, features, dangerous, Input::all(kind, faults))
    }

    /// The same for these inputs only.
    pub fn with_inputs(
        kind: Kind,
        features: Features,
        dangerous: bool,
        inputs: Vec<Input>,
    ) -> Self {
        let mut found = Exploration::new(kind, features, dangerous);
        let mut table = Vec::new();
        while let Some(tester) = found.testers.get(table.len() / inputs.len()).cloned() {
            table.extend(inputs.iter().map(|&input| found.transition(tester.clone(), input)));
        }
        let machine = Machine::new(inputs.len(), table).minimal();
        let mut specification =
            Self { kind, features, machine, inputs, outputs: found.outputs, states: Vec::new() };
        specification.states = specification.names();
        specification
    }

    fn names(&self) -> Vec<String> {
        let cover = self.machine.state_cover();
        let mut seen: HashMap<State, usize> = HashMap::new();
        let mut name = |word: &Option<Vec<Symbol>>| {
            let mut tester = Tester::script(self.kind, self.features, "");
            self.drive(&mut tester, word.as_deref().unwrap_or_default(), false);
            let state = tester.hands.state();
            let count = seen.entry(state).or_default();
            *count += 1;
            if *count == 1 { state.to_string() } else { format!("{state}.{count}") }
        };
        cover.iter().map(&mut name).collect()
    }

    /// The number of an input, if the machine has it.
    pub fn symbol(&self, input: Input) -> Option<Symbol> {
        self.inputs.iter().position(|known| *known == input).map(|at| at as Symbol)
    }

    /// How an input is called.
    pub fn input(&self, symbol: Symbol) -> String {
        self.inputs[usize::from(symbol)].to_string()
    }

    /// How an output reads.
    pub fn output(&self, output: Output) -> String {
        self.outputs[usize::from(output)].to_string()
    }

    /// How a state is called.
    pub fn state(&self, node: Node) -> &str {
        &self.states[usize::from(node)]
    }

    fn drive(&self, tester: &mut Tester<Script>, word: &[Symbol], observed: bool) {
        for &symbol in word {
            tester.input(self.inputs[usize::from(symbol)]);
            if observed {
                tester.input(Input::Get);
            }
        }
    }

    /// The complete suite for so many states more, a trace for each state and input: every word that
    /// begins there, twice in one life of the device.
    ///
    /// With `observed` the state is asked for after every step. That finds some faults sooner, and
    /// hides those that heal when looked at: so it is the second choice, not the first.
    pub fn traces(&self, extra: usize, observed: bool) -> Result<Vec<Trace>, Alike> {
        let complete = Complete::new(&self.machine, extra)?;
        let mut cells: Vec<((Node, Symbol), Tester<Script>)> = Vec::new();
        complete.for_each(|cover, test| {
            let Some(&first) = test.get(cover) else { return };
            let from = self.machine.run(0, &test[..cover]).unwrap_or_default();
            let known = cells.iter().rposition(|(cell, _)| *cell == (from, first));
            let at = known.unwrap_or_else(|| {
                let how = if observed { "observed" } else { "silent" };
                let (state, input) = (self.state(from), self.input(first));
                let name = format!("{}-k{extra}-{how}/{state}/{input}", self.kind);
                cells.push(((from, first), Tester::script(self.kind, self.features, &name)));
                cells.len() - 1
            });
            for _ in 0..2 {
                self.drive(&mut cells[at].1, test, observed);
                cells[at].1.start_over();
            }
        });
        Ok(cells.into_iter().map(|(_, tester)| tester.hands.finish()).collect())
    }
}

/// A target, asked in the inputs of a specification.
#[derive(Debug)]
pub struct Subject<'s, 't> {
    specification: &'s mut Specification,
    live: Live<'t>,
}

impl<'s, 't> Subject<'s, 't> {
    /// A target that is a device with the flags of the specification.
    pub fn new(
        specification: &'s mut Specification,
        target: &'t mut dyn Target,
    ) -> Result<Self, TargetError> {
        let live = Live::new(target, specification.features)?;
        Ok(Self { specification, live })
    }

    /// What it is held against; with the answers that it does not know of.
    pub const fn specification(&self) -> &Specification {
        self.specification
    }

    /// Ops that were carried out.
    pub const fn ops(&self) -> u64 {
        self.live.ops
    }
}

impl System for Subject<'_, '_> {
    type Error = TargetError;

    fn ask(&mut self, word: &[Symbol]) -> Result<Vec<Output>, TargetError> {
        let Self { specification, live } = self;
        live.target().fresh(specification.features)?;
        let mut tester = Tester::new(specification.kind, live, NEVER);
        let answers = word.iter().map(|&symbol| {
            let said = tester.input(specification.inputs[usize::from(symbol)]);
            number(&mut specification.outputs, said)
        });
        Ok(answers.collect())
    }
}

/// The number of an output, a new one if it has none yet.
fn number(outputs: &mut Vec<Answer>, said: Answer) -> Output {
    let known = outputs.iter().position(|output| *output == said);
    let number = known.unwrap_or_else(|| {
        outputs.push(said);
        outputs.len() - 1
    });
    number as Output
}

/// The states that the core's device was seen in, and what was answered.
struct Exploration {
    dangerous: bool,
    testers: Vec<Tester<Script>>,
    numbers: HashMap<Identity, Node>,
    outputs: Vec<Answer>,
}

impl Exploration {
    fn new(kind: Kind, features: Features, dangerous: bool) -> Self {
        let first = Tester::script(kind, features, "");
        let numbers = HashMap::from([(first.identity(), 0)]);
        Self { dangerous, testers: vec![first], numbers, outputs: Vec::new() }
    }

    fn transition(&mut self, mut tester: Tester<Script>, input: Input) -> Option<(Node, Output)> {
        if !tester.is_defined(input) {
            return None;
        }
        let said = tester.input(input);
        if !self.dangerous && tester.hands.is_dangerous() {
            return None;
        }
        let output = number(&mut self.outputs, said);
        let next = self.testers.len() as Node;
        let to = match self.numbers.entry(tester.identity()) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(new) => {
                new.insert(next);
                self.testers.push(tester);
                next
            }
        };
        Some((to, output))
    }
}

/// The complete suites that everybody runs: for devices with no state more.
pub(super) fn generate(features: Features) -> Vec<Trace> {
    let suites = [
        (Kind::Control, false),
        (Kind::Control, true),
        (Kind::Stream, false),
        (Kind::Stream, true),
        (Kind::Epochs, false),
    ];
    let traces = suites.into_iter().flat_map(|(kind, observed)| {
        let specification = Specification::new(kind, features, true, true);
        // The machines are minimal, as a test holds.
        specification.traces(0, observed).unwrap_or_default()
    });
    traces.collect()
}
