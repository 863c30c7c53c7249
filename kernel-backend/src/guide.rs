// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! For a VMM that migrates VFIO devices already: what goes away, and what takes its place.
//!
//! The flow that these pages start from is that of Cloud Hypervisor (2026): `pause` sets the device
//! to STOP, `snapshot` goes on to STOP_COPY, reads the data_fd to its end into one vector and goes
//! back to STOP; `restore` sets RESUMING, writes the vector, puts back configuration space and
//! interrupts, and `resume` sets RUNNING. A helper around each transition knows where to go back to
//! when it fails, and resets the device when that fails, too.
//!
//! What of that becomes what:
//!
//! | there | here |
//! |---|---|
//! | save: to STOP_COPY, read to the end, to STOP | [`Saving`], with any [`Write`](std::io::Write) for a sink |
//! | load: to RESUMING, write all | [`Loading`], with any [`Read`](std::io::Read) for a source |
//! | a transition with recovery | the session's own way home, and its [`Verdict`](vfio_fsm_core::vmm::Verdict) |
//! | reset as the last resort, its result unknown | [`Verdict::Stuck`](vfio_fsm_core::vmm::Verdict::Stuck), or [`Guest::LostByUs`](vfio_fsm_core::vmm::Guest::LostByUs) |
//! | the order of configuration space, interrupts and RUNNING | [`Hook::RestoreConfig`], [`Hook::RestoreInterrupts`], [`Event::Run`] |
//! | the whole state in memory, and in JSON | chunks of [`Plan::chunk`] bytes, framed, with a checksum |
//! | a cached state, or none | [`Standing::at`](crate::session::Standing::at), and GET wherever it is in doubt |
//!
//! # Save
//!
//! The device stays in the VMM's [`VfioDevice`](vfio_ioctls::VfioDevice), opened by group or cdev;
//! a [`DevicePort`] borrows it. `pause` has set it to STOP and halted the vCPUs, which the plan says;
//! without that, the session finds it in RUNNING and does both, by [`Hook::Freeze`] and a SET.
//!
//! ```no_run
//! use std::io::Write;
//!
//! use vfio_fsm_core::vmm::{Hook, Plan};
//! use vfio_fsm_kernel::DevicePort;
//! use vfio_fsm_kernel::session::{Outcome, Saving, Session, Vmm};
//! use vfio_ioctls::VfioDevice;
//!
//! /// The VM is paused, so there is nothing to do.
//! struct Paused;
//!
//! impl Vmm for Paused {
//!     fn hook(&mut self, _hook: Hook) -> bool {
//!         true
//!     }
//! }
//!
//! fn save_migration_data(
//!     device: &VfioDevice,
//!     sink: impl Write,
//! ) -> Result<Outcome, Box<dyn std::error::Error>> {
//!     let plan = Plan { paused: true, ..Plan::LIVE };
//!     let port = DevicePort::of(device)?;
//!     let mut saving = Saving::new(plan, "15b3:101e rev 0", port, sink)?;
//!     Ok(saving.run(&mut Paused))
//! }
//! ```
//!
//! If the outcome is complete and the destination fails after all, keep the session and give it
//! [`Event::Cancel`]: run again, it takes the device back to where it was.
//!
//! # Load
//!
//! `restore` and `resume` are two calls, with other things between them: step until the session
//! waits for the start, and start it later. The device stays in RESUMING meanwhile and goes to
//! RUNNING in one SET: a stay in STOP makes mlx5 set up its queues anew over what was loaded.
//!
//! ```no_run
//! use std::io::{self, Cursor};
//! use std::os::fd::OwnedFd;
//!
//! use vfio_fsm_core::vmm::frame::Limits;
//! use vfio_fsm_core::vmm::{Event, Hook, LoadPlan, Plan, Verdict};
//! use vfio_fsm_kernel::DevicePort;
//! use vfio_fsm_kernel::session::{Interest, Loading, Session};
//!
//! type Restore = Loading<DevicePort<OwnedFd>, Cursor<Vec<u8>>, fn(&str) -> bool>;
//!
//! struct VfioPciDevice {
//!     restore: Option<Restore>,
//! }
//!
//! impl VfioPciDevice {
//!     fn write_config_space(&mut self) -> bool {
//!         true // What the snapshot has beside the device's own state.
//!     }
//!
//!     fn enable_msix(&mut self) -> bool {
//!         true
//!     }
//!
//!     /// `device` is a duplicate of the device's fd, so that the session can be kept.
//!     fn restore(&mut self, device: OwnedFd, state: Vec<u8>) -> io::Result<()> {
//!         let (plan, limits) = (LoadPlan::default(), Limits { max_data: Plan::LIVE.chunk });
//!         let accepts: fn(&str) -> bool = |compat| compat == "15b3:101e rev 0";
//!         let (port, source) = (DevicePort::new(device), Cursor::new(state));
//!         self.restore = Some(Loading::new(plan, limits, accepts, port, source));
//!         self.go_on()
//!     }
//!
//!     fn resume(&mut self) -> io::Result<()> {
//!         if let Some(session) = &mut self.restore {
//!             session.event(Event::Run).map_err(io::Error::other)?;
//!         }
//!         self.go_on()
//!     }
//!
//!     /// Until the device runs, or waits for [`Self::resume`].
//!     fn go_on(&mut self) -> io::Result<()> {
//!         let Some(mut session) = self.restore.take() else { return Ok(()) };
//!         loop {
//!             let done = match session.step() {
//!                 Interest::Run => break,
//!                 Interest::Done(Verdict::Complete { .. }) => return Ok(()),
//!                 Interest::Done(verdict) => return Err(io::Error::other(verdict.to_string())),
//!                 Interest::Call(Hook::RestoreConfig) => self.write_config_space(),
//!                 Interest::Call(Hook::RestoreInterrupts) => self.enable_msix(),
//!                 Interest::Call(_) => true,
//!                 _ => continue,
//!             };
//!             session.called(done).map_err(io::Error::other)?;
//!         }
//!         self.restore = Some(session);
//!         Ok(())
//!     }
//! }
//! ```
//!
//! A stream that is cut off or changed is found by its framing before the device is told to load
//! it, and the device is reset and *seen* to be back before the verdict says so.
//!
//! # Live
//!
//! With PRE_COPY the same session runs in a thread while the guest does. [`Vmm::wait`] is where the
//! VMM decides: it is shown what is left and how long the downtime would be. A reset by the guest
//! that the VMM carries out itself goes through the session, as [`Event::Reset`]; one that the
//! kernel carries out shows by its [`Evidence`](vfio_fsm_core::vmm::Evidence), and [`Vmm::decide`]
//! is asked how to go on.
//!
//! ```no_run
//! use std::sync::mpsc::{Receiver, RecvTimeoutError};
//! use std::time::Duration;
//!
//! use vfio_fsm_core::vmm::{Decision, Event, Hook, Recovery};
//! use vfio_fsm_kernel::session::{Interest, Standing, Vmm};
//!
//! /// Of the migration thread of one device.
//! struct Live {
//!     /// From the thread that has the VM: a cancellation, an acknowledgement, a reset.
//!     events: Receiver<Event>,
//!     longest: Duration,
//! }
//!
//! impl Vmm for Live {
//!     fn hook(&mut self, hook: Hook) -> bool {
//!         match hook {
//!             Hook::Freeze => true, // Halt the vCPUs, and hold resets back.
//!             Hook::Thaw => true,   // Let them go.
//!             _ => true,
//!         }
//!     }
//!
//!     fn decide(&mut self, decision: &Decision) -> Recovery {
//!         match decision.choices.restart {
//!             true => Recovery::Restart,
//!             false => Recovery::StopCopy,
//!         }
//!     }
//!
//!     fn event(&mut self, _standing: &Standing) -> Option<Event> {
//!         self.events.try_recv().ok()
//!     }
//!
//!     fn wait(&mut self, interest: &Interest, standing: &Standing) -> Option<Event> {
//!         let short = standing.downtime().is_some_and(|downtime| downtime <= self.longest);
//!         if *interest == Interest::Switchover && standing.left.ready && short {
//!             return Some(Event::Switchover);
//!         }
//!         match self.events.recv_timeout(Duration::from_millis(10)) {
//!             Ok(event) => Some(event),
//!             Err(RecvTimeoutError::Timeout) => None,
//!             Err(RecvTimeoutError::Disconnected) => Some(Event::Cancel),
//!         }
//!     }
//! }
//! ```
//!
//! # Several devices
//!
//! Devices with DMA between them must be quiet before the first of them stops (R21).
//! [`group_of`] refuses those that cannot; [`run_group`] runs one session a device, calls
//! [`Hook::Freeze`] and [`Hook::Thaw`] once for all, and takes all of them back when one fails.
//!
//! # Event loops
//!
//! An event loop steps a session when its stream or data_fd is ready, and asks it what for:
//! [`Interest`]. Make the stream non-blocking, and the data_fds with
//! [`DevicePort::non_blocking`]; both are there to be registered, as
//! [`Saving::sink`] and [`Saving::data_fd`]. A data_fd without a poll of its own is
//! always ready; mlx5's has one.
//!
//! # What else there is to know
//!
//! * While a session runs, do not call `set_migration_state`, `read_migration_data` or `reset` of
//!   the same `VfioDevice`: it would have its own idea of the state and of the data_fd.
//! * Seccomp filters need `VFIO_MIG_GET_PRECOPY_INFO` (0x3b79) on data_fds beside
//!   `VFIO_DEVICE_FEATURE` (0x3b75) and `VFIO_DEVICE_RESET` (0x3b6f) on the device.
//! * The feature `tracing` makes events of all that a session does:
//!   `saving.observed(Tracing::default())`.
//!
//! [`Saving`]: crate::session::Saving
//! [`Loading`]: crate::session::Loading
//! [`Interest`]: crate::session::Interest
//! [`group_of`]: crate::session::group_of
//! [`run_group`]: crate::session::run_group
//! [`Vmm::wait`]: crate::session::Vmm::wait
//! [`Vmm::decide`]: crate::session::Vmm::decide
//! [`DevicePort`]: crate::DevicePort
//! [`DevicePort::non_blocking`]: crate::DevicePort::non_blocking
//! [`Plan::chunk`]: vfio_fsm_core::vmm::Plan
//! [`Event::Cancel`]: vfio_fsm_core::vmm::Event::Cancel
//! [`Event::Reset`]: vfio_fsm_core::vmm::Event::Reset
//! [`Event::Run`]: vfio_fsm_core::vmm::Event::Run
//! [`Hook::Freeze`]: vfio_fsm_core::vmm::Hook::Freeze
//! [`Hook::Thaw`]: vfio_fsm_core::vmm::Hook::Thaw
//! [`Hook::RestoreConfig`]: vfio_fsm_core::vmm::Hook::RestoreConfig
//! [`Hook::RestoreInterrupts`]: vfio_fsm_core::vmm::Hook::RestoreInterrupts
//! [`Saving::sink`]: crate::session::Saving::sink
//! [`Saving::data_fd`]: crate::session::Saving::data_fd
