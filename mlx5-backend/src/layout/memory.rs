// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Protection domains and memory keys.
#![expect(clippy::len_without_is_empty, reason = "a memory key's `len` is a field like the others")]

use super::macros::structure;
use super::{CommandStatus, MkeyAccessMode, Opcode};

structure! {
    /// Makes a protection domain.
    pub struct AllocPdIn = "alloc_pd_in", 16, opcode AllocPd {
        /// [`Opcode::AllocPd`].
        opcode: field(0, 16, Opcode);
        /// Who issues the command.
        uid: field(16, 16, u16);
        /// 0.
        op_mod: field(48, 16, u16);
    }

    /// The answer to `ALLOC_PD`.
    pub struct AllocPdOut = "alloc_pd_out", 16 {
        /// Whether it was carried out.
        status: field(0, 8, CommandStatus);
        /// If it was not, why.
        syndrome: field(32, 32, u32);
        /// The new domain's number.
        pd: field(72, 24, u32);
    }

    /// Gives a protection domain back.
    pub struct DeallocPdIn = "dealloc_pd_in", 16, opcode DeallocPd {
        /// [`Opcode::DeallocPd`].
        opcode: field(0, 16, Opcode);
        /// Who issues the command.
        uid: field(16, 16, u16);
        /// 0.
        op_mod: field(48, 16, u16);
        /// The domain's number.
        pd: field(72, 24, u32);
    }

    /// The answer to `DEALLOC_PD`.
    pub struct DeallocPdOut = "dealloc_pd_out", 16 {
        /// Whether it was carried out.
        status: field(0, 8, CommandStatus);
        /// If it was not, why.
        syndrome: field(32, 32, u32);
    }

    /// A memory key: which memory, and who may do what with it.
    pub struct Mkc = "mkc", 64 {
        /// Not in use yet.
        free: field(1, 1, bool);
        /// The upper three bits of the [`MkeyAccessMode`].
        access_mode_4_2: field(3, 3, u8);
        /// Writes may overtake others.
        relaxed_ordering_write: field(13, 1, bool);
        /// An RDMA read's response is only fenced a little.
        small_fence_on_rdma_read_response: field(15, 1, bool);
        /// The key may be changed by a work request.
        umr_en: field(16, 1, bool);
        /// Remote atomics are allowed.
        a: field(17, 1, bool);
        /// Remote writes are allowed.
        rw: field(18, 1, bool);
        /// Remote reads are allowed.
        rr: field(19, 1, bool);
        /// Local writes are allowed.
        lw: field(20, 1, bool);
        /// Local reads are allowed.
        lr: field(21, 1, bool);
        /// The lower two bits of the [`MkeyAccessMode`].
        access_mode_1_0: field(22, 2, u8);
        /// How addresses of device memory are translated.
        ma_translation_mode: field(26, 2, u8);
        /// Which queue pair alone may use it; all ones: any.
        qpn: field(32, 24, u32);
        /// The low byte of the key.
        mkey_7_0: field(56, 8, u8);
        /// The length is 2^64; `len` is not read.
        length64: field(96, 1, bool);
        /// It has a descriptor of its own for signatures.
        bsf_en: field(97, 1, bool);
        /// Changes by work requests are in step with those that use it.
        sync_umr: field(98, 1, bool);
        /// How many signature errors are expected.
        expected_sigerr_count: field(101, 1, bool);
        /// A remote side may invalidate it.
        en_rinval: field(103, 1, bool);
        /// The protection domain.
        pd: field(104, 24, u32);
        /// The first address in the key's own address space.
        start_addr: field(128, 64, u64);
        /// How many bytes are behind it.
        len: field(192, 64, u64);
        /// How large the signature descriptor is, in units of 16 bytes.
        bsf_octword_size: field(256, 32, u32);
        /// With an access mode that crosses VHCAs, to which.
        crossing_target_vhca_id: field(384, 16, u16);
        /// How large the translation list is, in units of 16 bytes: two page addresses each.
        translations_octword_size: field(416, 32, u32);
        /// Reads may overtake others.
        relaxed_ordering_read: field(473, 1, bool);
        /// The logarithm of the page size in bytes: 12 for pages of 4 KiB, unlike in the contexts
        /// of queues, where it is relative to that.
        log_page_size: field(474, 6, u8);
    }

    /// Makes a memory key.
    pub struct CreateMkeyIn = "create_mkey_in", 272, opcode CreateMkey {
        /// [`Opcode::CreateMkey`].
        opcode: field(0, 16, Opcode);
        /// Who issues the command.
        uid: field(16, 16, u16);
        /// 0.
        op_mod: field(48, 16, u16);
        /// The lowest two bits of each page address say whether it may be read and written.
        pg_access: field(96, 1, bool);
        /// The pages are those of a registered user memory.
        mkey_umem_valid: field(97, 1, bool);
        /// The key is for a data-direct device.
        data_direct: field(98, 1, bool);
        /// The key itself.
        memory_key_mkey_entry: view(128, Mkc);
        /// How long the list at the end is, in units of 16 bytes.
        translations_octword_actual_size: field(768, 32, u32);
        /// The page addresses, padded to an even number of them.
        klm_pas_mtt: tail(64);
    }

    /// The answer to `CREATE_MKEY`.
    pub struct CreateMkeyOut = "create_mkey_out", 16 {
        /// Whether it was carried out.
        status: field(0, 8, CommandStatus);
        /// If it was not, why.
        syndrome: field(32, 32, u32);
        /// The upper 24 bits of the new key; the lower eight are those that were asked for.
        mkey_index: field(72, 24, u32);
    }

    /// Destroys a memory key.
    pub struct DestroyMkeyIn = "destroy_mkey_in", 16, opcode DestroyMkey {
        /// [`Opcode::DestroyMkey`].
        opcode: field(0, 16, Opcode);
        /// Who issues the command.
        uid: field(16, 16, u16);
        /// 0.
        op_mod: field(48, 16, u16);
        /// The upper 24 bits of the key, not the whole key.
        mkey_index: field(72, 24, u32);
    }

    /// The answer to `DESTROY_MKEY`.
    pub struct DestroyMkeyOut = "destroy_mkey_out", 16 {
        /// Whether it was carried out.
        status: field(0, 8, CommandStatus);
        /// If it was not, why.
        syndrome: field(32, 32, u32);
    }
}

impl<B: AsRef<[u8]>> Mkc<B> {
    /// How the key finds its memory, of both parts of the number.
    pub fn access_mode(&self) -> MkeyAccessMode {
        MkeyAccessMode::from(self.access_mode_4_2() << 2 | self.access_mode_1_0())
    }
}

impl<B: AsMut<[u8]>> Mkc<B> {
    /// Sets both parts of [`access_mode`](Self::access_mode).
    pub fn set_access_mode(&mut self, mode: MkeyAccessMode) -> &mut Self {
        let mode = u8::from(mode);
        self.set_access_mode_4_2(mode >> 2).set_access_mode_1_0(mode)
    }
}
