// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What suites can be run on.

mod kernel;
#[cfg(feature = "mlx5")]
mod mlx5;
#[cfg(feature = "mlx5")]
mod mlx5_function;
mod reference;
mod vfio_user;

pub use kernel::{KernelTarget, KernelTargetError};
#[cfg(feature = "mlx5")]
pub use mlx5::{Mlx5Options, Mlx5Target, SharedMlx5};
#[cfg(feature = "mlx5")]
pub use mlx5_function::Mlx5Function;
pub(crate) use reference::MemoryDevice;
pub use reference::{Reference, SharedReference};
pub use vfio_user::{VfioUserError, VfioUserTarget};
