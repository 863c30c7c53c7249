// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One record of the stream on its way to the reader.

use crate::dma::DmaError;
use crate::stream;

use super::buffer::Buffer;

/// The head's bytes, and then the image's, in the buffer to which the firmware wrote it.
pub(super) struct Record {
    head: Vec<u8>,
    image: Option<Image>,
    /// How much has been read.
    at: usize,
}

struct Image {
    buffer: Buffer,
    len: usize,
    chunk: bool,
}

impl Record {
    /// How large a buffer the source took for the image of STOP_COPY: a hint for the destination.
    pub(super) fn stop_copy_size(bytes: u64) -> Self {
        Self { head: stream::stop_copy_size(bytes).to_vec(), image: None, at: 0 }
    }

    /// What the firmware wrote into `buffer`. `chunk`: the buffer is one of those for chunks.
    pub(super) fn image(buffer: Buffer, len: usize, chunk: bool) -> Self {
        // No image is longer than its buffer, which a command of 32 bits has filled.
        let head = stream::fw_data(u32::try_from(len).unwrap_or(u32::MAX)).to_vec();
        Self { head, image: Some(Image { buffer, len, chunk }), at: 0 }
    }

    /// Its length in the stream, in bytes.
    pub(super) fn len(&self) -> u64 {
        (self.head.len() + self.image_len()) as u64
    }

    fn image_len(&self) -> usize {
        self.image.as_ref().map_or(0, |image| image.len)
    }

    pub(super) fn is_read(&self) -> bool {
        self.at == self.head.len() + self.image_len()
    }

    pub(super) fn is_chunk(&self) -> bool {
        self.image.as_ref().is_some_and(|image| image.chunk)
    }

    /// The next bytes, of the head or of the image: never of both at once.
    pub(super) fn read(&mut self, buf: &mut [u8]) -> Result<usize, DmaError> {
        let head = self.head.get(self.at..).unwrap_or_default();
        let len = match &self.image {
            _ if !head.is_empty() => {
                let len = head.len().min(buf.len());
                buf[..len].copy_from_slice(&head[..len]);
                len
            }
            Some(image) => {
                let from = self.at - self.head.len();
                let len = (image.len - from).min(buf.len());
                image.buffer.memory.read(from, &mut buf[..len])?;
                len
            }
            None => 0,
        };
        self.at += len;
        Ok(len)
    }

    pub(super) fn into_image(self) -> Option<Buffer> {
        self.image.map(|image| image.buffer)
    }
}
