// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Saving and resuming sessions: what goes wrong in them, and chunks.

use std::sync::Arc;

use vfio_fsm_core::device::Device;
use vfio_fsm_core::{EndOfStream, Errno, Fd, Features, Op, PrecopyInfo, Reply, State};
use vfio_fsm_mlx5::layout::{CommandStatus, Opcode};
use vfio_fsm_mlx5::stream::{self, Event, Reader};
use vfio_fsm_mlx5::vhca::Vhca;

use crate::double::{Double, Fault};

const REFUSED: Fault = Fault::Status(CommandStatus::BadResState);
const MIB: usize = 1 << 20;

struct Scene {
    double: Arc<Double>,
    device: Device<Vhca<Double>, 8>,
}

impl Scene {
    fn new() -> Self {
        Self::with(&Double::new(false))
    }

    /// In chunk mode, with a state of this size cut into chunks of that.
    fn chunked(size: u32, chunk: u32) -> Self {
        let double = Double::new(true);
        (double.state().full, double.state().chunk) = (size, chunk);
        Self::with(&double)
    }

    fn with(double: &Arc<Double>) -> Self {
        let device = Device::new(Features::ALL, double.vhca());
        Self { double: double.clone(), device }
    }

    fn apply(&mut self, op: Op<&[u8]>) -> Reply<Vec<u8>> {
        let mut buf = vec![0; MIB];
        self.device.apply(op, &mut buf).map(<[u8]>::to_vec)
    }

    fn set(&mut self, to: State) -> Reply<Vec<u8>> {
        self.apply(Op::set(to))
    }

    fn open(&mut self, to: State) -> Fd {
        match self.set(to) {
            Reply::Fd(Some(fd)) => fd,
            other => panic!("{other:?}"),
        }
    }

    /// What there is to read, and how it ends.
    fn drain(&mut self, fd: Fd) -> (Vec<u8>, Reply<Vec<u8>>) {
        let mut stream = Vec::new();
        loop {
            match self.apply(Op::Read { fd, len: MIB as u32 }) {
                Reply::Bytes(bytes) => stream.extend(bytes),
                end => return (stream, end),
            }
        }
    }

    fn info(&mut self, fd: Fd) -> PrecopyInfo {
        match self.apply(Op::PrecopyInfo { fd }) {
            Reply::Info(info) => info,
            other => panic!("{other:?}"),
        }
    }

    fn write(&mut self, fd: Fd, bytes: &[u8]) -> Reply<Vec<u8>> {
        self.apply(Op::Write { fd, bytes })
    }

    fn names(&self) -> Vec<String> {
        std::mem::take(&mut self.double.state().log)
            .into_iter()
            .map(|sent| sent.opcode.to_string())
            .collect()
    }

    fn no_violation(&self) {
        assert_eq!(self.double.state().violations, [""; 0]);
    }
}

/// Lengths of the images in a stream.
fn images(stream: &[u8]) -> Vec<u32> {
    let (mut reader, mut input, mut images) = (Reader::default(), stream, Vec::new());
    while let Some(event) = reader.next(&mut input).unwrap() {
        if let Event::Image { bytes } = event {
            images.push(bytes);
        }
    }
    reader.finish().unwrap();
    images
}

const PERMANENT: Reply<Vec<u8>> = Reply::EndOfStream(EndOfStream::Permanent);
const TEMPORARY: Reply<Vec<u8>> = Reply::EndOfStream(EndOfStream::Temporary);

/// M63, R32: whatever status a pre-copy SAVE fails with, the session goes on; there is nothing to
/// read of it, PRECOPY_INFO asks the firmware for no changes any more, and the final image is whole.
#[test]
fn a_failed_pre_copy_save_makes_the_final_image_whole() {
    for fault in [REFUSED, Fault::Status(CommandStatus::InternalErr), Fault::Delivery] {
        for rounds in 0..2 {
            let mut scene = Scene::new();
            // Behind ALLOC_PD, QUERY and CREATE_MKEY twice; a round is QUERY and SAVE.
            scene.double.fail(if rounds == 0 { 4 } else { 6 - 1 }, fault);
            let fd = scene.open(State::PreCopy);
            let (mut stream, end) = scene.drain(fd);
            assert_eq!(end, TEMPORARY);
            if rounds == 1 {
                // This QUERY fails, and nothing comes of it; the next finds the session as it was.
                assert!(matches!(scene.apply(Op::PrecopyInfo { fd }), Reply::Errno(_)));
                scene.double.fail(1, fault);
                assert_eq!(scene.info(fd).dirty_bytes, 5_000);
                let (more, end) = scene.drain(fd);
                assert_eq!((more.len(), end), (0, TEMPORARY));
            }
            scene.names();
            assert_eq!(scene.info(fd), PrecopyInfo::default());
            assert_eq!(scene.names(), [""; 0]);
            assert_eq!(scene.set(State::StopCopy), Reply::Fd(None));
            let (last, end) = scene.drain(fd);
            assert_eq!(end, PERMANENT);
            stream.extend(last);
            assert_eq!(images(&stream).last(), Some(&9_999), "a whole one");
            scene.no_violation();
        }
    }
}

/// M62: when the clean-up SAVE fails, the device is still in PRE_COPY *with its session*: what was
/// saved can be read on, and leaving can be tried again.
#[test]
fn a_failed_clean_up_keeps_the_session() {
    let mut scene = Scene::new();
    let fd = scene.open(State::PreCopy);
    scene.info(fd);
    scene.double.fail(2, REFUSED); // behind QUERY and CREATE_MKEY
    assert_eq!(scene.set(State::Running), Reply::Errno(Errno::EINVAL));
    assert_eq!(scene.apply(Op::GetState), Reply::State(State::PreCopy.into()));
    let (stream, end) = scene.drain(fd);
    assert_eq!((images(&stream), end), (vec![9_999], TEMPORARY));
    assert_eq!(scene.set(State::Running), Reply::Fd(None));
    assert_eq!(scene.apply(Op::Read { fd, len: 1 }), Reply::Errno(Errno::ENODEV));
    scene.no_violation();
}

/// M63, R31: a final SAVE that fails is an error of the read, never an end of the stream; the device
/// can be stopped and run on.
#[test]
fn a_failed_final_save_is_no_end_of_the_stream() {
    let mut scene = Scene::new();
    scene.double.fail(2 + 3, Fault::Status(CommandStatus::InternalErr));
    let fd = scene.open(State::StopCopy);
    for _ in 0..2 {
        let end = scene.drain(fd).1;
        assert_eq!(end, Reply::Errno(Errno::EIO));
    }
    assert!(matches!(
        scene.device.actions().last_error(),
        Some(error) if error.to_string().contains("SAVE_VHCA_STATE")
    ));
    assert_eq!(scene.set(State::Running), Reply::Fd(None));
    scene.no_violation();
}

/// M64, R35, R36: initial_bytes are the record of the stop-copy size, a header and the first image,
/// also when asked in PRE_COPY_P2P at once; they fall to 0 by reading, and only then is there a
/// dirty byte, and only then are changes saved.
#[test]
fn precopy_info_counts_as_the_kernels_driver_does() {
    for state in [State::PreCopy, State::PreCopyP2p] {
        let mut scene = Scene::new();
        let fd = scene.open(state);
        let all = 24 + 16 + 9_999;
        assert_eq!(scene.info(fd), PrecopyInfo { initial_bytes: all, ..Default::default() });
        scene.apply(Op::Read { fd, len: 39 });
        assert_eq!(scene.info(fd), PrecopyInfo { initial_bytes: all - 39, ..Default::default() });
        scene.names();
        scene.drain(fd);
        let changed = if state == State::PreCopy { 5_000 } else { 0 };
        assert_eq!(scene.info(fd), PrecopyInfo { dirty_bytes: changed, ..Default::default() });
        let sent = ["QUERY_VHCA_MIGRATION_STATE", "SAVE_VHCA_STATE"];
        assert_eq!(scene.names(), sent[..if changed > 0 { 2 } else { 0 }]);
        scene.no_violation();
    }
}

/// M65, R29: RESUMING is not left with a record cut anywhere, nor with no image: the SET fails, no
/// RESUME is sent, and with the rest written it succeeds.
#[test]
fn a_truncated_stream_is_refused() {
    let mut whole = stream::stop_copy_size(4096).to_vec();
    whole.extend(stream::fw_data(9));
    whole.extend(b"the image");
    for cut in 0..whole.len() {
        let mut scene = Scene::new();
        let fd = scene.open(State::Resuming);
        if cut > 0 {
            assert_eq!(scene.write(fd, &whole[..cut]), Reply::Written(cut as u32));
        }
        scene.names();
        let errno = if matches!(cut, 0 | 24) { Errno::EINVAL } else { Errno::EPROTO };
        assert_eq!(scene.set(State::Running), Reply::Errno(errno), "cut at {cut}");
        assert_eq!(scene.apply(Op::GetState), Reply::State(State::Resuming.into()));
        assert_eq!(scene.names(), [""; 0]);
        assert!(matches!(scene.write(fd, &whole[cut..]), Reply::Written(_)));
        assert_eq!(scene.set(State::Running), Reply::Fd(None));
        assert_eq!(scene.double.state().loaded, [b"the image"]);
        scene.no_violation();
    }
}

/// M66: what a stream claims of itself takes no more memory than 8 MiB before the bytes are there,
/// and twice what is there afterwards.
#[test]
fn a_hostile_stream_gets_no_memory() {
    let mut scene = Scene::new();
    let fd = scene.open(State::Resuming);
    let mut bytes = stream::stop_copy_size(u64::MAX).to_vec();
    // An unknown, optional record of 4 GiB - 1: skipped as it comes.
    bytes.extend(u32::MAX.to_le_bytes());
    bytes.extend([0, 0, 0, 0, 1, 0, 0, 0, 0x77, 0, 0, 0]);
    bytes.extend(vec![0; MIB]);
    assert!(matches!(scene.write(fd, &bytes), Reply::Written(_)));
    assert_eq!(scene.double.dma_used(), 0);

    let mut scene = Scene::new();
    let fd = scene.open(State::Resuming);
    let mut bytes = stream::stop_copy_size(u64::MAX).to_vec();
    bytes.extend(stream::fw_data(u32::MAX));
    assert!(matches!(scene.write(fd, &bytes), Reply::Written(_)));
    let part = vec![7; MIB];
    for written in 1..=20 {
        assert!(matches!(scene.write(fd, &part), Reply::Written(_)));
        let most = (2 * written * MIB).max(8 * MIB) as u64;
        assert!(scene.double.dma_used() <= most, "{written} MiB");
    }
    assert_eq!(scene.double.state().mkeys.len(), 0, "no key before the image is there");
}

/// M66: an image that outgrows its buffer is loaded whole, and so is a later one in the same buffer.
#[test]
fn an_image_larger_than_what_is_taken_on_trust_is_loaded() {
    let mut scene = Scene::new();
    let fd = scene.open(State::Resuming);
    let image: Vec<u8> = (0..20 * MIB + 5).map(|i| (i / 977) as u8).collect();
    for image in [&image[..100], &image, &image[..3 * MIB]] {
        let header = stream::fw_data(image.len() as u32);
        assert!(matches!(scene.write(fd, &header), Reply::Written(16)));
        for part in image.chunks(3 * MIB + 1) {
            assert!(matches!(scene.write(fd, part), Reply::Written(_)));
        }
        assert!(scene.double.state().loaded.last().unwrap() == image);
    }
    assert_eq!(scene.set(State::Running), Reply::Fd(None));
    assert_eq!(scene.double.dma_used(), 0);
    scene.no_violation();
}

/// M65: a LOAD that fails is an error of the write that completed the image, for good.
#[test]
fn a_failed_load_is_for_good() {
    let mut scene = Scene::new();
    let fd = scene.open(State::Resuming);
    scene.double.fail(1, Fault::Status(CommandStatus::BadParam));
    let mut bytes = stream::fw_data(1).to_vec();
    bytes.push(1);
    assert_eq!(scene.write(fd, &bytes), Reply::Errno(Errno::EINVAL));
    assert_eq!(scene.write(fd, &bytes), Reply::Errno(Errno::ENODEV));
    assert_eq!(scene.set(State::Stop), Reply::Errno(Errno::ENODEV));
    assert_eq!(scene.apply(Op::Reset), Reply::Ok);
    assert_eq!(scene.set(State::Stop), Reply::Fd(None));
    assert_eq!(scene.double.dma_used(), 0);
}

/// M68: in chunk mode there are two buffers, one is saved to while the other is read, never two at a
/// time, every SAVE after the first is incremental, and the last ends the stream.
#[test]
fn chunks_alternate_between_two_buffers() {
    for (size, chunk) in [(40_000, 8_000), (8_000, 8_000), (16_000, 8_000), (20_001, 4_096)] {
        for pre_copy in [false, true] {
            let mut scene = Scene::chunked(size, chunk);
            scene.double.state().changed = size;
            if pre_copy {
                let fd = scene.open(State::PreCopy);
                scene.double.state().chunk = 0;
                scene.drain(fd);
                scene.double.state().chunk = chunk;
            }
            let Reply::Fd(_) = scene.set(State::StopCopy) else { panic!() };
            let fd = scene.device.fds().last().unwrap();
            assert_eq!(scene.double.state().mkeys.len(), if pre_copy { 3 } else { 2 });
            let (stream, end) = scene.drain(fd);
            assert_eq!(end, PERMANENT);
            let lengths = images(&stream);
            assert_eq!(lengths.iter().sum::<u32>(), size, "{lengths:?}");
            assert_eq!(lengths.len() as u32, size.div_ceil(chunk));
            let saves: Vec<_> = scene
                .double
                .state()
                .log
                .iter()
                .filter(|sent| sent.opcode == Opcode::SaveVhcaState)
                .map(|sent| sent.input[8] & 0x80 != 0)
                .collect();
            let queries = |chunk: bool| {
                let state = scene.double.state();
                let queries = state.log.iter().filter(|sent| {
                    sent.opcode == Opcode::QueryVhcaMigrationState
                        && (sent.input[8] & 0x40 != 0) == chunk
                });
                queries.count()
            };
            assert_eq!((queries(true), queries(false)), (if pre_copy { 2 } else { 1 }, 0));
            let last = &saves[saves.len() - lengths.len()..];
            assert_eq!(last[0], pre_copy);
            assert!(last[1..].iter().all(|incremental| *incremental), "{saves:?}");
            assert_eq!(scene.set(State::Stop), Reply::Fd(None));
            assert_eq!(scene.double.dma_used(), 0);
            scene.no_violation();
        }
    }
}

/// M68: while a chunk is read, the next one's SAVE is on its way, and no third before one is free.
#[test]
fn a_chunk_is_saved_while_another_is_read() {
    let mut scene = Scene::chunked(40_000, 8_000);
    let fd = scene.open(State::StopCopy);
    let saves = |scene: &Scene| {
        let state = scene.double.state();
        state.log.iter().filter(|sent| sent.opcode == Opcode::SaveVhcaState).count()
    };
    assert_eq!(saves(&scene), 1);
    // The record of the stop-copy size, and the first byte of the first chunk's header.
    scene.apply(Op::Read { fd, len: 25 });
    assert_eq!(saves(&scene), 2, "the second begins when the first is there");
    scene.apply(Op::Read { fd, len: 7_000 });
    assert_eq!(saves(&scene), 2, "both buffers are full");
    scene.apply(Op::Read { fd, len: 2_000 });
    assert_eq!(saves(&scene), 3, "one has been read");
}

/// M69: an image that the firmware says is longer than its buffer is never read past the buffer.
#[test]
fn an_image_longer_than_its_buffer_is_refused() {
    let mut scene = Scene::new();
    let fd = scene.open(State::StopCopy);
    scene.double.state().full = 1 << 20;
    assert_eq!(scene.drain(fd).1, Reply::Errno(Errno::EIO));
}

/// M61: a SAVE without an answer leaves no session to trust: reads fail, and the next arc ends in
/// ERROR, from where a reset leads back.
#[test]
fn a_save_without_an_answer_ends_in_error() {
    for to in [State::PreCopyP2p, State::StopCopy, State::Running] {
        let mut scene = Scene::new();
        scene.double.fail(4, Fault::Timeout);
        let fd = scene.open(State::PreCopy);
        assert_eq!(scene.drain(fd).1, Reply::Errno(Errno(110)));
        assert_eq!(scene.set(to), Reply::Errno(Errno(110)));
        assert_eq!(scene.apply(Op::GetState), Reply::State(State::Error.into()));
        assert_eq!(scene.apply(Op::Reset), Reply::Ok);
        assert_eq!(scene.apply(Op::GetState), Reply::State(State::Running.into()));
        assert_eq!(scene.double.dma_used(), 0);
    }
}

/// R39: the size of the data is asked of the firmware in every state, and in chunk mode it is all
/// that remains and not the next chunk.
#[test]
fn the_data_size_is_what_the_firmware_says() {
    let mut scene = Scene::new();
    assert_eq!(scene.apply(Op::DataSize), Reply::Size(10_000));
    scene.open(State::PreCopy);
    assert_eq!(scene.apply(Op::DataSize), Reply::Size(10_000));
    let mut scene = Scene::chunked(40_000, 8_000);
    assert_eq!(scene.apply(Op::DataSize), Reply::Size(40_000));
}

/// M64: the buffer for STOP_COPY is a tenth larger than the state while the device runs on, and of
/// the state's size when it does not; the stream's first record says which it is.
#[test]
fn a_tenth_is_kept_in_reserve_while_the_device_runs() {
    for (to, pages) in [(State::PreCopy, 4), (State::StopCopy, 3)] {
        let mut scene = Scene::new();
        scene.double.state().full = 12_000;
        let fd = scene.open(to);
        let (stream, _end) = scene.drain(fd);
        assert_eq!(stream[..24], stream::stop_copy_size(pages * 4096));
    }
}
