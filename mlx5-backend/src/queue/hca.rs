// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Bringing a physical function up, and down again.

use std::fmt;

use super::events::{EventQueue, Kind};
use super::pages::Function;
use super::{CommandQueue, Event, EventCounts, GoneCause, Options, QueueError, Ticket};
use crate::bar::Registers;
use crate::command::{CommandError, Commands};
use crate::dma::DmaSpace;
use crate::layout::{
    AccessRegIn, AccessRegOpMod, AccessRegOut, AllocUarIn, AllocUarOut, CapMode, CapType,
    CommandStatus, CreateEqOut, DeallocUarIn, DeallocUarOut, DestroyEqIn, DestroyEqOut,
    DisableHcaIn, DisableHcaOut, EnableHcaIn, EnableHcaOut, HcaCapUnion, HostEndianness, InitHcaIn,
    InitHcaOut, QueryHcaCapIn, QueryHcaCapOut, QueryIssiIn, QueryIssiOut, QueryPagesIn,
    QueryPagesOpMod, QueryPagesOut, RegisterId, SetHcaCapIn, SetHcaCapOut, SetIssiIn, SetIssiOut,
    TeardownHcaIn, TeardownHcaOut, TeardownProfile,
};

/// The only interface version besides 0, which needs no word.
const ISSI: u16 = 1;
/// `cmdif_checksum`: both requests and answers are signed.
const CHECKSUM_BOTH: u8 = 3;
/// What HOST_ENDIANNESS is set to, though the data of commands is big endian in any case.
const HOST_BYTE_ORDER: u8 = if cfg!(target_endian = "big") { 0x80 } else { 0 };

/// A function that did not come up, or did not go down as it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HcaError {
    /// There is no command queue.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// A command failed.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The firmware kept pages although it was torn down. They are freed once it is disabled.
    #[error("the firmware kept {left} pages when it was torn down")]
    PagesLeft {
        /// How many.
        left: usize,
    },
}

/// How far a function is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// Nothing is to be undone.
    Down,
    /// ENABLE_HCA was done.
    Enabled,
    /// INIT_HCA was done.
    Initialised,
}

/// A physical function that is up, and takes commands.
///
/// It is brought up as the kernel's driver does it (`mlx5_function_enable`, `mlx5_function_open`
/// and `mlx5_eq_table_create`), as far as commands need it: no data path. Dropping it takes it down
/// as far as that goes; [`teardown`](Self::teardown) says how far it went. Either takes as long as
/// the commands that are on their way, at most one command's timeout.
///
/// ```no_run
/// use vfio_fsm_mlx5::bar::Registers;
/// use vfio_fsm_mlx5::dma::DmaSpace;
/// use vfio_fsm_mlx5::queue::{Hca, HcaError, Options};
///
/// fn start(bar0: impl Registers, dma: DmaSpace) -> Result<(), HcaError> {
///     let hca = Hca::bring_up(bar0, dma, Options::default())?;
///     println!("vhca_id {}", hca.capabilities().cmd_hca_cap().vhca_id());
///     hca.teardown()
/// }
/// ```
pub struct Hca<R: Registers> {
    queue: CommandQueue<R>,
    stage: Stage,
    uar: Option<u32>,
    capabilities: Box<QueryHcaCapOut>,
}

impl<R: Registers> Hca<R> {
    /// Brings the function up. Whatever fails, what was done before is undone.
    pub fn bring_up(registers: R, dma: DmaSpace, options: Options) -> Result<Self, HcaError> {
        let queue = CommandQueue::new(registers, dma, options)?;
        let mut hca = Self {
            queue,
            stage: Stage::Down,
            uar: None,
            capabilities: Box::new(QueryHcaCapOut::zeroed()),
        };
        hca.enable()?;
        hca.initialise(options.signatures)?;
        hca.open_event_queues()?;
        Ok(hca)
    }

    /// The queue beneath: what is in flight, whether the firmware is gone, events.
    pub fn queue(&self) -> &CommandQueue<R> {
        &self.queue
    }

    /// The capabilities in use, those of the kind [`CapType::General`].
    pub fn capabilities(&self) -> HcaCapUnion<&[u8]> {
        self.capabilities.capability()
    }

    /// Pages that the firmware has from us.
    pub fn pages_given(&self) -> usize {
        self.queue.pages.given()
    }

    /// Why the last of the firmware's requests for pages was not met; `None` once it was told, or if
    /// all were.
    pub fn take_page_failure(&self) -> Option<CommandError> {
        self.queue.pages.take_failure()
    }

    /// Something the firmware said, other than about commands and pages.
    pub fn next_event(&self) -> Option<Event> {
        self.queue.events.next()
    }

    /// How many events there were.
    pub fn event_counts(&self) -> EventCounts {
        self.queue.events.counts()
    }

    /// The number of the page of BAR0 with doorbells for queues.
    pub fn uar(&self) -> Option<u32> {
        self.uar
    }

    /// The event queue for everything but answers and pages: where completion queues belong that
    /// somebody polls.
    pub fn event_queue(&self) -> Option<u8> {
        self.queue.events.numbers().get(1).copied()
    }

    /// Takes the function down: no command is on its way any more, and the firmware has no memory.
    ///
    /// Goes on after a command that the firmware refused, and reports the first; stops if there are
    /// no answers any more.
    pub fn teardown(mut self) -> Result<(), HcaError> {
        self.take_down()
    }

    fn enable(&mut self) -> Result<(), HcaError> {
        self.queue
            .execute(EnableHcaIn::command().as_bytes(), EnableHcaOut::zeroed().as_bytes_mut())?;
        self.stage = Stage::Enabled;
        self.agree_on_issi()?;
        self.give_startup_pages(QueryPagesOpMod::Boot)?;
        self.set_host_endianness()?;
        Ok(())
    }

    fn initialise(&mut self, signatures: bool) -> Result<(), HcaError> {
        self.set_capabilities(signatures)?;
        self.give_startup_pages(QueryPagesOpMod::Init)?;
        self.queue.execute(InitHcaIn::command().as_bytes(), InitHcaOut::zeroed().as_bytes_mut())?;
        self.stage = Stage::Initialised;
        self.capabilities = self.query_capabilities(CapMode::Current)?;
        Ok(())
    }

    fn agree_on_issi(&self) -> Result<(), CommandError> {
        let mut output = QueryIssiOut::zeroed();
        let asked = self.queue.execute(QueryIssiIn::command().as_bytes(), output.as_bytes_mut());
        match asked {
            // A firmware from before there were versions.
            Err(CommandError::Status { status: CommandStatus::BadOp, .. }) => return Ok(()),
            asked => asked?,
        }
        if output.supported_issi_dw0() & 1 << ISSI == 0 {
            return Ok(());
        }
        let mut set = SetIssiIn::command();
        set.set_current_issi(ISSI);
        self.queue.execute(set.as_bytes(), SetIssiOut::zeroed().as_bytes_mut())
    }

    fn give_startup_pages(&self, when: QueryPagesOpMod) -> Result<(), CommandError> {
        let mut query = QueryPagesIn::command();
        query.set_op_mod(when);
        let mut wanted = QueryPagesOut::zeroed();
        self.queue.execute(query.as_bytes(), wanted.as_bytes_mut())?;
        let embedded = wanted.embedded_cpu_function();
        let function = Function { id: wanted.function_id(), embedded };
        self.queue.give_pages(function, u32::try_from(wanted.num_pages()).unwrap_or(0))
    }

    fn set_host_endianness(&self) -> Result<(), CommandError> {
        let mut input = [0; AccessRegIn::BYTES + HostEndianness::BYTES];
        let (command, data) = input.split_at_mut(AccessRegIn::BYTES);
        AccessRegIn::new(command)?
            .set_opcode(AccessRegIn::OPCODE)
            .set_op_mod(AccessRegOpMod::Write)
            .set_register_id(RegisterId::HostEndianness);
        HostEndianness::new(data)?.set_he(HOST_BYTE_ORDER);
        self.queue.execute(&input, &mut [0; AccessRegOut::BYTES + HostEndianness::BYTES])
    }

    fn query_capabilities(&self, mode: CapMode) -> Result<Box<QueryHcaCapOut>, CommandError> {
        let mut output = Box::new(QueryHcaCapOut::zeroed());
        let mut query = QueryHcaCapIn::command();
        query.ask(CapType::General, mode);
        self.queue.execute(query.as_bytes(), output.as_bytes_mut())?;
        Ok(output)
    }

    /// Sets what is in use: as it is, but for signatures, and doorbell pages of 4096 bytes.
    fn set_capabilities(&self, signatures: bool) -> Result<(), CommandError> {
        let max = self.query_capabilities(CapMode::Max)?;
        let current = self.query_capabilities(CapMode::Current)?;
        let mut set = Box::new(SetHcaCapIn::command());
        set.set_kind(CapType::General);
        set.capability_mut().as_bytes_mut().copy_from_slice(current.capability().as_bytes());
        let (mut capability, max) = (set.capability_mut(), max.capability());
        let mut capability = capability.cmd_hca_cap_mut();
        capability.set_cmdif_checksum(if signatures { CHECKSUM_BOTH } else { 0 });
        capability.set_log_uar_page_sz(0);
        if max.cmd_hca_cap().uar_4k() {
            capability.set_uar_4k(true);
        }
        self.queue.execute(set.as_bytes(), SetHcaCapOut::zeroed().as_bytes_mut())
    }

    fn open_event_queues(&mut self) -> Result<(), HcaError> {
        let mut page = AllocUarOut::zeroed();
        self.queue.execute(AllocUarIn::command().as_bytes(), page.as_bytes_mut())?;
        let uar = page.uar();
        self.uar = Some(uar);
        let object_change = self.capabilities().cmd_hca_cap().adv_virtualization();
        for kind in [Kind::Commands, Kind::Others { object_change }, Kind::Pages] {
            self.open_event_queue(uar, kind)?;
        }
        Ok(())
    }

    fn open_event_queue(&self, uar: u32, kind: Kind) -> Result<(), CommandError> {
        let mut queue = EventQueue::new(&self.queue.dma, uar)?;
        let command = queue.create_command(uar, kind)?;
        let mut created = CreateEqOut::zeroed();
        match self.queue.execute(command.as_bytes(), created.as_bytes_mut()) {
            Ok(()) => {
                queue.set_number(created.eq_number());
                self.queue.events.add(queue, &self.queue.registers);
                Ok(())
            }
            Err(error) => {
                if error.leaves_open() {
                    self.queue.events.keep(queue);
                }
                Err(error)
            }
        }
    }

    fn take_down(&mut self) -> Result<(), HcaError> {
        let mut downfall = Downfall::default();
        if self.stage > Stage::Down {
            self.queue.wait_until_idle();
            self.close_event_queues(&mut downfall);
            if self.stage == Stage::Initialised && downfall.goes_on() {
                downfall.note(self.teardown_hca());
            }
            self.stage = Stage::Down;
            if downfall.goes_on() {
                downfall.note(self.take_pages());
            }
            if downfall.goes_on() {
                downfall.note(self.disable());
            }
        }
        self.queue.end(GoneCause::TornDown);
        downfall.first.map_or(Ok(()), Err)
    }

    fn close_event_queues(&mut self, downfall: &mut Downfall) {
        for number in self.queue.events.numbers().into_iter().rev() {
            if downfall.goes_on() {
                downfall.note(self.destroy_event_queue(number));
            }
        }
        if downfall.goes_on()
            && let Some(uar) = self.uar.take()
        {
            downfall.note(self.free_uar(uar));
        }
    }

    fn destroy_event_queue(&self, number: u8) -> Result<(), HcaError> {
        let mut command = DestroyEqIn::command();
        command.set_eq_number(number);
        let mut output = DestroyEqOut::zeroed();
        self.queue.execute(command.as_bytes(), output.as_bytes_mut())?;
        self.queue.events.remove(number);
        Ok(())
    }

    fn free_uar(&self, uar: u32) -> Result<(), HcaError> {
        let mut command = DeallocUarIn::command();
        command.set_uar(uar);
        let mut output = DeallocUarOut::zeroed();
        Ok(self.queue.execute(command.as_bytes(), output.as_bytes_mut())?)
    }

    fn teardown_hca(&self) -> Result<(), HcaError> {
        let mut command = TeardownHcaIn::command();
        command.set_profile(TeardownProfile::GracefulClose);
        let mut output = TeardownHcaOut::zeroed();
        Ok(self.queue.execute(command.as_bytes(), output.as_bytes_mut())?)
    }

    fn take_pages(&self) -> Result<(), HcaError> {
        match self.queue.take_all_pages()? {
            0 => Ok(()),
            left => Err(HcaError::PagesLeft { left }),
        }
    }

    fn disable(&self) -> Result<(), HcaError> {
        let command = DisableHcaIn::command();
        let mut output = DisableHcaOut::zeroed();
        Ok(self.queue.execute(command.as_bytes(), output.as_bytes_mut())?)
    }
}

/// What went wrong on the way down.
#[derive(Default)]
struct Downfall {
    first: Option<HcaError>,
    silent: bool,
}

impl Downfall {
    fn note(&mut self, done: Result<(), HcaError>) {
        if let Err(error) = done {
            self.silent |= matches!(error, HcaError::Command(error) if error.leaves_open());
            self.first.get_or_insert(error);
        }
    }

    /// Whether the firmware still answers.
    fn goes_on(&self) -> bool {
        !self.silent
    }
}

impl<R: Registers> Commands for Hca<R> {
    type Ticket = Ticket;

    fn start(&self, input: &[u8], output_len: usize) -> Result<Ticket, CommandError> {
        self.queue.start(input, output_len)
    }

    fn is_done(&self, ticket: &Ticket) -> bool {
        self.queue.is_done(ticket)
    }

    fn finish(&self, ticket: Ticket, output: &mut [u8]) -> Result<(), CommandError> {
        self.queue.finish(ticket, output)
    }

    fn dma(&self) -> &DmaSpace {
        self.queue.dma()
    }
}

impl<R: Registers> fmt::Debug for Hca<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hca")
            .field("stage", &self.stage)
            .field("pages", &self.pages_given())
            .field("gone", &self.queue.gone())
            .finish_non_exhaustive()
    }
}

impl<R: Registers> Drop for Hca<R> {
    fn drop(&mut self) {
        // There is nobody to tell. The memory is unmapped in any case.
        let _ = self.take_down();
    }
}
