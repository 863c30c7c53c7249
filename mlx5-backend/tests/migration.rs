// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whole migrations: the core's sessions, between two devices on two software firmwares.
#![expect(clippy::panic, clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};

use vfio_fsm_core::vmm::frame::Limits;
use vfio_fsm_core::vmm::{Decision, Hook, LoadPlan, Plan, Recovery, Verdict};
use vfio_fsm_core::{Errno, Features, Op, Reply, State};
use vfio_fsm_kernel::session::{Loading, Saving, Session, Vmm};
use vfio_fsm_mlx5::command::{CommandError, Commands};
use vfio_fsm_mlx5::device::{Function, Mlx5Device, Shared};
use vfio_fsm_mlx5::dma::DmaSpace;
use vfio_fsm_mlx5::firmware::{Config, Firmware, VhcaConfig, VhcaHandle};
use vfio_fsm_mlx5::layout::Opcode;
use vfio_fsm_mlx5::queue::{CommandQueue, Options, Ticket};
use vfio_fsm_mlx5::vhca::{Migration, Vhca};

type Device = Mlx5Device<Meddling, Soft>;

/// The virtual function of a software firmware.
struct Soft(VhcaHandle);

impl Function for Soft {
    fn reset(&self) -> Result<(), Errno> {
        self.0.flr();
        Ok(())
    }

    fn touch(&self, value: u8) -> Result<(), Errno> {
        self.0.touch(value);
        Ok(())
    }
}

/// The command queue, and a reset of the device before one of its commands.
struct Meddling {
    queue: CommandQueue<Firmware>,
    /// How many commands there are to go, and what is reset then.
    left: AtomicUsize,
    device: OnceLock<Weak<Device>>,
    /// What the VHCA was before the reset.
    before: Mutex<Option<u64>>,
}

impl Meddling {
    fn meddle(&self) {
        if self.left.fetch_sub(1, Ordering::Relaxed) != 0 {
            return;
        }
        let Some(device) = self.device.get().and_then(Weak::upgrade) else { return };
        *self.before.lock().unwrap() = Some(device.function().0.digest());
        assert_eq!(device.apply(Op::Reset, &mut []), Reply::Ok);
    }
}

impl Commands for Meddling {
    type Ticket = Ticket;

    fn start(&self, input: &[u8], output_len: usize) -> Result<Ticket, CommandError> {
        self.meddle();
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

struct Host {
    firmware: Firmware,
    commands: Arc<Meddling>,
    device: Arc<Device>,
}

impl Host {
    fn new(vhca: VhcaConfig, chunks: bool) -> Self {
        let mut config = Config::of(vhca).with_latency(Opcode::SaveVhcaState, 50);
        config.chunks = chunks;
        let dma = DmaSpace::new(1 << 30);
        let firmware = Firmware::new(config, dma.clone()).unwrap();
        let options = Options { signatures: true, ..Options::default() };
        let queue = CommandQueue::new(firmware.clone(), dma, options).unwrap();
        let (left, device, before) =
            (AtomicUsize::new(usize::MAX), OnceLock::new(), Mutex::default());
        let commands = Arc::new(Meddling { queue, left, device, before });
        let pf = Migration::of(&*commands).unwrap();
        assert_eq!(pf.chunks, chunks);
        let vhca = Vhca::new(commands.clone(), pf, 1).unwrap();
        let handle = firmware.vhca(vhca.vhca_id()).unwrap();
        let device = Arc::new(Mlx5Device::new(Features::ALL, vhca, Soft(handle)));
        commands.device.set(Arc::downgrade(&device)).unwrap();
        commands.left.store(usize::MAX, Ordering::Relaxed);
        Self { firmware, commands, device }
    }

    fn vhca(&self) -> &VhcaHandle {
        &self.device.function().0
    }

    /// Resets the device before the n-th command from now.
    fn reset_before(&self, nth: usize) {
        self.commands.left.store(nth, Ordering::Relaxed);
    }

    fn digest(&self) -> u64 {
        self.vhca().digest()
    }

    fn state(&self) -> State {
        match self.device.apply(Op::GetState, &mut []) {
            Reply::State(state) => state.known().unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// The VHCA is as the device_state says, and where that has no session, nothing is left of one.
    fn agrees(&self) {
        let (state, vhca) = (self.state(), self.vhca().status());
        let halted = (vhca.initiator_suspended, vhca.responder_suspended);
        let expected = match state {
            State::Running => (false, false),
            State::RunningP2p => (true, false),
            _ => (true, true),
        };
        assert_eq!(halted, expected, "in {state}");
        let counts = self.firmware.counts();
        assert_eq!((counts.pds, counts.mkeys), (0, 0), "in {state}");
    }
}

struct Guest {
    recovery: Recovery,
}

impl Vmm for Guest {
    fn hook(&mut self, _hook: Hook) -> bool {
        true
    }

    fn decide(&mut self, _decision: &Decision) -> Recovery {
        self.recovery
    }
}

fn save(host: &Host, recovery: Recovery) -> (Verdict, Vec<u8>) {
    let mut stream = Vec::new();
    let port = Shared(host.device.clone());
    let outcome =
        Saving::new(Plan::LIVE, "mlx5", port, &mut stream).unwrap().run(&mut Guest { recovery });
    (outcome.verdict, stream)
}

fn load(host: &Host, stream: &[u8]) -> Verdict {
    let (plan, limits) = (LoadPlan::default(), Limits { max_data: Plan::LIVE.chunk });
    let port = Shared(host.device.clone());
    let mut loading = Loading::new(plan, limits, |compat: &str| compat == "mlx5", port, stream);
    loading.run(&mut Guest { recovery: Recovery::Abort }).verdict
}

fn source(image_bytes: u64, dirty_rate: u64) -> VhcaConfig {
    VhcaConfig { image_bytes, dirty_rate, seed: 1, ..VhcaConfig::default() }
}

fn destination(image_bytes: u64) -> VhcaConfig {
    VhcaConfig { image_bytes, seed: 2, ..VhcaConfig::default() }
}

/// M73, R25, R28: a VHCA that changes while it is saved is migrated with PRE_COPY by the core's own
/// sessions, in chunks and without, and the destination's state is the source's.
#[test]
fn a_vhca_that_changes_is_migrated() {
    for (image, chunks) in [(9_999, false), (3 << 20, false), (9_999, true), (40 << 20, true)] {
        let from = Host::new(source(image, 64), chunks);
        let to = Host::new(destination(image), chunks);
        from.device.apply(Op::Touch(0x5a), &mut []);
        let (saved, stream) = save(&from, Recovery::Abort);
        assert!(saved.is_complete(), "{saved:?}, {:?}", from.device.last_error());
        assert!(stream.len() as u64 > image, "all of it, and what has changed");
        assert_ne!(to.digest(), from.digest());
        let loaded = load(&to, &stream);
        assert!(loaded.is_complete(), "{loaded:?}, {:?}", to.device.last_error());
        assert_eq!(to.digest(), from.digest());
        assert_eq!((from.state(), to.state()), (State::Stop, State::Running));
        from.agrees();
        to.agrees();
    }
}

/// M74, M72, O2: a reset before any command of a migration, under each recovery: the destination's
/// image is what the source was before the reset or what it was after, and never of both; or the
/// migration has failed and said so. Device and VHCA agree afterwards, and nothing is left.
#[test]
fn a_reset_between_any_two_commands_is_survived_or_said() {
    let (mut said, mut survived) = (0, 0);
    for chunks in [false, true] {
        for recovery in [Recovery::Abort, Recovery::Restart, Recovery::StopCopy] {
            for nth in 0.. {
                let from = Host::new(source(9_999, 0), chunks);
                let to = Host::new(destination(9_999), chunks);
                from.device.apply(Op::Touch(0x5a), &mut []);
                from.reset_before(nth);
                let (saved, stream) = save(&from, recovery);
                let Some(before) = *from.commands.before.lock().unwrap() else { break };
                let name =
                    format!("chunks {chunks}, {recovery:?}, before command {nth}: {saved:?}");
                from.agrees();
                let loaded = load(&to, &stream);
                if !saved.is_complete() {
                    assert!(!loaded.is_complete(), "{name}: the destination runs all the same");
                    said += 1;
                    continue;
                }
                assert!(loaded.is_complete(), "{name}: {loaded:?}");
                let image = to.digest();
                assert!(image == before || image == from.digest(), "{name}: a mixture");
                survived += 1;
                to.agrees();
            }
        }
    }
    assert_eq!((said, survived), (32, 64));
}
