// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The command queue and the firmware in software, which were written apart from each other.
#![expect(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]

use std::time::Duration;

use vfio_fsm_mlx5::command::{CommandError, Commands};
use vfio_fsm_mlx5::dma::DmaSpace;
use vfio_fsm_mlx5::firmware::{Checks, Config, Fault, Firmware, Trigger};
use vfio_fsm_mlx5::layout::{
    AllocPdIn, AllocPdOut, CapMode, CapType, CommandStatus, DeallocPdIn, DeallocPdOut,
    DeliveryStatus, Opcode, QueryHcaCapIn, QueryHcaCapOut, QueryVhcaMigrationStateIn,
    QueryVhcaMigrationStateOut,
};
use vfio_fsm_mlx5::queue::{GoneCause, Hca, Options};

/// Strict, but that mailboxes are signed only where the driver is told to: no driver does it else.
fn checks(options: Options) -> Checks {
    Checks { block_signatures: options.signatures, ..Checks::STRICT }
}

fn up(config: Config, options: Options) -> (Firmware, Hca<Firmware>, DmaSpace) {
    let dma = DmaSpace::new(64 << 20);
    let config = Config { checks: checks(options), ..config };
    let firmware = Firmware::new(config, dma.clone()).unwrap();
    let hca = Hca::bring_up(firmware.clone(), dma.clone(), options).unwrap();
    (firmware, hca, dma)
}

/// What a VHCA of 9,999 bytes wants for its image: whole pages.
const IMAGE: u32 = 3 * 4096;

fn short() -> Options {
    Options { command_timeout: Some(Duration::from_millis(20)), ..Options::default() }
}

fn query() -> QueryVhcaMigrationStateIn {
    let mut command = QueryVhcaMigrationStateIn::command();
    command.set_vhca_id(0x1234);
    command
}

fn ask(hca: &impl Commands) -> Result<u32, CommandError> {
    let mut output = QueryVhcaMigrationStateOut::zeroed();
    hca.execute(query().as_bytes(), output.as_bytes_mut())?;
    Ok(output.required_umem_size())
}

/// M32, M34: A function with more than a thousand pages comes up on a strict firmware, with and
/// without signatures, and goes down with nothing left on either side.
#[test]
fn up_and_down() {
    for signatures in [false, true] {
        let config = Config { boot_pages: 400, init_pages: 1077, ..Config::default() };
        let (firmware, hca, dma) = up(config, Options { signatures, ..Options::default() });
        assert_eq!((hca.pages_given(), firmware.counts().pages), (1477, 1477));
        assert_eq!(firmware.counts().eqs, 3);
        assert_eq!(ask(&hca), Ok(IMAGE));
        hca.teardown().unwrap();
        assert_eq!((firmware.counts().pages, firmware.counts().eqs, dma.used()), (0, 0, 0));
    }
}

/// M33: A firmware that fails at any command of the way up is left as it was found.
#[test]
fn up_with_a_failure() {
    let mut failed = 0;
    for command in 0.. {
        let dma = DmaSpace::new(64 << 20);
        let config = Config { checks: checks(Options::default()), ..Config::default() };
        let firmware = Firmware::new(config, dma.clone()).unwrap();
        firmware.inject(Trigger::After(command), Fault::Status(CommandStatus::NoRes));
        let hca = Hca::bring_up(firmware.clone(), dma.clone(), Options::default());
        if firmware.clear_faults() {
            hca.unwrap().teardown().unwrap();
            break;
        }
        failed += 1;
        assert!(hca.is_err());
        let counts = firmware.counts();
        assert_eq!((counts.pages, counts.eqs, dma.used()), (0, 0, 0), "after command {command}");
    }
    assert!(failed >= 15, "{failed} commands");
}

/// M27: Threads do not get into each other's way, a storm of page requests among them.
#[test]
fn many_threads_in_a_storm() {
    let (firmware, hca, dma) = up(Config::default(), Options::default());
    let before = hca.pages_given();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..150 {
                    let mut pd = AllocPdOut::zeroed();
                    hca.execute(AllocPdIn::command().as_bytes(), pd.as_bytes_mut()).unwrap();
                    assert_eq!(ask(&hca), Ok(IMAGE));
                    let mut command = DeallocPdIn::command();
                    command.set_pd(pd.pd());
                    let mut output = DeallocPdOut::zeroed();
                    hca.execute(command.as_bytes(), output.as_bytes_mut()).unwrap();
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..40 {
                firmware.request_pages(50, 1);
                hca.queue().service();
            }
        });
    });
    hca.queue().service();
    assert_eq!(firmware.counts().pds, 0);
    assert_eq!(hca.pages_given() - before, 2000);
    assert_eq!(firmware.counts().pages, hca.pages_given());
    hca.teardown().unwrap();
    assert_eq!(dma.used(), 0);
}

/// M23: Page requests that come while a command takes its time are served from its wait.
#[test]
fn pages_during_a_command() {
    let slow = Config::default().with_latency(Opcode::QueryVhcaMigrationState, 500);
    let (firmware, hca, _dma) = up(slow, Options::default());
    let before = hca.pages_given();
    firmware.inject(Trigger::AfterOf(Opcode::QueryVhcaMigrationState, 0), Fault::PageRequests(100));
    assert_eq!(ask(&hca), Ok(IMAGE));
    hca.queue().service();
    assert_eq!((hca.pages_given(), firmware.counts().pages), (before + 100, before + 100));
}

/// M25, M26: What the firmware says of a command is what comes out, with all statuses there are.
#[test]
fn each_status() {
    let (firmware, hca, _dma) = up(Config::default(), Options::default());
    let opcode = Opcode::QueryVhcaMigrationState;
    for status in DeliveryStatus::ALL.iter().copied().filter(|s| *s != DeliveryStatus::Ok) {
        firmware.inject(Trigger::Next, Fault::Delivery(status));
        assert_eq!(ask(&hca), Err(CommandError::Delivery { opcode, status }));
    }
    for status in CommandStatus::ALL.iter().copied().filter(|s| *s != CommandStatus::Ok) {
        firmware.inject(Trigger::Next, Fault::Status(status));
        let seen = ask(&hca).unwrap_err();
        let CommandError::Status { status: seen, .. } = seen else { unreachable!("{seen}") };
        assert_eq!(seen, status);
    }
    assert_eq!(ask(&hca), Ok(IMAGE));
    assert_eq!(hca.queue().in_flight(), 0);
}

/// M24: A command that never completes costs one entry; the others go on.
#[test]
fn no_completion() {
    let (firmware, hca, _dma) = up(Config::default(), short());
    for lost in 1..=30 {
        firmware.inject(Trigger::Next, Fault::NoCompletion);
        assert!(matches!(ask(&hca), Err(CommandError::Timeout { .. })));
        assert_eq!(hca.queue().in_flight(), lost);
        assert_eq!(ask(&hca), Ok(IMAGE));
    }
}

/// M30: An answer with another command's token is not believed where answers are verified.
#[test]
fn wrong_token() {
    let signed = Options { signatures: true, ..Options::default() };
    let (firmware, hca, _dma) = up(Config::default(), signed);
    firmware.inject(Trigger::Next, Fault::WrongToken);
    let error = ask(&hca).unwrap_err();
    assert!(matches!(error, CommandError::Token { .. }), "{error}");
    assert_eq!(ask(&hca), Ok(IMAGE));
}

/// M29: A function that goes away, at any command, ends what is in flight and all that follows.
#[test]
fn detached() {
    let slow = Config::default().with_latency(Opcode::QueryVhcaMigrationState, u64::MAX / 2);
    let (firmware, hca, dma) = up(slow, Options::default());
    let ticket = hca.start(query().as_bytes(), QueryVhcaMigrationStateOut::BYTES).unwrap();
    assert!(!hca.is_done(&ticket));
    firmware.detach();
    assert!(hca.is_done(&ticket));
    let mut output = QueryVhcaMigrationStateOut::zeroed();
    assert_eq!(hca.finish(ticket, output.as_bytes_mut()), Err(CommandError::Gone));
    assert_eq!(hca.queue().gone(), Some(GoneCause::Unplugged));
    let mut query = QueryHcaCapIn::command();
    query.ask(CapType::General, CapMode::Current);
    let mut output = QueryHcaCapOut::zeroed();
    let next = hca.execute(query.as_bytes(), output.as_bytes_mut());
    assert_eq!(next, Err(CommandError::Gone));
    drop(hca);
    assert_eq!(dma.used(), 0);
}
