// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A function that is up, and somebody between it and the tracker.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use vfio_fsm_mlx5::command::{CommandError, Commands};
use vfio_fsm_mlx5::dma::DmaSpace;
use vfio_fsm_mlx5::firmware::{Checks, Config, Counts, Firmware, VhcaHandle};
use vfio_fsm_mlx5::layout::{
    CapType, CommandIn, Cqe64, CreateCqIn, CreateMkeyIn, Opcode, QueryHcaCapIn, QueryHcaCapOut,
};
use vfio_fsm_mlx5::queue::{Hca, Options as QueueOptions, Ticket};
use vfio_fsm_mlx5::tracker::{IovaRange, Options, PageTracker, ReportError, StartError, Target};

pub(crate) const VHCA: u16 = 0x1234;
pub(crate) const PAGE: u64 = 4096;
pub(crate) const MIB: u64 = 1 << 20;

pub(crate) const fn range(iova: u64, length: u64) -> IovaRange {
    IovaRange { iova, length }
}

/// What becomes of the next MODIFY.
pub(crate) enum Spoil {
    /// It is not passed on, and said to have succeeded.
    Swallow,
    /// The same, and the firmware gives the tracker up without a word.
    SwallowAndFail,
    /// Its first completion is changed, which is at this place in the queue.
    Completion(u32, fn(&mut Cqe64)),
    /// Its first message says this instead.
    Message(Vec<u64>),
}

/// The command queue, and what it was told of the tracker's memory.
pub(crate) struct Between {
    pub(crate) hca: Hca<Firmware>,
    firmware: Firmware,
    pub(crate) log: Mutex<Vec<Vec<u8>>>,
    pub(crate) spoil: Mutex<Option<Spoil>>,
    /// The smallest page, instead of the firmware's own: the logarithm of bytes.
    pub(crate) min_page: Mutex<Option<u8>>,
}

impl Between {
    fn first_address(&self, opcode: Opcode, skip: usize) -> u64 {
        let log = self.log.lock().unwrap();
        let made = log.iter().rfind(|input| opcode_of(input) == opcode).unwrap();
        u64::from_be_bytes(made[skip..skip + 8].try_into().unwrap())
    }

    fn spoil(&self, spoil: Spoil) {
        let completions = || self.first_address(Opcode::CreateCq, CreateCqIn::BYTES);
        match spoil {
            Spoil::Swallow => {}
            Spoil::SwallowAndFail => self.firmware.fail_trackers(false),
            Spoil::Completion(index, change) => {
                let at = completions() + u64::from(index) * 64;
                let mut completion = Cqe64::zeroed();
                self.hca.dma().read(at, completion.as_bytes_mut()).unwrap();
                change(&mut completion);
                self.hca.dma().write(at, completion.as_bytes()).unwrap();
            }
            Spoil::Message(pages) => {
                let at = self.first_address(Opcode::CreateMkey, CreateMkeyIn::BYTES);
                let bytes: Vec<u8> = pages.into_iter().flat_map(u64::to_be_bytes).collect();
                self.hca.dma().write(at, &bytes).unwrap();
            }
        }
    }
}

pub(crate) fn opcode_of(input: &[u8]) -> Opcode {
    CommandIn::new(input).unwrap().opcode()
}

impl Commands for Between {
    /// And whether it asks for the limits of trackers.
    type Ticket = (Option<Ticket>, bool);

    fn start(&self, input: &[u8], output_len: usize) -> Result<Self::Ticket, CommandError> {
        self.log.lock().unwrap().push(input.to_vec());
        let modify = opcode_of(input) == Opcode::ModifyGeneralObject;
        let spoil = if modify { self.spoil.lock().unwrap().take() } else { None };
        let swallowed = matches!(spoil, Some(Spoil::Swallow | Spoil::SwallowAndFail));
        let ticket = (!swallowed).then(|| self.hca.start(input, output_len)).transpose()?;
        if let Some(spoil) = spoil {
            self.spoil(spoil);
        }
        let limits = QueryHcaCapIn::new(input).is_ok_and(|query| {
            query.opcode() == Opcode::QueryHcaCap && query.asked().0 == CapType::AdvVirtualization
        });
        Ok((ticket, limits))
    }

    fn is_done(&self, ticket: &Self::Ticket) -> bool {
        ticket.0.as_ref().is_none_or(|ticket| self.hca.is_done(ticket))
    }

    fn finish(&self, ticket: Self::Ticket, output: &mut [u8]) -> Result<(), CommandError> {
        let (ticket, limits) = ticket;
        ticket.map_or(Ok(()), |ticket| self.hca.finish(ticket, output))?;
        if let Some(min) = self.min_page.lock().unwrap().filter(|_| limits) {
            let mut output = QueryHcaCapOut::new(output).unwrap();
            output
                .capability_mut()
                .adv_virtualization_cap_mut()
                .set_pg_track_log_min_page_size(min);
        }
        Ok(())
    }

    fn dma(&self) -> &DmaSpace {
        self.hca.dma()
    }
}

pub(crate) type Tracker = PageTracker<Between>;

pub(crate) struct Rig {
    pub(crate) firmware: Firmware,
    pub(crate) vhca: VhcaHandle,
    pub(crate) between: Arc<Between>,
    pub(crate) target: Target,
}

impl Rig {
    pub(crate) fn new() -> Self {
        Self::with(Config::default(), None)
    }

    pub(crate) fn with(config: Config, command_timeout: Option<Duration>) -> Self {
        let dma = DmaSpace::new(64 << 20);
        let checks = Checks { block_signatures: false, ..Checks::STRICT };
        let firmware = Firmware::new(Config { checks, ..config }, dma.clone()).unwrap();
        let options = QueueOptions { command_timeout, ..QueueOptions::default() };
        let hca = Hca::bring_up(firmware.clone(), dma, options).unwrap();
        let target = Target { vhca_id: VHCA, event_queue: hca.event_queue().unwrap() };
        let (log, spoil, min_page) = (Mutex::default(), Mutex::default(), Mutex::default());
        let between = Arc::new(Between { hca, firmware: firmware.clone(), log, spoil, min_page });
        let vhca = firmware.vhca(VHCA).unwrap();
        Self { firmware, vhca, between, target }
    }

    pub(crate) fn start(
        &self,
        ranges: &[IovaRange],
        options: Options,
    ) -> Result<Tracker, StartError> {
        PageTracker::start(self.between.clone(), self.target, ranges, options)
    }

    /// A tracker of the first 64 MiB.
    pub(crate) fn tracker(&self) -> Tracker {
        let options = Options { message_bytes: Some(4096), ..quick() };
        self.start(&[range(0, 64 * MIB)], options).unwrap()
    }

    /// What there is in the firmware, and how much memory it may use.
    pub(crate) fn held(&self) -> (Counts, u64) {
        (self.firmware.counts(), self.between.dma().used())
    }

    pub(crate) fn spoil(&self, spoil: Spoil) {
        *self.between.spoil.lock().unwrap() = Some(spoil);
    }
}

/// For tests in which a message does not come.
pub(crate) fn quick() -> Options {
    Options { message_timeout: Duration::from_millis(60), ..Options::default() }
}

/// What a report tells, and what came of it.
pub(crate) fn told(tracker: &mut Tracker) -> (Vec<IovaRange>, Result<(), ReportError>) {
    let mut told = Vec::new();
    let result = tracker.report_all(|run| told.push(run));
    (told, result)
}
