// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A whole device in software, and that a firmware which is not as its device says is seen.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use vfio_fsm_core::{Features, Op, Reply, State};
use vfio_fsm_mlx5::dma::DmaSpace;
use vfio_fsm_mlx5::firmware::{Config, Fault, Trigger, VhcaConfig};
use vfio_fsm_mlx5::layout::{CommandStatus, Opcode};
use vfio_fsm_mlx5::software::{Disagreement, Software, SoftwareError};

fn software() -> Software {
    Software::new(Config::of(VhcaConfig::default()), DmaSpace::new(64 << 20)).unwrap()
}

/// M141: in every state the firmware agrees with the device, and one that is reset behind its back,
/// or has kept an object, does not.
#[test]
fn a_firmware_that_is_not_as_its_device_says_is_seen() {
    let software = software();
    let device = software.device(Features::ALL).unwrap();
    for state in State::ALL.into_iter().filter(|state| *state != State::Error) {
        assert!(matches!(device.apply(Op::set(state), &mut []), Reply::Fd(_)), "{state}");
        assert_eq!(software.disagrees(state), None, "{state}");
        assert_eq!(device.apply(Op::Reset, &mut []), Reply::Ok);
    }
    device.apply(Op::set(State::Stop), &mut []);
    software.vhca().flr();
    let (initiator, responder) = (false, false);
    let halted = Disagreement::Halted { state: State::Stop, initiator, responder };
    assert_eq!(software.disagrees(State::Stop), Some(halted));
    assert_eq!(device.apply(Op::Reset, &mut []), Reply::Ok);
    device.apply(Op::set(State::Resuming), &mut []);
    let busy = Fault::Status(CommandStatus::ResBusy);
    software.firmware().inject(Trigger::AfterOf(Opcode::DeallocPd, 0), busy);
    assert_eq!(device.apply(Op::Reset, &mut []), Reply::Ok);
    let left = Disagreement::Left { state: State::Running, left: 1 };
    assert_eq!(software.disagrees(State::Running), Some(left));
}

/// M141: a configuration without a function is refused.
#[test]
fn without_a_function_there_is_no_device() {
    let config = Config { vhcas: Vec::new(), ..Config::default() };
    let refused = Software::new(config, DmaSpace::new(1 << 20)).err();
    assert_eq!(refused, Some(SoftwareError::NoFunction));
}
