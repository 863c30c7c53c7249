// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The log of DMA as an automaton with an oracle: what is right passes, and every flaw is caught.

#![expect(clippy::unwrap_used, reason = "helpers of tests may fail them")]

/// The stand-in for a kernel and a device of kernel-backend's own tests.
#[expect(dead_code, reason = "what its own tests alone need")]
#[path = "../../kernel-backend/tests/dma_logging/device.rs"]
mod device;

/// Which that file asks first, and which has nothing here.
mod vfio_device {
    use std::ffi::{c_int, c_ulong, c_void};

    #[expect(unsafe_code, reason = "as the other one is")]
    pub(crate) const unsafe fn ioctl(
        _request: c_ulong,
        _argument: *mut c_void,
    ) -> Option<Result<c_int, i32>> {
        None
    }
}

use assert_cmd::Command;
use device::Played;
use expect_test::expect;
use vfio_conform::dirty::{
    AtReset, Dirty, DirtyError, Flaw, IovaRange, MemoryLog, Refused, complete, random,
};
use vfio_fsm_core::{Errno, State};
use vfio_fsm_kernel::dma_logging::raw;

/// What finds a flaw: the complete suites for 0 and 1 states more, and so many random rounds.
const ROUNDS: u64 = 150;

fn random_finds(device: &mut dyn Dirty, rounds: u64) -> Option<String> {
    (0..rounds).find_map(|seed| random(device, seed).unwrap()).map(|slip| slip.to_string())
}

/// D6, R40, R43, R44, R45, R46, R47, R49, C39: What is right passes: with pages of any size, and whether
/// or not it is said what a reset does.
#[test]
fn what_is_right_passes() {
    let new = MemoryLog::new;
    let logs = [new(), new().coarse(1 << 14), new().coarse(1 << 16), new().undefined_at_reset()];
    for mut log in logs {
        for extra in 0..=1 {
            let outcome = complete(&mut log, extra).unwrap();
            assert!(outcome.is_good(), "{:?}", outcome.failure);
            assert!(outcome.size.tests > 400, "{:?}", outcome.size);
        }
        assert_eq!(random_finds(&mut log, ROUNDS), None);
    }
}

/// D7: Every flaw is caught, and each suite is needed: some flaws show in one of them alone.
#[test]
fn every_flaw_is_caught() {
    let mut table = String::new();
    for &flaw in Flaw::ALL {
        let mut log = MemoryLog::with_flaw(flaw);
        let by_words =
            |extra: usize| !complete(&mut MemoryLog::with_flaw(flaw), extra).unwrap().is_good();
        let found = [by_words(0), by_words(1), random_finds(&mut log, ROUNDS).is_some()];
        assert!(found.contains(&true), "{} is not caught", flaw.slug());
        let mark = |found| if found { "x" } else { "-" };
        let [none, one, random] = found.map(mark);
        table += &format!("{:<22} {none} {one} {random}\n", flaw.slug());
    }
    expect![[r#"
        range-too-short        x x x
        range-too-long         - - x
        first-range-only       x x x
        first-page-only        - - x
        toggles-pages          x x x
        keeps-reported         x x x
        clears-all             x x x
        clears-behind          - - x
        clears-refused         x x x
        clears-bitmap          - - x
        reports-too-little     x x x
        reports-starts-pages   - - x
        first-word-only        - - x
        reports-without-log    x x x
        reports-any-page-size  x x x
        stops-nothing          x x x
        starts-twice           x x x
        second-start-empties   x x x
        refused-start-logs     x x x
        starts-dirty           - x x
        takes-overlap          x x x
        takes-overflow         x x x
        takes-misaligned       x x x
        takes-none             x x x
        too-few-ranges         x x -
        state-stops            x x x
        state-empties          x x x
        reset-stops            x x x
        reset-empties          x x x
        close-keeps            x x x
        third-report-empty     - x x
    "#]]
    .assert_eq(&table);
}

/// D8: A failure is shrunk to what shows it, and its seed makes it again.
#[test]
fn a_failure_is_small() {
    let mut log = MemoryLog::with_flaw(Flaw::KeepsReported);
    let slip = (0..).find_map(|seed| random(&mut log, seed).unwrap()).unwrap();
    assert!(slip.steps.len() <= 4, "{slip}");
    assert!(slip.wrong.contains("was not written since"), "{slip}");
    assert_eq!(random(&mut log, slip.seed).unwrap(), Some(slip));
}

/// D9: The page tracker of the mlx5 backend is such a log, on a firmware in software.
#[cfg(feature = "mlx5")]
#[test]
fn the_mlx5_tracker_passes() {
    let mut log = vfio_conform::dirty::Mlx5Log::new().unwrap();
    let outcome = complete(&mut log, 0).unwrap();
    assert!(outcome.is_good(), "{:?}", outcome.failure);
    assert_eq!(random_finds(&mut log, 60), None);
}

/// The stand-in as a device to test: its memory is written, and it has no device_state.
struct Driven {
    played: Played,
    state: State,
}

impl Driven {
    fn new() -> Self {
        Self { played: Played::new(), state: State::Running }
    }
}

/// The stand-in minds a user that does what it should not, as this one must.
impl Drop for Driven {
    fn drop(&mut self) {
        self.played.device(|device| device.complaints.clear());
    }
}

fn refused(errno: Errno) -> Refused {
    Refused { errno: Some(errno) }
}

impl Dirty for Driven {
    fn fresh(&mut self) -> Result<(), DirtyError> {
        self.state = State::Running;
        let _whatever = raw::stop(&self.played);
        Ok(())
    }

    fn start(&mut self, page_size: u64, ranges: &[IovaRange]) -> Result<u64, Refused> {
        raw::start(&self.played, page_size, ranges).map_err(refused)
    }

    fn stop(&mut self) -> Result<(), Refused> {
        raw::stop(&self.played).map_err(refused)
    }

    fn report(
        &mut self,
        range: IovaRange,
        page_size: u64,
        bitmap: &mut [u64],
    ) -> Result<(), Refused> {
        raw::report(&self.played, range, page_size, bitmap).map_err(refused)
    }

    fn set(&mut self, to: State) -> Result<(), Refused> {
        self.state = to;
        Ok(())
    }

    fn get(&mut self) -> Result<State, Refused> {
        Ok(self.state)
    }

    fn reset(&mut self) -> Result<(), Refused> {
        self.state = State::Running;
        Ok(())
    }

    fn at_reset(&self) -> AtReset {
        AtReset::GoesOn
    }

    fn can_write(&self) -> bool {
        true
    }

    fn write(&mut self, iova: u64, bytes: u64) {
        (iova..iova + bytes).step_by(4096).chain([iova + bytes - 1]).for_each(|at| {
            self.played.write(at);
        });
    }
}

/// D10, R42, C39: The three ioctls as they are pass on a device behind `VFIO_DEVICE_FEATURE`, errnos of
/// the kernel's own checks included.
#[test]
fn the_ioctls_pass() {
    let mut device = Driven::new();
    for extra in 0..=1 {
        let outcome = complete(&mut device, extra).unwrap();
        assert!(outcome.is_good(), "{:?}", outcome.failure);
    }
    assert_eq!(random_finds(&mut device, ROUNDS), None);
}

/// D10: And a device that says the wrong thing fails: it has too few ranges, or no bitmaps.
#[test]
fn the_ioctls_can_fail() {
    let device = Driven::new();
    device.played.device(|device| device.ranges = (255, 7));
    assert_word(device, "START 256 ranges and STOP");
    let device = Driven::new();
    device.played.device(|device| device.no_bitmaps = true);
    assert_word(device, "START low and high, REPORT Low");
    let device = Driven::new();
    device.played.device(|device| device.page_size = Some(4097));
    assert_word(device, "START 256 ranges and STOP");
}

fn assert_word(mut device: Driven, word: &str) {
    let outcome = complete(&mut device, 0).unwrap();
    assert_eq!(outcome.failure.unwrap().word.join(", "), word);
}

fn run(arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vfio-conform"));
    let output = command.arg("dirty").args(arguments).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
}

/// D6: The command says what a pass proves, fails by its exit status, and says what cannot be tried.
#[test]
fn the_command() {
    let (code, text) = run(&["--rounds", "20"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("every implementation with at most"), "{text}");
    let (code, text) = run(&["--target", "reference:clears-all", "--rounds", "20"]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("FAIL: START low and high"), "{text}");
    assert_eq!(run(&["--target", "reference:no-such-flaw"]).0, 2);
    assert_eq!(run(&["--target", "kernel:/no/such/device"]).0, 2);
}
