// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Migration over a vfio-user socket: the bytes, both sides of them, and the suites through them.
#![cfg(target_endian = "little")]
#![expect(clippy::expect_used, reason = "helpers of tests fail as tests do")]

mod bad_clients;
mod bad_servers;
mod bugs;
mod commands;
mod golden;
mod peers;
mod suites;

use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tempfile::TempDir;
use vfio_conform::replay::Target;
use vfio_conform::target::{Reference, VfioUserTarget};
use vfio_conform::vfio_user::Server;
use vfio_fsm_core::Features;
use vfio_fsm_core::device::Bug;

/// Longer than any reply takes, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server in a thread of its own, which ends with its one client.
struct Served {
    directory: TempDir,
    thread: Option<JoinHandle<()>>,
}

impl Served {
    /// Serve what is made there to so many clients.
    fn new(
        clients: usize,
        features: Features,
        make: impl FnOnce() -> Box<dyn Target> + Send + 'static,
    ) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let listener = UnixListener::bind(socket(&directory)).expect("a socket");
        let thread = thread::spawn(move || {
            let mut target = make();
            let mut server = Server::new(&mut *target, features).expect("a fresh device");
            for _ in 0..clients {
                let (stream, _) = listener.accept().expect("a client");
                // What a client does wrong is its own loss.
                let _served = server.serve(stream);
            }
        });
        Self { directory, thread: Some(thread) }
    }

    fn reference(features: Features, bug: Option<Bug>) -> Self {
        Self::new(1, features, move || {
            Box::new(bug.map_or_else(Reference::new, Reference::with_bug))
        })
    }

    fn path(&self) -> PathBuf {
        socket(&self.directory)
    }

    fn target(&self) -> VfioUserTarget {
        VfioUserTarget::open(&self.path(), Some((0, 0))).expect("a device")
    }

    /// Wait until its clients have gone.
    fn join(mut self) {
        let thread = self.thread.take().expect("it runs");
        assert!(thread.join().is_ok(), "the server panicked");
    }
}

fn socket(directory: &TempDir) -> PathBuf {
    directory.path().join("device")
}

/// A server that does as it is told, on its end of a connection.
fn impostor<T: Send + 'static>(
    path: &Path,
    mut serve: impl FnMut(UnixStream) -> T + Send + 'static,
) -> JoinHandle<T> {
    let listener = UnixListener::bind(path).expect("a socket");
    thread::spawn(move || serve(listener.accept().expect("a client").0))
}
