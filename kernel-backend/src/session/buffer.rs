// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One buffer for all chunks, allocated once.
//!
//! A payload begins at a page, as drivers that pin or copy by pages like it, and what goes before
//! it on the wire goes before it here: so a chunk with its head is one slice, and one `write(2)`.

use std::ops::Range;

const PAGE: usize = 4096;

pub(super) struct Buffer {
    bytes: Vec<u8>,
    /// Where the payload begins; at least a page before it is free.
    payload: usize,
    room: usize,
}

impl Buffer {
    /// For payloads of up to `room` bytes. No page of it is touched before it is used.
    pub(super) fn new(room: usize) -> Self {
        let bytes = vec![0; room + 2 * PAGE];
        let payload = bytes.as_ptr().align_offset(PAGE).min(PAGE) + PAGE;
        Self { bytes, payload, room }
    }

    /// The payload, and what room there is behind it.
    pub(super) fn payload(&self) -> &[u8] {
        &self.bytes[self.payload..][..self.room]
    }

    /// The same, to be filled.
    pub(super) fn room(&mut self) -> &mut [u8] {
        &mut self.bytes[self.payload..][..self.room]
    }

    /// Puts `head` right before the payload, and says where both are: for [`Self::get`].
    pub(super) fn prepend(&mut self, head: &[u8], payload: usize) -> Range<usize> {
        let from = self.payload - head.len();
        self.bytes[from..self.payload].copy_from_slice(head);
        from..self.payload + payload
    }

    pub(super) fn get(&self, range: Range<usize>) -> &[u8] {
        &self.bytes[range]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_goes_right_before_a_payload_that_begins_a_page() {
        let mut buffer = Buffer::new(3);
        buffer.room().copy_from_slice(b"abc");
        assert_eq!(buffer.payload().as_ptr().align_offset(PAGE), 0);
        let head = [7; 300];
        let range = buffer.prepend(&head, 2);
        assert_eq!(buffer.get(range), [&head[..], b"ab"].concat());
    }
}
