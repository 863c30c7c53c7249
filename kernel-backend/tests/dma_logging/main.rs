// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `DmaLog` on a device in this process, see [`device`], which knows every page that it wrote.
#![expect(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]

mod device;
mod memory;
mod oracle;
mod report;
mod start;
mod vfio_device;
