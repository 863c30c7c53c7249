// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The record stream, against bytes of Linux's driver and against whatever else may come.

use proptest::prelude::*;
use vfio_fsm_core::Errno;
use vfio_fsm_mlx5::stream::{
    self, Event, FLAG_OPTIONAL, HEADER_BYTES, Limits, Reader, StreamError, TAG_STOP_COPY_SIZE,
};

/// An event, with the parts of an image put together.
#[derive(Clone, Debug, PartialEq)]
enum Told {
    StopCopySize(u64),
    Image(Vec<u8>),
    /// One that did not become complete.
    Begun(u32),
}

/// What a reader tells of a stream that comes in these pieces, and how it ends.
fn read<'a>(
    limits: Limits,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<Told>, Result<(), StreamError>) {
    let mut reader = Reader::new(limits);
    let mut told = Vec::new();
    let mut image = Vec::new();
    for mut piece in pieces {
        loop {
            match reader.next(&mut piece) {
                Ok(Some(Event::StopCopySize(bytes))) => told.push(Told::StopCopySize(bytes)),
                Ok(Some(Event::Image { bytes })) => told.push(Told::Begun(bytes)),
                Ok(Some(Event::Data(part))) => {
                    assert!(!part.is_empty());
                    image.extend_from_slice(part);
                }
                Ok(Some(Event::ImageEnd)) => {
                    let begun = told.pop();
                    assert_eq!(begun, Some(Told::Begun(image.len() as u32)));
                    told.push(Told::Image(std::mem::take(&mut image)));
                }
                Ok(None) => break,
                Err(error) => {
                    for _ in 0..2 {
                        assert_eq!(reader.next(&mut piece), Err(StreamError::Refused));
                    }
                    assert_eq!(reader.finish(), Err(StreamError::Refused));
                    return (told, Err(error));
                }
            }
        }
        assert!(piece.is_empty(), "all is taken before more is asked for");
    }
    (told, reader.finish())
}

fn whole(bytes: &[u8]) -> (Vec<Told>, Result<(), StreamError>) {
    read(Limits::default(), [bytes])
}

fn record(bytes: u64, flags: u32, tag: u32, data: &[u8]) -> Vec<u8> {
    [&bytes.to_le_bytes()[..], &flags.to_le_bytes(), &tag.to_le_bytes(), data].concat()
}

/// A stream of the kind that a source writes, with a record that is not known among the images.
fn any_stream() -> impl Strategy<Value = (Vec<Told>, Vec<u8>)> {
    let image = proptest::collection::vec(any::<u8>(), 0..70);
    let images = proptest::collection::vec(image, 0..5);
    let other = proptest::collection::vec(any::<u8>(), 0..40);
    (any::<u32>(), images, other, 2..u32::MAX).prop_map(|(size, images, other, tag)| {
        let mut bytes = stream::stop_copy_size(size.into()).to_vec();
        let mut told = vec![Told::StopCopySize(size.into())];
        for image in images {
            bytes.extend(stream::fw_data(image.len() as u32));
            bytes.extend(&image);
            bytes.extend(record(other.len() as u64, FLAG_OPTIONAL, tag, &other));
            told.push(Told::Image(image));
        }
        (told, bytes)
    })
}

/// M5: What is written is byte for byte what Linux's driver writes.
#[test]
fn a_stream_begins_as_that_of_linux() {
    let golden = "080000000000000001000000010000000030000000000000\
                  0f270000000000000000000000000000";
    let bytes = [&stream::stop_copy_size(0x3000)[..], &stream::fw_data(0x270f)].concat();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, golden);
    let told = [Told::StopCopySize(0x3000), Told::Begun(0x270f)];
    let truncated = StreamError::Truncated { at: 40, missing: 0x270f };
    assert_eq!(whole(&bytes), (told.to_vec(), Err(truncated)));
}

/// M7: A record that is not known and optional is skipped, whatever its length.
#[test]
fn an_unknown_optional_record_is_skipped_as_it_comes() {
    let mut reader = Reader::default();
    let header = record(u32::MAX.into(), FLAG_OPTIONAL, 7, &[]);
    assert_eq!(reader.next(&mut &header[..]), Ok(None));
    let piece = vec![0xa5; 1 << 20];
    let mut missing = u64::from(u32::MAX);
    while missing > 0 {
        let mut part = &piece[..piece.len().min(missing as usize)];
        missing -= part.len() as u64;
        assert_eq!(reader.next(&mut part), Ok(None));
    }
    assert_eq!(reader.finish(), Ok(()));
    assert_eq!(reader.position(), HEADER_BYTES as u64 + u64::from(u32::MAX));
    let mut image = &stream::fw_data(0)[..];
    assert_eq!(reader.next(&mut image), Ok(Some(Event::Image { bytes: 0 })));
    assert_eq!(reader.next(&mut image), Ok(Some(Event::ImageEnd)));
    assert_eq!(reader.images(), 1);
}

/// M7: The reader owns no memory, so nothing a stream claims can make it allocate.
#[test]
fn a_reader_owns_no_memory() {
    assert!(!std::mem::needs_drop::<Reader>());
    assert!(size_of::<Reader>() <= 96, "{}", size_of::<Reader>());
}

/// M8: A record that is not known and not optional is refused with `EOPNOTSUPP`.
#[test]
fn an_unknown_mandatory_record_is_refused() {
    for flags in [0, !FLAG_OPTIONAL] {
        let (told, end) = whole(&record(3, flags, 2, b"abc"));
        let error = StreamError::UnknownTag { at: 0, tag: 2, bytes: 3 };
        assert_eq!((told, end), (vec![], Err(error)));
        assert_eq!(error.errno(), Errno::EOPNOTSUPP);
    }
}

/// M9: A record longer than the limit is refused with `ENOMEM`, before anything is told of it.
#[test]
fn a_record_beyond_the_limits_is_refused() {
    let beyond = u64::from(u32::MAX) + 1;
    for (tag, flags) in [(0, 0), (1, FLAG_OPTIONAL), (9, FLAG_OPTIONAL), (9, 0)] {
        for bytes in [beyond, u64::MAX] {
            let error = StreamError::TooLarge { at: 0, tag, bytes, limit: u32::MAX };
            assert_eq!(whole(&record(bytes, flags, tag, &[])), (vec![], Err(error)));
            assert_eq!(error.errno(), Errno::ENOMEM);
        }
    }
    let limits = Limits { image: 3, other: 9 };
    let fits = [record(3, 0, 0, b"abc"), record(9, 1, 5, b"123456789")].concat();
    assert_eq!(read(limits, [&fits[..]]), (vec![Told::Image(b"abc".to_vec())], Ok(())));
    for (bytes, flags, tag, limit) in [(4, 0, 0, 3), (10, FLAG_OPTIONAL, 5, 9)] {
        let error = StreamError::TooLarge { at: 0, tag, bytes, limit };
        assert_eq!(read(limits, [&record(bytes, flags, tag, &[])[..]]), (vec![], Err(error)));
    }
}

/// M9: A stop-copy size is a hint of at most `u32::MAX`, and a record without room for it is none.
#[test]
fn a_stop_copy_size_is_bounded() {
    let capped = vec![Told::StopCopySize(u32::MAX.into())];
    assert_eq!(whole(&stream::stop_copy_size(u64::MAX)), (capped, Ok(())));
    let longer = record(11, FLAG_OPTIONAL, TAG_STOP_COPY_SIZE, b"\x05\0\0\0\0\0\0\0abc");
    assert_eq!(whole(&longer), (vec![Told::StopCopySize(5)], Ok(())));
    for bytes in 0..8 {
        let error = StreamError::ShortStopCopySize { at: 0, bytes };
        let data = vec![0; bytes as usize];
        let record = record(bytes, FLAG_OPTIONAL, TAG_STOP_COPY_SIZE, &data);
        assert_eq!(whole(&record), (vec![], Err(error)));
        assert_eq!(error.errno(), Errno::EINVAL);
    }
}

/// M10: Once refused, a stream stays refused with `ENODEV`, also by whoever could not load an image.
#[test]
fn a_refused_stream_stays_refused() {
    let mut reader = Reader::default();
    let bytes = [&stream::fw_data(1)[..], b"x"].concat();
    let mut input = &bytes[..];
    for _ in 0..3 {
        assert!(matches!(reader.next(&mut input), Ok(Some(_))));
    }
    assert_eq!(reader.finish(), Ok(()));
    reader.refuse();
    assert_eq!(reader.next(&mut &bytes[..]), Err(StreamError::Refused));
    assert_eq!(reader.finish(), Err(StreamError::Refused));
    assert_eq!(StreamError::Refused.errno(), Errno::ENODEV);
}

/// M11: An image that was taken but not told to be complete is not the end of a stream.
#[test]
fn an_image_nobody_was_told_to_load_is_no_end() {
    let mut reader = Reader::default();
    let bytes = [&stream::fw_data(1)[..], b"x"].concat();
    let mut input = &bytes[..];
    assert_eq!(reader.next(&mut input), Ok(Some(Event::Image { bytes: 1 })));
    assert_eq!(reader.next(&mut input), Ok(Some(Event::Data(b"x"))));
    assert_eq!(reader.finish(), Err(StreamError::Truncated { at: 17, missing: 0 }));
}

proptest! {
    /// M6: A stream in pieces of any size says what it says as a whole.
    #[test]
    fn pieces_make_no_difference(
        (told, bytes) in any_stream(),
        sizes in proptest::collection::vec(1..50_usize, 1..20),
    ) {
        prop_assert_eq!(whole(&bytes), (told.clone(), Ok(())));
        prop_assert_eq!(read(Limits::default(), bytes.chunks(1)), (told.clone(), Ok(())));
        let mut rest = &bytes[..];
        let pieces = sizes.iter().cycle().map_while(|size| {
            let (piece, behind) = rest.split_at(rest.len().min(*size));
            rest = behind;
            (!piece.is_empty()).then_some(piece)
        });
        prop_assert_eq!(read(Limits::default(), pieces), (told, Ok(())));
    }

    /// M11: A stream that ends inside a record is refused, wherever that is.
    #[test]
    fn every_truncation_is_refused((_, bytes) in any_stream()) {
        let mut ends = vec![0];
        let mut at = 0;
        while at < bytes.len() {
            let size: [u8; 8] = bytes[at..at + 8].try_into().expect("eight bytes");
            at += HEADER_BYTES + u64::from_le_bytes(size) as usize;
            ends.push(at);
        }
        for cut in 0..=bytes.len() {
            let (_, end) = whole(&bytes[..cut]);
            if ends.contains(&cut) {
                prop_assert_eq!(end, Ok(()));
            } else {
                let Err(error @ StreamError::Truncated { at, missing }) = end else {
                    return Err(TestCaseError::fail(format!("{end:?} at {cut}")));
                };
                prop_assert_eq!(at, cut as u64);
                prop_assert!(missing > 0);
                prop_assert_eq!(error.errno(), Errno::EPROTO);
            }
        }
    }

    /// M12: Whatever comes, it is read to its end or refused, the same in one piece as in many.
    #[test]
    fn arbitrary_bytes_are_read_or_refused(
        bytes in proptest::collection::vec(prop_oneof![Just(0), Just(1), any::<u8>()], 0..300),
    ) {
        let one = whole(&bytes);
        prop_assert_eq!(read(Limits::default(), bytes.chunks(1)), one.clone());
        let images: usize = one.0.iter().map(|told| match told {
            Told::Image(image) => image.len(),
            _ => 0,
        }).sum();
        prop_assert!(images <= bytes.len());
    }

    /// M12: A header with any bit flipped is read or refused; nothing is told that was not there.
    #[test]
    fn flipped_bits_are_read_or_refused((_, bytes) in any_stream()) {
        for bit in 0..bytes.len().min(4 * HEADER_BYTES) * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let one = whole(&flipped);
            prop_assert_eq!(read(Limits::default(), flipped.chunks(3)), one);
        }
    }
}
