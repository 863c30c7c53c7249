// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The arcs of [`vfio_fsm_core`] as the firmware commands of an mlx5 device.
//!
//! # What is where
//!
//! From the bottom up; each layer knows those above it in this table, and no other:
//!
//! | module | what it is |
//! |---|---|
//! | [`layout`] | the structures of commands, queue entries, mailboxes and events, bit by bit |
//! | [`stream`] | the records on the data_fd, as Linux's driver writes and reads them |
//! | [`bar`], [`dma`] | registers, and memory that driver and device share |
//! | [`command`] | the line between what is said to a firmware and how |
//! | [`queue`] | the command queue, bringing a function up and taking it down, pages, events |
//! | [`vhca`] | the fifteen arcs, reads, writes and PRECOPY_INFO as commands |
//! | [`device`] | the device that speaks [`Op`](vfio_fsm_core::Op), for as many threads as want to |
//! | [`tracker`] | which pages a function writes, by the page tracker object |
//! | [`transport`] | who sends the commands of a virtual function, and one front for all of them |
//!
//! Behind features, and nothing above needs them:
//!
//! * `kernel`: the virtual function through the kernel's own driver, for [`transport`].
//! * `fwctl`: `fwctl`, what a kernel lets user space ask of a function that it owns.
//! * `vfio`: `pf`, a physical function that user space owns, through VFIO.
//! * `firmware`: `firmware`, a physical function in software, at the level of registers and DMA, and
//!   `software`, a whole device on it.
//! * `verify`: `verify`, checks of all that against what others wrote: a kernel's headers, the
//!   shipping driver's own code, the distribution's libmlx5. `vfio-conform mlx5 verify` fetches what
//!   they need and runs them.
//!
//! # Which transport when
//!
//! SUSPEND, RESUME, SAVE and LOAD are commands of the *physical* function; a virtual one cannot
//! migrate itself. On almost every host a kernel's driver owns the physical function, and then no
//! user space can send them: neither DEVX nor fwctl lets these opcodes through. There the way is the
//! uAPI of `mlx5-vfio-pci` on the virtual function, which is `vfio-fsm-kernel`'s, and the same
//! sessions run on it: [`transport`] finds out which way is there. The commands of this crate are for a physical function that is bound to
//! `vfio-pci` (feature `vfio`), for an emulated one, and for the firmware in software, on which the
//! suites of `vfio-conform` run.
//!
//! # What is assumed of firmware
//!
//! Layouts, opcodes and the order of commands are the kernel's, and held against it. What firmware
//! does with a command at the wrong moment, how large a SAVE is, what a reset leaves, is mostly not
//! public. The firmware in software has to choose; each choice has a name in
//! `firmware::assumptions`, and the arcs are written so that they do not depend on it: they give
//! commands only where Linux's driver does, and take any failure of any of them.
//!
//! # Limits
//!
//! * An image of one SAVE or LOAD has less than 4 GiB, as the commands' fields have 32 bits. Larger
//!   states need the capability `migration_in_chunks`.
//! * In chunk mode a saving session has two buffers of at most 8 MiB, unless the firmware asks for
//!   more; without it as much memory as the state has, and in PRE_COPY more than twice that.
//! * A stream is believed nothing: memory for an image is taken as its bytes arrive.
//! * A process has at most 64 data_fds of a device open.
//! * Beside the software one no firmware has ever been on the other side of this crate. Where it does
//!   on purpose other than Linux's driver, the [`vhca`] and [`device`] modules say so.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod bar;
pub mod command;
pub mod device;
pub mod dma;
#[cfg(feature = "firmware")]
pub mod firmware;
#[cfg(feature = "fwctl")]
pub mod fwctl;
pub mod layout;
#[cfg(feature = "vfio")]
#[expect(
    unsafe_code,
    reason = "a mapping of registers has no safe wrapper that allows for devices"
)]
pub mod pf;
pub mod queue;
#[cfg(feature = "firmware")]
pub mod software;
pub mod stream;
mod sync;
pub mod tracker;
pub mod transport;
#[cfg(feature = "verify")]
pub mod verify;
pub mod vhca;

/// The README's code is compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
