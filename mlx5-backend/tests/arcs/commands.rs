// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is sent on every arc, held against what the kernel's driver sends.
//!
//! The golden file is a record of the commands of the driver of Linux 6.12, run in user space. It
//! is played: each of its arcs, reads and ioctls is done to our device, and each command must be the
//! same, byte for byte. Only the numbers that the firmware gives to domains and keys are compared by
//! the order in which they were made.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use vfio_fsm_core::device::Device;
use vfio_fsm_core::{EndOfStream, Features, Op, Reply, State};
use vfio_fsm_mlx5::layout::{CommandStatus, Opcode};
use vfio_fsm_mlx5::vhca::{Migration, Vhca};

use crate::double::{Double, Fault, Sent};

const GOLDEN: &str = include_str!("../golden/mlx5_arc_commands_6.12.txt");

/// Where we mean to do something else: the golden line, ours, and why.
struct Difference {
    scenario: &'static str,
    golden: &'static [&'static str],
    ours: &'static [&'static str],
    reason: &'static str,
}

const DIFFERENCES: &[Difference] = &[];

/// Scenarios of the golden file that are not about arcs.
const ELSEWHERE: &[&str] = &["TRACKER object"];

type Played = Device<Vhca<Double>, 8>;

/// One line of a record: what is done, what is sent, what comes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Line {
    /// A step of the user's, or its outcome.
    Said(String),
    /// A command, numbers replaced.
    Sent { opcode: String, bytes: Vec<u8>, known: usize, len: usize, failed: bool },
}

/// The numbers that the firmware gave, in the order in which it gave them.
#[derive(Default)]
struct Numbers(BTreeMap<u32, u32>);

impl Numbers {
    fn made(&mut self, number: u32) {
        let next = self.0.len() as u32 + 1;
        self.0.insert(number, next);
    }

    /// Puts the order in place of the number, 24 bits at this byte.
    fn replace(&self, bytes: &mut [u8], at: usize) {
        let Some(field) = bytes.get_mut(at..at + 3) else { return };
        let number = u32::from_be_bytes([0, field[0], field[1], field[2]]);
        let order = self.0.get(&number).unwrap_or_else(|| panic!("{number:#x} was never made"));
        field.copy_from_slice(&order.to_be_bytes()[1..]);
    }

    fn normalise(&self, opcode: &str, bytes: &mut [u8]) {
        match opcode {
            "DEALLOC_PD" | "DESTROY_MKEY" => self.replace(bytes, 9),
            "CREATE_MKEY" => self.replace(bytes, 29),
            "SAVE_VHCA_STATE" | "LOAD_VHCA_STATE" => self.replace(bytes, 24),
            _ => {}
        }
    }
}

/// The golden file by scenarios.
fn golden() -> Vec<(String, Vec<Line>)> {
    let mut scenarios: Vec<(String, Vec<Line>)> = Vec::new();
    let mut last = 0;
    let mut numbers = Numbers::default();
    let mut lines = GOLDEN.lines().peekable();
    while let Some(line) = lines.next() {
        if !line.starts_with(' ') {
            scenarios.push((line.strip_prefix("SCENARIO ").unwrap_or(line).to_owned(), Vec::new()));
            continue;
        }
        let scenario = &mut scenarios.last_mut().unwrap().1;
        let said = line.trim();
        let Some((opcode, _)) = said.split_once(" op_mod=") else {
            scenario.push(Line::Said(said.to_owned()));
            continue;
        };
        let input = lines.next().unwrap().trim();
        let [_, len, hex] = input.split(' ').collect::<Vec<_>>()[..] else { panic!("{input}") };
        let len: usize = len.parse().unwrap();
        // Zeros at the end, and whatever is behind byte 96, are left out.
        let cut = hex.strip_suffix("..");
        let mut bytes = decode(cut.unwrap_or(hex));
        let known = if cut.is_some() && bytes.len() < 96 { len } else { bytes.len() };
        bytes.resize(len, 0);
        let failed = lines.next_if(|line| line.trim().starts_with("->")).is_some();
        numbers.normalise(opcode, &mut bytes);
        if matches!(opcode, "ALLOC_PD" | "CREATE_MKEY") {
            last += 1;
            numbers.made(last);
        }
        scenario.push(Line::Sent { opcode: opcode.to_owned(), bytes, known, len, failed });
    }
    scenarios
}

fn decode(hex: &str) -> Vec<u8> {
    let digit = |i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(digit).collect()
}

/// Our side: one firmware for all scenarios, as in the golden file.
struct Player {
    double: Arc<Double>,
    device: Option<Played>,
    numbers: Numbers,
    /// The data_fd that was handed out last, and what was read from it.
    fd: Option<vfio_fsm_core::Fd>,
    stream: Vec<u8>,
    /// What the first scenario has saved, for the one that loads.
    saved: Vec<u8>,
    lines: Vec<Line>,
}

impl Player {
    fn new() -> Self {
        let double = Double::new(false);
        Self {
            double,
            device: None,
            numbers: Numbers::default(),
            fd: None,
            stream: Vec::new(),
            saved: Vec::new(),
            lines: Vec::new(),
        }
    }

    fn play(&mut self, scenario: &str, golden: &[Line]) -> Vec<Line> {
        self.stream.clear();
        self.lines.clear();
        if scenario.starts_with("PROBE") {
            self.probe();
            return std::mem::take(&mut self.lines);
        }
        let fault = match scenario {
            "SUSPEND fails RES_BUSY" => Some((0, CommandStatus::ResBusy)),
            "pre-copy SAVE fails BAD_RES_STATE, falls back to full image" => {
                Some((4, CommandStatus::BadResState))
            }
            _ => None,
        };
        if let Some((nth, status)) = fault {
            self.double.fail(nth, Fault::Status(status));
        }
        for line in golden {
            if let Line::Said(said) = line {
                self.said(said);
            }
        }
        assert!(!self.double.take_unused_fault(), "{scenario}");
        std::mem::take(&mut self.lines)
    }

    fn probe(&mut self) {
        let pf = Migration::of(&*self.double).unwrap();
        self.double.state().log.clear();
        let vhca = Vhca::new(self.double.clone(), pf, 1).unwrap();
        let id = vhca.vhca_id();
        self.device = Some(Device::new(Features::ALL, vhca));
        self.sent();
        let chunk_mode = u8::from(pf.chunks);
        self.say(format!("migration_flags=0x7 chunk_mode={chunk_mode} vhca_id={id:#x}"));
    }

    /// Does what the record says was done, and says what comes of it.
    fn said(&mut self, said: &str) {
        if let Some(arc) = said.strip_prefix("ARC ") {
            self.say(said.to_owned());
            let to = arc.split_once(" -> ").unwrap().1;
            let outcome = self.set(to);
            self.sent();
            self.say(outcome);
            if to == "RESUMING" {
                self.write();
            }
        } else if said == "ioctl PRECOPY_INFO" {
            self.say(said.to_owned());
            let fd = self.fd.unwrap();
            let Reply::Info(info) = self.apply(Op::PrecopyInfo { fd }) else { panic!() };
            self.sent();
            self.say(format!("= 0 initial={} dirty={}", info.initial_bytes, info.dirty_bytes));
        } else if said.starts_with("read ->") {
            let end = self.read();
            self.say(format!("read -> {end}, stream total {}", self.stream.len()));
        } else if said.starts_with("after reset:") {
            self.apply(Op::Reset);
            self.sent();
            let Reply::State(state) = self.apply(Op::GetState) else { panic!() };
            self.say(format!("after reset: {state}"));
        } else if said.starts_with("STREAM") {
            self.saved = self.stream.clone();
            // The image is zeros in both; it is cut off where the golden record cuts it.
            let mut hex = String::new();
            for byte in &self.stream[..56] {
                write!(hex, "{byte:02x}").unwrap();
            }
            self.say(format!("STREAM {hex}.."));
        }
    }

    fn apply(&mut self, op: Op<&[u8]>) -> Reply<Vec<u8>> {
        let mut buf = [0; 3000];
        self.device.as_mut().unwrap().apply(op, &mut buf).map(<[u8]>::to_vec)
    }

    fn set(&mut self, to: &str) -> String {
        let to = State::ALL.into_iter().find(|state| state.name() == to).unwrap();
        match self.apply(Op::set(to)) {
            Reply::Fd(None) => format!("= ok, state {to}"),
            Reply::Fd(fd) => {
                self.fd = fd;
                format!("= ok, state {to} + data_fd")
            }
            Reply::Errno(errno) => {
                let Reply::State(state) = self.apply(Op::GetState) else { panic!() };
                format!("= error -{} (state now {state})", errno.0)
            }
            other => panic!("{other:?}"),
        }
    }

    fn read(&mut self) -> i32 {
        let fd = self.fd.unwrap();
        loop {
            match self.apply(Op::Read { fd, len: 3000 }) {
                Reply::Bytes(bytes) => self.stream.extend(bytes),
                Reply::EndOfStream(EndOfStream::Temporary) => return -42,
                Reply::EndOfStream(EndOfStream::Permanent) => return 0,
                other => panic!("{other:?}"),
            }
        }
    }

    fn write(&mut self) {
        let saved = self.saved.clone();
        let fd = self.fd.unwrap();
        for bytes in saved.chunks(1000) {
            let written = self.apply(Op::Write { fd, bytes });
            assert_eq!(written, Reply::Written(bytes.len() as u32));
        }
        self.sent();
    }

    fn say(&mut self, said: String) {
        self.lines.push(Line::Said(said));
    }

    /// What was sent since.
    fn sent(&mut self) {
        for Sent { opcode, mut input, made, error } in std::mem::take(&mut self.double.state().log)
        {
            let opcode = opcode.to_string();
            self.numbers.normalise(&opcode, &mut input);
            if let Some(made) = made {
                self.numbers.made(made);
            }
            let (len, failed) = (input.len(), error.is_some());
            self.lines.push(Line::Sent { opcode, bytes: input, known: len, len, failed });
        }
    }
}

/// Whether our line is the golden one, as far as that is known.
fn same(golden: &Line, ours: &Line) -> bool {
    match (golden, ours) {
        (Line::Sent { known, .. }, Line::Sent { .. }) => {
            let cut = |line: &Line| match line {
                Line::Sent { opcode, bytes, len, failed, .. } => {
                    (opcode.clone(), bytes[..*known].to_vec(), *len, *failed)
                }
                Line::Said(_) => unreachable!(),
            };
            cut(golden) == cut(ours)
        }
        _ => golden == ours,
    }
}

fn show(line: &Line) -> String {
    match line {
        Line::Said(said) => said.clone(),
        Line::Sent { opcode, bytes, known, failed, .. } => {
            let mut shown = format!("{opcode} ");
            for byte in &bytes[..(*known).min(48)] {
                write!(shown, "{byte:02x}").unwrap();
            }
            if *failed { shown + " fails" } else { shown }
        }
    }
}

/// What is in one and not in the other, line by line: both sides of the first stretch that differs.
fn differing<'a>(golden: &'a [Line], ours: &'a [Line]) -> (&'a [Line], &'a [Line]) {
    let head = golden.iter().zip(ours).take_while(|(a, b)| same(a, b)).count();
    let (golden, ours) = (&golden[head..], &ours[head..]);
    let tail = golden.iter().rev().zip(ours.iter().rev()).take_while(|(a, b)| same(a, b)).count();
    (&golden[..golden.len() - tail], &ours[..ours.len() - tail])
}

/// M60, R6, R25: on every arc, in PRECOPY_INFO, on write and on reset, the commands that are sent
/// are those of the kernel's driver, in its order and byte for byte, but for the listed differences.
#[test]
fn every_arc_sends_what_the_kernels_driver_sends() {
    let mut player = Player::new();
    let mut commands = 0;
    for (scenario, golden) in golden() {
        if ELSEWHERE.contains(&scenario.as_str()) {
            continue;
        }
        let ours = player.play(&scenario, &golden);
        commands += ours.iter().filter(|line| matches!(line, Line::Sent { .. })).count();
        let (missing, instead) = differing(&golden, &ours);
        let lines = |lines: &[Line]| lines.iter().map(show).collect::<Vec<_>>();
        let (missing, instead) = (lines(missing), lines(instead));
        let meant = DIFFERENCES.iter().find(|difference| difference.scenario == scenario);
        let (golden, ours, reason) =
            meant.map_or((&[][..], &[][..], "not listed"), |d| (d.golden, d.ours, d.reason));
        assert_eq!(
            (&missing[..], &instead[..]),
            (&to_strings(golden)[..], &to_strings(ours)[..]),
            "{scenario} ({reason})"
        );
    }
    let double = &player.double;
    assert_eq!(double.state().violations, [""; 0]);
    assert_eq!(commands, 66, "the whole file is played");
}

fn to_strings(lines: &[&str]) -> Vec<String> {
    lines.iter().map(ToString::to_string).collect()
}

/// M60: the golden file is not played past: every command of the migration path is in it.
#[test]
fn the_record_has_every_command_of_the_migration_path() {
    let scenarios = golden();
    let has = |opcode: Opcode| {
        scenarios.iter().flat_map(|(_, lines)| lines).any(
            |line| matches!(line, Line::Sent { opcode: sent, .. } if *sent == opcode.to_string()),
        )
    };
    let path = [
        Opcode::QueryHcaCap,
        Opcode::SuspendVhca,
        Opcode::ResumeVhca,
        Opcode::QueryVhcaMigrationState,
        Opcode::SaveVhcaState,
        Opcode::LoadVhcaState,
        Opcode::AllocPd,
        Opcode::DeallocPd,
        Opcode::CreateMkey,
        Opcode::DestroyMkey,
    ];
    assert!(path.into_iter().all(has));
    for difference in DIFFERENCES {
        assert!(scenarios.iter().any(|(name, _)| name == difference.scenario));
        assert!(!difference.reason.is_empty());
    }
}
