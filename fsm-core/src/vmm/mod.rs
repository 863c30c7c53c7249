// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The VMM's side: what to do with a device that migrates, and what its answers mean.
//!
//! * [`Saver`] drives the device at the source, [`Loader`] the one at the destination.
//! * [`frame`] is the stream between them: epochs, chunks, checksums.
//! * [`Group`] keeps the order over the devices of one VM.
//! * [`Evidence`] is how a reset shows itself, [`Recovery`] what can be done about it.
//! * [`Progress`] turns bytes and time into a rate and a downtime.
//!
//! A session does no I/O, has no clock and takes no locks. It says what comes [next](Step) and is
//! told what came of it:
//!
//! ```text
//!  step() says            and is answered by
//!  Do(op)                 reply(reply)    the op was carried out on the device
//!  Send(frame)            sent()          the frame is on the wire
//!  Call(hook)             called(done)    the VMM has done its part, or could not
//!  Decide(decision)       decide(choice)  the VMM has chosen
//!  Wait(what for)         event(..)       or, at the destination, frame(..)
//!  End(verdict)
//! ```
//!
//! Asked again before it is answered, a session says the same again. An [`Event`] may come at any
//! time; it takes effect at the next step that does not cut an op in two.
//!
//! ```
//! use vfio_fsm_core::device::{Device, Memory};
//! use vfio_fsm_core::vmm::frame::Frame;
//! use vfio_fsm_core::vmm::{Event, Plan, Saver, Step};
//! use vfio_fsm_core::{Features, Op};
//!
//! // A snapshot of a device in memory. With a real one, `apply` is the system calls.
//! let mut device = Device::<Memory<4>, 2>::new(Features::P2P, Memory::new());
//! let mut saver = Saver::new(Plan::SNAPSHOT);
//! saver.event(Event::Switchover)?;
//! let (mut image, mut buf) = (Vec::new(), [0; 64]);
//! let verdict = loop {
//!     match saver.step() {
//!         Step::Do(op) => {
//!             let op: Op<&[u8]> = op.map_fd(|fd| *fd).map(|never| match never {});
//!             let reply = device.apply(op, &mut buf);
//!             saver.reply(reply.map(|bytes| bytes.len() as u32))?;
//!         }
//!         Step::Send(frame) => {
//!             if let Frame::Data { len, .. } = frame {
//!                 image.extend_from_slice(&buf[..len as usize]);
//!             }
//!             saver.sent()?;
//!         }
//!         // Here a VMM halts or lets go its vCPUs.
//!         Step::Call(_) => saver.called(true)?,
//!         Step::End(verdict) => break verdict,
//!         other => return Err(format!("{other}: but nobody resets this device").into()),
//!     }
//! };
//! assert!(verdict.is_complete());
//! assert_eq!(image, b"F\0\0\0\0");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod evidence;
pub mod frame;
mod group;
mod held;
mod loader;
mod progress;
mod saver;
mod step;

pub use evidence::{Choices, Decision, Evidence, Recovery};
pub use group::{Gate, Group, GroupRefused, OutOfOrder};
pub use loader::{LoadPlan, Loader, Piece};
pub use progress::Progress;
pub use saver::{Plan, Saver, Status, Then};
pub use step::{Cause, Event, Guest, Hook, OutOfTurn, Port, ResetRefused, Step, Verdict, Wait};
