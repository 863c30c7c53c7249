// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Clients that send what is no message: the server refuses or hangs up, and serves the next one.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::thread;

use vfio_conform::target::Reference;
use vfio_conform::vfio_user::Server;
use vfio_conform::vfio_user::protocol::{HEADER, Header, flag};
use vfio_fsm_core::{Errno, Features};

use crate::golden::{EXCHANGES, bytes, drive};

/// A server for as many clients as come, and a good one at the end: whoever comes before must not
/// have spoiled anything.
fn serve(clients: impl FnOnce(&mut dyn FnMut() -> UnixStream)) {
    let (sender, accepted) = std::sync::mpsc::channel::<UnixStream>();
    let server = thread::spawn(move || {
        let mut device = Reference::new();
        let mut server = Server::new(&mut device, Features::PRE_COPY).expect("a device");
        for stream in accepted {
            // A client that sends nonsense is told so, or left.
            let _served = server.serve(stream);
        }
    });
    let mut connect = || {
        let (ours, theirs) = UnixStream::pair().expect("sockets");
        sender.send(theirs).expect("it serves");
        ours
    };
    clients(&mut connect);
    drive(connect(), crate::PATIENCE).expect("the next client is served well");
    drop(sender);
    assert!(server.join().is_ok(), "the server panicked");
}

/// Send this, and nothing more; all that comes back, message by message.
fn send(mut stream: UnixStream, sent: &[u8]) -> Vec<Header> {
    stream.write_all(sent).expect("it is taken");
    stream.shutdown(Shutdown::Write).expect("a socket");
    let mut said = Vec::new();
    // A server that has hung up with something unread resets the connection.
    let _all = stream.read_to_end(&mut said);
    let mut rest = said.as_slice();
    let mut headers = Vec::new();
    while !rest.is_empty() {
        let (header, _) = Header::decode(rest).expect("whole messages");
        rest = &rest[header.size as usize..];
        headers.push(header);
    }
    headers
}

fn requests() -> impl Iterator<Item = (&'static str, Vec<u8>)> {
    EXCHANGES.iter().map(|(what, request, _)| (*what, bytes(request)))
}

fn hello() -> Vec<u8> {
    bytes(EXCHANGES[0].1)
}

fn refused(header: &Header) -> bool {
    header.flags == flag::REPLY | flag::ERROR && header.error != 0 && header.size == HEADER as u32
}

/// U4: A request that is cut off at any byte has no reply.
#[test]
fn a_request_that_is_cut_off_has_no_reply() {
    serve(|connect| {
        for (what, request) in requests().skip(1) {
            for len in 0..request.len() {
                let said = send(connect(), &[&hello(), &request[..len]].concat());
                assert_eq!(said.len(), 1, "{what}: {len}: {said:?}");
            }
        }
    });
}

/// U4: A request that is shorter than it must be, or longer, is refused, and the next one answered.
/// The good ones before it have opened the session that it needs.
#[test]
fn a_request_of_another_length_is_refused() {
    serve(|connect| {
        for (at, (what, request)) in requests().enumerate().skip(1) {
            let before: Vec<u8> = requests().take(at).flat_map(|(_, request)| request).collect();
            for len in (HEADER..request.len()).chain([request.len() + 1]) {
                let may = what.starts_with("GET") || what.starts_with("DEVICE_GET");
                if len > request.len() && may {
                    continue;
                }
                let mut other = request.clone();
                other.resize(len, 0);
                other[4..8].copy_from_slice(&(len as u32).to_le_bytes());
                let reset = bytes(EXCHANGES[3].1);
                let said = send(connect(), &[before.clone(), other, reset].concat());
                assert_eq!(said.len(), at + 2, "{what}: {len}: {said:?}");
                assert!(refused(&said[at]), "{what}: {len}: {said:?}");
                assert_eq!(said[at + 1].flags, flag::REPLY, "{what}: {len}");
            }
        }
    });
}

/// U4: Behind a size that no message has nothing can be found any more: the server hangs up.
#[test]
fn behind_a_wrong_size_the_server_hangs_up() {
    serve(|connect| {
        for size in [0, 15, u32::MAX] {
            let mut reset = bytes(EXCHANGES[3].1);
            reset[4..8].copy_from_slice(&size.to_le_bytes());
            let said = send(connect(), &[hello(), reset, bytes(EXCHANGES[3].1)].concat());
            assert_eq!(said.len(), 1, "{size}: {said:?}");
        }
    });
}

/// U2, U4: The version comes first, once, and with the same major number.
#[test]
fn the_version_comes_first_and_once() {
    serve(|connect| {
        for (what, request) in requests().skip(1) {
            let said = send(connect(), &[request, hello()].concat());
            assert!(said.len() == 1 && refused(&said[0]), "{what}: {said:?}");
        }
        let said = send(connect(), &[hello(), hello()].concat());
        assert!(said.len() == 2 && refused(&said[1]), "{said:?}");
        let mut other = hello();
        other[16] = 1;
        let said = send(connect(), &other);
        assert!(said.len() == 1 && refused(&said[0]), "{said:?}");
    });
}

/// U4: Unknown commands, features and flags are refused, each with its errno; and nothing is said
/// where no reply is wanted.
#[test]
fn what_is_unknown_is_refused() {
    let feature = |flags: u32| [&16u32.to_le_bytes()[..], &flags.to_le_bytes(), &[0; 8]].concat();
    let (get, set, probe) = (1 << 16, 1 << 17, 1 << 18);
    let cases: Vec<(u16, Vec<u8>, Option<Errno>)> = vec![
        (0, vec![], Some(Errno::EOPNOTSUPP)),
        (14, vec![], Some(Errno::EOPNOTSUPP)),
        (9, vec![0; 16], Some(Errno::EOPNOTSUPP)),
        (16, feature(get | 9), Some(Errno::ENOTTY)),
        (16, feature(set | 6), Some(Errno::ENOTTY)),
        (16, feature(2), Some(Errno::EINVAL)),
        (16, feature(get | set | 2), Some(Errno::EINVAL)),
        (16, feature(set | 1), Some(Errno::EINVAL)),
        (16, feature(1 << 19 | get | 2), Some(Errno::EINVAL)),
        (16, feature(probe | get | set | 2), None),
        (16, feature(probe | set | 1), Some(Errno::EINVAL)),
        // Room for the reply, and room for less than it.
        (16, feature(get | 2)[..8].to_vec(), None),
        (16, [15u32.to_le_bytes(), (get | 2u32).to_le_bytes()].concat(), Some(Errno::EINVAL)),
        // More data than a message carries, less room than data, and no session.
        (
            17,
            [u32::MAX.to_le_bytes(), (1u32 << 20 | 1).to_le_bytes()].concat(),
            Some(Errno::EINVAL),
        ),
        (17, [39u32.to_le_bytes(), 32u32.to_le_bytes()].concat(), Some(Errno::EINVAL)),
        (17, [40u32.to_le_bytes(), 32u32.to_le_bytes()].concat(), Some(Errno::EINVAL)),
        (18, [8u32.to_le_bytes(), 0u32.to_le_bytes()].concat(), Some(Errno::EINVAL)),
        (10, [vec![0; 12], 1u32.to_le_bytes().to_vec(), vec![7]].concat(), None),
        (10, [vec![1; 12], 1u32.to_le_bytes().to_vec(), vec![7]].concat(), Some(Errno::EINVAL)),
    ];
    serve(|connect| {
        for (command, payload, errno) in cases {
            for no_reply in [0, flag::NO_REPLY] {
                let size = (HEADER + payload.len()) as u32;
                let header = Header { id: 7, command, size, flags: no_reply, error: 0 };
                let mut message = hello();
                header.encode(&mut message);
                message.extend_from_slice(&payload);
                let said = send(connect(), &message);
                let replies = if no_reply == 0 { 2 } else { 1 };
                assert_eq!(said.len(), replies, "{command}: {payload:?}: {said:?}");
                let Some(reply) = said.get(1) else { continue };
                assert_eq!((reply.id, reply.command), (7, command));
                let error = errno.map_or(0, |errno| errno.0 as u32);
                assert_eq!(reply.error, error, "{command}: {payload:?}");
                assert_eq!(refused(reply), errno.is_some(), "{command}: {payload:?}");
            }
        }
    });
}

/// U4: Whatever bytes come, the server goes on.
#[test]
fn noise_does_not_stop_the_server() {
    let mut random = fastrand::Rng::with_seed(20);
    serve(|connect| {
        for _ in 0..2000 {
            let mut message = hello();
            let (_, mut request) = requests().nth(random.usize(1..EXCHANGES.len())).expect("one");
            for _ in 0..random.usize(1..4) {
                let at = random.usize(0..request.len());
                request[at] = random.u8(..);
            }
            message.extend_from_slice(&request);
            let stream = connect();
            let mut writer = stream.try_clone().expect("a socket");
            // The server may have hung up already.
            let _sent = writer.write_all(&message);
            let _said = stream.shutdown(Shutdown::Both);
        }
    });
}
