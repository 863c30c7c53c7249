// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A `KernelDevice` over a kernel that plays the core's device is the core's device: whatever is
//! done to both, they answer the same.

use proptest::collection::vec;
use proptest::prelude::*;
use vfio_fsm_core::{Fault, Fd, Features, Op, RawState, Reply, State};

use crate::double::{Memory, Model, fd_table_is_mine};
use crate::ops;

fn reference(features: Features) -> Model {
    Model::new(features, Memory::default())
}

fn any_op() -> impl Strategy<Value = Op<Vec<u8>>> {
    let fd = || (0_u32..5).prop_map(Fd);
    let len = 0_u32..7;
    let fault = prop_oneof![4 => Just(None), 1 => Just(Some(Fault::FdTableFull))];
    let set = (0_u32..9, fault);
    prop_oneof![
        12 => set.prop_map(|(to, fault)| Op::SetState { to: RawState(to), fault }),
        4 => (fd(), len.clone()).prop_map(|(fd, len)| Op::Read { fd, len }),
        1 => (fd(), len).prop_map(|(fd, len)| Op::Pread { fd, len }),
        4 => (fd(), vec(any::<u8>(), 0..7)).prop_map(|(fd, bytes)| Op::Write { fd, bytes }),
        2 => fd().prop_map(|fd| Op::Poll { fd }),
        2 => fd().prop_map(|fd| Op::PrecopyInfo { fd }),
        1 => fd().prop_map(|fd| Op::Seek { fd }),
        1 => fd().prop_map(|fd| Op::FdFlags { fd }),
        2 => fd().prop_map(|fd| Op::CloseFd { fd }),
        2 => Just(Op::GetState),
        1 => Just(Op::GetFeatures),
        1 => Just(Op::DataSize),
        1 => Just(Op::OptInPrecopyV2),
        2 => Just(Op::Reset),
        1 => Just(Op::Open),
        1 => Just(Op::Close),
        1 => any::<u8>().prop_map(Op::Touch),
    ]
}

/// What both answer to `op`; fails if they do not agree.
fn agree(
    kernel: &mut vfio_fsm_kernel::KernelDevice,
    core: &mut Model,
    op: &Op<Vec<u8>>,
) -> Reply<Vec<u8>> {
    let op = match op {
        Op::Write { fd, bytes } => Op::Write { fd: *fd, bytes: &bytes[..] },
        other => other.clone().map(|_bytes| &[][..]),
    };
    let expected = core.apply(op, &mut [0; 64]).map(<[u8]>::to_vec);
    assert_eq!(ops::apply(kernel, op), expected, "{op}");
    expected
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_ops(set in 0..4_usize, ops in vec(any_op(), 1..60)) {
        let _guard = fd_table_is_mine();
        let features = Features::SETS[set];
        let mut kernel = ops::device(features).with_touch(0, 0).unwrap();
        let mut core = reference(features);
        for op in &ops {
            agree(&mut kernel, &mut core, op);
        }
        prop_assert_eq!(kernel.anomalies(), []);
    }
}

/// Every request from every state, in all four flag sets, with a free and with a full fd table.
#[test]
fn every_request_from_every_state() {
    let _guard = fd_table_is_mine();
    let mut requests = 0;
    for features in Features::SETS {
        for from in State::ALL {
            for to in (0..10).chain([u32::MAX]) {
                for fault in [None, Some(Fault::FdTableFull)] {
                    let mut kernel = ops::device(features);
                    let mut core = reference(features);
                    agree(&mut kernel, &mut core, &Op::set(from));
                    let request = Op::SetState { to: RawState(to), fault };
                    agree(&mut kernel, &mut core, &request);
                    agree(&mut kernel, &mut core, &Op::GetState);
                    requests += 1;
                }
            }
        }
    }
    assert_eq!(requests, 4 * 8 * 11 * 2);
}
