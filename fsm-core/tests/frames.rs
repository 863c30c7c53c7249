// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The framed stream: what is written is read, everything else is refused, and
//! specs/stream-format.md says so byte by byte.

#![expect(clippy::expect_used, reason = "helpers of tests fail as tests do")]

use expect_test::expect;
use proptest::prelude::*;
use proptest::sample::Index;
use vfio_fsm_core::vmm::frame::{
    CompatError, Crc, Decoder, EncodeError, Encoder, FIRST_EPOCH, Frame, FrameError, HEAD, Item,
    Kind, Limits, MAX_COMPAT, MAX_HEADER, Part,
};

const PAGE: &str = include_str!("../specs/stream-format.md");

#[derive(Clone, Debug)]
struct Crc32c(u32);

impl Crc for Crc32c {
    fn new() -> Self {
        Self(0)
    }

    fn update(&mut self, bytes: &[u8]) {
        self.0 = crc32c::crc32c_append(self.0, bytes);
    }

    fn value(&self) -> u32 {
        self.0
    }
}

const MAX_DATA: u32 = 64;
const LIMITS: Limits = Limits { max_data: 65536 };

/// A frame and its payload, which only DATA has.
type Sent = (Frame, Vec<u8>);

fn data(epoch: u32, payload: &[u8]) -> Sent {
    (Frame::Data { epoch, len: payload.len() as u32 }, payload.to_vec())
}

fn bare(frame: Frame) -> Sent {
    (frame, Vec::new())
}

/// The header, and each frame with its payload, as they are sent.
fn write(max_data: u32, compat: &str, frames: &[Sent]) -> Vec<Vec<u8>> {
    let (mut encoder, header) = Encoder::<Crc32c>::new(max_data, compat).expect("a good header");
    let mut parts = vec![header.to_vec()];
    for (frame, payload) in frames {
        let head = encoder.frame(*frame, payload).expect("a good frame");
        parts.push([&head, payload.as_slice()].concat());
    }
    parts
}

/// What is reported of these bytes, and what becomes of the stream when no more come.
fn read(bytes: &[u8], limits: Limits) -> (Vec<Sent>, Result<(), FrameError>) {
    let mut decoder = Decoder::<Crc32c>::new(limits);
    let (mut rest, mut frames) = (bytes, Vec::new());
    while decoder.needs() > 0 {
        assert!(decoder.needs() <= limits.buffer(), "{}", decoder.needs());
        let Some((bytes, after)) = rest.split_at_checked(decoder.needs()) else {
            return (frames, decoder.end());
        };
        rest = after;
        match decoder.give(bytes) {
            Ok(Some(Item::Frame(frame @ Frame::Data { .. }))) => {
                frames.push((frame, bytes.to_vec()));
            }
            Ok(Some(Item::Frame(frame))) => frames.push(bare(frame)),
            Ok(Some(Item::Header(_)) | None) => {}
            Err(_) => break,
        }
    }
    if decoder.end().is_ok() && !rest.is_empty() {
        decoder.give(rest).expect_err("more than a stream");
    }
    if let Err(error) = decoder.end() {
        for more in [&[][..], rest, bytes] {
            assert_eq!(decoder.give(more), Err(error), "the first error stays");
        }
        assert_eq!((decoder.needs(), decoder.end()), (0, Err(error)));
    }
    (frames, decoder.end())
}

fn error_of(bytes: &[u8]) -> FrameError {
    read(bytes, LIMITS).1.expect_err("a stream to be refused")
}

/// A stream written by hand, so that it may have what the encoder never writes.
struct Raw {
    crc: u32,
    bytes: Vec<u8>,
}

impl Raw {
    /// A header of these fields; magic, length and CRC are added.
    fn header(fields: &HeaderFields<'_>) -> Self {
        let mut bytes = b"\x93VFIO\r\n\x1a".to_vec();
        bytes.extend(fields.major.to_le_bytes());
        bytes.extend(fields.minor.to_le_bytes());
        let len = 44 + fields.compat.len() + fields.more;
        bytes.extend((len as u32).to_le_bytes());
        bytes.extend(fields.required.to_le_bytes());
        bytes.extend(fields.optional.to_le_bytes());
        bytes.extend(fields.max_data.to_le_bytes());
        bytes.extend(fields.compat_len.unwrap_or(fields.compat.len() as u16).to_le_bytes());
        bytes.extend(fields.reserved.to_le_bytes());
        bytes.extend(fields.compat);
        bytes.extend(vec![0xee; fields.more]);
        let crc = crc32c::crc32c(&bytes);
        bytes.extend(crc.to_le_bytes());
        Self { crc, bytes }
    }

    fn frame(mut self, kind: u16, flags: u16, epoch: u32, payload: &[u8]) -> Self {
        let mut head = [kind, flags].map(u16::to_le_bytes).concat();
        head.extend((payload.len() as u32).to_le_bytes());
        head.extend(epoch.to_le_bytes());
        self.crc = crc32c::crc32c_append(self.crc, &[&head, payload].concat());
        self.bytes.extend(head);
        self.bytes.extend(self.crc.to_le_bytes());
        self.bytes.extend(payload);
        self
    }

    /// A head that nothing follows, and that says so of itself.
    fn head(mut self, kind: u16, flags: u16, epoch: u32, len: u32) -> Self {
        self.bytes.extend([kind, flags].map(u16::to_le_bytes).concat());
        self.bytes.extend([len, epoch, 0].map(u32::to_le_bytes).concat());
        self
    }
}

/// The fields of a header; what it is by default is accepted.
struct HeaderFields<'a> {
    major: u16,
    minor: u16,
    required: u64,
    optional: u64,
    max_data: u32,
    compat_len: Option<u16>,
    reserved: u16,
    compat: &'a [u8],
    /// Bytes after `compat`.
    more: usize,
}

impl HeaderFields<'_> {
    const GOOD: HeaderFields<'static> = HeaderFields {
        major: 1,
        minor: 0,
        required: 0,
        optional: 0,
        max_data: MAX_DATA,
        compat_len: None,
        reserved: 0,
        compat: b"test",
        more: 0,
    };

    fn write(&self) -> Vec<u8> {
        Raw::header(self).bytes
    }
}

fn good() -> Raw {
    Raw::header(&HeaderFields::GOOD)
}

/// What the page's example carries.
fn example() -> (Vec<Sent>, Vec<Vec<u8>>) {
    let frames = vec![
        data(1, b"first"),
        bare(Frame::InitialBytesSent { epoch: 1 }),
        bare(Frame::Discard { epoch: 1 }),
        data(2, b"second"),
        bare(Frame::End { epoch: 2 }),
    ];
    let parts = write(65536, "15b3:101e", &frames);
    (frames, parts)
}

/// A field of the page's example: what it is called, and its bytes.
type Field = (String, Vec<u8>);

/// The page's example: its parts, of fields.
fn page_example() -> Vec<Vec<Field>> {
    let (_, block) = PAGE.split_once("```hex\n").expect("the page has an example");
    let (block, _) = block.split_once("```").expect("the example ends");
    block.split("\n\n").map(page_fields).collect()
}

fn page_fields(part: &str) -> Vec<Field> {
    let mut fields: Vec<Field> = Vec::new();
    for line in part.lines() {
        let (hex, name) = line.split_once(';').unwrap_or((line, ""));
        if !name.is_empty() {
            let name = name.split(':').next().expect("split gives one").trim();
            fields.push((name.to_owned(), Vec::new()));
        }
        let byte = |digits| u8::from_str_radix(digits, 16).expect("two digits");
        fields.last_mut().expect("a name").1.extend(hex.split_whitespace().map(byte));
    }
    fields
}

/// The rows of the page's table below this heading, cell by cell.
fn page_table(heading: &str) -> Vec<Vec<&'static str>> {
    let (_, rest) = PAGE.split_once(&format!("\n{heading}\n")).expect("the page has the heading");
    let rows = rest.lines().skip_while(|line| !line.starts_with('|'));
    let rows = rows.take_while(|line| line.starts_with('|')).skip(2);
    rows.map(|row| row.split('|').skip(1).map(|cell| cell.trim().trim_matches('`')).collect())
        .collect()
}

/// F1: the example of the page is, byte for byte, what is written, and is read again.
#[test]
fn the_page_shows_what_is_written() {
    assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283, "the check value of the page");
    let page: Vec<Vec<u8>> = page_example()
        .iter()
        .map(|part| part.iter().flat_map(|(_, bytes)| bytes).copied().collect())
        .collect();
    let (frames, parts) = example();
    assert_eq!(page, parts);
    assert_eq!(read(&page.concat(), LIMITS), (frames, Ok(())));
}

/// The tables of the page give the fields of the example their names, order, offsets and sizes.
#[test]
fn the_pages_tables_fit_its_example() {
    for (index, part) in page_example().iter().enumerate() {
        let mut table = page_table(if index == 0 { "## The header" } else { "## A frame" });
        if part.last().is_some_and(|(name, _)| name == "crc") && index > 0 {
            table.pop(); // no payload
        }
        assert_eq!(table.len(), part.len());
        let mut offset = 0;
        for (row, (name, bytes)) in table.iter().zip(part) {
            assert_eq!(row[2], name);
            if let Ok(at) = row[0].parse::<usize>() {
                assert_eq!(at, offset, "the offset of {name}");
            }
            if let Ok(len) = row[1].parse::<usize>() {
                assert_eq!(len, bytes.len(), "the size of {name}");
            }
            offset += bytes.len();
        }
    }
    let numbered = page_table("### The kinds");
    let kinds = [Kind::DATA, Kind::INITIAL_BYTES_SENT, Kind::DISCARD, Kind::END];
    assert_eq!(numbered.len(), kinds.len());
    for (row, kind) in numbered.iter().zip(kinds) {
        assert_eq!((row[0], row[1]), (&*kind.0.to_string(), &*kind.to_string()));
    }
    let limits = page_table("## Limits");
    assert_eq!(limits[0][1], format!("44 to {MAX_HEADER}"));
    assert_eq!(limits[1][1], format!("{MAX_COMPAT} bytes at most"));
    assert_eq!(Limits { max_data: 1 }.buffer(), MAX_HEADER);
    assert_eq!(Limits { max_data: 4097 }.buffer(), 4097);
    assert!(PAGE.contains(&format!("The first is {FIRST_EPOCH}.")));
}

/// F1: the header says what it was written with.
#[test]
fn the_header_is_reported() {
    for compat in ["", "15b3:101e", "größer", &"x".repeat(MAX_COMPAT)] {
        let (_, header) = Encoder::<Crc32c>::new(77, compat).expect("a good header");
        assert_eq!(header.len(), 44 + compat.len());
        let mut decoder = Decoder::<Crc32c>::new(LIMITS);
        assert_eq!(decoder.give(&header[..16]), Ok(None));
        let Ok(Some(Item::Header(read))) = decoder.give(&header[16..]) else { panic!("no header") };
        assert_eq!((read.minor, read.optional, read.max_data, read.compat), (0, 0, 77, compat));
        assert_eq!(decoder.needs(), HEAD);
    }
}

/// F1: each thing that a header can have wrong, its CRC being right, and beside it the nearest that
/// is not wrong.
#[test]
fn a_bad_header_is_refused() {
    const GOOD: HeaderFields<'static> = HeaderFields::GOOD;
    let (limit, most) = (LIMITS.max_data, 4096 - 44 - 4);
    let long = [b'x'; 256];
    let len = |got| FrameError::HeaderLength { got };
    let size = |got| FrameError::MaxData { got, limit };
    let unknown = |unknown| FrameError::RequiredFeatures { unknown };
    let no_text = |error| FrameError::Compat(error);
    let refused = [
        (HeaderFields { major: 0, ..GOOD }, FrameError::Version { got: 0 }),
        (HeaderFields { major: 2, ..GOOD }, FrameError::Version { got: 2 }),
        (HeaderFields { required: 1, ..GOOD }, unknown(1)),
        (HeaderFields { required: 1 << 63, ..GOOD }, unknown(1 << 63)),
        (HeaderFields { max_data: 0, ..GOOD }, size(0)),
        (HeaderFields { max_data: limit + 1, ..GOOD }, size(limit + 1)),
        (HeaderFields { more: most + 1, ..GOOD }, len(4097)),
        (HeaderFields { compat_len: Some(5), ..GOOD }, len(48)),
        (HeaderFields { compat_len: Some(u16::MAX), ..GOOD }, len(48)),
        (HeaderFields { compat: &long, ..GOOD }, no_text(CompatError::TooLong { len: 256 })),
        (HeaderFields { compat: b"ab\xff", ..GOOD }, no_text(CompatError::NotUtf8 { at: 2 })),
        (HeaderFields { compat: b"a\x1b[2J", ..GOOD }, no_text(CompatError::Control { at: 1 })),
        (HeaderFields { compat: b"\xc2\x9b", ..GOOD }, no_text(CompatError::Control { at: 0 })),
    ];
    for (header, error) in refused {
        assert_eq!(error_of(&header.write()), error);
    }
    let taken = [
        HeaderFields { max_data: 1, ..GOOD },
        HeaderFields { max_data: limit, ..GOOD },
        HeaderFields { more: most, ..GOOD },
        HeaderFields { compat_len: Some(3), ..GOOD },
        HeaderFields { compat: &long[..255], ..GOOD },
        HeaderFields { compat: "ab\u{ff}".as_bytes(), ..GOOD },
    ];
    for header in taken {
        let error = error_of(&header.write());
        assert!(matches!(error, FrameError::Truncated { part: Part::Head, .. }), "{error}");
    }
    let mut short = HeaderFields::GOOD.write();
    short[12..16].copy_from_slice(&43_u32.to_le_bytes());
    assert_eq!(error_of(&short), len(43));
    let text = String::from_utf8_lossy(&HeaderFields::GOOD.write()).replace("\r\n", "\n");
    assert!(matches!(error_of(text.as_bytes()), FrameError::BadMagic { .. }));
}

/// F1, F3: the encoder writes nothing that a reader would refuse, and a refusal changes nothing.
#[test]
fn what_must_not_be_written_is_refused() {
    let header = |max_data, compat: &str| Encoder::<Crc32c>::new(max_data, compat).map(|_| ());
    assert_eq!(header(0, ""), Err(EncodeError::MaxData));
    let too_long = CompatError::TooLong { len: 256 };
    assert_eq!(header(1, &"x".repeat(256)), Err(EncodeError::Compat(too_long)));
    assert_eq!(header(1, "a\n"), Err(EncodeError::Compat(CompatError::Control { at: 1 })));

    let (mut encoder, header) = Encoder::<Crc32c>::new(5, "15b3").expect("a good header");
    let mut bytes = header.to_vec();
    let refuse = |encoder: &mut Encoder<Crc32c>, (frame, payload): &Sent, error| {
        assert_eq!(encoder.frame(*frame, payload).map(|_| ()), Err(error));
    };
    let (expected, max_data) = (1, 5);
    let (d, end) = (data(1, b"first"), bare(Frame::End { epoch: 1 }));
    for (frame, payload) in [data(0, b"x"), data(2, b"x"), bare(Frame::Discard { epoch: 2 })] {
        refuse(&mut encoder, &(frame, payload), EncodeError::WrongEpoch { frame, expected });
    }
    for (payload, len) in [(&b""[..], 0), (b"second", 6)] {
        refuse(&mut encoder, &data(1, payload), EncodeError::Length { len, max_data });
    }
    for (frame, payload) in [(d.0, b"four".to_vec()), (end.0, vec![0; 8])] {
        let got = payload.len();
        refuse(&mut encoder, &(frame, payload), EncodeError::Payload { frame, got });
    }
    for (frame, payload) in [&d, &end] {
        bytes.extend_from_slice(&encoder.frame(*frame, payload).expect("a good frame"));
        bytes.extend_from_slice(payload);
    }
    for sent in [&d, &end, &bare(Frame::Discard { epoch: 1 })] {
        refuse(&mut encoder, sent, EncodeError::AfterEnd { frame: sent.0 });
    }
    assert_eq!(bytes, write(5, "15b3", &[d.clone(), end.clone()]).concat());
    assert_eq!(read(&bytes, LIMITS), (vec![d, end], Ok(())));
}

/// F2: a hostile length is refused at the head, before anything is waited for.
#[test]
fn hostile_lengths_are_refused() {
    let cases = [
        (Kind::DATA, 0, 1, MAX_DATA),
        (Kind::DATA, MAX_DATA + 1, 1, MAX_DATA),
        (Kind::DATA, u32::MAX, 1, MAX_DATA),
        (Kind::INITIAL_BYTES_SENT, 1, 0, 0),
        (Kind::INITIAL_BYTES_SENT, u32::MAX, 0, 0),
        (Kind::DISCARD, 1, 0, 0),
        (Kind::DISCARD, u32::MAX, 0, 0),
        (Kind::END, 0, 8, 8),
        (Kind::END, 7, 8, 8),
        (Kind::END, 9, 8, 8),
        (Kind::END, u32::MAX, 8, 8),
    ];
    for (kind, got, least, most) in cases {
        let bytes = good().head(kind.0, 0, 1, got).bytes;
        assert_eq!(error_of(&bytes), FrameError::Length { kind, got, least, most });
    }
    let mut header = HeaderFields::GOOD.write();
    header[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(error_of(&header), FrameError::HeaderLength { got: u32::MAX });
}

/// F2, F6: a frame that is skipped needs no more room than others, however long it says it is.
#[test]
fn a_long_frame_is_skipped_in_pieces() {
    let limits = Limits { max_data: 5000 };
    let mut decoder = Decoder::<Crc32c>::new(limits);
    let bytes = good().head(0x777, 1, 1, u32::MAX).bytes;
    for part in [&bytes[..16], &bytes[16..48], &bytes[48..]] {
        decoder.give(part).expect("nothing is wrong yet");
    }
    let mut left = u32::MAX as usize;
    while left > u32::MAX as usize - 100_000 {
        assert_eq!(decoder.needs(), 5000);
        assert_eq!(decoder.give(&[0; 5000]), Ok(None));
        left -= 5000;
    }
    let part = Part::Payload(Kind(0x777));
    let truncated = FrameError::Truncated { part, needs: 5000, epoch: 1, data: 0 };
    assert_eq!(decoder.end(), Err(truncated));
    // Beside the checksum of 4 bytes.
    assert!(size_of::<Decoder<Crc32c>>() <= 64, "{}", size_of::<Decoder<Crc32c>>());
}

/// F3: what the head of a frame can have wrong, its CRC being right.
#[test]
fn a_bad_frame_is_refused() {
    use FrameError::{EndLength, UnknownFlags, UnknownKind, WrongEpoch};
    let wrong = |kind, got| WrongEpoch { kind, expected: 1, got };
    let flags = |kind, flags| UnknownFlags { kind: Kind(kind), flags };
    let cases = [
        (good().frame(0, 0, 1, b""), UnknownKind { kind: Kind(0) }),
        (good().frame(5, 0, 1, b""), UnknownKind { kind: Kind(5) }),
        (good().frame(5, 2, 1, b""), flags(5, 2)),
        (good().frame(5, 0x8001, 1, b""), flags(5, 0x8001)),
        (good().frame(1, 1, 1, b"x"), flags(1, 1)),
        (good().frame(4, 1, 1, &[0; 8]), flags(4, 1)),
        (good().frame(1, 0, 0, b"x"), wrong(Kind::DATA, 0)),
        (good().frame(1, 0, 2, b"x"), wrong(Kind::DATA, 2)),
        (good().frame(2, 0, 2, b""), wrong(Kind::INITIAL_BYTES_SENT, 2)),
        (good().frame(3, 0, 2, b""), wrong(Kind::DISCARD, 2)),
        (good().frame(4, 0, 2, &[0; 8]), wrong(Kind::END, 2)),
        (good().frame(5, 1, 2, b"x"), wrong(Kind(5), 2)),
        (good().frame(4, 0, 1, &[1, 0, 0, 0, 0, 0, 0, 0]), EndLength { said: 1, counted: 0 }),
        (
            good().frame(1, 0, 1, b"ab").frame(4, 0, 1, &[2, 0, 0, 0, 0, 0, 0, 1]),
            EndLength { said: 2 | 1 << 56, counted: 2 },
        ),
    ];
    for (raw, error) in cases {
        assert_eq!(error_of(&raw.bytes), error);
    }
    let mut raw = good().frame(1, 0, 1, b"ab").frame(4, 0, 1, &[2, 0, 0, 0, 0, 0, 0, 0]);
    assert!(read(&raw.bytes, LIMITS).1.is_ok());
    raw.bytes.extend(b"more");
    assert_eq!(error_of(&raw.bytes), FrameError::AfterEnd { got: 4 });
}

/// F1, F3: whichever bit of a stream is flipped, it is refused, and no frame is reported that was
/// not written.
#[test]
fn every_flipped_bit_is_refused() {
    let (frames, parts) = example();
    let bytes = parts.concat();
    for bit in 0..bytes.len() * 8 {
        let mut bytes = bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let (reported, end) = read(&bytes, LIMITS);
        assert!(end.is_err(), "bit {bit}");
        assert!(frames.starts_with(&reported), "bit {bit}: {reported:?}");
    }
}

/// F4: wherever a stream is cut off, it is said that it was, and where.
#[test]
fn every_truncation_is_seen() {
    let (frames, parts) = example();
    let bytes = parts.concat();
    let (mut whole, mut before) = (0, 0);
    for cut in 0..bytes.len() {
        if cut == before + parts[whole].len() {
            (whole, before) = (whole + 1, cut);
        }
        let (reported, end) = read(&bytes[..cut], LIMITS);
        let Err(FrameError::Truncated { part, needs, epoch, data }) = end else {
            panic!("{cut}: {end:?}");
        };
        assert_eq!(reported, frames[..whole.saturating_sub(1)], "{cut}");
        match whole {
            0 => assert_eq!(part, Part::Header, "{cut}"),
            _ if cut < before + HEAD => assert_eq!(part, Part::Head, "{cut}"),
            _ => assert_eq!(part, Part::Payload(frames[whole - 1].0.kind()), "{cut}"),
        }
        assert!(needs > 0 && cut + needs > before, "{cut}: {needs}");
        let count = [(1, 0), (1, 0), (1, 5), (1, 5), (2, 0), (2, 6)][whole];
        assert_eq!((epoch, data), count, "{cut}");
    }
}

/// F5: after DISCARD nothing of its epoch counts or comes any more, at either end.
#[test]
fn discard_ends_an_epoch() {
    let (mut encoder, _) = Encoder::<Crc32c>::new(MAX_DATA, "").expect("a good header");
    encoder.frame(Frame::Data { epoch: 1, len: 1 }, b"x").map(|_| ()).expect("a good frame");
    encoder.frame(Frame::Discard { epoch: 1 }, &[]).map(|_| ()).expect("a good frame");
    let (late, expected) = (Frame::Data { epoch: 1, len: 1 }, 2);
    let refused = encoder.frame(late, b"x").map(|_| ()).expect_err("a dead session");
    assert_eq!(refused, EncodeError::WrongEpoch { frame: late, expected });

    let begun = || good().frame(1, 0, 1, b"x").frame(3, 0, 1, b"");
    let wrong = FrameError::WrongEpoch { kind: Kind::DATA, expected: 2, got: 1 };
    assert_eq!(error_of(&begun().frame(1, 0, 1, b"x").bytes), wrong);
    let wrong = FrameError::WrongEpoch { kind: Kind::DISCARD, expected: 2, got: 1 };
    assert_eq!(error_of(&begun().frame(3, 0, 1, b"").bytes), wrong);
    let all = begun().frame(1, 0, 2, b"yz").frame(4, 0, 2, &[3, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(error_of(&all.bytes), FrameError::EndLength { said: 3, counted: 2 });
    let own = begun().frame(1, 0, 2, b"yz").frame(4, 0, 2, &[2, 0, 0, 0, 0, 0, 0, 0]);
    let (frames, end) = read(&own.bytes, LIMITS);
    assert_eq!(end, Ok(()));
    assert_eq!(frames[2..], [data(2, b"yz"), bare(Frame::End { epoch: 2 })]);
}

/// F6: what a later minor version may bring is passed over, and counts in the checksum.
#[test]
fn later_minor_versions_are_read() {
    let header = HeaderFields {
        minor: 7,
        optional: u64::MAX,
        reserved: u16::MAX,
        more: 100,
        ..HeaderFields::GOOD
    };
    let long = [7; 3 * 65536 + 5];
    let later = || {
        Raw::header(&header)
            .frame(0x777, 1, 1, b"")
            .frame(1, 0, 1, b"ab")
            .frame(0xffff, 1, 1, b"unknown")
            .frame(5, 1, 1, &long)
            .frame(4, 0, 1, &[2, 0, 0, 0, 0, 0, 0, 0])
    };
    let mut decoder = Decoder::<Crc32c>::new(LIMITS);
    let bytes = later().bytes;
    decoder.give(&bytes[..16]).expect("the preamble");
    let Ok(Some(Item::Header(read_header))) = decoder.give(&bytes[16..148]) else {
        panic!("no header");
    };
    assert_eq!((read_header.minor, read_header.optional), (7, u64::MAX));
    assert_eq!(read_header.compat, "test");

    let frames = vec![data(1, b"ab"), bare(Frame::End { epoch: 1 })];
    assert_eq!(read(&bytes, LIMITS), (frames, Ok(())));
    for at in (148..bytes.len()).step_by(61) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        assert!(read(&damaged, LIMITS).1.is_err(), "{at}");
    }
}

/// A caller that gives something else than was asked for is told.
#[test]
fn only_what_was_asked_for_is_taken() {
    for got in [0, 15, 17] {
        let mut decoder = Decoder::<Crc32c>::new(LIMITS);
        let error = FrameError::NotAsked { needs: 16, got };
        assert_eq!(decoder.give(&vec![0; got]), Err(error));
        assert_eq!(decoder.give(&HeaderFields::GOOD.write()[..16]), Err(error));
    }
}

/// What the errors say: what was asked for, what was seen, what to do.
#[test]
fn errors_in_words() {
    let (_, parts) = example();
    let bytes = parts.concat();
    let flipped = |at: usize| {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1;
        error_of(&bytes).to_string()
    };
    let texts = [
        flipped(0),
        flipped(8),
        flipped(14),
        flipped(24),
        flipped(53),
        flipped(56),
        flipped(57),
        flipped(61),
        flipped(69),
        error_of(&bytes[..40]).to_string(),
        error_of(&bytes[..100]).to_string(),
        error_of(&bytes[..bytes.len() - 1]).to_string(),
        error_of(&good().head(4, 0, 1, 9).bytes).to_string(),
        error_of(&good().frame(0x999, 0, 1, b"").bytes).to_string(),
        error_of(&good().frame(4, 0, 1, &[1; 8]).bytes).to_string(),
        error_of(&HeaderFields { required: 6, ..HeaderFields::GOOD }.write()).to_string(),
        error_of(&HeaderFields { max_data: 1 << 20, ..HeaderFields::GOOD }.write()).to_string(),
        error_of(&HeaderFields { compat: b"\n", ..HeaderFields::GOOD }.write()).to_string(),
        EncodeError::Length { len: 9, max_data: 8 }.to_string(),
        EncodeError::WrongEpoch { frame: data(1, b"x").0, expected: 2 }.to_string(),
        EncodeError::AfterEnd { frame: Frame::Discard { epoch: 1 } }.to_string(),
    ];
    expect![[r#"
        the stream begins with [92, 56, 46, 49, 4f, 0d, 0a, 1a], not [93, 56, 46, 49, 4f, 0d, 0a, 1a]: no framed stream, or sent through something that takes it for text; look at what is connected
        the stream has version 0, this reader knows 1; have the source write that, or update
        a header of 65589 bytes; it has 44 and those of its compatibility string, and at most 4096: damaged or hostile
        the header says CRC 0xb17652d5, its bytes give 0x9f429948: damaged, send anew
        a frame of the unknown kind 0x0 that is not optional: damaged, or update this reader
        DATA with the flags 0x100, unknown there: damaged, or update this reader
        DATA says CRC 0xba0408bc, the stream up to its end gives 0x59d50f3f: damaged, lost or mixed, send anew
        DATA of epoch 0 in epoch 1: frames were lost or mixed, send anew
        DATA says CRC 0xba0408bc, the stream up to its end gives 0x82156710: damaged, lost or mixed, send anew
        the stream ends in the header, where 37 bytes were asked for, after 0 bytes of DATA of epoch 1; END is missing, so the state is not whole
        the stream ends in the head of a frame, where 16 bytes were asked for, after 5 bytes of DATA of epoch 1; END is missing, so the state is not whole
        the stream ends in the payload of END, where 8 bytes were asked for, after 6 bytes of DATA of epoch 2; END is missing, so the state is not whole
        END of 9 bytes; 8 to 8 are allowed: damaged or hostile
        a frame of the unknown kind 0x999 that is not optional: damaged, or update this reader
        END says 72340172838076673 bytes of DATA, 0 came: the source is at fault
        the stream requires features 0x6, unknown here; update, or have the source do without
        the header announces DATA of up to 1048576 bytes, the limit here is 65536; raise it, or send less
        the compatibility string has a control character at byte 0: the source is at fault
        DATA of 9 bytes; the header promised 1 to 8: send it in pieces
        DATA of epoch 1 (1 bytes) in epoch 2; drop it, it is of another session
        DISCARD of epoch 1 after END; begin another stream"#]].assert_eq(&texts.join("\n"));
}

/// What is sent of a stream after its header, END left out.
#[derive(Clone, Debug)]
enum Act {
    Data(Vec<u8>),
    InitialBytesSent,
    Discard,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let payload = prop::collection::vec(any::<u8>(), 1..=MAX_DATA as usize);
    let act = prop_oneof![
        6 => payload.prop_map(Act::Data),
        1 => Just(Act::InitialBytesSent),
        1 => Just(Act::Discard),
    ];
    prop::collection::vec(act, 0..20)
}

fn frames_of(acts: &[Act]) -> Vec<Sent> {
    let mut epoch = FIRST_EPOCH;
    let mut frames = Vec::new();
    for act in acts {
        frames.push(match act {
            Act::Data(payload) => data(epoch, payload),
            Act::InitialBytesSent => bare(Frame::InitialBytesSent { epoch }),
            Act::Discard => bare(Frame::Discard { epoch }),
        });
        epoch += u32::from(matches!(act, Act::Discard));
    }
    frames.push(bare(Frame::End { epoch }));
    frames
}

/// One whole stream: what it carries, and its parts as they are sent.
fn streams() -> impl Strategy<Value = (Vec<Sent>, Vec<Vec<u8>>)> {
    (acts(), "[a-z0-9:é]{0,20}").prop_map(|(acts, compat)| {
        let frames = frames_of(&acts);
        let parts = write(MAX_DATA, &compat, &frames);
        (frames, parts)
    })
}

/// How many parts are the same at the beginning.
fn common(a: &[Vec<u8>], b: &[Vec<u8>]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// These parts are no stream, and are refused at the first that is out of place: what is reported
/// before it is a beginning of one of the streams that the parts are from.
fn is_refused(parts: &[Vec<u8>], of: &[&(Vec<Sent>, Vec<Vec<u8>>)]) -> Result<(), TestCaseError> {
    prop_assume!(of.iter().all(|(_, whole)| whole != parts));
    let (reported, end) = read(&parts.concat(), LIMITS);
    prop_assert!(end.is_err());
    let nearest = of.iter().max_by_key(|(_, whole)| common(whole, parts));
    let (frames, whole) = nearest.expect("it is from somewhere");
    let good = common(whole, parts).saturating_sub(1);
    prop_assert_eq!(&reported[..], &frames[..good]);
    Ok(())
}

proptest! {
    /// F4, F5: what is written is read, whatever the pieces, epochs and limits.
    #[test]
    fn what_is_written_is_read((frames, parts) in streams(), limit in MAX_DATA..10_000) {
        let bytes = parts.concat();
        prop_assert_eq!(read(&bytes, Limits { max_data: limit }), (frames, Ok(())));
    }

    /// F3: a part that is missing, comes twice or in another place.
    #[test]
    fn lost_doubled_and_swapped_frames_are_refused(
        stream in streams(),
        [i, j] in any::<[Index; 2]>(),
    ) {
        let parts = &stream.1;
        let (i, j) = (i.index(parts.len()), j.index(parts.len()));
        let mut lost = parts.clone();
        let part = lost.remove(i);
        is_refused(&lost, &[&stream])?;
        lost.insert(j, part);
        if i != j {
            is_refused(&lost, &[&stream])?;
        }
        let mut doubled = parts.clone();
        doubled.insert(j, parts[i].clone());
        is_refused(&doubled, &[&stream])?;
        let mut swapped = parts.clone();
        swapped.swap(i, j);
        if i != j {
            is_refused(&swapped, &[&stream])?;
        }
    }

    /// F3: the beginning of one stream and the end of another, cut anywhere.
    #[test]
    fn spliced_streams_are_refused(
        (a, b) in (streams(), streams()),
        [i, j] in any::<[Index; 2]>(),
    ) {
        let (i, j) = (i.index(a.1.len() + 1), j.index(b.1.len() + 1));
        let spliced = [&a.1[..i], &b.1[j..]].concat();
        is_refused(&spliced, &[&a, &b])?;
    }

    /// F3: an epoch after the header or the epoch of another stream, all numbers being in order.
    #[test]
    fn epochs_are_not_mixed((a, b) in (acts(), acts())) {
        let stream = |compat, first: &[Act], second: &[Act]| {
            let frames = frames_of(&[first, &[Act::Discard], second].concat());
            let parts = write(MAX_DATA, compat, &frames);
            (frames, parts)
        };
        let keeps = |act: &&Act| !matches!(act, Act::Discard);
        let [a, b] = [a, b].map(|acts| acts.iter().filter(keeps).cloned().collect::<Vec<_>>());
        let (ab, ba, other) = (stream("x", &a, &b), stream("x", &b, &a), stream("y", &a, &b));
        let headed = [&other.1[..1], &ab.1[1..]].concat();
        is_refused(&headed, &[&ab, &other])?;
        let mixed = [&ab.1[..a.len() + 2], &ba.1[b.len() + 2..]].concat();
        is_refused(&mixed, &[&ab, &ba])?;
    }

    /// F3: damage within four neighbouring bytes, and any odd number of flipped bits, in a payload.
    #[test]
    fn damage_of_a_payload_is_seen(
        payload in prop::collection::vec(any::<u8>(), 4..=MAX_DATA as usize),
        at in any::<Index>(),
        with in 1..=u32::MAX,
        bits in prop::collection::vec(any::<Index>(), 1..9),
    ) {
        let frames = [data(1, &payload), bare(Frame::End { epoch: 1 })];
        let parts = write(MAX_DATA, "", &frames);
        let first = parts[0].len() + HEAD;
        let bytes = parts.concat();
        let mut burst = bytes.clone();
        let at = first + at.index(payload.len() - 3);
        for (byte, with) in burst[at..].iter_mut().zip(with.to_le_bytes()) {
            *byte ^= with;
        }
        let mut flipped = bytes.clone();
        for bit in &bits {
            let bit = bit.index(payload.len() * 8);
            flipped[first + bit / 8] ^= 1 << (bit % 8);
        }
        let flips: u32 = flipped.iter().zip(&bytes).map(|(a, b)| (a ^ b).count_ones()).sum();
        for damaged in [Some(burst), (flips % 2 == 1).then_some(flipped)].into_iter().flatten() {
            let (reported, end) = read(&damaged, LIMITS);
            let is_crc = matches!(end, Err(FrameError::Crc { kind: Kind::DATA, .. }));
            prop_assert!(is_crc, "{:?}", end);
            prop_assert!(reported.is_empty());
        }
    }

    /// F2: random bytes, with and without a good beginning, are refused and never more than the
    /// limit is asked for.
    #[test]
    fn random_bytes_are_refused(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        small in prop::collection::vec(0_u8..6, 0..400),
        max_data in MAX_DATA..9000,
    ) {
        for noise in [bytes, small] {
            let limits = Limits { max_data };
            prop_assert!(read(&noise, limits).1.is_err());
            let magic = &HeaderFields::GOOD.write()[..12];
            prop_assert!(read(&[magic, &noise].concat(), limits).1.is_err());
            prop_assert!(read(&[&good().bytes[..], &noise].concat(), limits).1.is_err());
        }
    }

    /// F2, F3: a stream in which bytes were overwritten at random.
    #[test]
    fn damaged_streams_are_refused(
        (frames, parts) in streams(),
        damage in prop::collection::vec((any::<Index>(), 1_u8..), 1..6),
    ) {
        let whole = parts.concat();
        let mut bytes = whole.clone();
        for (at, with) in damage {
            *at.get_mut(&mut bytes) ^= with;
        }
        prop_assume!(bytes != whole);
        let (reported, end) = read(&bytes, LIMITS);
        prop_assert!(end.is_err());
        prop_assert!(frames.starts_with(&reported));
    }
}

#[cfg(feature = "serde")]
#[test]
fn frames_are_written_by_name() {
    let (frames, _) = example();
    let frames: Vec<Frame> = frames.into_iter().map(|(frame, _)| frame).collect();
    let json = serde_json::to_string(&frames).expect("is JSON");
    expect![[r#"[{"data":{"epoch":1,"len":5}},{"initial_bytes_sent":{"epoch":1}},{"discard":{"epoch":1}},{"data":{"epoch":2,"len":6}},{"end":{"epoch":2}}]"#]].assert_eq(&json);
    assert_eq!(serde_json::from_str::<Vec<Frame>>(&json).expect("is read"), frames);
}
