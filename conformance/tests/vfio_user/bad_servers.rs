// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Servers that lie, stop in the middle, or die: the client says which, and does not hang.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use vfio_conform::replay::Target;
use vfio_conform::target::VfioUserTarget;
use vfio_conform::vfio_user::protocol::{LONGEST_MESSAGE, Malformed};
use vfio_conform::vfio_user::{Client, ClientError};
use vfio_fsm_core::{Errno, Fd, Features, Op, Reply, State};

use crate::golden::{EXCHANGES, bytes, drive, request};
use crate::{impostor, socket};

/// A server that answers nothing is waited for so long. It never does, so no time is too short.
const NOT_LONG: Duration = Duration::from_millis(20);

/// What a server does behind its bad reply.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    HangsUp,
    Stays,
}

/// What the client makes of a server that answers well up to exchange `at`, whose reply is this.
fn meets(at: usize, reply: &[u8]) -> ClientError {
    meets_and(at, reply, Then::HangsUp)
}

fn meets_and(at: usize, reply: &[u8], then: Then) -> ClientError {
    let (ours, mut theirs) = UnixStream::pair().expect("sockets");
    let bad = reply.to_vec();
    let silent = bad.is_empty() && then == Then::Stays;
    let server = thread::spawn(move || {
        for (_, _, good) in &EXCHANGES[..at] {
            request(&mut theirs)?;
            theirs.write_all(&bytes(good)).ok()?;
        }
        request(&mut theirs)?;
        // The client may have had enough before all of it is written.
        let _sent = theirs.write_all(&bad);
        (then == Then::Stays).then_some(theirs)
    });
    let patience = if silent { NOT_LONG } else { crate::PATIENCE };
    let error = drive(ours, patience).expect_err("the server is a bad one");
    assert!(server.join().is_ok(), "the server was asked for what it should be");
    error
}

fn replies() -> impl Iterator<Item = (usize, &'static str, Vec<u8>)> {
    EXCHANGES.iter().enumerate().map(|(at, (what, _, reply))| (at, *what, bytes(reply)))
}

fn with(reply: &[u8], at: usize, new: &[u8]) -> Vec<u8> {
    let mut reply = reply.to_vec();
    reply[at..at + new.len()].copy_from_slice(new);
    reply
}

/// U3: Every reply cut off at every byte is a server that has hung up, and is said to be one.
#[test]
fn a_reply_that_is_cut_off_is_a_server_that_is_gone() {
    for (at, what, reply) in replies() {
        for len in 0..reply.len() {
            match meets(at, &reply[..len]) {
                ClientError::Gone { within, .. } => assert_eq!(within, len > 0, "{what}: {len}"),
                other => panic!("{what}: {len}: {other}"),
            }
        }
    }
}

/// U3: A server that does not answer is given up.
#[test]
fn a_server_that_keeps_silent_is_given_up() {
    for (at, what, _) in replies() {
        let error = meets_and(at, &[], Then::Stays);
        assert!(matches!(error, ClientError::Silent { .. }), "{what}: {error}");
    }
}

/// U3: A size that no message has is not believed, whatever it would ask for.
#[test]
fn a_wrong_size_is_not_believed() {
    for (at, what, reply) in replies() {
        for size in [0, 1, 15, LONGEST_MESSAGE as u32 + 1, u32::MAX] {
            let bad = with(&reply, 4, &size.to_le_bytes());
            match meets(at, &bad) {
                ClientError::Malformed { problem: Malformed::Size(said), .. } => {
                    assert_eq!(said, size);
                }
                other => panic!("{what}: {size}: {other}"),
            }
        }
        // Without a payload, where there has to be one.
        if reply.len() > 16 && !what.starts_with("REGION") {
            let bad = with(&reply, 4, &16u32.to_le_bytes());
            let error = meets(at, &bad[..16]);
            let short =
                matches!(error, ClientError::Malformed { problem: Malformed::Short { .. }, .. });
            assert!(short, "{what}: {error}");
        }
    }
}

/// U3: A reply to something else is none.
#[test]
fn a_reply_to_something_else_is_none() {
    for (at, what, reply) in replies() {
        for (place, new) in [(0, [0xee, 0xee]), (2, [0x03, 0x00])] {
            let error = meets(at, &with(&reply, place, &new));
            assert!(matches!(error, ClientError::OtherReply { .. }), "{what}: {error}");
        }
        let error = meets(at, &with(&reply, 8, &[2]));
        let kind = matches!(error, ClientError::Malformed { problem: Malformed::Type(2), .. });
        assert!(kind, "{what}: {error}");
    }
}

/// U3: An error without an errno is a refusal all the same.
#[test]
fn an_error_may_have_no_errno() {
    for (at, what, reply) in replies() {
        let mut bad = with(&reply, 4, &16u32.to_le_bytes());
        bad[8] = 0x21;
        bad[12..16].fill(0);
        let error = meets(at, &bad[..16]);
        assert!(matches!(error, ClientError::Refused { errno: None, .. }), "{what}: {error}");
    }
}

/// U3: Commands of the server's are refused, and no number of them keeps the client from its end.
#[test]
fn a_server_that_only_asks_is_given_up() {
    let dma_read = bytes("0100 0b00 20000000 00000000 00000000  0000000000000000 0800000000000000");
    for (at, what, reply) in replies() {
        let error = meets_and(at, &dma_read.repeat(100), Then::Stays);
        assert!(matches!(error, ClientError::Chatter { .. }), "{what}: {error}");
        // After one of them the reply still counts, here one that is wrong.
        let error = meets_and(at, &[dma_read.clone(), with(&reply, 8, &[2])].concat(), Then::Stays);
        assert!(matches!(error, ClientError::Malformed { .. }), "{what}: {error}");
    }
}

/// U2, U3: What is said in a payload is not believed either.
#[test]
fn a_wrong_payload_is_not_believed() {
    let reply = |at: usize, place, new: &[u8]| meets(at, &with(&replies_at(at), place, new));
    for (numbers, why) in [([1, 0, 0, 0], "major"), ([0, 0, 2, 0], "minor")] {
        let error = reply(0, 16, &numbers);
        assert!(matches!(error, ClientError::OtherVersion(_)), "{why}: {error}");
    }
    for (place, new) in [(20, b'['), (67, b'}')] {
        let error = reply(0, place, &[new]);
        let none =
            matches!(error, ClientError::Malformed { problem: Malformed::Capabilities(_), .. });
        assert!(none, "{error}");
    }
    assert!(matches!(reply(1, 20, &[2]), ClientError::NoReset));
    let other = reply(5, 24, &[4]);
    assert!(matches!(other, ClientError::OtherState { asked: 3, said: 4 }), "{other}");
    let more = reply(6, 20, &33u32.to_le_bytes());
    let much =
        matches!(more, ClientError::Malformed { problem: Malformed::TooMuch { said: 33, .. }, .. });
    assert!(much, "{more}");
    let less = reply(6, 20, &25u32.to_le_bytes());
    let short =
        matches!(less, ClientError::Malformed { problem: Malformed::Short { has: 24, .. }, .. });
    assert!(short, "{less}");
}

fn replies_at(at: usize) -> Vec<u8> {
    bytes(EXCHANGES[at].2)
}

/// U2: A server that takes less in one message gets less, and is asked for less.
#[test]
fn the_most_data_is_the_lesser_of_two() {
    let (ours, mut theirs) = UnixStream::pair().expect("sockets");
    let server = thread::spawn(move || {
        let json = b"{\"capabilities\":{\"max_data_xfer_size\":16}}\0";
        let head = bytes("0100 0100 3f000000 01000000 00000000 0000 0000");
        request(&mut theirs).expect("a version");
        theirs.write_all(&[&head, json.as_slice()].concat()).expect("it is taken");
        request(&mut theirs).expect("a GET_INFO");
        theirs.write_all(&replies_at(1)).expect("it is taken");
        let read = request(&mut theirs).expect("a read");
        let full = [bytes("0300 1100 28000000 01000000 00000000 18000000 10000000"), vec![9; 16]];
        theirs.write_all(&full.concat()).expect("it is taken");
        let write = request(&mut theirs).expect("a write");
        theirs.write_all(&bytes("0400 1200 10000000 01000000 00000000")).expect("it is taken");
        [read, write].map(|message| message[16..].to_vec())
    });
    let mut client = Client::on(ours, crate::PATIENCE).expect("they agree");
    assert_eq!(client.most_data(), 16);
    assert_eq!(client.read(&mut [0; 64]).expect("bytes"), [9; 16]);
    assert_eq!(client.write(&[7; 64]).expect("it is taken"), 16);
    let [read, write] = server.join().expect("it was asked well");
    assert_eq!(read, bytes("18000000 10000000"));
    assert_eq!(write, [bytes("18000000 10000000"), vec![7; 16]].concat());
}

/// U7: A message that is full is not the end of a stream, one that is not is; what comes behind that
/// in STOP_COPY fails a trace, whatever else the device says.
#[test]
fn bytes_behind_the_end_are_an_anomaly() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = socket(&directory);
    let server = impostor(&path, |mut stream| {
        let json = b"{\"capabilities\":{\"max_data_xfer_size\":16}}\0";
        let version = bytes("0100 0100 3f000000 01000000 00000000 0000 0000");
        let read = |id: u8, len: u8| {
            let head = [id, 0, 17, 0, 24 + len, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
            [&head[..], &[8 + len, 0, 0, 0, len, 0, 0, 0], &vec![9; len.into()]].concat()
        };
        let replies = [[version, json.to_vec()].concat()].into_iter();
        let replies = replies.chain((1..6).map(replies_at));
        for reply in replies.chain([read(7, 16), read(8, 8), read(9, 4)]) {
            request(&mut stream).expect("a request");
            stream.write_all(&reply).expect("it is taken");
        }
    });
    let mut target = VfioUserTarget::open(&path, None).expect("a device");
    target.fresh(Features::PRE_COPY).expect("a fresh device");
    assert_eq!(target.apply(Op::set(State::StopCopy), &mut []), Reply::Fd(Some(Fd(1))));
    for (len, right) in [(16, true), (8, true), (4, false)] {
        let mut buf = [0; 64];
        let reply = target.apply(Op::Read { fd: Fd(1), len: 64 }, &mut buf);
        assert_eq!(reply, Reply::Bytes(vec![9; len].as_slice()));
        assert_eq!(target.take_anomaly().is_none(), right, "{len} bytes");
    }
    assert!(server.join().is_ok());
}

/// U7: Whatever errno a server has for it, a refusal is that of a dead session, or of the wrong
/// direction.
#[test]
fn a_refusal_has_the_word_that_suites_have() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = socket(&directory);
    let server = impostor(&path, |mut stream| {
        let said = [
            "0700 1200 10000000 21000000 16000000",
            "0800 0d00 10000000 01000000 00000000",
            "0900 1100 10000000 21000000 16000000",
        ];
        for reply in (0..6).map(replies_at).chain(said.map(bytes)) {
            request(&mut stream).expect("a request");
            stream.write_all(&reply).expect("it is taken");
        }
    });
    let mut target = VfioUserTarget::open(&path, None).expect("a device");
    target.fresh(Features::PRE_COPY).expect("a fresh device");
    let fd = Fd(1);
    assert_eq!(target.apply(Op::set(State::StopCopy), &mut []), Reply::Fd(Some(fd)));
    let write = Op::Write { fd, bytes: [1].as_slice() };
    assert_eq!(target.apply(write, &mut []), Reply::Errno(Errno::EBADF));
    assert_eq!(target.apply(Op::Reset, &mut []), Reply::Ok);
    let read = Op::Read { fd, len: 8 };
    assert_eq!(target.apply(read, &mut [0; 8]), Reply::Errno(Errno::ENODEV));
    assert!(server.join().is_ok());
}

/// U3: A reply to a read may be longer than its data, as libvfio-user's is: what is behind is nothing.
#[test]
fn a_reply_may_be_longer_than_its_data() {
    let longer = [replies_at(6), vec![0; 8]].concat();
    let longer = with(&longer, 4, &0x38u32.to_le_bytes());
    // It is taken, so that what fails is the next reply, which does not come.
    let error = meets(6, &longer);
    let at_reset = matches!(
        error,
        ClientError::Gone { during: vfio_conform::vfio_user::Step::Reset, within: false }
    );
    assert!(at_reset, "{error}");
}
