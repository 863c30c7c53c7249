// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The reader of mlx5's records: it says the same in whatever pieces a stream comes, hands out no
//! more than its limits and its input have, and what it accepts is written again as what it was.

use vfio_fsm_mlx5::stream::{Event, Limits, Reader, StreamError, fw_data, stop_copy_size};

/// What an image may be long; a record that is skipped may be longer.
const LIMITS: Limits = Limits { image: 0x1_0000, other: 0x2_0000 };

/// What a stream says, its data put together.
#[derive(Clone, Debug, PartialEq)]
enum Said {
    StopCopySize(u64),
    Image(Vec<u8>),
}

/// The first byte cuts the rest into pieces, which are a stream.
pub fn check(input: &[u8]) {
    let Some((&pattern, stream)) = input.split_first() else { return };
    let (whole, end) = read(stream, 0xff, stream.len());
    let (pieces, same) = read(stream, pattern, 0);
    assert_eq!((&whole, end), (&pieces, same), "not the same in pieces");
    if end.is_ok() {
        let written = written(&whole);
        let (again, end) = read(&written, 0xff, written.len());
        assert_eq!((again, end), (whole, Ok(())), "not the same when written again");
        // Records that are skipped, and what stands behind a size, are not written again.
        assert!(written.len() <= stream.len());
    }
}

/// All that a reader says of a stream; in one piece, or in those of a pattern.
fn read(stream: &[u8], pattern: u8, first: usize) -> (Vec<Said>, Result<(), StreamError>) {
    let mut reader = Reader::new(LIMITS);
    let mut pieces = super::Pieces::new(stream, pattern);
    let (mut said, mut open) = (Vec::new(), None);
    let mut taken = 0;
    while !pieces.left.is_empty() {
        let mut piece = match first {
            0 => pieces.next(usize::MAX),
            all => std::mem::take(&mut pieces.left).get(..all).unwrap_or_default(),
        };
        taken += piece.len() as u64;
        loop {
            match reader.next(&mut piece) {
                Ok(Some(event)) => hear(event, &mut said, &mut open),
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(reader.next(&mut piece), Err(StreamError::Refused));
                    return (said, Err(error));
                }
            }
        }
        assert!(piece.is_empty(), "not all taken");
        assert_eq!(reader.position(), taken);
    }
    let images = said.iter().filter(|said| matches!(said, Said::Image(_))).count();
    assert_eq!(reader.images(), images as u64);
    (said, reader.finish())
}

fn hear(event: Event<'_>, said: &mut Vec<Said>, open: &mut Option<(u32, Vec<u8>)>) {
    match event {
        Event::StopCopySize(bytes) => said.push(Said::StopCopySize(bytes)),
        Event::Image { bytes } => {
            assert!(bytes <= LIMITS.image && open.is_none());
            *open = Some((bytes, Vec::new()));
        }
        Event::Data(part) => {
            assert!(!part.is_empty());
            open.as_mut().expect("an image has begun").1.extend_from_slice(part);
        }
        Event::ImageEnd => {
            let (bytes, image) = open.take().expect("an image has begun");
            assert_eq!(image.len(), bytes as usize);
            said.push(Said::Image(image));
        }
    }
}

fn written(said: &[Said]) -> Vec<u8> {
    let mut stream = Vec::new();
    for said in said {
        match said {
            // A writer that takes a size for 24 bits.
            Said::StopCopySize(bytes) if super::PLANTED => {
                stream.extend(stop_copy_size(bytes & 0xff_ffff));
            }
            Said::StopCopySize(bytes) => stream.extend(stop_copy_size(*bytes)),
            Said::Image(image) => {
                stream.extend(fw_data(image.len() as u32));
                stream.extend(image);
            }
        }
    }
    stream
}

/// Streams to begin with.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let image = |bytes: &[u8]| [&fw_data(bytes.len() as u32)[..], bytes].concat();
    let skipped = [&7_u64.to_le_bytes()[..], &[1, 0, 0, 0, 9, 0, 0, 0], &[5; 7]].concat();
    let long_size = [&12_u64.to_le_bytes()[..], &[1, 0, 0, 0, 1, 0, 0, 0], &[3; 12]].concat();
    let saved = [&[0x35], &stop_copy_size(0x3000)[..], &image(b"first"), &image(b"last")].concat();
    vec![
        ("saved", saved),
        ("skipped", [&[0x0f], &skipped[..], &image(&[1; 300])].concat()),
        ("empty-image", [&[0], &image(b"")[..]].concat()),
        ("long-size", [&[0xf0], &long_size[..]].concat()),
    ]
}
