// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The stream of one device: what is under way, and what has come out of it.

use vfio_fsm_core::Fd;
use vfio_fsm_core::vmm::frame::Frame;

use super::device::RECORD;

/// Bytes of one read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Chunk {
    bytes: [u8; RECORD],
    len: u8,
}

impl Chunk {
    /// The first bytes of a buffer.
    pub(super) fn new(bytes: [u8; RECORD], len: u32) -> Self {
        let len = (len as usize).min(RECORD);
        let mut chunk = Self { bytes: [0; RECORD], len: len as u8 };
        chunk.bytes[..len].copy_from_slice(&bytes[..len]);
        chunk
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// A frame on its way, with its bytes and, as a ghost, the data_fd that they were read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Packet {
    pub(super) frame: Frame,
    pub(super) chunk: Chunk,
    pub(super) from: Option<Fd>,
}

/// Frames under way, at most.
pub(super) const ROOM: usize = 2;

/// The stream of one device: first in, first out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Wire {
    /// What was read last and is not sent yet.
    pub(super) read: Chunk,
    pub(super) from: Option<Fd>,
    pub(super) under_way: [Option<Packet>; ROOM],
    /// What came last and is not written yet.
    pub(super) payload: Chunk,
    pub(super) came: Came,
    /// The latest data of a session that was discarded:
    /// [`StreamSlip::ReplaysSession`](super::StreamSlip).
    pub(super) kept: Option<Packet>,
}

/// Ghost: what the destination has been given since it last began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Came {
    /// The data_fd of which the bytes were.
    pub(super) from: Option<Fd>,
    /// And of another as well.
    pub(super) mixed: bool,
    pub(super) ended: bool,
}

impl Wire {
    pub(super) const fn has_room(&self) -> bool {
        self.under_way[ROOM - 1].is_none()
    }

    pub(super) const fn head(&self) -> Option<Packet> {
        self.under_way[0]
    }

    pub(super) fn push(&mut self, packet: Packet) {
        if let Some(free) = self.under_way.iter_mut().find(|slot| slot.is_none()) {
            *free = Some(packet);
        }
    }

    pub(super) fn pop(&mut self) -> Option<Packet> {
        let first = self.under_way[0].take();
        self.under_way.rotate_left(1);
        first
    }
}

impl Came {
    /// What a frame makes of it.
    pub(super) fn take(&mut self, packet: &Packet) {
        match packet.frame {
            Frame::Data { .. } => {
                self.mixed |= self.from.is_some_and(|from| packet.from != Some(from));
                self.from = self.from.or(packet.from);
            }
            Frame::InitialBytesSent { .. } => {}
            Frame::Discard { .. } => *self = Self::default(),
            Frame::End { .. } => self.ended = true,
        }
    }
}
