// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The bytes of every message, put together by hand from the specification's tables. They are those
//! of a little-endian host, which is what these tests are for.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread;

use vfio_conform::target::Reference;
use vfio_conform::vfio_user::protocol::{HEADER, Header};
use vfio_conform::vfio_user::{Client, ClientError, Server};
use vfio_fsm_core::{Errno, Features};

use crate::PATIENCE;

/// A request and its reply, in hexadecimal: header, then payload; id, command, size, flags, error.
pub(crate) const EXCHANGES: &[(&str, &str, &str)] = &[
    (
        "VERSION 0.1, {\"capabilities\":{\"max_msg_fds\":1,\"max_data_xfer_size\":1048576}}",
        "0100 0100 54000000 00000000 00000000  0000 0100 \
         7b226361706162696c6974696573223a7b226d61785f6d73675f666473223a312c \
         226d61785f646174615f786665725f73697a65223a313034383537367d7d 00",
        "0100 0100 44000000 01000000 00000000  0000 0100 \
         7b226361706162696c6974696573223a7b \
         226d61785f646174615f786665725f73697a65223a313034383537367d7d 00",
    ),
    (
        "DEVICE_GET_INFO: can be reset, PCI, 9 regions, 5 kinds of interrupts",
        "0200 0400 20000000 00000000 00000000  10000000 00000000 00000000 00000000",
        "0200 0400 20000000 01000000 00000000  10000000 03000000 09000000 05000000",
    ),
    (
        "GET of the migration flags: STOP_COPY|PRE_COPY",
        "0300 1000 18000000 00000000 00000000  10000000 01000100",
        "0300 1000 20000000 01000000 00000000  10000000 01000100 0500000000000000",
    ),
    (
        "DEVICE_RESET",
        "0400 0d00 10000000 00000000 00000000",
        "0400 0d00 10000000 01000000 00000000",
    ),
    (
        "GET of the device_state: RUNNING",
        "0500 1000 18000000 00000000 00000000  10000000 02000100",
        "0500 1000 20000000 01000000 00000000  10000000 02000100 02000000 ffffffff",
    ),
    (
        "SET STOP_COPY",
        "0600 1000 20000000 00000000 00000000  10000000 02000200 03000000 ffffffff",
        "0600 1000 20000000 01000000 00000000  10000000 02000200 03000000 ffffffff",
    ),
    (
        "MIG_DATA_READ of 32 bytes: there are 24",
        "0700 1100 18000000 00000000 00000000  28000000 20000000",
        "0700 1100 30000000 01000000 00000000  20000000 18000000 \
         46000000 00000000 00000000 00000000 00000000 00000000",
    ),
    (
        "DEVICE_RESET",
        "0800 0d00 10000000 00000000 00000000",
        "0800 0d00 10000000 01000000 00000000",
    ),
    (
        "SET RESUMING",
        "0900 1000 20000000 00000000 00000000  10000000 02000200 04000000 ffffffff",
        "0900 1000 20000000 01000000 00000000  10000000 02000200 04000000 ffffffff",
    ),
    (
        "MIG_DATA_WRITE of 24 bytes",
        "0a00 1200 30000000 00000000 00000000  20000000 18000000 \
         46000000 00000000 00000000 00000000 00000000 00000000",
        "0a00 1200 10000000 01000000 00000000",
    ),
    (
        "SET of 8, which is no state: EINVAL",
        "0b00 1000 20000000 00000000 00000000  10000000 02000200 08000000 ffffffff",
        "0b00 1000 10000000 21000000 16000000",
    ),
    (
        "REGION_WRITE of one byte",
        "0c00 0a00 21000000 00000000 00000000  0000000000000000 00000000 01000000 5a",
        "0c00 0a00 20000000 01000000 00000000  0000000000000000 00000000 01000000",
    ),
];

pub(crate) fn bytes(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    hex::decode(digits).expect("hexadecimal")
}

/// Do what the exchanges are: the first thing that is not as it is there.
pub(crate) fn drive(stream: UnixStream, patience: std::time::Duration) -> Result<(), ClientError> {
    let mut client = Client::on(stream, patience)?;
    let mut buf = [0; 32];
    assert_eq!(client.migration_flags()?, 5);
    client.reset()?;
    assert_eq!(client.state()?, 2);
    client.set_state(3)?;
    let stream = client.read(&mut buf)?.to_vec();
    assert_eq!(stream, [b"F".as_slice(), &[0; 23]].concat());
    client.reset()?;
    client.set_state(4)?;
    assert_eq!(client.write(&stream)?, 24);
    match client.set_state(8) {
        Err(ClientError::Refused { errno: Some(Errno::EINVAL), .. }) => {}
        other => return other,
    }
    client.region_write(0, 0, 0x5a)
}

/// One request, as long as its header says.
pub(crate) fn request(stream: &mut UnixStream) -> Option<Vec<u8>> {
    let mut message = vec![0; HEADER];
    stream.read_exact(&mut message).ok()?;
    let (header, _) = Header::decode(&message).expect("a header");
    message.resize(header.size as usize, 0);
    stream.read_exact(&mut message[HEADER..]).ok()?;
    Some(message)
}

/// U1: The client's requests are those bytes, and it takes those replies.
#[test]
fn the_client_sends_the_bytes_of_the_specification() {
    let (ours, mut theirs) = UnixStream::pair().expect("sockets");
    let server = thread::spawn(move || {
        for (what, asked, reply) in EXCHANGES {
            let request = request(&mut theirs).expect("a request");
            assert_eq!(hex::encode(request), hex::encode(bytes(asked)), "{what}");
            theirs.write_all(&bytes(reply)).expect("it is taken");
        }
    });
    drive(ours, PATIENCE).expect("all is as it should be");
    assert!(server.join().is_ok());
}

/// U1: The server's replies to those requests are those bytes.
#[test]
fn the_server_sends_the_bytes_of_the_specification() {
    let (mut ours, theirs) = UnixStream::pair().expect("sockets");
    let server = thread::spawn(move || {
        let mut device = Reference::new();
        let mut server = Server::new(&mut device, Features::PRE_COPY).expect("a device");
        server.serve(theirs).expect("a good client");
    });
    for (what, asked, reply) in EXCHANGES {
        ours.write_all(&bytes(asked)).expect("it is taken");
        let reply = bytes(reply);
        let mut said = vec![0; reply.len()];
        ours.read_exact(&mut said).expect("a reply");
        assert_eq!(hex::encode(said), hex::encode(reply), "{what}");
    }
    drop(ours);
    assert!(server.join().is_ok());
}
