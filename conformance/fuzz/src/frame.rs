// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The parser of the framed stream, and the session that loads from it: it never asks for more than
//! its limit, says the same whatever pieces the stream comes in, takes no stream for whole that is cut
//! off (F4), and what it accepts is written again as what it was.

use vfio_fsm_core::device::{Device, Memory};
use vfio_fsm_core::vmm::frame::{
    Crc, Decoder, Encoder, Frame, FrameError, HEAD, Item, Limits, MAX_HEADER,
};
use vfio_fsm_core::vmm::{Event, Hook, LoadPlan, Recovery};
use vfio_fsm_core::{Features, Op, Reply};
use vfio_fsm_kernel::session::{Crc32c, Interest, Loading, Session, Standing, Vmm};

const LIMITS: Limits = Limits { max_data: 512 };
/// Magic, version and length of the header.
const PREAMBLE: usize = 16;

/// What a stream says.
#[derive(Clone, Debug, Default, PartialEq)]
struct Said {
    /// Optional features, the longest DATA and the compatibility string.
    header: Option<(u16, u64, u32, String)>,
    frames: Vec<(Frame, Vec<u8>)>,
    /// How many bytes were asked for, one after the other.
    asked: Vec<usize>,
}

/// The first byte cuts the rest into pieces; of an odd one, all checksums are made right first, so
/// that a fuzzer gets behind them. Whether it is a whole stream.
pub fn check(input: &[u8]) -> bool {
    let Some((&choice, stream)) = input.split_first() else { return false };
    let mut stream = stream.to_vec();
    if choice & 1 == 1 {
        mend(&mut stream);
    }
    let (said, end) = read(&stream);
    assert!(said.asked.iter().all(|&asked| asked <= LIMITS.buffer()), "more than the limit");
    if end.is_ok() {
        let whole = said.asked.iter().sum::<usize>();
        // Where nobody looks into a frame, cutting it off shows all the same.
        for cut in [0, 1, whole / 2, whole - 1] {
            assert!(read(&stream[..cut]).1.is_err(), "cut off at {cut} of {whole}");
        }
        write_again(&said, &stream[..whole]);
    }
    let loaded = [0xff, choice].map(|pattern| load(&stream, pattern));
    assert_eq!(loaded[0], loaded[1], "not the same in pieces");
    end.is_ok()
}

/// All that a decoder says of a stream, and how it ends.
fn read(stream: &[u8]) -> (Said, Result<(), FrameError>) {
    let mut decoder = Decoder::<Crc32c>::new(LIMITS);
    let (mut said, mut rest) = (Said::default(), stream);
    while decoder.needs() > 0 {
        said.asked.push(decoder.needs());
        let Some((bytes, after)) = rest.split_at_checked(decoder.needs()) else { break };
        // A caller's mistake is told, and is no part of the stream.
        let mut wrong = decoder.clone();
        assert!(matches!(wrong.give(&bytes[1..]), Err(FrameError::NotAsked { .. })));
        rest = after;
        match decoder.give(bytes) {
            Ok(Some(Item::Header(header))) => {
                let compat = header.compat.to_owned();
                assert!(header.max_data <= LIMITS.max_data);
                said.header = Some((header.minor, header.optional, header.max_data, compat));
            }
            Ok(Some(Item::Frame(frame))) => {
                let payload = if let Frame::Data { len, .. } = frame {
                    assert_eq!(bytes.len(), len as usize);
                    bytes.to_vec()
                } else {
                    Vec::new()
                };
                said.frames.push((frame, payload));
            }
            Ok(None) => {}
            Err(error) => assert_eq!(decoder.end(), Err(error), "the first error stays"),
        }
    }
    (said, decoder.end())
}

/// An accepted stream, by an encoder: the same bytes, unless there is something in it that is to be
/// skipped.
fn write_again(said: &Said, stream: &[u8]) {
    let (minor, optional, max_data, compat) = said.header.as_ref().expect("it has a header");
    // A writer that does not mind the case of letters.
    let compat = if super::PLANTED { &compat.to_lowercase() } else { compat };
    let (mut encoder, header) = Encoder::<Crc32c>::new(*max_data, compat).expect("was read");
    let mut written = header.to_vec();
    for (frame, payload) in &said.frames {
        written.extend_from_slice(&encoder.frame(*frame, payload).expect("was read"));
        written.extend_from_slice(payload);
    }
    let (again, end) = read(&written);
    assert_eq!(end, Ok(()));
    assert_eq!(again.frames, said.frames);
    if written.len() == stream.len() && (*minor, *optional) == (0, 0) {
        // Two reserved bytes are read over, and the checksums that count them with them.
        let reserved = PREAMBLE + 22..PREAMBLE + 24;
        if stream[reserved] == [0, 0] {
            assert_eq!(written, stream, "not the same when written again");
        }
    }
}

/// Makes every checksum right, as far as there are frames.
fn mend(stream: &mut [u8]) {
    let mut crc = Crc32c::new();
    let number =
        |bytes: &[u8]| bytes.iter().rev().fold(0, |sum, &byte| sum << 8 | usize::from(byte));
    let Some(len) = stream.get(12..16).map(number) else { return };
    if !(PREAMBLE + 4..=MAX_HEADER).contains(&len) || stream.len() < len {
        return;
    }
    let (covered, rest) = stream.split_at_mut(len - 4);
    crc.update(covered);
    let (sum, mut rest) = rest.split_at_mut(4);
    sum.copy_from_slice(&crc.value().to_le_bytes());
    while rest.len() >= HEAD {
        let (head, behind) = rest.split_at_mut(HEAD);
        let payload = number(&head[4..8]).min(behind.len());
        let (payload, behind) = behind.split_at_mut(payload);
        crc.update(&head[..HEAD - 4]);
        crc.update(payload);
        head[HEAD - 4..].copy_from_slice(&crc.value().to_le_bytes());
        rest = behind;
    }
}

/// Loads whatever comes, and gives up when it has to wait for ever.
struct Patient(u32);

impl Vmm for Patient {
    fn hook(&mut self, _hook: Hook) -> bool {
        true
    }

    fn decide(&mut self, _reset: &vfio_fsm_core::vmm::Decision) -> Recovery {
        Recovery::Abort
    }

    fn wait(&mut self, interest: &Interest, _standing: &Standing) -> Option<Event> {
        self.0 += 1;
        match interest {
            Interest::Run => Some(Event::Run),
            Interest::Switchover => Some(Event::Switchover),
            _ if self.0 > 100 => Some(Event::Cancel),
            _ => None,
        }
    }
}

/// What becomes of a device that this stream is loaded into: the verdict, what was wrong with the
/// stream, and where the device is.
fn load(stream: &[u8], pattern: u8) -> (String, String, String) {
    let source = super::Pieces::new(stream, pattern);
    let device = Device::<Memory<4>, 2>::new(Features::ALL, Memory::new());
    let mut loading =
        Loading::new(LoadPlan::default(), LIMITS, |compat: &str| compat == "fuzz", device, source);
    let outcome = loading.run(&mut Patient(0));
    let Reply::State(state) = loading.port().apply(Op::GetState, &mut []) else {
        panic!("a device has a state")
    };
    let error = outcome.error.map(|error| error.to_string()).unwrap_or_default();
    (outcome.verdict.to_string(), error, state.to_string())
}

/// Streams to begin with.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let stream = |frames: &[(Frame, &[u8])]| {
        let (mut encoder, header) = Encoder::<Crc32c>::new(64, "fuzz").expect("can be written");
        let mut bytes = [&[1], &*header].concat();
        for (frame, payload) in frames {
            bytes.extend_from_slice(&encoder.frame(*frame, payload).expect("can be written"));
            bytes.extend_from_slice(payload);
        }
        bytes
    };
    let data =
        |epoch, payload: &'static [u8]| (Frame::Data { epoch, len: payload.len() as u32 }, payload);
    let image = saved();
    let skipped = {
        let mut bytes = stream(&[data(1, b"abc")]);
        bytes.extend([9, 0, 1, 0, 3, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7, 7, 7]);
        mend(&mut bytes[1..]);
        bytes
    };
    vec![
        ("empty", stream(&[(Frame::End { epoch: 1 }, &[])])),
        ("data", stream(&[data(1, b"abc"), data(1, b"d"), (Frame::End { epoch: 1 }, &[])])),
        (
            "discarded",
            stream(&[
                data(1, b"abc"),
                (Frame::InitialBytesSent { epoch: 1 }, &[]),
                (Frame::Discard { epoch: 1 }, &[]),
                data(2, b"efg"),
                (Frame::End { epoch: 2 }, &[]),
            ]),
        ),
        ("saved", image),
        ("skipped", skipped),
    ]
}

/// What a source really sends.
fn saved() -> Vec<u8> {
    use vfio_fsm_core::vmm::Plan;
    use vfio_fsm_kernel::session::Saving;

    let device = Device::<Memory<4>, 2>::new(Features::ALL, Memory::new());
    let mut stream = vec![1];
    let plan = Plan { chunk: 64, ..Plan::LIVE };
    let mut saving = Saving::new(plan, "fuzz", device, &mut stream).expect("can be written");
    assert!(saving.run(&mut Patient(0)).verdict.is_complete());
    drop(saving);
    stream
}
