// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The command queue of a physical function, and everything that must be there for it to be used.
//!
//! * [`Hca`]: a function that is up. It gives [`Commands`], and takes itself down.
//! * [`CommandQueue`]: the queue alone.
//!
//! # Waiting
//!
//! The ownership bit of a queue entry is the truth about a command; an event only says where to
//! look. Whoever waits looks at the bit, handles what events there are, and sleeps for longer and
//! longer, a millisecond at most: so nothing hangs on an interrupt that does not come, and nothing
//! needs a thread. With interrupts, a thread that calls [`CommandQueue::service`] for each wakes
//! those who wait at once.
//!
//! # What cannot happen
//!
//! * The firmware's wish for pages waits for a command: the last entry of the queue is for
//!   MANAGE_PAGES alone, and whoever waits for another command gives pages meanwhile.
//! * Memory of a command that timed out is given to another one: both entry and mailboxes are the
//!   firmware's until it clears the ownership bit.
//! * A wait without end: each has its bound, and ends earlier if the firmware is gone
//!   ([`GoneCause`]).

mod backoff;
mod entry;
mod events;
mod hca;
mod health;
mod mailbox;
mod pages;
mod slots;

use std::fmt;
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::bar::{self, Registers};
use crate::command::{CommandError, Commands};
use crate::dma::{DmaBuffer, DmaError, DmaSpace};
use crate::layout::{CmdQueueEntry, CommandIn, CommandOut, CommandStatus, DeliveryStatus, Opcode};
use backoff::Backoff;
use entry::{Entry, INLINE_BYTES, OWNED_BY_FIRMWARE, STATUS};
use events::Events;
pub use events::{Event, EventCounts};
pub use hca::{Hca, HcaError};
pub use health::GoneCause;
use health::Health;
use mailbox::Mailboxes;
use pages::Pages;
use slots::{Flight, InFlight, Lane, Outcome, Slots};

/// Bytes of the queue, and what its address is a multiple of.
const QUEUE_BYTES: usize = 4096;
/// The doorbell is a dword with a bit for each entry.
const MAX_ENTRIES: usize = 32;
/// `cmd_interface_rev` of all devices so far.
const INTERFACE_REVISION: u32 = 5;
/// Status and syndrome, or opcode and op_mod.
const HEADER_BYTES: usize = 8;
/// The longest input or output, in bytes: a memory key for 4 GiB of pages, with room to spare.
pub const MAX_COMMAND_BYTES: usize = 16 << 20;

/// How a queue is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// How long one command may take. `None`: what the firmware says in its init segment, and 60 s
    /// if it says nothing.
    pub command_timeout: Option<Duration>,
    /// How long the firmware may take to be ready for commands. The kernel's driver has 120 s.
    pub init_timeout: Duration,
    /// How long the firmware's health counter may stand still while somebody waits.
    pub health_period: Duration,
    /// Whether mailboxes are signed, and the firmware's answers verified: `cmdif_checksum`. The
    /// kernel's driver turns that off.
    pub signatures: bool,
    /// How many bytes of memory the firmware may have from us, in pages of 4096.
    pub page_limit: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            command_timeout: None,
            init_timeout: Duration::from_secs(120),
            health_period: Duration::from_secs(6),
            signatures: false,
            page_limit: 4 << 30,
        }
    }
}

/// A queue that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QueueError {
    /// The firmware did not become ready.
    #[error("the firmware still initialises after {after:?}; see its health buffer, or reset it")]
    NotReady {
        /// How long was waited.
        after: Duration,
    },
    /// The firmware speaks another version of the interface.
    #[error("command interface revision {seen}, but only {INTERFACE_REVISION} is known here")]
    Revision {
        /// What it says.
        seen: u32,
    },
    /// The queue that the firmware describes is none.
    #[error(
        "a queue of {entries} entries, {stride} bytes each; there must be 2 to 32, of at least 64 \
         bytes, and all in 4096"
    )]
    Geometry {
        /// How many entries.
        entries: usize,
        /// Bytes from one to the next.
        stride: usize,
    },
    /// There is no device.
    #[error("the physical function is gone: {0}")]
    Gone(#[from] GoneCause),
    /// There is no memory for it.
    #[error("memory for the command queue: {0}")]
    Dma(#[from] DmaError),
}

/// The command queue of one physical function.
pub struct CommandQueue<R: Registers> {
    registers: R,
    dma: DmaSpace,
    options: Options,
    timeout: Duration,
    memory: DmaBuffer,
    stride: usize,
    mailboxes: Mailboxes,
    slots: Mutex<Slots>,
    /// Something changed for those who wait: a command ended, an entry is free, or all is over.
    changed: Condvar,
    health: Health,
    events: Events,
    pages: Pages,
}

/// A command on its way. Dropping it leaves the command to end by itself.
#[derive(Debug)]
pub struct Ticket {
    flight: Flight,
    opcode: Opcode,
    deadline: Instant,
}

impl fmt::Debug for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}, {} bytes", self.result, self.output.len())
    }
}

/// Why a wait ended without what was waited for.
enum Ended {
    Late,
    Gone,
}

impl<R: Registers> CommandQueue<R> {
    /// Waits until the firmware is ready, and tells it where the queue is.
    pub fn new(registers: R, dma: DmaSpace, options: Options) -> Result<Self, QueueError> {
        wait_for_init(&registers, options.init_timeout)?;
        let seen = registers.read32(bar::CMDIF_REV) >> 16;
        if seen != INTERFACE_REVISION {
            return Err(QueueError::Revision { seen });
        }
        let geometry = registers.read32(bar::CMDQ_ADDRESS_LOW);
        let (entries, stride) = (1 << (geometry >> 4 & 0xf), 1 << (geometry & 0xf));
        let fits = entries * stride <= QUEUE_BYTES && stride >= CmdQueueEntry::BYTES;
        if !fits || !(2..=MAX_ENTRIES).contains(&entries) {
            return Err(QueueError::Geometry { entries, stride });
        }
        let memory = dma.allocate(QUEUE_BYTES)?;
        registers.write32(bar::CMDQ_ADDRESS_HIGH, (memory.iova() >> 32) as u32);
        registers.write32(bar::CMDQ_ADDRESS_LOW, memory.iova() as u32);
        wait_for_init(&registers, options.init_timeout)?;
        let advertised = command_timeout(registers.read32(bar::COMMAND_TIMEOUT));
        Ok(Self {
            timeout: options.command_timeout.unwrap_or(advertised),
            mailboxes: Mailboxes::new(dma.clone()),
            slots: Mutex::new(Slots::new(entries)),
            changed: Condvar::new(),
            health: Health::new(options.health_period),
            events: Events::default(),
            pages: Pages::new(options.page_limit),
            registers,
            dma,
            options,
            memory,
            stride,
        })
    }

    /// Where the registers are.
    pub fn registers(&self) -> &R {
        &self.registers
    }

    /// How long one command may take.
    pub fn command_timeout(&self) -> Duration {
        self.timeout
    }

    /// Entries that the firmware has: commands on their way, and those that nobody waits for any
    /// more but that it did not give back.
    pub fn in_flight(&self) -> usize {
        let mut slots = self.slots.lock();
        self.reap(&mut slots);
        slots.occupied().count()
    }

    /// Why no command can be given any more; `None` as long as one can.
    pub fn gone(&self) -> Option<GoneCause> {
        self.health.gone()
    }

    /// Handles what there is to handle: answers and events. For a thread that waits for interrupts;
    /// whoever waits for a command does the same.
    ///
    /// Gives pages if the firmware asked for some, and then waits for the end of MANAGE_PAGES.
    pub fn service(&self) {
        self.drain_events();
        self.serve_pages();
        self.reap(&mut self.slots.lock());
    }

    /// Waits until the firmware has nothing more to do, for no longer than a command may take.
    fn wait_until_idle(&self) {
        let idle = |slots: &mut Slots| slots.occupied_from(0).is_none().then_some(());
        // If it is not: the commands that follow find out.
        let _ = self.wait(Instant::now() + self.timeout, Lane::Regular, idle);
    }

    /// Takes the events that there are.
    fn drain_events(&self) {
        self.events.drain(&self.registers, &self.pages);
    }

    /// Says that there is no firmware any more.
    fn end(&self, cause: GoneCause) {
        self.health.set_gone(cause);
        self.slots.lock().fail_all(CommandError::Gone);
        self.changed.notify_all();
    }

    /// Looks whether there still is a firmware, which costs reads over PCI.
    fn look_alive(&self) -> Result<(), Ended> {
        match self.health.look(&self.registers) {
            Some(cause) => {
                self.end(cause);
                Err(Ended::Gone)
            }
            None => Ok(()),
        }
    }

    fn submit(&self, input: &[u8], output_len: usize) -> Result<Ticket, CommandError> {
        let fits = HEADER_BYTES..=MAX_COMMAND_BYTES;
        if !fits.contains(&input.len()) || !fits.contains(&output_len) {
            let max = MAX_COMMAND_BYTES;
            return Err(CommandError::Length { input: input.len(), output: output_len, max });
        }
        if self.gone().is_some() {
            return Err(CommandError::Gone);
        }
        let opcode = CommandIn::new(input)?.opcode();
        let token = self.slots.lock().next_token();
        let command = self.in_flight_command(input, output_len, opcode, token)?;
        let flight = command.flight.clone();
        let entry = Entry {
            input,
            input_mailbox: command.input.iova(),
            output_len,
            output_mailbox: command.output.iova(),
            token,
        };
        self.enqueue(&entry.encode(), command)?;
        Ok(Ticket { flight, opcode, deadline: Instant::now() + self.timeout })
    }

    fn in_flight_command(
        &self,
        input: &[u8],
        output_len: usize,
        opcode: Opcode,
        token: u8,
    ) -> Result<InFlight, CommandError> {
        let signed = self.options.signatures;
        let rest = input.get(INLINE_BYTES..).unwrap_or_default();
        let input = self.mailboxes.input(rest, token, signed)?;
        let room = output_len.saturating_sub(INLINE_BYTES);
        match self.mailboxes.output(room, token, signed) {
            Ok(output) => {
                let flight = Flight::default();
                Ok(InFlight { flight, opcode, input, output, output_len, token })
            }
            Err(error) => {
                self.mailboxes.recycle(input);
                Err(error.into())
            }
        }
    }

    /// Puts a command into an entry as soon as there is one, and rings the doorbell.
    fn enqueue(&self, entry: &CmdQueueEntry, command: InFlight) -> Result<(), CommandError> {
        let (opcode, lane) = (command.opcode, Lane::of(command.opcode));
        let mut command = Some(command);
        let place = |slots: &mut Slots| {
            let slot = slots.vacant(lane)?;
            let written = self.memory.write(slot * self.stride, entry.as_bytes());
            if written.is_ok() {
                slots.occupy(slot, command.take()?);
            }
            Some(written.map(|()| slot))
        };
        // The firmware fails if a queue of events overflows. Each command makes one, and an answer
        // may be found without it.
        self.drain_events();
        let placed = self.wait(Instant::now() + self.timeout, lane, place);
        if let Some(command) = command {
            self.recycle(command);
        }
        let slot = placed.map_err(|ended| self.error(ended, opcode))??;
        // The device must find in memory what the doorbell tells it of.
        fence(Ordering::SeqCst);
        self.registers.write32(bar::COMMAND_DOORBELL, 1 << slot);
        Ok(())
    }

    fn recycle(&self, command: InFlight) {
        self.mailboxes.recycle(command.input);
        self.mailboxes.recycle(command.output);
    }

    fn error(&self, ended: Ended, opcode: Opcode) -> CommandError {
        match ended {
            Ended::Late => CommandError::Timeout { opcode, after: self.timeout },
            Ended::Gone => CommandError::Gone,
        }
    }

    /// Waits until `ready` has something, and meanwhile does what the firmware needs done. Who waits
    /// for an answer about pages does not: it is that.
    fn wait<T>(
        &self,
        deadline: Instant,
        lane: Lane,
        mut ready: impl FnMut(&mut Slots) -> Option<T>,
    ) -> Result<T, Ended> {
        let mut backoff = Backoff::new();
        loop {
            // Before the look: so there is one more when the time is over.
            let late = Instant::now() >= deadline;
            let mut slots = self.slots.lock();
            self.reap(&mut slots);
            if let Some(found) = ready(&mut slots) {
                return Ok(found);
            }
            drop(slots);
            if late {
                return Err(Ended::Late);
            }
            self.drain_events();
            if lane == Lane::Regular {
                self.serve_pages();
            }
            if let Some(pause) = backoff.pause() {
                self.look_alive()?;
                self.changed.wait_for(&mut self.slots.lock(), pause);
            } else if self.gone().is_some() {
                return Err(Ended::Gone);
            }
        }
    }

    /// Takes the answers that are there.
    fn reap(&self, slots: &mut Slots) {
        let mut from = 0;
        let mut reaped = false;
        while let Some(slot) = slots.occupied_from(from) {
            from = slot + 1;
            let status = self.memory.load(slot * self.stride + STATUS);
            if matches!(status, Ok(status) if status & OWNED_BY_FIRMWARE != 0) {
                continue;
            }
            if let Some(command) = slots.vacate(slot) {
                let outcome = self.outcome(slot, &command);
                // Whoever gave up waiting set it before.
                let _ = command.flight.set(outcome);
                self.recycle(command);
                reaped = true;
            }
        }
        if reaped {
            self.changed.notify_all();
        }
    }

    fn outcome(&self, slot: usize, command: &InFlight) -> Outcome {
        let mut output = vec![0; command.output_len];
        let result = self.answer(slot, command, &mut output);
        if !matches!(result, Ok(()) | Err(CommandError::Status { .. })) {
            output.clear();
        }
        Outcome { result, output }
    }

    fn answer(
        &self,
        slot: usize,
        command: &InFlight,
        output: &mut [u8],
    ) -> Result<(), CommandError> {
        let mut entry = CmdQueueEntry::zeroed();
        self.memory.read(slot * self.stride, entry.as_bytes_mut())?;
        let opcode = command.opcode;
        let status = entry.status();
        if status != DeliveryStatus::Ok {
            return Err(CommandError::Delivery { opcode, status });
        }
        if self.options.signatures {
            verify(&entry, command)?;
        }
        let (inline, rest) = output.split_at_mut(output.len().min(INLINE_BYTES));
        inline.copy_from_slice(&entry.command_output_inline_data()[..inline.len()]);
        command.output.read(rest)?;
        let header = CommandOut::new(&*output)?;
        match header.status() {
            CommandStatus::Ok => Ok(()),
            status => Err(CommandError::Status { opcode, status, syndrome: header.syndrome() }),
        }
    }
}

/// Whether an answer is what was written, and to this command. The kernel's driver does not look at
/// the token, so a firmware that puts another one there may be about; it is not one that signs.
fn verify(entry: &CmdQueueEntry, command: &InFlight) -> Result<(), CommandError> {
    let (opcode, sent) = (command.opcode, command.token);
    if !is_signed(entry.as_bytes()) || !command.output.is_signed()? {
        return Err(CommandError::Signature { opcode });
    }
    match command.output.strange_token(sent)?.or(Some(entry.token()).filter(|seen| *seen != sent)) {
        Some(seen) => Err(CommandError::Token { opcode, sent, seen }),
        None => Ok(()),
    }
}

impl<R: Registers> Commands for CommandQueue<R> {
    type Ticket = Ticket;

    fn start(&self, input: &[u8], output_len: usize) -> Result<Ticket, CommandError> {
        self.submit(input, output_len)
    }

    fn is_done(&self, ticket: &Ticket) -> bool {
        if ticket.flight.get().is_none() && Instant::now() < ticket.deadline {
            self.service();
            // Gone or not: then it is done, too.
            let _ = self.look_alive();
        }
        ticket.flight.get().is_some() || Instant::now() >= ticket.deadline
    }

    fn finish(&self, ticket: Ticket, output: &mut [u8]) -> Result<(), CommandError> {
        let Ticket { flight, opcode, deadline } = ticket;
        let done = |_: &mut Slots| flight.get().is_some().then_some(());
        if let Err(ended) = self.wait(deadline, Lane::of(opcode), done) {
            slots::fail(&flight, self.error(ended, opcode));
        }
        let Some(outcome) = flight.get() else { return Err(CommandError::Gone) };
        let len = output.len().min(outcome.output.len());
        output[..len].copy_from_slice(&outcome.output[..len]);
        outcome.result
    }

    fn dma(&self) -> &DmaSpace {
        &self.dma
    }
}

/// What `cmd_exec_to` of the init segment says: a number `[19:0]` of units `[31:29]`, of which 0 is a
/// millisecond, and then a second, a minute, an hour. As `mlx5_tout_query_iseg` of the kernel's
/// driver.
fn command_timeout(register: u32) -> Duration {
    let value = u64::from(register & 0xf_ffff);
    match (register >> 29 & 0x3, value) {
        (_, 0) => Duration::from_secs(60),
        (0, _) => Duration::from_millis(value),
        (1, _) => Duration::from_secs(value),
        (2, _) => Duration::from_secs(value * 60),
        (_, _) => Duration::from_secs(value * 3600),
    }
}

fn wait_for_init(registers: &impl Registers, timeout: Duration) -> Result<(), QueueError> {
    let since = Instant::now();
    let mut backoff = Backoff::new();
    while registers.read32(bar::INITIALIZING) >> 31 == 1 {
        let after = since.elapsed();
        if after >= timeout {
            // A device in reset reads as ones for a while, so this is for the end.
            let absent = registers.read32(bar::FW_REV) == u32::MAX;
            return Err(if absent {
                GoneCause::Unplugged.into()
            } else {
                QueueError::NotReady { after: timeout }
            });
        }
        if let Some(pause) = backoff.pause() {
            std::thread::sleep(pause);
        }
    }
    Ok(())
}

/// What the signature over these bytes is: all ones when it is among them.
fn checksum(bytes: &[u8]) -> u8 {
    !bytes.iter().fold(0, |sum, byte| sum ^ byte)
}

/// Whether one of these bytes is a signature over the others.
fn is_signed(bytes: &[u8]) -> bool {
    checksum(bytes) == 0
}
