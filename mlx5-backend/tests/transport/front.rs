// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The same device, whichever way.

use proptest::collection::vec;
use proptest::prelude::*;
use vfio_fsm_core::vmm::frame::Limits;
use vfio_fsm_core::vmm::{Decision, Hook, LoadPlan, Plan, Recovery, Verdict};
use vfio_fsm_core::{Fd, Features, Op, RawState, Reply, State};
use vfio_fsm_kernel::session::{Loading, Saving, Session, Vmm};
use vfio_fsm_mlx5::dma::DmaSpace;
use vfio_fsm_mlx5::firmware::{Config, Firmware, VhcaConfig};
use vfio_fsm_mlx5::queue::{CommandQueue, Options};
use vfio_fsm_mlx5::software::Software;
use vfio_fsm_mlx5::transport::{Choice, DetectError, FrontError, Mlx5, Transport};
use vfio_fsm_mlx5::vhca::{Migration, Vhca, VhcaError, make_migratable};

use crate::double::{self, Model, fd_table_stays_open};
use crate::tree::{Tree, VF, mlx5};

struct Guest;

impl Vmm for Guest {
    fn hook(&mut self, _hook: Hook) -> bool {
        true
    }

    fn decide(&mut self, _decision: &Decision) -> Recovery {
        Recovery::Abort
    }
}

fn save(device: &mut Mlx5) -> (Verdict, Vec<u8>) {
    let mut stream = Vec::new();
    let mut saving = Saving::new(Plan::LIVE, "mlx5", device, &mut stream).unwrap();
    let verdict = saving.run(&mut Guest).verdict;
    (verdict, stream)
}

fn load(device: &mut Mlx5, stream: &[u8]) -> Verdict {
    let limits = Limits { max_data: Plan::LIVE.chunk };
    let known = |compat: &str| compat == "mlx5";
    Loading::new(LoadPlan::default(), limits, known, device, stream).run(&mut Guest).verdict
}

fn apply(device: &mut Mlx5, op: Op<&[u8]>) -> Reply<Vec<u8>> {
    device.apply(op, &mut [0; 64]).map(<[u8]>::to_vec)
}

/// A usual host, on which the kernel is the core's device with these flags. The tree is to stay.
fn kernel(features: Features) -> (Mlx5, Tree) {
    double::begin(features);
    let tree = usual();
    (Mlx5::open_in(&tree.sysfs(), Some(VF), Choice::Auto).unwrap(), tree)
}

fn usual() -> Tree {
    Tree::pair(mlx5("0x101d", Some("mlx5_core")), mlx5("0x101e", Some("mlx5_vfio_pci")))
}

fn software(seed: u64) -> (Mlx5, Firmware) {
    let vhca = VhcaConfig { seed, dirty_rate: 16, ..VhcaConfig::default() };
    let software = Software::new(Config::of(vhca), DmaSpace::new(64 << 20)).unwrap();
    let firmware = software.firmware().clone();
    (Mlx5::of_software(software).unwrap(), firmware)
}

/// M173: The core's sessions run on the front: from a device in software to another, and from the
/// kernel's to the kernel's.
#[test]
fn sessions() {
    let (mut from, source) = software(1);
    let (mut to, destination) = software(2);
    assert_eq!((from.transport(), to.transport()), (Transport::Software, Transport::Software));
    assert_eq!(apply(&mut from, Op::Touch(0x5a)), Reply::Ok);
    let (saved, stream) = save(&mut from);
    assert!(saved.is_complete(), "{saved:?}");
    assert!(stream.len() > 9_999);
    assert!(load(&mut to, &stream).is_complete());
    let touched = [source, destination].map(|firmware| firmware.vhca(0x1234).unwrap().touched());
    assert_eq!(touched, [0x5a, 0x5a]);
    assert_eq!(apply(&mut to, Op::GetState), Reply::State(State::Running.into()));

    let _guard = fd_table_stays_open();
    let (mut from, _tree) = kernel(Features::ALL);
    assert_eq!(from.transport(), Transport::Kernel);
    let (saved, stream) = save(&mut from);
    assert!(saved.is_complete(), "{saved:?}");
    drop(from);
    let (mut to, _tree) = kernel(Features::ALL);
    let loaded = load(&mut to, &stream);
    assert!(loaded.is_complete(), "{loaded:?}");
}

fn any_op() -> impl Strategy<Value = Op<Vec<u8>>> {
    let fd = || (0_u32..4).prop_map(Fd);
    prop_oneof![
        8 => (0_u32..9).prop_map(|to| Op::SetState { to: RawState(to), fault: None }),
        3 => (fd(), 0_u32..7).prop_map(|(fd, len)| Op::Read { fd, len }),
        3 => (fd(), vec(any::<u8>(), 0..7)).prop_map(|(fd, bytes)| Op::Write { fd, bytes }),
        1 => fd().prop_map(|fd| Op::PrecopyInfo { fd }),
        1 => fd().prop_map(|fd| Op::CloseFd { fd }),
        1 => Just(Op::GetState),
        1 => Just(Op::DataSize),
        1 => Just(Op::Reset),
        1 => Just(Op::Close),
        1 => Just(Op::Open),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]

    /// M173: Over the kernel the front is the kernel's device, op for op: nothing added, nothing lost.
    #[test]
    fn the_kernels_device(set in 0..4_usize, ops in vec(any_op(), 1..40)) {
        let _guard = fd_table_stays_open();
        let features = Features::SETS[set];
        let (mut front, _tree) = kernel(features);
        let mut core = Model::new(features, double::Memory::default());
        for op in &ops {
            let op = match op {
                Op::Write { fd, bytes } => Op::Write { fd: *fd, bytes: &bytes[..] },
                other => other.clone().map(|_bytes| &[][..]),
            };
            let expected = core.apply(op, &mut [0; 64]).map(<[u8]>::to_vec);
            prop_assert_eq!(apply(&mut front, op), expected, "{}", op);
        }
    }
}

/// M174: A function that the kernel's driver has and does not migrate is an error that says what
/// devlink and the firmware must be told.
#[test]
fn the_kernel_does_not_migrate_it() {
    let _guard = fd_table_stays_open();
    double::begin(Features::ALL);
    double::world(|world| world.quirks.feature = Some(25));
    let tree = usual();
    let error = Mlx5::open_in(&tree.sysfs(), Some(VF), Choice::Auto).unwrap_err();
    assert!(matches!(error, FrontError::NotMigratable { function: 2, .. }), "{error}");
    for word in ["devlink port function set pci/0000:3b:00.0/", "migratable enable", "VF_MIGRATION"]
    {
        assert!(error.to_string().contains(word), "{error}");
    }
    double::world(|world| world.quirks.node = Some(("/dev/vfio/7", 16)));
    let error = Mlx5::open_in(&tree.sysfs(), Some(VF), Choice::Auto).unwrap_err();
    assert!(matches!(error, FrontError::Kernel(_)), "{error}");
}

/// M172: Software is taken when it is asked for, and never otherwise; it has a device of its own.
#[test]
fn forced() {
    let tree = Tree::new();
    let open = |address, choice| Mlx5::open_in(&tree.sysfs(), address, choice);
    let soft = Choice::Forced(Transport::Software);
    assert_eq!(open(None, soft).unwrap().transport(), Transport::Software);
    assert!(matches!(open(Some(VF), soft), Err(FrontError::NotNeeded { .. })));
    for choice in
        [Choice::Auto, Choice::Forced(Transport::Kernel), Choice::Forced(Transport::Firmware)]
    {
        assert!(matches!(open(None, choice), Err(FrontError::NoDevice)));
        let missing = open(Some(VF), choice);
        assert!(matches!(missing, Err(FrontError::Detect(DetectError::NoSuchDevice { .. }))));
    }
}

/// M172: A physical function that user space owns is what VFIO has to give, and without it nothing
/// opens.
#[test]
fn owned_by_user_space() {
    let _guard = fd_table_stays_open();
    let tree = Tree::pair(mlx5("0x101d", Some("vfio-pci")), mlx5("0x101e", None));
    let error = Mlx5::open_in(&tree.sysfs(), Some(VF), Choice::Auto).unwrap_err();
    match cfg!(feature = "vfio") {
        true => assert!(error.to_string().contains("VFIO"), "{error}"),
        false => {
            let built = matches!(error, FrontError::NotBuilt { feature: "vfio", .. });
            assert!(built, "{error}");
        }
    }
}

/// M175: A virtual function that nobody has enabled or made migratable is both, for a physical one
/// that user space owns; and can then be migrated.
#[test]
fn made_migratable() {
    let vhca = VhcaConfig { enabled: false, migratable: false, ..VhcaConfig::default() };
    let dma = DmaSpace::new(16 << 20);
    let firmware = Firmware::new(Config::of(vhca), dma.clone()).unwrap();
    let options = Options { signatures: true, ..Options::default() };
    let queue = std::sync::Arc::new(CommandQueue::new(firmware.clone(), dma, options).unwrap());
    let migration = Migration::of(&*queue).unwrap();
    let refused = Vhca::new(queue.clone(), migration, 1).err();
    assert_eq!(refused, Some(VhcaError::Lacks { capability: "migratable" }));
    make_migratable(&*queue, 1).unwrap();
    assert!(firmware.vhca(0x1234).unwrap().status().enabled);
    assert_eq!(Vhca::new(queue.clone(), migration, 1).unwrap().vhca_id(), 0x1234);
    let nobody = make_migratable(&*queue, 9);
    assert!(matches!(nobody, Err(VhcaError::Command(_))), "{nobody:?}");
}
