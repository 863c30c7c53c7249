// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is played.

use super::Trouble;
use super::stage::{Ends, Stage};

/// Something that is done to a VM that migrates.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Its name in reports.
    pub name: &'static str,
    /// Whether the device says that it can be reset. Without it QEMU does not reset it.
    pub announces_reset: bool,
    /// What it may come to.
    pub ends: &'static [Ends],
    pub(super) play: fn(&mut Stage<'_>) -> Result<(), Trouble>,
}

/// One at a device that can be reset.
const fn scenario(
    name: &'static str,
    ends: &'static [Ends],
    play: fn(&mut Stage<'_>) -> Result<(), Trouble>,
) -> Scenario {
    Scenario { name, announces_reset: true, ends, play }
}

/// One at a device as it is: mtty does not say that it can be reset, so QEMU does not reset it.
const fn as_it_is(
    name: &'static str,
    ends: &'static [Ends],
    play: fn(&mut Stage<'_>) -> Result<(), Trouble>,
) -> Scenario {
    Scenario { announces_reset: false, ..scenario(name, ends, play) }
}

/// All of them. A VM whose guest is reset in PRE_COPY may go either way, as long as it goes on.
///
/// The last one can bring a kernel down: there is nothing behind it that would be missed.
pub const SCENARIOS: &[Scenario] = &[
    scenario("watch/plain", &[Ends::Moved], plain),
    scenario("watch/reset-in-pre-copy", &EITHER, reset_in_pre_copy),
    scenario("watch/reset-before-read", &EITHER, reset_before_read),
    as_it_is("watch/reset-not-announced", &[Ends::Moved], reset_in_pre_copy),
    scenario("watch/cancel-in-pre-copy", &[Ends::Stayed], cancel_in_pre_copy),
    scenario("watch/reset-after-cancel", &[Ends::Moved], reset_after_cancel),
    scenario("watch/destination-killed", &[Ends::Moved], destination_killed),
    scenario("watch/halted", &[Ends::Moved], halted),
    as_it_is("watch/incoming-again", &[Ends::Moved], destination_killed),
    as_it_is("watch/start-after-incoming", &[Ends::Stayed], start_after_incoming),
];

const EITHER: [Ends; 2] = [Ends::Moved, Ends::Stayed];

fn plain(stage: &mut Stage<'_>) -> Result<(), Trouble> {
    stage.migrate()?;
    stage.settle()
}

fn reset_in_pre_copy(stage: &mut Stage<'_>) -> Result<(), Trouble> {
    stage.hold()?;
    stage.migrate()?;
    stage.await_pre_copy(1)?;
    stage.reset()?;
    stage.release()?;
    stage.settle()
}

fn cancel_in_pre_copy(stage: &mut Stage<'_>) -> Result<(), Trouble> {
    stage.hold()?;
    stage.migrate()?;
    stage.await_pre_copy(1)?;
    stage.cancel()?;
    stage.settle()
}

fn reset_after_cancel(stage: &mut Stage<'_>) -> Result<(), Trouble> {
    cancel_in_pre_copy(stage)?;
    stage.reset()?;
    stage.await_reboot();
    stage.migrate()?;
    stage.await_pre_copy(2)?;
    stage.release()?;
    stage.settle()
}

/// The source must find out, go on, and be able to try again.
fn destination_killed(stage: &mut Stage<'_>) -> Result<(), Trouble> {
    stage.hold()?;
    stage.migrate()?;
    stage.await_pre_copy(1)?;
    stage.kill_destination();
    stage.settle()?;
    stage.release()?;
    stage.migrate()?;
    stage.settle()
}

/// Nothing of the device has been sent yet: there is nothing that the destination would have to
/// discard.
fn reset_before_read(stage: &mut Stage<'_>) -> Result<(), Trouble> {
    stage.crawl()?;
    stage.migrate()?;
    stage.await_pre_copy_begun()?;
    stage.reset()?;
    stage.release()?;
    stage.settle()
}

/// The device is in STOP when the migration begins, and has no PRE_COPY.
fn halted(stage: &mut Stage<'_>) -> Result<(), Trouble> {
    stage.stop()?;
    plain(stage)?;
    stage.resume()
}

/// A device that was to be migrated to, and was not, is given to a VM of its own.
fn start_after_incoming(stage: &mut Stage<'_>) -> Result<(), Trouble> {
    stage.hold()?;
    stage.migrate()?;
    stage.await_pre_copy(1)?;
    stage.kill_destination();
    stage.settle()?;
    stage.start_at_destination()
}
