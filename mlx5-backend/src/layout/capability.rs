// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Capabilities: what a function can do, and what of it is in use.
//!
//! Fields without a word to them are named as NVIDIA names them; nothing here reads them.

use super::macros::structure;
use super::{CapMode, CapType, CommandStatus, Opcode};

structure! {
    /// Asks for one kind of capabilities. See [`ask`](QueryHcaCapIn::ask).
    pub struct QueryHcaCapIn = "query_hca_cap_in", 16, opcode QueryHcaCap {
        /// [`Opcode::QueryHcaCap`].
        opcode: field(0, 16, Opcode);
        /// The kind of capabilities twice, plus 1 for the current ones.
        op_mod: field(48, 16, u16);
        /// The function is not the one that is asked.
        other_function: field(64, 1, bool);
        /// The function is a virtual one of an embedded CPU.
        ec_vf_function: field(65, 1, bool);
        /// Of which function: 0 is the one that is asked, n + 1 its virtual function n.
        function_id: field(80, 16, u16);
    }

    /// The answer to `QUERY_HCA_CAP`.
    pub struct QueryHcaCapOut = "query_hca_cap_out", 4112 {
        /// Whether it was carried out.
        status: field(0, 8, CommandStatus);
        /// If it was not, why.
        syndrome: field(32, 32, u32);
        /// The capabilities, of the kind that was asked for.
        capability: view(128, HcaCapUnion);
    }

    /// Sets the current capabilities of one kind, for as long as the function is up.
    pub struct SetHcaCapIn = "set_hca_cap_in", 4112, opcode SetHcaCap {
        /// [`Opcode::SetHcaCap`].
        opcode: field(0, 16, Opcode);
        /// The kind of capabilities twice.
        op_mod: field(48, 16, u16);
        /// The function is not the one that is asked.
        other_function: field(64, 1, bool);
        /// The function is a virtual one of an embedded CPU.
        ec_vf_function: field(65, 1, bool);
        /// Of which function: 0 is the one that is asked, n + 1 its virtual function n.
        function_id: field(80, 16, u16);
        /// The capabilities, all of the kind.
        capability: view(128, HcaCapUnion);
    }

    /// The answer to `SET_HCA_CAP`.
    pub struct SetHcaCapOut = "set_hca_cap_out", 16 {
        /// Whether it was carried out.
        status: field(0, 8, CommandStatus);
        /// If it was not, why.
        syndrome: field(32, 32, u32);
    }

    /// Capabilities of any kind; which one is said by the command.
    pub struct HcaCapUnion = "hca_cap_union", 4096 {}

    /// Capabilities of the kind [`CapType::General`].
    pub struct CmdHcaCap = "cmd_hca_cap", 256 {
        page_request_disable: field(6, 1, bool);
        shared_object_to_user_object_allowed: field(16, 1, bool);
        /// It manages the resources of other functions.
        vhca_resource_manager: field(31, 1, bool);
        /// There are capabilities of the kind [`CapType::General2`].
        hca_cap_2: field(32, 1, bool);
        create_lag_when_not_master_up: field(33, 1, bool);
        dtor: field(34, 1, bool);
        event_on_vhca_state_teardown_request: field(35, 1, bool);
        event_on_vhca_state_in_use: field(36, 1, bool);
        event_on_vhca_state_active: field(37, 1, bool);
        event_on_vhca_state_allocated: field(38, 1, bool);
        event_on_vhca_state_invalid: field(39, 1, bool);
        /// The number by which migration commands name the function.
        vhca_id: field(48, 16, u16);
        log_max_srq_sz: field(128, 8, u8);
        log_max_qp_sz: field(136, 8, u8);
        event_cap: field(144, 1, bool);
        isolate_vl_tc_new: field(147, 1, bool);
        prio_tag_required: field(152, 1, bool);
        log_max_qp: field(155, 5, u8);
        ece_support: field(163, 1, bool);
        reg_c_preserve: field(169, 1, bool);
        log_max_srq: field(171, 5, u8);
        uplink_follow: field(177, 1, bool);
        ts_cqe_to_dest_cqn: field(178, 1, bool);
        go_back_n: field(185, 1, bool);
        max_sgl_for_optimized_performance: field(192, 8, u8);
        log_max_cq_sz: field(200, 8, u8);
        relaxed_ordering_write_umr: field(208, 1, bool);
        relaxed_ordering_read_umr: field(209, 1, bool);
        virtio_net_device_emualtion_manager: field(217, 1, bool);
        virtio_blk_device_emualtion_manager: field(218, 1, bool);
        log_max_cq: field(219, 5, u8);
        log_max_eq_sz: field(224, 8, u8);
        relaxed_ordering_write: field(232, 1, bool);
        relaxed_ordering_read_pci_enabled: field(233, 1, bool);
        log_max_mkey: field(234, 6, u8);
        terminate_scatter_list_mkey: field(246, 1, bool);
        repeated_mkey: field(247, 1, bool);
        dump_fill_mkey: field(248, 1, bool);
        /// [`TeardownProfile::FastTeardown`](super::TeardownProfile) is there.
        fast_teardown: field(251, 1, bool);
        log_max_eq: field(252, 4, u8);
        max_indirection: field(256, 8, u8);
        fixed_buffer_size: field(264, 1, bool);
        log_max_mrw_sz: field(265, 7, u8);
        force_teardown: field(272, 1, bool);
        log_max_bsf_list_size: field(274, 6, u8);
        umr_extended_translation_offset: field(280, 1, bool);
        null_mkey: field(281, 1, bool);
        log_max_klm_list_size: field(282, 6, u8);
        qpc_extension: field(290, 1, bool);
        log_max_ra_req_dc: field(298, 6, u8);
        eth_wqe_too_small: field(306, 1, bool);
        vnic_env_cq_overrun: field(313, 1, bool);
        log_max_ra_res_dc: field(314, 6, u8);
        release_all_pages: field(325, 1, bool);
        must_not_use: field(326, 1, bool);
        roce_accl: field(329, 1, bool);
        log_max_ra_req_qp: field(330, 6, u8);
        log_max_ra_res_qp: field(346, 6, u8);
        end_pad: field(352, 1, bool);
        cc_query_allowed: field(353, 1, bool);
        cc_modify_allowed: field(354, 1, bool);
        start_pad: field(355, 1, bool);
        cache_line_128byte: field(356, 1, bool);
        rts2rts_qp_counters_set_id: field(361, 1, bool);
        vnic_env_int_rq_oob: field(364, 1, bool);
        sbcam_reg: field(365, 1, bool);
        qcam_reg: field(367, 1, bool);
        gid_table_size: field(368, 16, u16);
        out_of_seq_cnt: field(384, 1, bool);
        vport_counters: field(385, 1, bool);
        retransmission_q_counters: field(386, 1, bool);
        debug: field(387, 1, bool);
        modify_rq_counter_set_id: field(388, 1, bool);
        rq_delay_drop: field(389, 1, bool);
        max_qp_cnt: field(390, 10, u16);
        pkey_table_size: field(400, 16, u16);
        vport_group_manager: field(416, 1, bool);
        vhca_group_manager: field(417, 1, bool);
        ib_virt: field(418, 1, bool);
        eth_virt: field(419, 1, bool);
        vnic_env_queue_counters: field(420, 1, bool);
        ets: field(421, 1, bool);
        nic_flow_table: field(422, 1, bool);
        eswitch_manager: field(423, 1, bool);
        device_memory: field(424, 1, bool);
        mcam_reg: field(425, 1, bool);
        pcam_reg: field(426, 1, bool);
        local_ca_ack_delay: field(427, 5, u8);
        port_module_event: field(432, 1, bool);
        enhanced_error_q_counters: field(433, 1, bool);
        ports_check: field(434, 1, bool);
        disable_link_up: field(436, 1, bool);
        beacon_led: field(437, 1, bool);
        /// 1: Ethernet.
        port_type: field(438, 2, u8);
        /// How many ports.
        num_ports: field(440, 8, u8);
        pps: field(449, 1, bool);
        pps_modify: field(450, 1, bool);
        log_max_msg: field(451, 5, u8);
        max_tc: field(460, 4, u8);
        temp_warn_event: field(464, 1, bool);
        dcbx: field(465, 1, bool);
        general_notification_event: field(466, 1, bool);
        fpga: field(469, 1, bool);
        rol_s: field(470, 1, bool);
        rol_g: field(471, 1, bool);
        wol_s: field(473, 1, bool);
        wol_g: field(474, 1, bool);
        wol_a: field(475, 1, bool);
        wol_b: field(476, 1, bool);
        wol_m: field(477, 1, bool);
        wol_u: field(478, 1, bool);
        wol_p: field(479, 1, bool);
        stat_rate_support: field(480, 16, u16);
        pci_sync_for_fw_update_event: field(497, 1, bool);
        init2_lag_tx_port_affinity: field(504, 1, bool);
        wqe_based_flow_table_update_cap: field(507, 1, bool);
        cqe_version: field(508, 4, u8);
        compact_address_vector: field(512, 1, bool);
        striding_rq: field(513, 1, bool);
        ipoib_enhanced_offloads: field(515, 1, bool);
        ipoib_basic_offloads: field(516, 1, bool);
        repeated_block_disabled: field(518, 1, bool);
        umr_modify_entity_size_disabled: field(519, 1, bool);
        umr_modify_atomic_disabled: field(520, 1, bool);
        umr_indirect_mkey_disabled: field(521, 1, bool);
        umr_fence: field(522, 2, u8);
        dc_req_scat_data_cqe: field(524, 1, bool);
        drain_sigerr: field(527, 1, bool);
        /// Which signatures of commands are checked; 0: none.
        cmdif_checksum: field(528, 2, u8);
        sigerr_cqe: field(530, 1, bool);
        wq_signature: field(532, 1, bool);
        sctr_data_cqe: field(533, 1, bool);
        sho: field(535, 1, bool);
        tph: field(536, 1, bool);
        rf: field(537, 1, bool);
        dct: field(538, 1, bool);
        qos: field(539, 1, bool);
        eth_net_offloads: field(540, 1, bool);
        roce: field(541, 1, bool);
        atomic: field(542, 1, bool);
        cq_oi: field(544, 1, bool);
        cq_resize: field(545, 1, bool);
        cq_moderation: field(546, 1, bool);
        cq_period_mode_modify: field(547, 1, bool);
        cq_eq_remap: field(550, 1, bool);
        pg: field(551, 1, bool);
        block_lb_mc: field(552, 1, bool);
        scqe_break_moderation: field(554, 1, bool);
        cq_period_start_from_cqe: field(555, 1, bool);
        cd: field(556, 1, bool);
        apm: field(558, 1, bool);
        vector_calc: field(559, 1, bool);
        umr_ptr_rlky: field(560, 1, bool);
        imaicl: field(561, 1, bool);
        qp_packet_based: field(562, 1, bool);
        qkv: field(566, 1, bool);
        pkv: field(567, 1, bool);
        set_deth_sqpn: field(568, 1, bool);
        xrc: field(572, 1, bool);
        ud: field(573, 1, bool);
        uc: field(574, 1, bool);
        rc: field(575, 1, bool);
        uar_4k: field(576, 1, bool);
        fl_rc_qp_when_roce_disabled: field(584, 1, bool);
        regexp_params: field(585, 1, bool);
        uar_sz: field(586, 6, u8);
        port_selection_cap: field(592, 1, bool);
        /// User memory may be registered without a user context. The VFIO provider of rdma-core
        /// needs it.
        umem_uid_0: field(594, 1, bool);
        log_pg_sz: field(600, 8, u8);
        bf: field(608, 1, bool);
        driver_version: field(609, 1, bool);
        pad_tx_eth_packet: field(610, 1, bool);
        /// Memory keys may be chosen by the driver.
        mkey_by_name: field(614, 1, bool);
        log_bf_reg_size: field(619, 5, u8);
        qp_error_syndrome: field(627, 1, bool);
        lag_dct: field(630, 2, u8);
        lag_tx_port_affinity: field(632, 1, bool);
        lag_native_fdb_selection: field(633, 1, bool);
        lag_master: field(635, 1, bool);
        num_lag_ports: field(636, 4, u8);
        max_wqe_sz_sq: field(656, 16, u16);
        shampo: field(683, 1, bool);
        max_wqe_sz_rq: field(688, 16, u16);
        max_flow_counter_31_16: field(704, 16, u16);
        max_wqe_sz_sq_dc: field(720, 16, u16);
        max_qp_mcg: field(743, 25, u32);
        flow_counter_bulk_alloc: field(784, 8, u8);
        log_max_mcg: field(792, 8, u8);
        log_max_transport_domain: field(803, 5, u8);
        relaxed_ordering_read: field(810, 1, bool);
        log_max_pd: field(811, 5, u8);
        pcie_reset_using_hotreset_method: field(821, 1, bool);
        pci_sync_for_fw_update_with_driver_unload: field(822, 1, bool);
        vnic_env_cnt_steering_fail: field(823, 1, bool);
        vport_counter_local_loopback: field(824, 1, bool);
        q_counter_aggregation: field(825, 1, bool);
        q_counter_other_vport: field(826, 1, bool);
        log_max_xrcd: field(827, 5, u8);
        nic_receive_steering_discard: field(832, 1, bool);
        receive_discard_vport_down: field(833, 1, bool);
        transmit_discard_vport_down: field(834, 1, bool);
        eq_overrun_count: field(835, 1, bool);
        invalid_command_count: field(837, 1, bool);
        quota_exceeded_count: field(838, 1, bool);
        log_max_flow_counter_bulk: field(840, 8, u8);
        max_flow_counter_15_0: field(848, 16, u16);
        log_max_rq: field(867, 5, u8);
        log_max_sq: field(875, 5, u8);
        log_max_tir: field(883, 5, u8);
        log_max_tis: field(891, 5, u8);
        basic_cyclic_rcv_wqe: field(896, 1, bool);
        log_max_rmp: field(899, 5, u8);
        log_max_rqt: field(907, 5, u8);
        log_max_rqt_size: field(915, 5, u8);
        log_max_tis_per_sq: field(923, 5, u8);
        ext_stride_num_range: field(928, 1, bool);
        roce_rw_supported: field(929, 1, bool);
        log_max_current_uc_list_wr_supported: field(930, 1, bool);
        log_max_stride_sz_rq: field(931, 5, u8);
        log_min_stride_sz_rq: field(939, 5, u8);
        log_max_stride_sz_sq: field(947, 5, u8);
        log_min_stride_sz_sq: field(955, 5, u8);
        hairpin: field(960, 1, bool);
        log_max_hairpin_queues: field(963, 5, u8);
        log_max_hairpin_wq_data_sz: field(971, 5, u8);
        log_max_hairpin_num_packets: field(979, 5, u8);
        log_max_wq_sz: field(987, 5, u8);
        nic_vport_change_event: field(992, 1, bool);
        disable_local_lb_uc: field(993, 1, bool);
        disable_local_lb_mc: field(994, 1, bool);
        log_min_hairpin_wq_data_sz: field(995, 5, u8);
        silent_mode: field(1001, 1, bool);
        vhca_state: field(1002, 1, bool);
        log_max_vlan_list: field(1003, 5, u8);
        log_max_current_mc_list: field(1011, 5, u8);
        log_max_current_uc_list: field(1019, 5, u8);
        /// One bit for each of the first 64 types of general objects. The page tracker is not
        /// among them.
        general_obj_types: field(1024, 64, u64);
        sq_ts_format: field(1088, 2, u8);
        rq_ts_format: field(1090, 2, u8);
        steering_format_version: field(1092, 4, u8);
        create_qp_start_hint: field(1096, 24, u32);
        ats: field(1121, 1, bool);
        cross_vhca_rqt: field(1122, 1, bool);
        log_max_uctx: field(1123, 5, u8);
        crypto: field(1129, 1, bool);
        ipsec_offload: field(1130, 1, bool);
        log_max_umem: field(1131, 5, u8);
        max_num_eqs: field(1136, 16, u16);
        tls_tx: field(1153, 1, bool);
        tls_rx: field(1154, 1, bool);
        log_max_l2_table: field(1155, 5, u8);
        /// The logarithm of the size of a page of doorbells, less 12.
        log_uar_page_sz: field(1168, 16, u16);
        device_frequency_mhz: field(1216, 32, u32);
        device_frequency_khz: field(1248, 32, u32);
        num_of_uars_per_page: field(1312, 32, u32);
        flex_parser_protocols: field(1344, 32, u32);
        max_geneve_tlv_options: field(1376, 8, u8);
        max_geneve_tlv_option_data_len: field(1387, 5, u8);
        /// There are capabilities of the kind [`CapType::AdvVirtualization`].
        adv_virtualization: field(1401, 1, bool);
        log_max_dci_stream_channels: field(1419, 5, u8);
        log_max_dci_errored_streams: field(1427, 5, u8);
        enhanced_cqe_compression: field(1456, 1, bool);
        crossing_vhca_mkey: field(1458, 1, bool);
        log_max_dek: field(1459, 5, u8);
        mini_cqe_resp_stride_index: field(1468, 1, bool);
        cqe_128_always: field(1469, 1, bool);
        cqe_compression_128: field(1470, 1, bool);
        cqe_compression: field(1471, 1, bool);
        cqe_compression_timeout: field(1472, 16, u16);
        cqe_compression_max_num: field(1488, 16, u16);
        flex_parser_id_gtpu_dw_0: field(1512, 4, u8);
        tag_matching: field(1520, 1, bool);
        rndv_offload_rc: field(1521, 1, bool);
        rndv_offload_dc: field(1522, 1, bool);
        log_tag_matching_list_sz: field(1523, 5, u8);
        log_max_xrq: field(1531, 5, u8);
        affiliate_nic_vport_criteria: field(1536, 8, u8);
        native_port_num: field(1544, 8, u8);
        num_vhca_ports: field(1552, 8, u8);
        flex_parser_id_gtpu_teid: field(1560, 4, u8);
        sw_owner_id: field(1566, 1, bool);
        max_num_of_monitor_counters: field(1568, 16, u16);
        num_ppcnt_monitor_counters: field(1584, 16, u16);
        max_num_sf: field(1600, 16, u16);
        num_q_monitor_counters: field(1616, 16, u16);
        sf: field(1664, 1, bool);
        sf_set_partition: field(1665, 1, bool);
        log_max_sf: field(1667, 5, u8);
        apu: field(1672, 1, bool);
        /// The function migrates its virtual functions: the five VHCA commands are there.
        migration: field(1677, 1, bool);
        log_min_sf_size: field(1680, 8, u8);
        max_num_sf_partitions: field(1688, 8, u8);
        uctx_cap: field(1696, 32, u32);
        flex_parser_id_geneve_tlv_option_0: field(1732, 4, u8);
        flex_parser_id_icmp_dw1: field(1736, 4, u8);
        flex_parser_id_icmp_dw0: field(1740, 4, u8);
        flex_parser_id_icmpv6_dw1: field(1744, 4, u8);
        flex_parser_id_icmpv6_dw0: field(1748, 4, u8);
        flex_parser_id_outer_first_mpls_over_gre: field(1752, 4, u8);
        flex_parser_id_outer_first_mpls_over_udp_label: field(1756, 4, u8);
        max_num_match_definer: field(1760, 16, u16);
        sf_base_id: field(1776, 16, u16);
        flex_parser_id_gtpu_dw_2: field(1792, 4, u8);
        flex_parser_id_gtpu_first_ext_dw_0: field(1796, 4, u8);
        num_total_dynamic_vf_msix: field(1800, 24, u32);
        dynamic_msix_table_size: field(1844, 12, u16);
        min_dynamic_vf_msix_table_size: field(1868, 4, u8);
        data_direct: field(1874, 1, bool);
        max_dynamic_vf_msix_table_size: field(1876, 12, u16);
        log_max_num_header_modify_argument: field(1891, 5, u8);
        log_header_modify_argument_granularity_offset: field(1896, 4, u8);
        log_header_modify_argument_granularity: field(1900, 4, u8);
        log_header_modify_argument_max_alloc: field(1907, 5, u8);
        vhca_tunnel_commands: field(1920, 64, u64);
        match_definer_format_supported: field(1984, 64, u64);
    }

    /// Capabilities of the kind [`CapType::General2`].
    pub struct CmdHcaCap2 = "cmd_hca_cap_2", 256 {
        /// The function can be migrated.
        migratable: field(128, 1, bool);
        query_vuid: field(146, 1, bool);
        umr_log_entity_size_5: field(152, 1, bool);
        max_reformat_insert_size: field(160, 8, u8);
        max_reformat_insert_offset: field(168, 8, u8);
        max_reformat_remove_size: field(176, 8, u8);
        max_reformat_remove_offset: field(184, 8, u8);
        /// State may come in several images.
        migration_multi_load: field(200, 1, bool);
        /// Changes are tracked after a save: PRE_COPY.
        migration_tracking_state: field(201, 1, bool);
        multiplane_qp_ud: field(202, 1, bool);
        /// State may be larger than a buffer.
        migration_in_chunks: field(208, 1, bool);
        sf_eq_usage: field(210, 1, bool);
        multiplane: field(216, 1, bool);
        /// `QUERY_VHCA_MIGRATION_STATE` says what a migration is at.
        migration_state: newer(217, 1, bool);
        cross_vhca_object_to_object_supported: field(224, 32, u32);
        allowed_object_for_other_vhca_access: field(256, 64, u64);
        flow_table_type_2_type: field(416, 8, u8);
        format_select_dw_8_6_ext: field(426, 1, bool);
        log_min_mkey_entity_size: field(427, 5, u8);
        /// `sw_vhca_id` may be given at `INIT_HCA`.
        sw_vhca_id_valid: field(545, 1, bool);
        /// The number that software has given the function.
        sw_vhca_id: field(546, 14, u16);
        ts_cqe_metadata_size2wqe_counter: field(587, 5, u8);
        format_select_dw_gtpu_dw_0: field(640, 8, u8);
        format_select_dw_gtpu_dw_1: field(648, 8, u8);
        format_select_dw_gtpu_dw_2: field(656, 8, u8);
        format_select_dw_gtpu_first_ext_dw_0: field(664, 8, u8);
        generate_wqe_type: field(672, 32, u32);
        min_mkey_log_entity_size_fixed_buffer: field(907, 5, u8);
        ec_vf_vport_base: field(912, 16, u16);
        max_mkey_log_entity_size_mtt: field(938, 6, u8);
        max_rqt_vhca_id: field(944, 16, u16);
        pcc_ifa2: field(1008, 1, bool);
        min_mkey_log_entity_size_fixed_buffer_valid: field(1025, 1, bool);
        return_reg_id: field(1040, 16, u16);
        flow_table_hash_type: field(1084, 4, u8);
        max_num_eqs_24b: field(1096, 24, u32);
    }

    /// Capabilities of the kind [`CapType::AdvVirtualization`]: the limits of the page tracker.
    pub struct AdvVirtualizationCap = "adv_virtualization_cap", 256 {
        /// How many trackers there may be, as a logarithm.
        pg_track_log_max_num: field(3, 5, u8);
        /// How many ranges a tracker may have.
        pg_track_max_num_range: field(8, 8, u8);
        /// The least that the ranges of a tracker may have in all, the logarithm of bytes.
        pg_track_log_min_addr_space: field(16, 8, u8);
        /// The most that they may have.
        pg_track_log_max_addr_space: field(24, 8, u8);
        /// The shortest message of reports, the logarithm of bytes.
        pg_track_log_min_msg_size: field(35, 5, u8);
        /// The longest one.
        pg_track_log_max_msg_size: field(43, 5, u8);
        /// The smallest page, the logarithm of bytes.
        pg_track_log_min_page_size: field(51, 5, u8);
        /// The largest one.
        pg_track_log_max_page_size: field(59, 5, u8);
    }
}

impl<B: AsMut<[u8]>> QueryHcaCapIn<B> {
    /// Asks for this kind of capabilities.
    pub fn ask(&mut self, kind: CapType, mode: CapMode) -> &mut Self {
        self.set_op_mod(u16::from(kind) << 1 | u16::from(mode))
    }
}

impl<B: AsRef<[u8]>> QueryHcaCapIn<B> {
    /// Which kind of capabilities is asked for.
    pub fn asked(&self) -> (CapType, CapMode) {
        (CapType::from(self.op_mod() >> 1), CapMode::from(self.op_mod() & 1))
    }
}

impl<B: AsMut<[u8]>> SetHcaCapIn<B> {
    /// Says which kind of capabilities is set.
    pub fn set_kind(&mut self, kind: CapType) -> &mut Self {
        self.set_op_mod(u16::from(kind) << 1)
    }
}

impl<B: AsRef<[u8]>> SetHcaCapIn<B> {
    /// Which kind of capabilities is set.
    pub fn kind(&self) -> CapType {
        CapType::from(self.op_mod() >> 1)
    }
}

/// The members of the union.
macro_rules! members {
    ($( $member:ident $member_mut:ident $View:ident $kind:literal; )*) => {
        impl<B: AsRef<[u8]>> HcaCapUnion<B> { $(
            #[doc = concat!("The capabilities as those of the kind [`CapType::", $kind, "`].")]
            pub fn $member(&self) -> $View<&[u8]> {
                $View(self.0.as_ref())
            }
        )* }

        impl<B: AsMut<[u8]>> HcaCapUnion<B> { $(
            #[doc = concat!("[`", stringify!($member), "`](Self::", stringify!($member), "), to write.")]
            pub fn $member_mut(&mut self) -> $View<&mut [u8]> {
                $View(self.0.as_mut())
            }
        )* }
    };
}

members! {
    cmd_hca_cap cmd_hca_cap_mut CmdHcaCap "General";
    cmd_hca_cap_2 cmd_hca_cap_2_mut CmdHcaCap2 "General2";
    adv_virtualization_cap adv_virtualization_cap_mut AdvVirtualizationCap "AdvVirtualization";
}
