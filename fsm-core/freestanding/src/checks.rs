// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Uses the core the way a program does. What it should answer is tested elsewhere in full; here
//! it is enough that a wrong answer shows.

use core::fmt::{self, Write as _};
use core::hint::black_box;

use vfio_fsm_core::device::{ArcActions, ArcFailure, Device, DeviceData, Memory};
use vfio_fsm_core::vmm::frame::{Crc, Decoder, Encoder, FIRST_EPOCH, Frame, Item, Limits};
use vfio_fsm_core::vmm::{self, Event, LoadPlan, Loader, Plan, Port, Saver, Wait};
use vfio_fsm_core::{
    Arc, Dot, EndOfStream, Errno, Fault, Fd, Features, IllegalFeatures, Leaves, Mermaid, Op,
    PrecopyInfo, Reply, Route, State, arcs, next_hop,
};

/// In the order of their exit status, from 1.
const CHECKS: &[fn() -> bool] = &[
    memory_moves,
    every_route,
    every_arc,
    pre_copy_and_back,
    resume,
    round_trip,
    faults,
    errors_in_words,
    pictures,
    framed_stream,
    sessions,
    #[cfg(feature = "serde")]
    names_to_and_fro,
];

/// The number of the first check that fails.
pub(crate) fn first_failure() -> Option<u8> {
    (1..).zip(CHECKS).find(|(_, check)| !check()).map(|(number, _)| number)
}

/// The ground that the others stand on. Lengths are out of the optimiser's sight, so that calls
/// are made.
fn memory_moves() -> bool {
    let mut bytes = [0, 1, 2, 3, 4, 5, 6, 7];
    bytes.copy_within(black_box(0..6), 2);
    let up = bytes == [0, 1, 0, 1, 2, 3, 4, 5];
    bytes.copy_within(black_box(3..8), 1);
    let down = bytes == [0, 1, 2, 3, 4, 5, 4, 5];
    let all = black_box(8);
    let same = [black_box(9_u8); 8];
    let [lower, higher] = [[9, 9, 9, 9, 9, 9, 9, 5], [9, 9, 9, 9, 9, 9, 9, 6]];
    up && down
        && same.iter().all(|&byte| byte == 9)
        && lower[..all] < higher[..all]
        && lower[..all] != higher[..all]
}

/// Text in a place of fixed size: what does not fit is an error.
struct Text {
    bytes: [u8; 160],
    len: usize,
}

impl fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let free = self.bytes[self.len..].get_mut(..text.len()).ok_or(fmt::Error)?;
        free.copy_from_slice(text.as_bytes());
        self.len += text.len();
        Ok(())
    }
}

fn reads(value: impl fmt::Display, expected: &str) -> bool {
    let mut text = Text { bytes: [0; 160], len: 0 };
    write!(text, "{value}").is_ok() && text.bytes[..text.len] == *expected.as_bytes()
}

/// Text of which only the length is kept.
struct Length(usize);

impl fmt::Write for Length {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 += text.len();
        Ok(())
    }
}

fn length(value: impl fmt::Display) -> usize {
    let mut length = Length(0);
    match write!(length, "{value}") {
        Ok(()) => length.0,
        Err(fmt::Error) => 0,
    }
}

/// Every pair of the states that a set has, but for the two that are blocked.
fn every_route() -> bool {
    let legal = [4 * 4, 5 * 5, 5 * 5 - 1, 7 * 7 - 2];
    Features::SETS.into_iter().zip(legal).all(|(features, legal)| {
        let mut routes = 0;
        for (from, to) in State::ALL.into_iter().flat_map(|from| State::ALL.map(|to| (from, to))) {
            let hop = next_hop(features, from, to);
            match Route::new(features, from, to) {
                Ok(route) => {
                    let first = route.arcs().next().map_or(from, Arc::to);
                    if route.to() != to || hop != Ok(first) || length(route) == 0 {
                        return false;
                    }
                    routes += 1;
                }
                Err(refused) => {
                    if hop != Err(refused) || length(refused) == 0 {
                        return false;
                    }
                }
            }
        }
        routes == legal
    })
}

fn every_arc() -> bool {
    Features::SETS.into_iter().map(|features| arcs(features).count()).eq([6, 8, 9, 15])
}

/// A device whose state is one byte.
struct Byte {
    value: u8,
    left: u8,
}

impl ArcActions for Byte {
    fn arc(&mut self, arc: Arc) -> Result<(), ArcFailure> {
        if matches!(arc.to(), State::PreCopy | State::StopCopy) {
            self.left = 1;
        }
        Ok(())
    }

    fn end_session(&mut self) {
        self.left = 0;
    }

    fn reset(&mut self) {
        self.value = 0;
    }
}

impl DeviceData for Byte {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize, Errno> {
        let count = buf.len().min(self.left.into());
        buf[..count].fill(self.value);
        self.left -= count as u8;
        Ok(count)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        self.value = *bytes.last().ok_or(Errno::EINVAL)?;
        Ok(bytes.len())
    }

    fn precopy_info(&mut self) -> Result<PrecopyInfo, Errno> {
        Ok(PrecopyInfo { initial_bytes: self.left.into(), ..PrecopyInfo::default() })
    }

    fn data_size(&mut self) -> Result<u64, Errno> {
        Ok(1)
    }

    fn readable(&self) -> bool {
        self.left > 0
    }

    fn touch(&mut self, value: u8) {
        self.value = value;
    }
}

/// What is done to the device, and what it should say.
type Step = (Op<&'static [u8]>, Reply<&'static [u8]>);

/// Carries out each step on a device that was just opened.
fn answers(script: &[Step]) -> bool {
    let mut device = Device::<_, 4>::new(Features::ALL, Byte { value: 0, left: 0 });
    let mut buf = [0; 8];
    script.iter().all(|&(op, expected)| {
        let reply = device.apply(op, &mut buf);
        reply == expected && length(op) > 0 && length(reply) > 0
    })
}

const FD: Fd = Fd(1);
const READ: Op<&[u8]> = Op::Read { fd: FD, len: 8 };

fn pre_copy_and_back() -> bool {
    answers(&[
        (Op::Touch(7), Reply::Ok),
        (Op::set(State::PreCopy), Reply::Fd(Some(FD))),
        (READ, Reply::Bytes(&[7])),
        (READ, Reply::EndOfStream(EndOfStream::Temporary)),
        (Op::PrecopyInfo { fd: FD }, Reply::Info(PrecopyInfo::default())),
        (Op::set(State::StopCopy), Reply::Fd(None)),
        (READ, Reply::Bytes(&[7])),
        (READ, Reply::EndOfStream(EndOfStream::Permanent)),
        (Op::set(State::PreCopy), Reply::Errno(Errno::EINVAL)),
        (Op::Reset, Reply::Ok),
        (READ, Reply::Errno(Errno::ENODEV)),
        (Op::GetState, Reply::State(State::Running.into())),
        (Op::GetFeatures, Reply::Features(7)),
        (Op::DataSize, Reply::Size(1)),
        (Op::CloseFd { fd: FD }, Reply::Ok),
        (Op::Close, Reply::Ok),
    ])
}

fn resume() -> bool {
    answers(&[
        (Op::set(State::Resuming), Reply::Fd(Some(FD))),
        (Op::Write { fd: FD, bytes: &[1, 2, 3] }, Reply::Written(3)),
        (READ, Reply::Errno(Errno::EBADF)),
        (Op::Seek { fd: FD }, Reply::Errno(Errno::ESPIPE)),
        (Op::set(State::StopCopy), Reply::Fd(Some(Fd(2)))),
        (Op::Read { fd: Fd(2), len: 1 }, Reply::Bytes(&[3])),
    ])
}

/// The core's own device, from one to another.
fn round_trip() -> bool {
    let new = || Device::<_, 4>::new(Features::ALL, Memory::<4>::new());
    let (mut source, mut destination) = (new(), new());
    let mut buf = [0; 8];
    source.apply(Op::Touch(7), &mut buf);
    source.apply(Op::set(State::StopCopy), &mut buf);
    destination.apply(Op::set(State::Resuming), &mut buf);
    while let Reply::Bytes(bytes) = source.apply(READ, &mut buf) {
        if !matches!(destination.apply(Op::Write { fd: FD, bytes }, &mut []), Reply::Written(_)) {
            return false;
        }
    }
    destination.apply(Op::set(State::Running), &mut buf) == Reply::Fd(None)
        && source.actions().registers() == destination.actions().registers()
        && source.actions().registers() != new().actions().registers()
}

fn faults() -> bool {
    let fails = Fault::ArcFails { hop: 1, errno: Errno::EIO, leaves: Leaves::Error };
    let set = |to: State, fault| Op::SetState { to: to.into(), fault: Some(fault) };
    answers(&[
        (set(State::PreCopy, Fault::FdTableFull), Reply::Errno(Errno::EMFILE)),
        (Op::GetState, Reply::State(State::PreCopy.into())),
        (set(State::StopCopy, Fault::ResetInside), Reply::Fd(None)),
        (Op::GetState, Reply::State(State::Running.into())),
        (set(State::Stop, fails), Reply::Errno(Errno::EIO)),
        (Op::GetState, Reply::State(State::Error.into())),
    ])
}

fn errors_in_words() -> bool {
    let refused = Route::new(Features::STOP_COPY, State::Running, State::PreCopy);
    let illegal = Features::from_flags(8);
    reads(Errno::ENODEV, "ENODEV")
        && reads(State::PreCopyP2p, "PRE_COPY_P2P")
        && reads(vfio_fsm_core::RawState(77), "0x4d")
        && refused.is_err_and(|refused| {
            reads(
                refused,
                "SET(PRE_COPY) in RUNNING: the device lacks the flag for this state; \
                 allowed here: STOP|RUNNING|STOP_COPY|RESUMING",
            )
        })
        && illegal == Err(IllegalFeatures { flags: 8 })
        && illegal.is_err_and(|illegal| length(illegal) > 0)
}

fn pictures() -> bool {
    // Drawn for the set with every flag, so that every label is.
    length(Dot(Features::ALL)) > length(Mermaid(Features::ALL))
}

/// CRC-32C, bit by bit.
#[derive(Clone)]
struct Crc32c(u32);

impl Crc for Crc32c {
    fn new() -> Self {
        Self(0)
    }

    fn update(&mut self, bytes: &[u8]) {
        let step = |crc: u32, _| if crc & 1 == 0 { crc >> 1 } else { crc >> 1 ^ 0x82f6_3b78 };
        let next = |crc: u32, &byte: &u8| (0..8).fold(crc ^ u32::from(byte), step);
        self.0 = !bytes.iter().fold(!self.0, next);
    }

    fn value(&self) -> u32 {
        self.0
    }
}

/// One DATA and END, and what is one byte too many.
fn framed_stream() -> bool {
    let (epoch, payload) = (FIRST_EPOCH, [1, 2, 3]);
    let (data, end) = (Frame::Data { epoch, len: 3 }, Frame::End { epoch });
    let Ok((mut encoder, header)) = Encoder::<Crc32c>::new(3, "none") else { return false };
    let (Ok(head), Ok(last)) = (encoder.frame(data, &payload), encoder.frame(end, &[])) else {
        return false;
    };
    let mut decoder = Decoder::<Crc32c>::new(Limits { max_data: 3 });
    let pieces = [&header[..16], &header[16..], &head, &payload, &last[..16], &last[16..]];
    let mut frames = pieces.into_iter().filter_map(|piece| match decoder.give(piece) {
        Ok(Some(Item::Frame(frame))) => Some(frame),
        _ => None,
    });
    let read = frames.next() == Some(data) && frames.next() == Some(end) && frames.next().is_none();
    read && decoder.end().is_ok() && decoder.give(&[0]).is_err_and(|error| length(error) > 0)
}

/// From one device to another, chunk by chunk.
fn sessions() -> bool {
    let mut source = Device::<Memory<3>, 2>::new(Features::ALL, Memory::new());
    let mut target = source;
    source.apply(Op::Touch(5), &mut []);
    let (mut saver, mut loader) =
        (Saver::new(Plan { chunk: 2, ..Plan::LIVE }), Loader::new(LoadPlan::default()));
    let mut buf = [0; 2];
    for _ in 0..black_box(200) {
        let told = match saver.step() {
            vmm::Step::Do(op) => {
                let reply = Port::apply(&mut source, op.map(|never| match never {}), &mut buf);
                saver.reply(reply.map(|bytes| bytes.len() as u32)).is_ok()
            }
            vmm::Step::Send(frame) => {
                load(&mut loader, &mut target, Some(frame), &buf) && saver.sent().is_ok()
            }
            vmm::Step::Call(_) => saver.called(true).is_ok(),
            vmm::Step::Wait(_) => saver.event(Event::Switchover).is_ok(),
            vmm::Step::End(verdict) => {
                return verdict.is_complete() && *target.actions().registers() == [5; 3];
            }
            vmm::Step::Decide(_) => false,
        };
        if !told {
            return false;
        }
    }
    false
}

/// What a destination does with a frame, until it waits for the next one or has ended.
fn load(
    loader: &mut Loader<Fd>,
    target: &mut Device<Memory<3>, 2>,
    mut frame: Option<Frame>,
    payload: &[u8],
) -> bool {
    for _ in 0..black_box(40) {
        let told = match loader.step() {
            vmm::Step::Do(op) => {
                let reply = Port::apply(target, op.map(|piece| piece.of(payload)), &mut []);
                loader.reply(reply.map(|bytes| bytes.len() as u32)).is_ok()
            }
            vmm::Step::Call(_) => loader.called(true).is_ok(),
            vmm::Step::Wait(Wait::Frame) => match frame.take() {
                Some(frame) => loader.frame(frame).is_ok(),
                None => return true,
            },
            vmm::Step::Wait(_) => loader.event(Event::Run).is_ok(),
            vmm::Step::End(verdict) => return verdict.is_complete(),
            vmm::Step::Send(_) | vmm::Step::Decide(_) => false,
        };
        if !told {
            return false;
        }
    }
    false
}

/// Through serde and back, with nothing but what serde itself has without alloc.
#[cfg(feature = "serde")]
fn names_to_and_fro() -> bool {
    use serde::de::value::{Error, StrDeserializer, U64Deserializer};
    use serde::de::{Deserialize, IntoDeserializer as _};
    use serde::ser::Serialize;

    /// A formatter is a serializer for what is a single word.
    struct Word<T>(T);

    impl<T: Serialize> fmt::Display for Word<T> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.0.serialize(f)
        }
    }

    fn from_word<'de, T: Deserialize<'de>>(word: &'de str) -> Option<T> {
        let word: StrDeserializer<'de, Error> = word.into_deserializer();
        T::deserialize(word).ok()
    }

    fn from_number<'de, T: Deserialize<'de>>(number: u64) -> Option<T> {
        let number: U64Deserializer<Error> = number.into_deserializer();
        T::deserialize(number).ok()
    }

    State::ALL
        .into_iter()
        .all(|state| reads(Word(state), state.name()) && from_word(state.name()) == Some(state))
        && Features::SETS
            .into_iter()
            .all(|features| from_number(features.flags()) == Some(features))
        && from_number::<Features>(8).is_none()
        && from_word::<State>("PAUSED").is_none()
        && reads(Word(Errno::ENOMSG), "ENOMSG")
        && from_word("ENOMSG") == Some(Errno::ENOMSG)
        && from_word("reset") == Some(Op::<u64>::Reset)
        && reads(Word(Op::<u64>::Reset), "reset")
        && from_word("ok") == Some(Reply::<u64>::Ok)
        && from_word("reset_inside") == Some(Fault::ResetInside)
        && from_word("temporary") == Some(EndOfStream::Temporary)
        && from_word("error") == Some(Leaves::Error)
}
