// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `vfio-conform serve`: a device over a vfio-user socket.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use clap::Args;
use vfio_conform::vfio_user::Server;
use vfio_fsm_core::Features;

use super::Result;
use super::output::{self, Output};
use super::replay::TargetName;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Where the socket is made.
    socket: PathBuf,
    /// What is served: `reference`, `mlx5`, or either with a planted bug (`reference:BUG`), to show
    /// that a client's tests can fail.
    #[arg(long, default_value = "reference")]
    target: TargetName,
    /// The flags of the device: stop-copy, p2p, pre-copy or full. The states of P2P are not used in
    /// vfio-user.
    #[arg(long, value_name = "FLAGS", default_value = "pre-copy", value_parser = super::features)]
    features: Features,
    /// End when so many clients have gone; by default never.
    #[arg(long, value_name = "N")]
    clients: Option<u64>,
}

pub(crate) fn run(arguments: &Arguments, output: &mut Output) -> Result {
    let Arguments { socket, target, features, clients } = arguments;
    let mut device = target.open(None)?.swap_remove(0);
    if !device.offers(*features) {
        return Err(format!("the device is none with {features}; give its own --features").into());
    }
    let listener = listen(socket)?;
    let _gone_at_the_end = Socket(socket);
    let mut server = Server::new(&mut *device, *features)?;
    let what = target.describe();
    output.line(format_args!("{what} with {features} at {}", socket.display()))?;
    let mut served = 0;
    while clients.is_none_or(|clients| served < clients) {
        let (stream, _) = listener.accept()?;
        // One client's nonsense is no reason to leave the next one alone.
        if let Err(error) = server.serve(stream) {
            output::complain(&error);
        }
        served += 1;
    }
    Ok(true)
}

/// A socket that a server has left behind is in nobody's use.
fn listen(path: &Path) -> Result<UnixListener> {
    let fail = |error: std::io::Error| format!("cannot serve at {}: {error}", path.display());
    match UnixListener::bind(path) {
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            match UnixStream::connect(path) {
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                    fs::remove_file(path).map_err(fail)?;
                }
                _ => {
                    let path = path.display();
                    return Err(format!("{path} is there, and in use; take another path").into());
                }
            }
            Ok(UnixListener::bind(path).map_err(fail)?)
        }
        bound => Ok(bound.map_err(fail)?),
    }
}

struct Socket<'p>(&'p Path);

impl Drop for Socket<'_> {
    fn drop(&mut self) {
        // It is removed for tidiness; the next server removes it too.
        let _removed = fs::remove_file(self.0);
    }
}
