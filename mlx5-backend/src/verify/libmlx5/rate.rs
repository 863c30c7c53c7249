// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Commands a second: libmlx5's, and those of this crate's own queue.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use std::{fmt, io};

use vm_memory::{FileOffset, MmapRegion, VolatileMemory};

use super::super::headers::VerifyError;
use super::{LONGEST, Programs, SOURCE, Stage, config};
use crate::bar::Registers;
use crate::command::Commands;
use crate::dma::DmaSpace;
use crate::firmware::{BAR_BYTES, Firmware};
use crate::layout::{QueryVhcaMigrationStateIn, QueryVhcaMigrationStateOut};
use crate::queue::{Hca, Options};

/// How long the same commands took, in rounds that came in turn.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Rate {
    /// Commands in a round.
    pub commands: u32,
    /// What a round took: libmlx5's, and ours after it.
    pub rounds: Vec<(Duration, Duration)>,
}

impl Rate {
    /// The least that a round took, libmlx5's and ours: whatever else the machine does can only add
    /// to it.
    pub fn least(&self) -> (Duration, Duration) {
        let least = |of: fn(&(Duration, Duration)) -> Duration| self.rounds.iter().map(of).min();
        (least(|round| round.0).unwrap_or_default(), least(|round| round.1).unwrap_or_default())
    }

    /// Our commands a second for each of libmlx5's: those of the rounds that took least.
    pub fn ratio(&self) -> f64 {
        let (theirs, ours) = self.least();
        theirs.div_duration_f64(ours)
    }

    /// The same of each round: the median.
    pub fn median(&self) -> f64 {
        let ratio = |(theirs, ours): &(Duration, Duration)| theirs.div_duration_f64(*ours);
        let mut ratios: Vec<_> = self.rounds.iter().map(ratio).collect();
        ratios.sort_by(f64::total_cmp);
        ratios.get(ratios.len() / 2).copied().unwrap_or(f64::NAN)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let each = |round: Duration| round.as_secs_f64() / f64::from(self.commands) * 1e6;
        let (theirs, ours) = self.least();
        write!(
            f,
            "microseconds a command, the least of {} rounds: libmlx5 {:.2}, ours {:.2}\n\
             our commands a second to libmlx5's: {:.2}; round by round {:.2} (median)",
            self.rounds.len(),
            each(theirs),
            each(ours),
            self.ratio(),
            self.median()
        )
    }
}

/// Has both give the same command, again and again, to two firmwares that are alike.
///
/// The command is QUERY_VHCA_MIGRATION_STATE, of 16 bytes and answered by 64. One thread gives one
/// command at a time, and waits for it as its driver does.
///
/// # Errors
///
/// [`VerifyError`]: something is missing, or a command failed.
pub fn rate(programs: &Programs, rounds: usize, commands: u32) -> Result<Rate, VerifyError> {
    let stage = Stage::new(config(), None).map_err(VerifyError::System)?;
    let ours = Ours::new().map_err(VerifyError::System)?;
    let arguments = [LONGEST, commands, SOURCE.into()].map(|number: u32| number.to_string());
    let [longest, count, vhca_id] = arguments;
    let mut rate = Rate { commands, rounds: Vec::new() };
    let mut failed = None;
    // The first round of each is for the caches.
    let mut warm = false;
    let mut round = |nanoseconds: u64| {
        if nanoseconds > 0 {
            match ours.round(commands) {
                Ok(took) if warm => {
                    rate.rounds.push((Duration::from_nanos(nanoseconds), took));
                }
                Ok(_) => warm = true,
                Err(error) => failed = Some(error),
            }
        }
        failed.is_none() && rate.rounds.len() < rounds
    };
    let played = stage.play(programs, &[longest, "rate".to_owned(), count, vhca_id], &mut round)?;
    if let Some(error) = failed {
        return Err(VerifyError::System(error));
    }
    match played.status.success() {
        true => Ok(rate),
        false => Err(VerifyError::Failed {
            program: programs.client.display().to_string(),
            status: played.status,
            said: played.said,
        }),
    }
}

/// This crate's queue, on a firmware of its own.
struct Ours {
    firmware: Firmware,
    hca: Hca<Bar>,
}

impl Ours {
    fn new() -> io::Result<Self> {
        let dma = DmaSpace::new(64 << 20);
        let firmware = Firmware::new(config(), dma.clone()).map_err(io::Error::other)?;
        let file = FileOffset::new(firmware.bar_file().try_clone()?, 0);
        let bar = Bar(MmapRegion::from_file(file, BAR_BYTES).map_err(io::Error::other)?);
        let _running = firmware.spawn()?;
        let hca = Hca::bring_up(bar, dma, Options::default()).map_err(io::Error::other)?;
        Ok(Self { firmware, hca })
    }

    /// The firmware's thread is there only for the round, and takes nothing from libmlx5's.
    fn round(&self, commands: u32) -> io::Result<Duration> {
        let _running = self.firmware.spawn()?;
        let mut query = QueryVhcaMigrationStateIn::command();
        query.set_vhca_id(SOURCE);
        let mut output = QueryVhcaMigrationStateOut::zeroed();
        let since = Instant::now();
        for _ in 0..commands {
            let done = self.hca.execute(query.as_bytes(), output.as_bytes_mut());
            done.map_err(io::Error::other)?;
        }
        Ok(since.elapsed())
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        // Taking it down is by commands, too, and this comes before the queue's own drop. Without a
        // thread the firmware answers nothing; then the queue waits for it, and gives up.
        self.firmware.detach();
    }
}

/// BAR0 as memory.
struct Bar(MmapRegion);

impl Registers for Bar {
    fn read32(&self, offset: usize) -> u32 {
        let dword = self.0.get_atomic_ref::<AtomicU32>(offset);
        dword.map_or(u32::MAX, |dword| u32::from_be(dword.load(Ordering::Acquire)))
    }

    fn write32(&self, offset: usize, value: u32) {
        if let Ok(dword) = self.0.get_atomic_ref::<AtomicU32>(offset) {
            dword.store(value.to_be(), Ordering::SeqCst);
        }
    }
}
