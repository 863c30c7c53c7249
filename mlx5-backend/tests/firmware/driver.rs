// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The least driver there can be: one command at a time, and every byte of it open to be spoilt.

use vfio_fsm_mlx5::bar::{self, Registers};
use vfio_fsm_mlx5::dma::{DmaBuffer, DmaSpace};
use vfio_fsm_mlx5::firmware::{Config, Firmware, Syndrome, VhcaHandle};
use vfio_fsm_mlx5::layout::*;

pub(crate) const VHCA: u16 = 0x1234;
const SLOT: u32 = 3;
const STRIDE: usize = 1024;
const MAX_BLOCKS: usize = 128;

/// How a command failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    NoAnswer,
    Delivery(DeliveryStatus),
    Status(CommandStatus, u32),
    /// The answer has another token, or a bad signature.
    Answer,
}

impl From<Syndrome> for Failure {
    fn from(syndrome: Syndrome) -> Self {
        Self::Status(syndrome.status(), syndrome.number())
    }
}

/// A command as it lies in memory, before the doorbell.
pub(crate) struct Raw {
    pub(crate) entry: CmdQueueEntry,
    pub(crate) input: Vec<CmdIfBox>,
    pub(crate) output: Vec<CmdIfBox>,
}

impl Raw {
    pub(crate) fn sign(&mut self) {
        self.entry.set_signature(0);
        let sum = !xor(self.entry.as_bytes());
        self.entry.set_signature(sum);
        for block in &mut self.input {
            block.set_ctrl_signature(0).set_signature(0);
            let sum = !xor(&block.as_bytes()[512..575]);
            block.set_ctrl_signature(sum);
            let sum = !xor(block.as_bytes());
            block.set_signature(sum);
        }
    }
}

pub(crate) fn xor(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum ^ byte)
}

pub(crate) struct Driver {
    pub(crate) firmware: Firmware,
    pub(crate) space: DmaSpace,
    pub(crate) queue: DmaBuffer,
    pub(crate) boxes: [DmaBuffer; 2],
    token: u8,
    tokens: bool,
}

impl Driver {
    pub(crate) fn new(config: Config) -> Self {
        let space = DmaSpace::new(256 << 20);
        let firmware = Firmware::new(config, space.clone()).unwrap();
        Self::on(firmware, space)
    }

    pub(crate) fn on(firmware: Firmware, space: DmaSpace) -> Self {
        let queue = space.allocate(4096).unwrap();
        let boxes = [(); 2].map(|()| space.allocate(MAX_BLOCKS * STRIDE).unwrap());
        firmware.write32(bar::CMDQ_ADDRESS_HIGH, (queue.iova() >> 32) as u32);
        firmware.write32(bar::CMDQ_ADDRESS_LOW, queue.iova() as u32);
        Self { firmware, space, queue, boxes, token: 0, tokens: true }
    }

    /// As rdma-core's driver: no tokens.
    pub(crate) fn without_tokens(mut self) -> Self {
        self.tokens = false;
        self
    }

    pub(crate) fn vhca(&self) -> VhcaHandle {
        self.firmware.vhca(VHCA).unwrap()
    }

    pub(crate) fn raw(&mut self, input: &[u8], output_len: usize) -> Raw {
        self.token = if self.tokens { self.token.wrapping_add(1).max(1) } else { 0 };
        let mut entry = CmdQueueEntry::zeroed();
        let inline = input.len().min(16);
        entry.command_input_inline_data_mut()[..inline].copy_from_slice(&input[..inline]);
        entry.set_type(7).set_input_length(input.len() as u32).set_token(self.token);
        entry.set_output_length(output_len as u32).set_ownership(true);
        let [ins, outs] = [0, 1].map(|n| self.boxes[n].iova());
        let rest = &input[inline..];
        if !rest.is_empty() {
            entry.set_input_mailbox_pointer_63_32((ins >> 32) as u32);
            entry.set_input_mailbox_pointer_31_9(ins as u32 >> 9);
        }
        if output_len > 16 {
            entry.set_output_mailbox_pointer_63_32((outs >> 32) as u32);
            entry.set_output_mailbox_pointer_31_9(outs as u32 >> 9);
        }
        let input = self.chain(ins, rest.len(), rest);
        let output = self.chain(outs, output_len.saturating_sub(16), &[]);
        let mut raw = Raw { entry, input, output };
        raw.sign();
        raw
    }

    fn chain(&self, iova: u64, len: usize, data: &[u8]) -> Vec<CmdIfBox> {
        let count = len.div_ceil(512);
        assert!(count <= MAX_BLOCKS);
        let mut data = data.chunks(512);
        (0..count)
            .map(|n| {
                let mut block = CmdIfBox::zeroed();
                let data = data.next().unwrap_or_default();
                block.mailbox_data_mut()[..data.len()].copy_from_slice(data);
                block.set_block_number(n as u32).set_token(self.token);
                if n + 1 < count {
                    let next = iova + ((n + 1) * STRIDE) as u64;
                    block.set_next_pointer_63_32((next >> 32) as u32);
                    block.set_next_pointer_31_10(next as u32 >> 10);
                }
                block
            })
            .collect()
    }

    pub(crate) fn post(&self, raw: &Raw) {
        self.post_at(raw, SLOT);
    }

    pub(crate) fn post_at(&self, raw: &Raw, slot: u32) {
        for (n, block) in raw.input.iter().enumerate() {
            self.boxes[0].write(n * STRIDE, block.as_bytes()).unwrap();
        }
        for (n, block) in raw.output.iter().enumerate() {
            self.boxes[1].write(n * STRIDE, block.as_bytes()).unwrap();
        }
        self.queue.write(slot as usize * 64, raw.entry.as_bytes()).unwrap();
        self.firmware.write32(bar::COMMAND_DOORBELL, 1 << slot);
    }

    pub(crate) fn is_done(&self, slot: u32) -> bool {
        self.queue.load(slot as usize * 64 + 63).unwrap() & 1 == 0
    }

    pub(crate) fn answer(&self, output_len: usize) -> Result<Vec<u8>, Failure> {
        if !self.is_done(SLOT) {
            return Err(Failure::NoAnswer);
        }
        let mut entry = CmdQueueEntry::zeroed();
        self.queue.read(SLOT as usize * 64, entry.as_bytes_mut()).unwrap();
        if entry.status() != DeliveryStatus::Ok {
            return Err(Failure::Delivery(entry.status()));
        }
        let mut output = entry.command_output_inline_data()[..output_len.min(16)].to_vec();
        let mut good = entry.token() == self.token && xor(entry.as_bytes()) == 0xff;
        for n in 0..output_len.saturating_sub(16).div_ceil(512) {
            let mut block = CmdIfBox::zeroed();
            self.boxes[1].read(n * STRIDE, block.as_bytes_mut()).unwrap();
            good &= block.token() == self.token && xor(block.as_bytes()) == 0xff;
            let count = (output_len - output.len()).min(512);
            output.extend_from_slice(&block.mailbox_data()[..count]);
        }
        let header = CommandOut::new(&output[..]).unwrap();
        match header.status() {
            _ if !good => Err(Failure::Answer),
            CommandStatus::Ok => Ok(output),
            status => Err(Failure::Status(status, header.syndrome())),
        }
    }

    pub(crate) fn exec(&mut self, input: &[u8], output_len: usize) -> Result<Vec<u8>, Failure> {
        let raw = self.raw(input, output_len);
        self.post(&raw);
        self.answer(output_len)
    }

    /// A command that has no answer but a status.
    pub(crate) fn plain(&mut self, input: &[u8]) -> Result<(), Failure> {
        self.exec(input, 16).map(|_| ())
    }

    pub(crate) fn suspend(&mut self, side: SuspendOpMod) -> Result<(), Failure> {
        let mut input = SuspendVhcaIn::command();
        self.plain(input.set_op_mod(side).set_vhca_id(VHCA).as_bytes())
    }

    pub(crate) fn resume(&mut self, side: ResumeOpMod) -> Result<(), Failure> {
        let mut input = ResumeVhcaIn::command();
        self.plain(input.set_op_mod(side).set_vhca_id(VHCA).as_bytes())
    }

    pub(crate) fn stop(&mut self) {
        self.suspend(SuspendOpMod::Initiator).unwrap();
        self.suspend(SuspendOpMod::Responder).unwrap();
    }

    pub(crate) fn run(&mut self) -> Result<(), Failure> {
        self.resume(ResumeOpMod::Responder)?;
        self.resume(ResumeOpMod::Initiator)
    }

    pub(crate) fn query(&mut self, incremental: bool, chunk: bool) -> Result<(u32, u64), Failure> {
        let mut input = QueryVhcaMigrationStateIn::command();
        input.set_incremental(incremental).set_chunk(chunk).set_vhca_id(VHCA);
        let out = self.exec(input.as_bytes(), 64)?;
        let out = QueryVhcaMigrationStateOut::new(&out[..]).unwrap();
        Ok((out.required_umem_size(), out.remaining_total_size()))
    }

    pub(crate) fn migration_state(&mut self) -> MigrationState {
        let mut input = QueryVhcaMigrationStateIn::command();
        let out = self.exec(input.set_vhca_id(VHCA).as_bytes(), 64).unwrap();
        QueryVhcaMigrationStateOut::new(&out[..]).unwrap().migration_state()
    }

    pub(crate) fn alloc_pd(&mut self) -> u32 {
        let out = self.exec(AllocPdIn::command().as_bytes(), 16).unwrap();
        AllocPdOut::new(&out[..]).unwrap().pd()
    }

    pub(crate) fn alloc_uar(&mut self) -> u32 {
        let out = self.exec(AllocUarIn::command().as_bytes(), 16).unwrap();
        AllocUarOut::new(&out[..]).unwrap().uar()
    }

    /// A memory key over a new buffer, as the kernel's driver makes one.
    pub(crate) fn buffer(&mut self, bytes: usize) -> Buffer {
        let pd = self.alloc_pd();
        let memory = self.space.allocate(bytes).unwrap();
        let input = mkey_command(pd, &memory);
        let out = self.exec(&input, 16).unwrap();
        let index = CreateMkeyOut::new(&out[..]).unwrap().mkey_index();
        Buffer { pd, index, memory }
    }

    pub(crate) fn destroy(&mut self, buffer: Buffer) {
        self.plain(DestroyMkeyIn::command().set_mkey_index(buffer.index).as_bytes()).unwrap();
        self.plain(DeallocPdIn::command().set_pd(buffer.pd).as_bytes()).unwrap();
    }

    /// The image, and how large a buffer the next one needs.
    pub(crate) fn save(
        &mut self,
        incremental: bool,
        track: bool,
        buffer: &Buffer,
    ) -> Result<(Vec<u8>, u32), Failure> {
        let input = save_command(incremental, track, buffer.key(), buffer.memory.len() as u32);
        let out = self.exec(&input, 16)?;
        let out = SaveVhcaStateOut::new(&out[..]).unwrap();
        let mut image = vec![0; out.actual_image_size() as usize];
        buffer.memory.read(0, &mut image).unwrap();
        Ok((image, out.next_required_umem_size()))
    }

    pub(crate) fn load(&mut self, image: &[u8], buffer: &Buffer) -> Result<(), Failure> {
        buffer.memory.write(0, image).unwrap();
        let mut input = LoadVhcaStateIn::command();
        input.set_vhca_id(VHCA).set_mkey(buffer.key()).set_size(image.len() as u32);
        self.plain(input.as_bytes())
    }

    /// A whole image of a VHCA that is stopped.
    pub(crate) fn full_image(&mut self) -> Vec<u8> {
        let (size, _) = self.query(false, false).unwrap();
        let buffer = self.buffer(size as usize);
        let (image, _) = self.save(false, false, &buffer).unwrap();
        self.destroy(buffer);
        image
    }
}

pub(crate) struct Buffer {
    pub(crate) pd: u32,
    pub(crate) index: u32,
    pub(crate) memory: DmaBuffer,
}

impl Buffer {
    pub(crate) fn key(&self) -> u32 {
        self.index << 8
    }
}

pub(crate) fn mkey_command(pd: u32, memory: &DmaBuffer) -> Vec<u8> {
    let pages = memory.len() / 4096;
    let mut bytes = vec![0; CreateMkeyIn::BYTES + pages.next_multiple_of(2) * 8];
    let octwords = pages.div_ceil(2) as u32;
    let mut input = CreateMkeyIn::new(&mut bytes[..]).unwrap();
    input.set_opcode(Opcode::CreateMkey).set_translations_octword_actual_size(octwords);
    let mut mkc = input.memory_key_mkey_entry_mut();
    mkc.set_access_mode(MkeyAccessMode::Mtt).set_lr(true).set_lw(true).set_rr(true).set_rw(true);
    mkc.set_qpn(0xff_ffff).set_pd(pd).set_len(memory.len() as u64).set_log_page_size(12);
    mkc.set_translations_octword_size(octwords);
    for (n, page) in input.klm_pas_mtt_mut().as_chunks_mut::<8>().0.iter_mut().enumerate() {
        if n < pages {
            *page = (memory.iova() + n as u64 * 4096).to_be_bytes();
        }
    }
    bytes
}

pub(crate) fn save_command(incremental: bool, track: bool, key: u32, size: u32) -> Vec<u8> {
    let mut input = SaveVhcaStateIn::command();
    input.set_incremental(incremental).set_set_track(track).set_vhca_id(VHCA);
    input.set_mkey(key).set_size(size);
    input.as_bytes().to_vec()
}
