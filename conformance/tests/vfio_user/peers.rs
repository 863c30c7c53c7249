// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Another's implementation at the other end: the crate vfio_user of rust-vmm. It knows no migration,
//! so that what can be compared is the version, the device's information, regions and the reset.

use std::fs::File;
use std::io::Error;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use vfio_conform::target::{VfioUserError, VfioUserTarget};
use vfio_conform::vfio_user::{Client, ClientError};
use vfio_fsm_core::Features;
use vfio_user::{DmaMapFlags, DmaUnmapFlags, ServerBackend};

use crate::{PATIENCE, Served};

/// U5: The client of the crate vfio_user agrees with our server on a version, finds its regions,
/// writes to one and resets the device.
#[test]
fn another_client_works_with_our_server() {
    let served = Served::reference(Features::PRE_COPY, None);
    let mut client = vfio_user::Client::new(&served.path()).expect("they agree");
    let region = client.region(0).expect("a region");
    assert_eq!((region.size, region.flags, region.index), (1, 2, 0));
    assert!(client.region(8).is_some_and(|region| region.size == 0));
    client.region_write(0, 0, &[0x5a]).expect("it takes a byte");
    client.reset().expect("it can be reset");
    // As of 0.1.7 it has the flag the wrong way round: specs/findings/vfio-user-crate.md.
    assert!(!client.resettable(), "mended: change the finding");
    client.shutdown().expect("it ends");
    drop(client);
    served.join();
}

/// Counts resets.
struct Counting(Arc<AtomicU32>);

impl ServerBackend for Counting {
    fn region_read(&mut self, _: u32, _: u64, _: &mut [u8]) -> Result<(), Error> {
        Ok(())
    }

    fn region_write(&mut self, _: u32, _: u64, _: &[u8]) -> Result<(), Error> {
        Ok(())
    }

    fn dma_map(
        &mut self,
        _: DmaMapFlags,
        _: u64,
        _: u64,
        _: u64,
        _: Option<File>,
    ) -> Result<(), Error> {
        Ok(())
    }

    fn dma_unmap(&mut self, _: DmaUnmapFlags, _: u64, _: u64) -> Result<(), Error> {
        Ok(())
    }

    fn reset(&mut self) -> Result<(), Error> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn set_irqs(&mut self, _: u32, _: u32, _: u32, _: u32, _: Vec<File>) -> Result<(), Error> {
        Ok(())
    }
}

/// U5: Our client agrees with the server of the crate vfio_user on a version, reads its device info,
/// resets its device; and a target that has no migration is said to have none.
#[test]
fn our_client_works_with_another_server() {
    let resets = Arc::new(AtomicU32::new(0));
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("device");
    let listener: OwnedFd = UnixListener::bind(&path).expect("a socket").into();
    let mut backend = Counting(Arc::clone(&resets));
    let server = thread::spawn(move || {
        let server = vfio_user::Server::from_owned_fd(listener, true, Vec::new(), Vec::new());
        server.run(&mut backend).expect("a good client");
        // A target, and then a client that asks for what it does not know.
        for _ in 0..2 {
            let _lost = server.run(&mut backend);
        }
    });
    let mut client = Client::connect(&path, PATIENCE).expect("they agree");
    client.reset().expect("it can be reset");
    assert_eq!(resets.load(Ordering::SeqCst), 1);
    drop(client);
    let error = VfioUserTarget::open(&path, None).expect_err("it has no migration");
    assert!(matches!(error, VfioUserError::NoMigration { .. }), "{error}");
    // As of 0.1.7 it takes the payload of an unknown command for the next header.
    let mut client = Client::connect(&path, PATIENCE).expect("they agree");
    let refused = client.migration_flags().expect_err("an unknown command");
    assert!(matches!(refused, ClientError::Refused { errno: None, .. }), "{refused}");
    let lost = client.reset().expect_err("mended: change specs/findings/vfio-user-crate.md");
    assert!(matches!(lost, ClientError::OtherReply { said: 0, said_id: 16, .. }), "{lost}");
    drop(client);
    assert!(server.join().is_ok());
}
