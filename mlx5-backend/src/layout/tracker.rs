// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The page tracker, a general object, and the queues by which it reports.

use super::macros::structure;
use super::{CommandStatus, ObjectType, Opcode, PageTrackState, QpServiceType};

structure! {
    /// A completion queue.
    pub struct Cqc = "cqc", 64 {
        /// 0: it works.
        status: field(0, 4, u8);
        dbr_umem_valid: field(6, 1, bool);
        apu_cq: field(7, 1, bool);
        /// The size of an entry: 0 is 64 bytes.
        cqe_sz: field(8, 3, u8);
        cc: field(11, 1, bool);
        scqe_break_moderation_en: field(13, 1, bool);
        /// Entries that were not read may be overwritten.
        oi: field(14, 1, bool);
        cq_period_mode: field(15, 2, u8);
        cqe_comp_en: field(17, 1, bool);
        mini_cqe_res_format: field(18, 2, u8);
        /// 9: armed, 10: fired.
        st: field(20, 4, u8);
        cqe_compression_layout: field(30, 2, u8);
        /// Where in the first page it begins, in units of 64 bytes.
        page_offset: field(84, 6, u8);
        /// How many entries, as a logarithm.
        log_cq_size: field(99, 5, u8);
        /// The page of doorbells that arms it.
        uar_page: field(104, 24, u32);
        cq_period: field(132, 12, u16);
        cq_max_count: field(144, 16, u16);
        /// The event queue that says when something is in it.
        c_eqn_or_apu_element: field(160, 32, u32);
        /// The logarithm of the page size, less 12.
        log_page_size: field(195, 5, u8);
        last_notified_index: field(264, 24, u32);
        last_solicit_index: field(296, 24, u32);
        /// How far it was read.
        consumer_counter: field(328, 24, u32);
        /// How far it was written.
        producer_counter: field(360, 24, u32);
        /// Where its doorbell record is.
        dbr_addr: field(448, 64, u64);
    }

    /// Makes a completion queue.
    pub struct CreateCqIn = "create_cq_in", 272, opcode CreateCq {
        /// [`Opcode::CreateCq`].
        opcode: field(0, 16, Opcode);
        /// Who issues the command.
        uid: field(16, 16, u16);
        /// 0.
        op_mod: field(48, 16, u16);
        /// The queue.
        cq_context: view(128, Cqc);
        /// The pages are those of a registered user memory.
        cq_umem_valid: field(736, 1, bool);
        /// The addresses of its pages.
        pas: tail(64);
    }

    /// The answer to `CREATE_CQ`.
    pub struct CreateCqOut = "create_cq_out", 16 {
        /// Whether it was carried out.
        status: field(0, 8, CommandStatus);
        /// If it was not, why.
        syndrome: field(32, 32, u32);
        /// The new queue's number.
        cqn: field(72, 24, u32);
    }

    /// Destroys a completion queue.
    pub struct DestroyCqIn = "destroy_cq_in", 16, opcode DestroyCq {
        /// [`Opcode::DestroyCq`].
        opcode: field(0, 16, Opcode);
        /// Who issues the command.
        uid: field(16, 16, u16);
        /// 0.
        op_mod: field(48, 16, u16);
        /// Its number.
        cqn: field(72, 24, u32);
    }

    /// The answer to `DESTROY_CQ`.
    pub struct DestroyCqOut = "destroy_cq_out", 16 {
        /// Whether it was carried out.
        status: field(0, 8, CommandStatus);
        /// If it was not, why.
        syndrome: field(32, 32, u32);
    }

    /// A way to another queue pair.
    pub struct Ads = "ads", 44 {
        fl: field(0, 1, bool);
        free_ar: field(1, 1, bool);
        pkey_index: field(16, 16, u16);
        plane_index: field(32, 8, u8);
        grh: field(40, 1, bool);
        mlid: field(41, 7, u8);
        rlid: field(48, 16, u16);
        ack_timeout: field(64, 5, u8);
        src_addr_index: field(72, 8, u8);
        stat_rate: field(84, 4, u8);
        hop_limit: field(88, 8, u8);
        tclass: field(100, 8, u8);
        flow_label: field(108, 20, u32);
        rgid_rip: bytes(128, 16);
        f_dscp: field(260, 1, bool);
        f_ecn: field(261, 1, bool);
        f_eth_prio: field(263, 1, bool);
        ecn: field(264, 2, u8);
        dscp: field(266, 6, u8);
        udp_sport: field(272, 16, u16);
        dei_cfi: field(288, 1, bool);
        eth_prio: field(289, 3, u8);
        sl: field(292, 4, u8);
        vhca_port_num: field(296, 8, u8);
        rmac_47_32: field(304, 16, u16);
        rmac_31_0: field(320, 32, u32);
    }

    /// A queue pair.
    pub struct Qpc = "qpc", 232 {
        state: field(0, 4, u8);
        lag_tx_port_affinity: field(4, 4, u8);
        /// What kind of service it gives.
        st: field(8, 8, QpServiceType);
        isolate_vl_tc: field(18, 1, bool);
        /// 3: migrated, the only state without alternative paths.
        pm_state: field(19, 2, u8);
        req_e2e_credit_mode: field(22, 2, u8);
        offload_type: field(24, 4, u8);
        end_padding_mode: field(28, 2, u8);
        wq_signature: field(32, 1, bool);
        block_lb_mc: field(33, 1, bool);
        atomic_like_write_en: field(34, 1, bool);
        latency_sensitive: field(35, 1, bool);
        drain_sigerr: field(37, 1, bool);
        /// The protection domain.
        pd: field(40, 24, u32);
        /// In a code: 5 is 4096 bytes.
        mtu: field(64, 3, u8);
        /// The longest message, the logarithm of bytes.
        log_msg_max: field(67, 5, u8);
        /// How many receives it can hold, as a logarithm.
        log_rq_size: field(73, 4, u8);
        /// The size of one, the logarithm of units of 16 bytes.
        log_rq_stride: field(77, 3, u8);
        /// It does not send.
        no_sq: field(80, 1, bool);
        /// How many sends it can hold, as a logarithm.
        log_sq_size: field(81, 4, u8);
        retry_mode: field(86, 2, u8);
        ts_format: field(88, 2, u8);
        rlky: field(91, 1, bool);
        ulp_stateless_offload_mode: field(92, 4, u8);
        counter_set_id: field(96, 8, u8);
        /// The page of doorbells.
        uar_page: field(104, 24, u32);
        /// A number that comes back in each completion.
        user_index: field(136, 24, u32);
        /// The logarithm of the page size, less 12.
        log_page_size: field(163, 5, u8);
        /// The queue pair at the other end.
        remote_qpn: field(168, 24, u32);
        /// The way there.
        primary_address_path: view(192, Ads);
        /// Another way there.
        secondary_address_path: view(544, Ads);
        log_ack_req_freq: field(896, 4, u8);
        log_sra_max: field(904, 3, u8);
        retry_count: field(909, 3, u8);
        rnr_retry: field(912, 3, u8);
        fre: field(916, 1, bool);
        cur_rnr_retry: field(917, 3, u8);
        cur_retry_count: field(920, 3, u8);
        next_send_psn: field(968, 24, u32);
        log_num_dci_stream_channels: field(995, 5, u8);
        /// Where sends complete.
        cqn_snd: field(1000, 24, u32);
        log_num_dci_errored_streams: field(1027, 5, u8);
        deth_sqpn: field(1032, 24, u32);
        last_acked_psn: field(1096, 24, u32);
        ssn: field(1128, 24, u32);
        log_rra_max: field(1160, 3, u8);
        atomic_mode: field(1164, 4, u8);
        rre: field(1168, 1, bool);
        rwe: field(1169, 1, bool);
        rae: field(1170, 1, bool);
        page_offset: field(1172, 6, u8);
        cd_slave_receive: field(1181, 1, bool);
        cd_slave_send: field(1182, 1, bool);
        cd_master: field(1183, 1, bool);
        min_rnr_nak: field(1187, 5, u8);
        next_rcv_psn: field(1192, 24, u32);
        xrcd: field(1224, 24, u32);
        /// Where receives complete.
        cqn_rcv: field(1256, 24, u32);
        /// Where its doorbell record is.
        dbr_addr: field(1280, 64, u64);
        q_key: field(1344, 32, u32);
        rq_type: field(1381, 3, u8);
        srqn_rmpn_xrqn: field(1384, 24, u32);
        rmsn: field(1416, 24, u32);
        hw_sq_wqebb_counter: field(1440, 16, u16);
        sw_sq_wqebb_counter: field(1456, 16, u16);
        hw_rq_counter: field(1472, 32, u32);
        sw_rq_counter: field(1504, 32, u32);
        cgs: field(1583, 1, bool);
        cs_req: field(1584, 8, u8);
        cs_res: field(1592, 8, u8);
        dc_access_key: field(1600, 64, u64);
        dbr_umem_valid: field(1667, 1, bool);
    }

    /// Makes a queue pair.
    pub struct CreateQpIn = "create_qp_in", 272, opcode CreateQp {
        /// [`Opcode::CreateQp`].
        opcode: field(0, 16, Opcode);
        /// Who issues the command.
        uid: field(16, 16, u16);
        /// 0.
        op_mod: field(48, 16, u16);
        qpc_ext: field(64, 1, bool);
        /// The number it is to have, where that may be chosen.
        input_qpn: field(72, 24, u32);
        /// Which optional fields of the context count.
        opt_param_mask: field(128, 32, u32);
        /// Which extensions of the connection both sides have.
        ece: field(160, 32, u32);
        /// The queue pair.
        qpc: view(192, Qpc);
        wq_umem_offset: field(2048, 64, u64);
        wq_umem_id: field(2112, 32, u32);
        wq_umem_valid: field(2144, 1, bool);
        /// The addresses of its pages.
        pas: tail(64);
    }

    /// The answer to `CREATE_QP`.
    pub struct CreateQpOut = "create_qp_out", 16 {
        /// Whether it was carried out.
        status: field(0, 8, CommandStatus);
        /// If it was not, why.
        syndrome: field(32, 32, u32);
        /// The new queue pair's number.
        qpn: field(72, 24, u32);
        /// Which of the extensions that were asked for are there.
        ece: field(96, 32, u32);
    }

    /// Destroys a queue pair.
    pub struct DestroyQpIn = "destroy_qp_in", 16, opcode DestroyQp {
        /// [`Opcode::DestroyQp`].
        opcode: field(0, 16, Opcode);
        /// Who issues the command.
        uid: field(16, 16, u16);
        /// 0.
        op_mod: field(48, 16, u16);
        /// Its number.
        qpn: field(72, 24, u32);
    }

    /// The answer to `DESTROY_QP`.
    pub struct DestroyQpOut = "destroy_qp_out", 16 {
        /// Whether it was carried out.
        status: field(0, 8, CommandStatus);
        /// If it was not, why.
        syndrome: field(32, 32, u32);
    }

    /// Takes a queue pair from RESET to INIT.
    pub struct Rst2InitQpIn = "rst2init_qp_in", 272, opcode Rst2InitQp {
        /// [`Opcode::Rst2InitQp`].
        opcode: field(0, 16, Opcode);
        /// Who issues the command.
        uid: field(16, 16, u16);
        /// 0.
        op_mod: field(48, 16, u16);
        /// Its number.
        qpn: field(72, 24, u32);
        /// Which optional fields of the context count.
        opt_param_mask: field(128, 32, u32);
        /// Which extensions of the connection both sides have.
        ece: field(160, 32, u32);
        /// The queue pair.
        qpc: view(192, Qpc);
    }

    /// The answer to `RST2INIT_QP`.
    pub struct Rst2InitQpOut = "rst2init_qp_out", 16 {
        /// Whether it was carried out.
        status: field(0, 8, CommandStatus);
        /// If it was not, why.
        syndrome: field(32, 32, u32);
        /// Which of the extensions that were asked for are there.
        ece: field(96, 32, u32);
    }

    /// Takes a queue pair from INIT to RTR: ready to receive.
    pub struct Init2RtrQpIn = "init2rtr_qp_in", 272, opcode Init2RtrQp {
        /// [`Opcode::Init2RtrQp`].
        opcode: field(0, 16, Opcode);
        /// Who issues the command.
        uid: field(16, 16, u16);
        /// 0.
        op_mod: field(48, 16, u16);
        /// Its number.
        qpn: field(72, 24, u32);
        /// Which optional fields of the context count.
        opt_param_mask: field(128, 32, u32);
        /// Which extensions of the connection both sides have.
        ece: field(160, 32, u32);
        /// The queue pair.
        qpc: view(192, Qpc);
    }

    /// The answer to `INIT2RTR_QP`.
    pub struct Init2RtrQpOut = "init2rtr_qp_out", 16 {
        /// Whether it was carried out.
        status: field(0, 8, CommandStatus);
        /// If it was not, why.
        syndrome: field(32, 32, u32);
        /// Which of the extensions that were asked for are there.
        ece: field(96, 32, u32);
    }

    /// Takes a queue pair from RTR to RTS: ready to send.
    pub struct Rtr2RtsQpIn = "rtr2rts_qp_in", 272, opcode Rtr2RtsQp {
        /// [`Opcode::Rtr2RtsQp`].
        opcode: field(0, 16, Opcode);
        /// Who issues the command.
        uid: field(16, 16, u16);
        /// 0.
        op_mod: field(48, 16, u16);
        /// Its number.
        qpn: field(72, 24, u32);
        /// Which optional fields of the context count.
        opt_param_mask: field(128, 32, u32);
        /// Which extensions of the connection both sides have.
        ece: field(160, 32, u32);
        /// The queue pair.
        qpc: view(192, Qpc);
    }

    /// The answer to `RTR2RTS_QP`.
    pub struct Rtr2RtsQpOut = "rtr2rts_qp_out", 16 {
        /// Whether it was carried out.
        status: field(0, 8, CommandStatus);
        /// If it was not, why.
        syndrome: field(32, 32, u32);
        /// Which of the extensions that were asked for are there.
        ece: field(96, 32, u32);
    }

    /// How a general object is made.
    pub struct GeneralObjCreateParam = "general_obj_create_param", 4 {
        /// It stands for another function's.
        alias_object: field(0, 1, bool);
        /// How many are made at once, as a logarithm.
        log_obj_range: field(3, 5, u8);
    }

    /// The beginning of a general object's command, and all of one that reads or destroys it.
    pub struct GeneralObjInCmdHdr = "general_obj_in_cmd_hdr", 16 {
        /// One of the four commands for general objects.
        opcode: field(0, 16, Opcode);
        /// Who issues the command.
        uid: field(16, 16, u16);
        /// The function on whose behalf it is sent; 0: this one.
        vhca_tunnel_id: field(32, 16, u16);
        /// The type of object.
        obj_type: field(48, 16, ObjectType);
        /// Its number; 0 when it is made.
        obj_id: field(64, 32, u32);
        /// When it is made, how.
        op_param_create: view(96, GeneralObjCreateParam);
    }

    /// The beginning of the answer to a general object's command.
    pub struct GeneralObjOutCmdHdr = "general_obj_out_cmd_hdr", 16 {
        /// Whether it was carried out.
        status: field(0, 8, CommandStatus);
        /// If it was not, why.
        syndrome: field(32, 32, u32);
        /// The object's number.
        obj_id: field(64, 32, u32);
    }

    /// A range of addresses that are tracked.
    pub struct PageTrackRange = "page_track_range", 16 {
        /// Its first address.
        start_address: field(0, 64, u64);
        /// Its length in bytes.
        length: field(64, 64, u64);
    }

    /// A page tracker.
    pub struct PageTrack = "page_track", 48 {
        /// What a modification changes: 1 the state, 2 the range.
        modify_field_select: field(0, 64, u64);
        /// Whose pages are tracked.
        vhca_id: field(80, 16, u16);
        /// What it does.
        state: field(128, 4, PageTrackState);
        /// 1: full.
        track_type: field(132, 4, u8);
        /// What the ranges have in all, the logarithm of bytes.
        log_addr_space_size: field(136, 8, u8);
        /// The logarithm of the page size in bytes.
        log_page_size: field(147, 5, u8);
        /// The size of a message of reports, the logarithm of bytes.
        log_msg_size: field(155, 5, u8);
        /// The firmware's queue pair, by which it reports.
        reporting_qpn: field(168, 24, u32);
        /// How many ranges follow.
        num_ranges: field(216, 8, u8);
        /// With the state "reporting": the first address that is asked for.
        range_start_address: field(256, 64, u64);
        /// With the state "reporting": how many bytes are asked for.
        length: field(320, 64, u64);
        /// The ranges, each a [`PageTrackRange`].
        track_range: tail(128);
    }

    /// Makes a page tracker.
    pub struct CreatePageTrackObjIn = "create_page_track_obj_in", 64 {
        /// With [`Opcode::CreateGeneralObject`].
        general_obj_in_cmd_hdr: view(0, GeneralObjInCmdHdr);
        /// The tracker; its ranges follow the structure.
        obj_context: view(128, PageTrack);
    }

    /// Changes a page tracker.
    pub struct ModifyPageTrackObjIn = "modify_page_track_obj_in", 64 {
        /// With [`Opcode::ModifyGeneralObject`].
        general_obj_in_cmd_hdr: view(0, GeneralObjInCmdHdr);
        /// The tracker.
        obj_context: view(128, PageTrack);
    }

    /// What a page tracker is.
    pub struct QueryPageTrackObjOut = "query_page_track_obj_out", 64 {
        /// Whether it was read.
        general_obj_out_cmd_hdr: view(0, GeneralObjOutCmdHdr);
        /// The tracker.
        obj_context: view(128, PageTrack);
    }

    /// A page that was written.
    pub struct PageTrackReportEntry = "page_track_report_entry", 8 {
        /// Its address; the upper half.
        dirty_address_high: field(0, 32, u32);
        /// The lower half.
        dirty_address_low: field(32, 32, u32);
    }

    /// An entry of a completion queue, as far as the page tracker's receiver reads it.
    ///
    /// `mlx5_cqe64` in `linux/mlx5/device.h`.
    pub struct Cqe64 = "cqe64", 64 {
        /// The data that came with the message. From the page tracker: the upper four bits are its
        /// [`PageTrackState`].
        immediate: field(288, 32, u32);
        /// How many bytes came.
        byte_cnt: field(352, 32, u32);
        /// Which send queue's queue pair it was, with a byte of other things above it.
        sop_drop_qpn: field(416, 32, u32);
        /// Which receive they are in.
        wqe_counter: field(480, 16, u16);
        /// Of the entry.
        signature: field(496, 8, u8);
        /// What has completed: the upper four bits; the lowest one turns with each round.
        op_own: field(504, 8, u8);
    }

    /// Where a message goes that is received.
    ///
    /// `mlx5_wqe_data_seg` in `linux/mlx5/qp.h`.
    pub struct WqeDataSeg = "wqe_data_seg", 16 {
        /// How many bytes there is room for.
        byte_count: field(0, 32, u32);
        /// The memory key.
        lkey: field(32, 32, u32);
        /// The address.
        addr: field(64, 64, u64);
    }
}
