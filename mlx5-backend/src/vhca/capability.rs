// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whether a virtual function can be migrated at all.

use crate::command::{CommandError, Commands};
use crate::layout::{
    CapMode, CapType, EnableHcaIn, EnableHcaOut, QueryHcaCapIn, QueryHcaCapOut, SetHcaCapIn,
    SetHcaCapOut,
};

use super::error::VhcaError;

/// What the physical function can do for the migration of its virtual functions.
///
/// Source: the kernel's `mlx5vf_cmd_set_migratable()`, which has the first three as a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Migration {
    /// States can be cut into chunks (`migration_in_chunks`), and so be of any size.
    pub chunks: bool,
    /// Which pages a virtual function writes can be tracked (`adv_virtualization`).
    pub page_track: bool,
}

impl Migration {
    /// Asks the physical function.
    ///
    /// # Errors
    ///
    /// [`VhcaError::Lacks`] when it cannot migrate its functions.
    pub fn of(commands: &impl Commands) -> Result<Self, VhcaError> {
        let general = query(commands, None, CapType::General, CapMode::Current)?;
        let general = general.capability();
        let general = general.cmd_hca_cap();
        must(general.migration(), "migration")?;
        must(general.hca_cap_2(), "hca_cap_2")?;
        let more = query(commands, None, CapType::General2, CapMode::Current)?;
        let more = more.capability();
        let more = more.cmd_hca_cap_2();
        must(more.migration_multi_load(), "migration_multi_load")?;
        must(more.migration_tracking_state(), "migration_tracking_state")?;
        Ok(Self { chunks: more.migration_in_chunks(), page_track: general.adv_virtualization() })
    }
}

/// The number by which the migration commands name a function: for one that is migratable.
///
/// `function` counts from 1: virtual function 0 is 1.
pub(super) fn migratable(commands: &impl Commands, function: u16) -> Result<u16, VhcaError> {
    let most = query(commands, Some(function), CapType::General2, CapMode::Max)?;
    must(most.capability().cmd_hca_cap_2().migratable(), "migratable")?;
    let now = query(commands, Some(function), CapType::General, CapMode::Current)?;
    Ok(now.capability().cmd_hca_cap().vhca_id())
}

/// Enables a virtual function and makes it migratable, on a physical one that user space owns: on
/// others mlx5_core and devlink do it. Before its driver has it.
///
/// Sources: the kernel's `mlx5_core_enable_hca()` and
/// `mlx5_devlink_port_fn_migratable_set()`.
///
/// # Errors
///
/// When the firmware refuses.
pub fn make_migratable(commands: &impl Commands, function: u16) -> Result<(), VhcaError> {
    let mut enable = EnableHcaIn::command();
    enable.set_function_id(function);
    commands.execute(enable.as_bytes(), EnableHcaOut::zeroed().as_bytes_mut())?;
    let most = query(commands, Some(function), CapType::General2, CapMode::Max)?;
    let mut set = Box::new(SetHcaCapIn::command());
    set.set_kind(CapType::General2).set_other_function(true).set_function_id(function);
    let mut capability = set.capability_mut();
    capability.as_bytes_mut().copy_from_slice(most.capability().as_bytes());
    capability.cmd_hca_cap_2_mut().set_migratable(true);
    Ok(commands.execute(set.as_bytes(), SetHcaCapOut::zeroed().as_bytes_mut())?)
}

fn must(has: bool, capability: &'static str) -> Result<(), VhcaError> {
    if has { Ok(()) } else { Err(VhcaError::Lacks { capability }) }
}

/// Of the function that is asked, or of another.
pub(crate) fn query(
    commands: &impl Commands,
    function: Option<u16>,
    kind: CapType,
    mode: CapMode,
) -> Result<QueryHcaCapOut<Vec<u8>>, CommandError> {
    let mut input = QueryHcaCapIn::command();
    input.ask(kind, mode);
    if let Some(function) = function {
        input.set_other_function(true).set_function_id(function);
    }
    let mut output = vec![0; QueryHcaCapOut::BYTES];
    commands.execute(input.as_bytes(), &mut output)?;
    Ok(QueryHcaCapOut::new(output)?)
}
