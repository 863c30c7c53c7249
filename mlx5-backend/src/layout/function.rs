// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How a function is brought up and shut down: pages, interface versions, registers, doorbells.

use super::macros::structure;
use super::{
    AccessRegOpMod, CommandStatus, ManagePagesOpMod, Opcode, QueryPagesOpMod, RegisterId,
    TeardownProfile,
};

structure! {
    /// Lets a function be used.
    pub struct EnableHcaIn = "enable_hca_in", 16, opcode EnableHca {
        /// [`Opcode::EnableHca`].
        opcode: field(0, 16, Opcode);
        /// 0.
        op_mod: field(48, 16, u16);
        /// The function is that of an embedded CPU.
        embedded_cpu_function: field(64, 1, bool);
        /// Of which function: 0 is the one that is asked, n + 1 its virtual function n.
        function_id: field(80, 16, u16);
    }

    /// The answer to `ENABLE_HCA`.
    pub struct EnableHcaOut = "enable_hca_out", 12 {
        /// Whether it was carried out.
        status: field(0, 8, CommandStatus);
        /// If it was not, why.
        syndrome: field(32, 32, u32);
    }

    /// Takes a function out of use.
    pub struct DisableHcaIn = "disable_hca_in", 16, opcode DisableHca {
        /// [`Opcode::DisableHca`].
        opcode: field(0, 16, Opcode);
        /// 0.
        op_mod: field(48, 16, u16);
        /// The function is that of an embedded CPU.
        embedded_cpu_function: field(64, 1, bool);
        /// Of which function: 0 is the one that is asked, n + 1 its virtual function n.
        function_id: field(80, 16, u16);
    }

    /// The answer to `DISABLE_HCA`.
    pub struct DisableHcaOut = "disable_hca_out", 12 {
        /// Whether it was carried out.
        status: field(0, 8, CommandStatus);
        /// If it was not, why.
        syndrome: field(32, 32, u32);
    }

    /// Asks which versions of the interface to steering there are.
    pub struct QueryIssiIn = "query_issi_in", 16, opcode QueryIssi {
        /// [`Opcode::QueryIssi`].
        opcode: field(0, 16, Opcode);
        /// 0.
        op_mod: field(48, 16, u16);
    }

    /// The answer to `QUERY_ISSI`.
    pub struct QueryIssiOut = "query_issi_out", 112 {
        /// Whether it was carried out.
        status: field(0, 8, CommandStatus);
        /// If it was not, why.
        syndrome: field(32, 32, u32);
        /// The version in use.
        current_issi: field(80, 16, u16);
        /// One bit for each of the versions 0 to 31 that are there.
        supported_issi_dw0: field(864, 32, u32);
    }

    /// Chooses a version of the interface to steering.
    pub struct SetIssiIn = "set_issi_in", 16, opcode SetIssi {
        /// [`Opcode::SetIssi`].
        opcode: field(0, 16, Opcode);
        /// 0.
        op_mod: field(48, 16, u16);
        /// The version.
        current_issi: field(80, 16, u16);
    }

    /// The answer to `SET_ISSI`.
    pub struct SetIssiOut = "set_issi_out", 16 {
        /// Whether it was carried out.
        status: field(0, 8, CommandStatus);
        /// If it was not, why.
        syndrome: field(32, 32, u32);
    }

    /// Asks how many pages of memory the firmware wants.
    pub struct QueryPagesIn = "query_pages_in", 16, opcode QueryPages {
        /// [`Opcode::QueryPages`].
        opcode: field(0, 16, Opcode);
        /// For what.
        op_mod: field(48, 16, QueryPagesOpMod);
        /// The function is that of an embedded CPU.
        embedded_cpu_function: field(64, 1, bool);
        /// Of which function: 0 is the one that is asked, n + 1 its virtual function n.
        function_id: field(80, 16, u16);
    }

    /// The answer to `QUERY_PAGES`.
    pub struct QueryPagesOut = "query_pages_out", 16 {
        /// Whether it was carried out.
        status: field(0, 8, CommandStatus);
        /// If it was not, why.
        syndrome: field(32, 32, u32);
        /// The function is that of an embedded CPU.
        embedded_cpu_function: field(64, 1, bool);
        /// Of which function: 0 is the one that is asked, n + 1 its virtual function n.
        function_id: field(80, 16, u16);
        /// How many pages of 4 KiB it wants; below zero: how many it has too many.
        num_pages: field(96, 32, i32);
    }

    /// Gives the firmware pages, or asks for some back.
    pub struct ManagePagesIn = "manage_pages_in", 16, opcode ManagePages {
        /// [`Opcode::ManagePages`].
        opcode: field(0, 16, Opcode);
        /// Which of it.
        op_mod: field(48, 16, ManagePagesOpMod);
        /// The function is that of an embedded CPU.
        embedded_cpu_function: field(64, 1, bool);
        /// Of which function: 0 is the one that is asked, n + 1 its virtual function n.
        function_id: field(80, 16, u16);
        /// How many pages.
        input_num_entries: field(96, 32, u32);
        /// The addresses of the pages that are given.
        pas: tail(64);
    }

    /// The answer to `MANAGE_PAGES`.
    pub struct ManagePagesOut = "manage_pages_out", 16 {
        /// Whether it was carried out.
        status: field(0, 8, CommandStatus);
        /// If it was not, why.
        syndrome: field(32, 32, u32);
        /// How many pages come back.
        output_num_entries: field(64, 32, u32);
        /// Their addresses.
        pas: tail(64);
    }

    /// Brings a function up.
    pub struct InitHcaIn = "init_hca_in", 32, opcode InitHca {
        /// [`Opcode::InitHca`].
        opcode: field(0, 16, Opcode);
        /// 0.
        op_mod: field(48, 16, u16);
        /// A number that software gives the function.
        sw_vhca_id: field(98, 14, u16);
        /// A number that is the same for all functions of one host.
        sw_owner_id: array(128, 32, 4, u32);
    }

    /// The answer to `INIT_HCA`.
    pub struct InitHcaOut = "init_hca_out", 16 {
        /// Whether it was carried out.
        status: field(0, 8, CommandStatus);
        /// If it was not, why.
        syndrome: field(32, 32, u32);
    }

    /// Shuts a function down.
    pub struct TeardownHcaIn = "teardown_hca_in", 16, opcode TeardownHca {
        /// [`Opcode::TeardownHca`].
        opcode: field(0, 16, Opcode);
        /// 0.
        op_mod: field(48, 16, u16);
        /// How.
        profile: field(80, 16, TeardownProfile);
    }

    /// The answer to `TEARDOWN_HCA`.
    pub struct TeardownHcaOut = "teardown_hca_out", 16 {
        /// Whether it was carried out.
        status: field(0, 8, CommandStatus);
        /// If it was not, why.
        syndrome: field(32, 32, u32);
        /// The forced teardown that was asked for has failed.
        state: field(127, 1, bool);
    }

    /// Reads or writes a register of the firmware.
    pub struct AccessRegIn = "access_register_in", 16, opcode AccessReg {
        /// [`Opcode::AccessReg`].
        opcode: field(0, 16, Opcode);
        /// Which of it.
        op_mod: field(48, 16, AccessRegOpMod);
        /// Which register.
        register_id: field(80, 16, RegisterId);
        /// What else the register needs to know.
        argument: field(96, 32, u32);
        /// What to write; in a read, what chooses the register's part.
        register_data: tail(32);
    }

    /// The answer to `ACCESS_REG`.
    pub struct AccessRegOut = "access_register_out", 16 {
        /// Whether it was carried out.
        status: field(0, 8, CommandStatus);
        /// If it was not, why.
        syndrome: field(32, 32, u32);
        /// What was read.
        register_data: tail(32);
    }

    /// The register [`RegisterId::HostEndianness`].
    pub struct HostEndianness = "host_endianness", 16 {
        /// 0: the host is little endian; 0x80: big endian.
        he: field(0, 8, u8);
    }

    /// A timeout that the firmware asks for.
    pub struct DefaultTimeout = "default_timeout", 4 {
        /// The unit of `to_value`: 0 milliseconds, 1 seconds, 2 minutes, 3 hours.
        to_multiplier: field(0, 3, u8);
        /// How long.
        to_value: field(12, 20, u32);
    }

    /// The register [`RegisterId::Dtor`]: how long the driver is to wait for what.
    pub struct DtorReg = "dtor_reg", 64 {
        pcie_toggle_to: view(32, DefaultTimeout);
        health_poll_to: view(160, DefaultTimeout);
        full_crdump_to: view(192, DefaultTimeout);
        fw_reset_to: view(224, DefaultTimeout);
        flush_on_err_to: view(256, DefaultTimeout);
        pci_sync_update_to: view(288, DefaultTimeout);
        tear_down_to: view(320, DefaultTimeout);
        fsm_reactivate_to: view(352, DefaultTimeout);
        reclaim_pages_to: view(384, DefaultTimeout);
        reclaim_vfs_pages_to: view(416, DefaultTimeout);
        reset_unload_to: view(448, DefaultTimeout);
    }

    /// Asks which board it is.
    pub struct QueryAdapterIn = "query_adapter_in", 16, opcode QueryAdapter {
        /// [`Opcode::QueryAdapter`].
        opcode: field(0, 16, Opcode);
        /// 0.
        op_mod: field(48, 16, u16);
    }

    /// Which board it is.
    pub struct QueryAdapterParamBlock = "query_adapter_param_block", 256 {
        /// The vendor, as the IEEE numbers it.
        ieee_vendor_id: field(200, 24, u32);
        /// The vendor of the next two, as PCI numbers it.
        vsd_vendor_id: field(240, 16, u16);
        /// What the vendor says.
        vsd: bytes(256, 208);
        /// The board's name (PSID): two functions that migrate must have the same.
        vsd_contd_psid: bytes(1920, 16);
    }

    /// The answer to `QUERY_ADAPTER`.
    pub struct QueryAdapterOut = "query_adapter_out", 272 {
        /// Whether it was carried out.
        status: field(0, 8, CommandStatus);
        /// If it was not, why.
        syndrome: field(32, 32, u32);
        /// Which board it is.
        query_adapter_struct: view(128, QueryAdapterParamBlock);
    }

    /// Which fields of a [`NicVportContext`] are set.
    pub struct ModifyNicVportFieldSelect = "modify_nic_vport_field_select", 4 {
        affiliation: field(18, 1, bool);
        disable_uc_local_lb: field(20, 1, bool);
        disable_mc_local_lb: field(21, 1, bool);
        node_guid: field(22, 1, bool);
        port_guid: field(23, 1, bool);
        min_inline: field(24, 1, bool);
        mtu: field(25, 1, bool);
        change_event: field(26, 1, bool);
        promisc: field(27, 1, bool);
        permanent_address: field(28, 1, bool);
        addresses_list: field(29, 1, bool);
        roce_en: field(30, 1, bool);
    }

    /// A MAC address.
    pub struct MacAddressLayout = "mac_address_layout", 8 {
        mac_addr_47_32: field(16, 16, u16);
        mac_addr_31_0: field(32, 32, u32);
    }

    /// A port of a virtual Ethernet switch.
    pub struct NicVportContext = "nic_vport_context", 256 {
        min_wqe_inline_mode: field(5, 3, u8);
        /// What the port sends to a group does not come back to it.
        disable_mc_local_lb: field(29, 1, bool);
        /// What the port sends to one does not come back to it.
        disable_uc_local_lb: field(30, 1, bool);
        /// RoCE is on.
        roce_en: field(31, 1, bool);
        arm_change_event: field(32, 1, bool);
        event_on_mtu: field(59, 1, bool);
        event_on_promisc_change: field(60, 1, bool);
        event_on_vlan_change: field(61, 1, bool);
        event_on_mc_address_change: field(62, 1, bool);
        event_on_uc_address_change: field(63, 1, bool);
        vhca_id_type: field(64, 1, bool);
        affiliation_criteria: field(76, 4, u8);
        affiliated_vhca_id: field(80, 16, u16);
        sd_group: field(257, 3, u8);
        /// In bytes.
        mtu: field(304, 16, u16);
        system_image_guid: field(320, 64, u64);
        port_guid: field(384, 64, u64);
        node_guid: field(448, 64, u64);
        qkey_violation_counter: field(832, 16, u16);
        promisc_uc: field(1920, 1, bool);
        promisc_mc: field(1921, 1, bool);
        promisc_all: field(1922, 1, bool);
        allowed_list_type: field(1925, 3, u8);
        allowed_list_size: field(1940, 12, u16);
        permanent_address: view(1952, MacAddressLayout);
        current_uc_mac_address: tail(64);
    }

    /// Sets fields of a port of a virtual Ethernet switch.
    pub struct ModifyNicVportContextIn = "modify_nic_vport_context_in", 512, opcode ModifyNicVportContext {
        /// [`Opcode::ModifyNicVportContext`].
        opcode: field(0, 16, Opcode);
        /// 0.
        op_mod: field(48, 16, u16);
        /// The port is not that of the function that is asked.
        other_vport: field(64, 1, bool);
        /// Which port: 0 is the physical function's.
        vport_number: field(80, 16, u16);
        /// Which fields.
        field_select: view(96, ModifyNicVportFieldSelect);
        /// Their values.
        nic_vport_context: view(2048, NicVportContext);
    }

    /// The answer to `MODIFY_NIC_VPORT_CONTEXT`.
    pub struct ModifyNicVportContextOut = "modify_nic_vport_context_out", 16 {
        /// Whether it was carried out.
        status: field(0, 8, CommandStatus);
        /// If it was not, why.
        syndrome: field(32, 32, u32);
    }

    /// Makes a page of doorbells.
    pub struct AllocUarIn = "alloc_uar_in", 16, opcode AllocUar {
        /// [`Opcode::AllocUar`].
        opcode: field(0, 16, Opcode);
        /// Who issues the command.
        uid: field(16, 16, u16);
        /// 0.
        op_mod: field(48, 16, u16);
    }

    /// The answer to `ALLOC_UAR`.
    pub struct AllocUarOut = "alloc_uar_out", 16 {
        /// Whether it was carried out.
        status: field(0, 8, CommandStatus);
        /// If it was not, why.
        syndrome: field(32, 32, u32);
        /// Its number: which page of BAR 0 it is.
        uar: field(72, 24, u32);
    }

    /// Gives a page of doorbells back.
    pub struct DeallocUarIn = "dealloc_uar_in", 16, opcode DeallocUar {
        /// [`Opcode::DeallocUar`].
        opcode: field(0, 16, Opcode);
        /// Who issues the command.
        uid: field(16, 16, u16);
        /// 0.
        op_mod: field(48, 16, u16);
        /// Its number.
        uar: field(72, 24, u32);
    }

    /// The answer to `DEALLOC_UAR`.
    pub struct DeallocUarOut = "dealloc_uar_out", 16 {
        /// Whether it was carried out.
        status: field(0, 8, CommandStatus);
        /// If it was not, why.
        syndrome: field(32, 32, u32);
    }
}
