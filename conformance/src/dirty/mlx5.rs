// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The page tracker of the mlx5 backend, beside the device whose writes it tracks, on a firmware in
//! software.

use std::sync::Arc;

use vfio_fsm_core::{Errno, Features, Op, Reply, State};
use vfio_fsm_mlx5::device::Mlx5Device;
use vfio_fsm_mlx5::dma::DmaSpace;
use vfio_fsm_mlx5::firmware::{Checks, Config, Firmware, VhcaConfig, VhcaHandle};
use vfio_fsm_mlx5::queue::{Hca, Options as QueueOptions};
use vfio_fsm_mlx5::tracker::{IovaRange as Tracked, Options, PageTracker, Target};
use vfio_fsm_mlx5::vhca::{Migration, Vhca};

use super::{AtReset, Dirty, DirtyError, IovaRange, Refused, is_page_size};

/// Buffers of messages, queues and what the firmware asks for.
const MEMORY: u64 = 64 << 20;

/// A virtual function of a firmware in software, and the tracker of its writes.
///
/// What the uAPI checks before a driver is asked (C39), and that there is one log at a time, the tracker
/// has in its types, or it is checked here as a driver's `log_start` would.
pub struct Mlx5Log {
    hca: Arc<Hca<Firmware>>,
    vhca: VhcaHandle,
    device: Mlx5Device<Hca<Firmware>, VhcaHandle>,
    migration: Migration,
    target: Target,
    tracker: Option<PageTracker<Hca<Firmware>>>,
}

fn unusable(error: impl std::error::Error + Send + Sync + 'static) -> DirtyError {
    DirtyError(Box::new(error))
}

impl Mlx5Log {
    /// A firmware with one virtual function, brought up as the driver of the physical one does.
    ///
    /// # Errors
    ///
    /// There is no memory for it.
    pub fn new() -> Result<Self, DirtyError> {
        let dma = DmaSpace::new(MEMORY);
        let checks = Checks { block_signatures: false, ..Checks::STRICT };
        let firmware = Firmware::new(Config { checks, ..Config::default() }, dma.clone());
        let firmware = firmware.map_err(unusable)?;
        let hca = Hca::bring_up(firmware.clone(), dma, QueueOptions::default());
        let hca = Arc::new(hca.map_err(unusable)?);
        let vhca_id = VhcaConfig::default().vhca_id;
        let none = || DirtyError("the firmware has no virtual function, or no event queue".into());
        let vhca = firmware.vhca(vhca_id).ok_or_else(none)?;
        let target = Target { vhca_id, event_queue: hca.event_queue().ok_or_else(none)? };
        let migration = Migration::of(&*hca).map_err(unusable)?;
        let device = device(&hca, migration, &vhca)?;
        Ok(Self { hca, vhca, device, migration, target, tracker: None })
    }

    fn apply(&mut self, op: Op<&[u8]>) -> Result<Option<State>, Refused> {
        match self.device.apply(op, &mut []) {
            Reply::Errno(errno) => Err(Refused { errno: Some(errno) }),
            Reply::State(state) => Ok(state.known()),
            _ => Ok(None),
        }
    }
}

/// The function as its user has it: reset, in RUNNING.
fn device(
    hca: &Arc<Hca<Firmware>>,
    migration: Migration,
    vhca: &VhcaHandle,
) -> Result<Mlx5Device<Hca<Firmware>, VhcaHandle>, DirtyError> {
    vhca.flr();
    let function = Vhca::new(Arc::clone(hca), migration, 1).map_err(unusable)?;
    Ok(Mlx5Device::new(Features::ALL, function, vhca.clone()))
}

const REFUSED: Refused = Refused { errno: None };

const fn tracked(range: IovaRange) -> Tracked {
    Tracked { iova: range.iova, length: range.length }
}

impl Dirty for Mlx5Log {
    /// The driver's close stops the tracker.
    fn fresh(&mut self) -> Result<(), DirtyError> {
        self.tracker = None;
        self.device = device(&self.hca, self.migration, &self.vhca)?;
        Ok(())
    }

    fn start(&mut self, page_size: u64, ranges: &[IovaRange]) -> Result<u64, Refused> {
        /// What the kernel lets through to a driver.
        const MOST_RANGES: usize = 4096 / 16;
        if self.tracker.is_some() || ranges.len() > MOST_RANGES {
            return Err(REFUSED);
        }
        let ranges: Vec<_> = ranges.iter().copied().map(tracked).collect();
        let options = Options { page_size, message_bytes: Some(4096), ..Options::default() };
        let tracker = PageTracker::start(Arc::clone(&self.hca), self.target, &ranges, options);
        let tracker = tracker.map_err(|_refused| REFUSED)?;
        let page_size = tracker.page_size();
        self.tracker = Some(tracker);
        Ok(page_size)
    }

    fn stop(&mut self) -> Result<(), Refused> {
        let tracker = self.tracker.take().ok_or(REFUSED)?;
        tracker.stop().map_err(|_error| Refused { errno: Some(Errno::EIO) })
    }

    fn report(
        &mut self,
        range: IovaRange,
        page_size: u64,
        bitmap: &mut [u64],
    ) -> Result<(), Refused> {
        let tracker = self.tracker.as_mut().filter(|_| is_page_size(page_size)).ok_or(REFUSED)?;
        let end = range.iova.checked_add(range.length).ok_or(REFUSED)?;
        let reported = tracker.report(tracked(range), |run| {
            // What is told beside the range is another report's.
            let (first, last) = (run.iova.max(range.iova), (run.iova + run.length).min(end));
            let bits = (first - range.iova) / page_size..(last - range.iova).div_ceil(page_size);
            for bit in bits.filter(|_| first < last) {
                bitmap[(bit / 64) as usize] |= 1 << (bit % 64);
            }
        });
        reported.map_err(|_error| REFUSED)
    }

    fn set(&mut self, to: State) -> Result<(), Refused> {
        self.apply(Op::set(to)).map(drop)
    }

    fn get(&mut self) -> Result<State, Refused> {
        self.apply(Op::GetState)?.ok_or(REFUSED)
    }

    fn reset(&mut self) -> Result<(), Refused> {
        self.apply(Op::Reset).map(drop)
    }

    fn at_reset(&self) -> AtReset {
        AtReset::GoesOn
    }

    fn can_write(&self) -> bool {
        true
    }

    fn write(&mut self, iova: u64, bytes: u64) {
        self.vhca.dma_written(iova, bytes);
    }
}
