// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The firmware's side of the queue, and nothing else: it reads an entry with all its mailboxes,
//! strictly, and answers as the test says. Written from the layout, not with the driver's code.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use vfio_fsm_mlx5::bar::{self, Registers};
use vfio_fsm_mlx5::dma::DmaSpace;
use vfio_fsm_mlx5::layout::Opcode;
use vfio_fsm_mlx5::queue::Options;

/// One command as it was received.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) slot: usize,
    pub(crate) token: u8,
    pub(crate) input: Vec<u8>,
    pub(crate) output_len: usize,
}

impl Seen {
    pub(crate) fn opcode(&self) -> Opcode {
        u16::from_be_bytes([self.input[0], self.input[1]]).into()
    }

    pub(crate) fn op_mod(&self) -> u16 {
        u16::from_be_bytes([self.input[6], self.input[7]])
    }

    pub(crate) fn word(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.input[at..at + 4].try_into().unwrap())
    }
}

/// What is done with it.
pub(crate) enum Answer {
    /// Done, with this output; what is not said is zero.
    Output(Vec<u8>),
    /// Not delivered.
    Delivery(u8),
    /// Left alone until [`Fake::release`].
    Hold,
}

impl Answer {
    pub(crate) fn ok() -> Self {
        Self::Output(Vec::new())
    }

    pub(crate) fn status(status: u8, syndrome: u32) -> Self {
        let mut output = vec![status, 0, 0, 0];
        output.extend(syndrome.to_be_bytes());
        Self::Output(output)
    }
}

type Handler = Box<dyn FnMut(&Seen) -> Answer + Send>;

pub(crate) struct EventQueue {
    pages: Vec<u64>,
    entries: u64,
    mask: u64,
    produced: u64,
}

pub(crate) struct State {
    registers: HashMap<usize, u32>,
    /// Bytes from one entry of the command queue to the next.
    stride: u64,
    /// Looks at the health counter that find it moved.
    pub(crate) alive_for: u32,
    /// All registers read as ones.
    pub(crate) unplugged: bool,
    /// Demands signatures, and signs.
    pub(crate) signs: bool,
    /// Spoils what it signs.
    pub(crate) spoils: bool,
    /// Adds this to the tokens of its answers: of the entry, and of the last block.
    pub(crate) strange_tokens: (u8, u8),
    pub(crate) seen: Vec<Seen>,
    held: HashMap<usize, (u64, Vec<u64>)>,
    pub(crate) event_queues: BTreeMap<u8, EventQueue>,
    /// All writes to doorbells of event queues.
    pub(crate) armed: Vec<u32>,
    /// Pages it has, in the order it got them.
    pub(crate) pages: Vec<u64>,
    /// How many it asks for to boot, and to initialise.
    pub(crate) wants: (u32, u32),
}

#[derive(Clone)]
pub(crate) struct Fake {
    pub(crate) dma: DmaSpace,
    pub(crate) state: Arc<Mutex<State>>,
    handler: Arc<Mutex<Handler>>,
}

pub(crate) const CAP_BYTE: u8 = 0x5a;

impl Fake {
    pub(crate) fn new() -> Self {
        Self::with_geometry(5, 6)
    }

    pub(crate) fn with_geometry(log_entries: u32, log_stride: u32) -> Self {
        let registers = HashMap::from([
            (bar::FW_REV, 0x0010_0016),
            (bar::CMDIF_REV, 5 << 16),
            (bar::CMDQ_ADDRESS_LOW, log_entries << 4 | log_stride),
        ]);
        let state = State {
            registers,
            stride: 1 << log_stride,
            alive_for: u32::MAX,
            unplugged: false,
            signs: false,
            spoils: false,
            strange_tokens: (0, 0),
            seen: Vec::new(),
            held: HashMap::new(),
            event_queues: BTreeMap::new(),
            armed: Vec::new(),
            pages: Vec::new(),
            wants: (3, 70),
        };
        let handler: Handler = Box::new(|_| Answer::ok());
        Self {
            dma: DmaSpace::new(64 << 20),
            state: Arc::new(Mutex::new(state)),
            handler: Arc::new(Mutex::new(handler)),
        }
    }

    pub(crate) fn set(&self, register: usize, value: u32) {
        self.state.lock().registers.insert(register, value);
    }

    pub(crate) fn register(&self, register: usize) -> u32 {
        self.state.lock().registers.get(&register).copied().unwrap_or(0)
    }

    pub(crate) fn handle(&self, handler: impl FnMut(&Seen) -> Answer + Send + 'static) {
        *self.handler.lock() = Box::new(handler);
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.state.lock().seen.clone()
    }

    pub(crate) fn opcodes(&self) -> Vec<Opcode> {
        self.seen().iter().map(Seen::opcode).collect()
    }

    /// Ends a command that was held.
    pub(crate) fn release(&self, slot: usize, output: &[u8]) {
        let mut state = self.state.lock();
        let (entry, blocks) = state.held.remove(&slot).expect("nothing is held there");
        self.complete(&mut state, slot, entry, &blocks, output);
    }

    pub(crate) fn held(&self) -> Vec<usize> {
        self.state.lock().held.keys().copied().collect()
    }

    /// Puts an event into each queue that takes it.
    pub(crate) fn post(&self, event_type: u8, data: &[u8]) {
        let mut state = self.state.lock();
        self.post_locked(&mut state, event_type, data);
    }

    pub(crate) fn request_pages(&self, function: u16, pages: i32) {
        let mut data = vec![0, 0];
        data.extend(function.to_be_bytes());
        data.extend(pages.to_be_bytes());
        self.post(0x0b, &data);
    }

    fn post_locked(&self, state: &mut State, event_type: u8, data: &[u8]) {
        let State { event_queues, armed, .. } = state;
        for (number, queue) in event_queues.iter_mut().filter(|q| q.1.mask & 1 << event_type != 0) {
            let unread = queue.produced.saturating_sub(consumed(armed, *number));
            assert!(unread < queue.entries, "queue {number:#x} of events overflows");
            let at = queue.produced % queue.entries * 64;
            let iova = queue.pages[(at / 4096) as usize] + at % 4096;
            let mut event = [0; 64];
            event[1] = event_type;
            event[0x20..0x20 + data.len()].copy_from_slice(data);
            event[0x3f] = u8::from(queue.produced & queue.entries != 0);
            self.dma.write(iova, &event[..63]).unwrap();
            self.dma.write(iova + 63, &event[63..]).unwrap();
            queue.produced += 1;
        }
    }

    /// Whether the firmware knows that all events of a queue have been read.
    pub(crate) fn is_read(&self, number: u8) -> bool {
        let state = self.state.lock();
        state.event_queues[&number].produced == consumed(&state.armed, number)
    }

    fn queue(&self, state: &State) -> (u64, u64) {
        let high = u64::from(state.registers[&bar::CMDQ_ADDRESS_HIGH]);
        let low = u64::from(state.registers[&bar::CMDQ_ADDRESS_LOW]);
        (high << 32 | low, state.stride)
    }

    fn doorbell(&self, slot: usize) {
        let mut state = self.state.lock();
        let (base, stride) = self.queue(&state);
        let entry = base + slot as u64 * stride;
        let (seen, blocks) = match self.receive(&state, slot, entry) {
            Ok(received) => received,
            Err(status) => return self.finish_entry(&mut state, slot, entry, status),
        };
        state.seen.push(seen.clone());
        // A handler may use the fake.
        drop(state);
        let answer = (self.handler.lock())(&seen);
        let mut state = self.state.lock();
        match answer {
            Answer::Output(output) => {
                self.built_in(&mut state, &seen, &output);
                self.complete(&mut state, slot, entry, &blocks, &output);
            }
            Answer::Delivery(status) => self.finish_entry(&mut state, slot, entry, status),
            Answer::Hold => {
                state.held.insert(slot, (entry, blocks));
            }
        }
    }

    /// Reads a command with all its blocks, or says what is wrong, as a delivery status.
    fn receive(&self, state: &State, slot: usize, at: u64) -> Result<(Seen, Vec<u64>), u8> {
        let mut entry = [0; 64];
        self.dma.read(at, &mut entry).map_err(|_| 6)?;
        let number = |at: usize| u32::from_be_bytes(entry[at..at + 4].try_into().unwrap());
        let pointer = |at: usize| u64::from(number(at)) << 32 | u64::from(number(at + 4));
        let token = entry[0x3c];
        if entry.iter().fold(0, |sum, byte| sum ^ byte) != 0xff {
            return Err(1);
        }
        if entry[0] != 7 {
            return Err(0x10);
        }
        let reserved = entry[1..4].iter().chain(&entry[0x20..0x30]).chain(&entry[0x3e..0x3f]);
        if entry[0x3f] != 1 || reserved.copied().any(|byte| byte != 0) {
            return Err(9);
        }
        let (input_len, output_len) = (number(4) as usize, number(0x38) as usize);
        let mut input = entry[0x10..0x20].to_vec();
        let (_, data) = self.chain(state, pointer(8), input_len.saturating_sub(16), token, 5)?;
        input.extend(data);
        if input[input_len..].iter().any(|byte| *byte != 0) {
            return Err(7);
        }
        input.truncate(input_len);
        let room = output_len.saturating_sub(16);
        let (blocks, stale) = self.chain(state, pointer(0x30), room, token, 4)?;
        if stale.iter().any(|byte| *byte != 0) {
            return Err(8);
        }
        Ok((Seen { slot, token, input, output_len }, blocks))
    }

    fn chain(
        &self,
        state: &State,
        first: u64,
        len: usize,
        token: u8,
        misaligned: u8,
    ) -> Result<(Vec<u64>, Vec<u8>), u8> {
        let (mut blocks, mut data, mut next) = (Vec::new(), Vec::new(), first);
        let mut known = HashSet::new();
        for number in 0..len.div_ceil(512) {
            if next == 0 || next % 1024 != 0 || !known.insert(next) {
                return Err(misaligned);
            }
            let mut block = [0; 576];
            self.dma.read(next, &mut block).map_err(|_| misaligned)?;
            if block[0x23d] != token {
                return Err(2);
            }
            if block[0x238..0x23c] != (number as u32).to_be_bytes() {
                return Err(3);
            }
            let xor = |bytes: &[u8]| bytes.iter().fold(0, |sum, byte| sum ^ byte);
            let signed = xor(&block[0x200..0x23f]) == 0xff && xor(&block) == 0xff;
            let unsigned = block[0x23e] == 0 && block[0x23f] == 0;
            if !(if state.signs { signed } else { unsigned }) {
                return Err(1);
            }
            blocks.push(next);
            data.extend(&block[..512]);
            next = u64::from_be_bytes(block[0x230..0x238].try_into().unwrap());
        }
        if next != 0 { Err(misaligned) } else { Ok((blocks, data)) }
    }

    fn complete(&self, state: &mut State, slot: usize, entry: u64, blocks: &[u64], output: &[u8]) {
        let (inline, rest) = output.split_at(output.len().min(16));
        self.dma.write(entry + 0x20, inline).unwrap();
        for (block, part) in blocks.iter().zip(rest.chunks(512)) {
            self.dma.write(*block, part).unwrap();
        }
        if state.signs {
            for block in blocks {
                let mut bytes = [0; 576];
                self.dma.read(*block, &mut bytes).unwrap();
                if Some(block) == blocks.last() {
                    bytes[0x23d] += state.strange_tokens.1;
                }
                bytes[0x23e] = !bytes[0x200..0x23e].iter().fold(0, |sum, byte| sum ^ byte);
                bytes[0x23f] = !bytes[..0x23f].iter().fold(0, |sum, byte| sum ^ byte);
                self.dma.write(*block, &bytes).unwrap();
            }
        }
        if state.spoils {
            let spoilt = blocks.last().map_or(entry + 0x2f, |block| block + 5);
            self.dma.write(spoilt, &[0xee]).unwrap();
        }
        self.finish_entry(state, slot, entry, 0);
    }

    fn finish_entry(&self, state: &mut State, slot: usize, at: u64, status: u8) {
        let mut entry = [0; 64];
        self.dma.read(at, &mut entry).unwrap();
        let spoilt = if state.spoils { 1 } else { 0 };
        entry[0x3c] += state.strange_tokens.0;
        entry[0x3d] = 0;
        entry[0x3f] = status << 1;
        entry[0x3d] = !entry.iter().fold(0, |sum, byte| sum ^ byte) ^ spoilt;
        self.dma.write(at, &entry[..63]).unwrap();
        self.dma.write(at + 63, &entry[63..]).unwrap();
        self.post_locked(state, 0x0a, &(1u32 << slot).to_be_bytes());
    }

    /// What any answer means for the fake itself.
    fn built_in(&self, state: &mut State, seen: &Seen, output: &[u8]) {
        if output.first().is_some_and(|status| *status != 0) {
            return;
        }
        match (seen.opcode(), seen.op_mod()) {
            (Opcode::CreateEq, _) => {
                let pages = seen.input[0x110..].chunks(8);
                let pages = pages.map(|page| u64::from_be_bytes(page.try_into().unwrap()));
                let queue = EventQueue {
                    pages: pages.collect(),
                    entries: 1 << (seen.input[0x1c] & 0x1f),
                    mask: u64::from(seen.word(0x58)) << 32 | u64::from(seen.word(0x5c)),
                    produced: 0,
                };
                state.event_queues.insert(output[11], queue);
            }
            (Opcode::DestroyEq, _) => {
                state.event_queues.remove(&seen.input[11]).expect("no such event queue");
            }
            (Opcode::ManagePages, 1) => {
                let pages = seen.input[16..].chunks(8);
                assert_eq!(pages.len(), seen.word(12) as usize);
                state.pages.extend(pages.map(|p| u64::from_be_bytes(p.try_into().unwrap())));
            }
            _ => {}
        }
    }

    /// The answers of a firmware that a function comes up on.
    pub(crate) fn usual(&self, seen: &Seen) -> Answer {
        let mut output = vec![0; 16];
        match (seen.opcode(), seen.op_mod()) {
            (Opcode::QueryIssi, _) => {
                output.resize(112, 0);
                output[0x6f] = 0b11;
            }
            (Opcode::QueryPages, op_mod) => {
                let (boot, init) = self.state.lock().wants;
                let wanted = if op_mod == 1 { boot } else { init };
                output[12..].copy_from_slice(&wanted.to_be_bytes());
            }
            (Opcode::QueryHcaCap, _) => output.resize(4112, CAP_BYTE),
            (Opcode::AllocUar, _) => output[11] = 9,
            (Opcode::CreateEq, _) => {
                output[11] = 0x10 + self.state.lock().event_queues.len() as u8;
            }
            (Opcode::ManagePages, 2) => {
                let mut state = self.state.lock();
                let count = state.pages.len().min(seen.word(12) as usize);
                output[8..12].copy_from_slice(&(count as u32).to_be_bytes());
                output.extend(state.pages.drain(..count).flat_map(u64::to_be_bytes));
            }
            _ => {}
        }
        Answer::Output(output)
    }

    /// Makes it a firmware that a function comes up on.
    pub(crate) fn up(self) -> Self {
        let fake = self.clone();
        self.handle(move |seen| fake.usual(seen));
        self
    }
}

/// How many events of a queue have been read, as its doorbell says.
fn consumed(armed: &[u32], number: u8) -> u64 {
    let of_queue = armed.iter().rfind(|armed| **armed >> 24 == u32::from(number));
    of_queue.map_or(0, |armed| u64::from(armed & 0xff_ffff))
}

impl Registers for Fake {
    fn read32(&self, offset: usize) -> u32 {
        let mut state = self.state.lock();
        if state.unplugged {
            return u32::MAX;
        }
        if offset == bar::HEALTH_COUNTER && state.alive_for > 0 {
            *state.registers.entry(offset).or_default() += 1;
            state.alive_for -= 1;
        }
        state.registers.get(&offset).copied().unwrap_or(0)
    }

    fn write32(&self, offset: usize, value: u32) {
        match offset {
            bar::COMMAND_DOORBELL => {
                (0..32).filter(|slot| value & 1 << slot != 0).for_each(|slot| self.doorbell(slot));
            }
            bar::CMDQ_ADDRESS_LOW => {
                assert_eq!(value & 0xfff, 0, "the queue's address is not one of a page");
                self.set(offset, value);
            }
            bar::CMDQ_ADDRESS_HIGH => self.set(offset, value),
            _ => self.state.lock().armed.push(value),
        }
    }
}

/// Options for tests: what is to take long takes a moment.
pub(crate) fn options() -> Options {
    Options { command_timeout: Some(Duration::from_secs(20)), ..Options::default() }
}

/// A command of this opcode and length; the rest is a pattern.
pub(crate) fn command(opcode: Opcode, len: usize) -> Vec<u8> {
    let mut input: Vec<u8> = (0..len).map(|at| (at * 7 + 1) as u8).collect();
    input[..2].copy_from_slice(&u16::from(opcode).to_be_bytes());
    input
}
