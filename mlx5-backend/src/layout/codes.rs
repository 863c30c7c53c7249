// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Numbers that have names.

use super::macros::codes;

codes! {
    /// A command: the first two bytes of its input.
    pub enum Opcode: u16, "MLX5_CMD_OP_" {
        QueryHcaCap = 0x100, "QUERY_HCA_CAP";
        QueryAdapter = 0x101, "QUERY_ADAPTER";
        InitHca = 0x102, "INIT_HCA";
        TeardownHca = 0x103, "TEARDOWN_HCA";
        EnableHca = 0x104, "ENABLE_HCA";
        DisableHca = 0x105, "DISABLE_HCA";
        QueryPages = 0x107, "QUERY_PAGES";
        ManagePages = 0x108, "MANAGE_PAGES";
        SetHcaCap = 0x109, "SET_HCA_CAP";
        QueryIssi = 0x10a, "QUERY_ISSI";
        SetIssi = 0x10b, "SET_ISSI";
        SuspendVhca = 0x115, "SUSPEND_VHCA";
        ResumeVhca = 0x116, "RESUME_VHCA";
        QueryVhcaMigrationState = 0x117, "QUERY_VHCA_MIGRATION_STATE";
        SaveVhcaState = 0x118, "SAVE_VHCA_STATE";
        LoadVhcaState = 0x119, "LOAD_VHCA_STATE";
        CreateMkey = 0x200, "CREATE_MKEY";
        DestroyMkey = 0x202, "DESTROY_MKEY";
        CreateEq = 0x301, "CREATE_EQ";
        DestroyEq = 0x302, "DESTROY_EQ";
        CreateCq = 0x400, "CREATE_CQ";
        DestroyCq = 0x401, "DESTROY_CQ";
        CreateQp = 0x500, "CREATE_QP";
        DestroyQp = 0x501, "DESTROY_QP";
        Rst2InitQp = 0x502, "RST2INIT_QP";
        Init2RtrQp = 0x503, "INIT2RTR_QP";
        Rtr2RtsQp = 0x504, "RTR2RTS_QP";
        ModifyNicVportContext = 0x755, "MODIFY_NIC_VPORT_CONTEXT";
        AllocPd = 0x800, "ALLOC_PD";
        DeallocPd = 0x801, "DEALLOC_PD";
        AllocUar = 0x802, "ALLOC_UAR";
        DeallocUar = 0x803, "DEALLOC_UAR";
        AccessReg = 0x805, "ACCESS_REG";
        CreateGeneralObject = 0xa00, "CREATE_GENERAL_OBJECT";
        ModifyGeneralObject = 0xa01, "MODIFY_GENERAL_OBJECT";
        QueryGeneralObject = 0xa02, "QUERY_GENERAL_OBJECT";
        DestroyGeneralObject = 0xa03, "DESTROY_GENERAL_OBJECT";
    }

    /// Which half of a VHCA `SUSPEND_VHCA` stops. `RESUME_VHCA` numbers them the other way round:
    /// [`ResumeOpMod`].
    pub enum SuspendOpMod: u16, "MLX5_SUSPEND_VHCA_IN_OP_MOD_" {
        /// What it starts by itself: towards RUNNING_P2P.
        Initiator = 0, "SUSPEND_INITIATOR";
        /// What it does for others: from RUNNING_P2P to STOP.
        Responder = 1, "SUSPEND_RESPONDER";
    }

    /// Which half of a VHCA `RESUME_VHCA` starts. `SUSPEND_VHCA` numbers them the other way round:
    /// [`SuspendOpMod`].
    pub enum ResumeOpMod: u16, "MLX5_RESUME_VHCA_IN_OP_MOD_" {
        /// What it does for others: from STOP to RUNNING_P2P.
        Responder = 0, "RESUME_RESPONDER";
        /// What it starts by itself: from RUNNING_P2P to RUNNING.
        Initiator = 1, "RESUME_INITIATOR";
    }

    /// What a VHCA's migration is at, as `QUERY_VHCA_MIGRATION_STATE` says where the capability
    /// `migration_state` is there.
    pub enum MigrationState: u8, "" {
        /// Nothing is known yet.
        Uninitialized = 0, "UNINITIALIZED";
        /// Not tracked.
        Idle = 1, "IDLE";
        /// Tracked, and nothing has changed since the last save.
        Ready = 2, "READY";
        /// Tracked, and something has changed since the last save.
        Dirty = 3, "DIRTY";
        /// Tracking is about to begin.
        Init = 4, "INIT";
    }

    /// How a memory key finds its memory; `access_mode_4_2` and `access_mode_1_0` of [`Mkc`] are
    /// parts of the same number.
    ///
    /// [`Mkc`]: super::Mkc
    pub enum MkeyAccessMode: u8, "MLX5_MKC_ACCESS_MODE_" {
        /// Physical addresses.
        Pa = 0, "PA";
        /// A list of page addresses.
        Mtt = 1, "MTT";
        /// A list of pieces of other memory keys.
        Klm = 2, "KLMS";
        /// The same, pieces of one size.
        Ksm = 3, "KSM";
    }

    /// What became of a command: the first byte of its output.
    pub enum CommandStatus: u8, "MLX5_CMD_STAT_" {
        Ok = 0x00, "OK";
        /// An internal error of the firmware.
        InternalErr = 0x01, "INT_ERR";
        /// No such operation, or not one for this function.
        BadOp = 0x02, "BAD_OP_ERR";
        /// A parameter is out of range, reserved bits are set, or the like.
        BadParam = 0x03, "BAD_PARAM_ERR";
        /// The system is not in a state for this.
        BadSysState = 0x04, "BAD_SYS_STATE_ERR";
        /// The resource is not there, or is of another kind.
        BadRes = 0x05, "BAD_RES_ERR";
        /// The resource is in use.
        ResBusy = 0x06, "RES_BUSY";
        /// Not yet.
        NotReady = 0x07, "NOT_READY";
        /// A limit of the device is exceeded.
        Limits = 0x08, "LIM_ERR";
        /// The resource is not in a state for this.
        BadResState = 0x09, "BAD_RES_STATE_ERR";
        /// No such index.
        BadIndex = 0x0a, "IX_ERR";
        /// Nothing left to do it with.
        NoRes = 0x0f, "NO_RES_ERR";
        /// The queue pair is not in a state for this.
        BadQpState = 0x10, "BAD_QP_STATE_ERR";
        /// A management packet is bad.
        BadPacket = 0x30, "BAD_PKT_ERR";
        /// More completions are outstanding than the new size can hold.
        TooManyCqes = 0x40, "BAD_SIZE_OUTS_CQES_ERR";
        /// The input has not the length the command has.
        BadInputLen = 0x50, "BAD_INP_LEN_ERR";
        /// The output has not the length the command has.
        BadOutputLen = 0x51, "BAD_OUTP_LEN_ERR";
    }

    /// Whether a command reached the firmware at all: in the last byte of the queue entry.
    pub enum DeliveryStatus: u8, "" {
        Ok = 0x00, "OK";
        /// A signature is wrong.
        Signature = 0x01, "SIGNAT_ERR";
        /// A mailbox block's token is not the entry's.
        Token = 0x02, "TOK_ERR";
        /// A mailbox block's number is not the next one.
        BadBlockNumber = 0x03, "BAD_BLK_NUM_ERR";
        /// The output mailbox is not aligned.
        BadOutputPointer = 0x04, "OUT_PTR_ALIGN_ERR";
        /// The input mailbox is not aligned.
        BadInputPointer = 0x05, "IN_PTR_ALIGN_ERR";
        /// An internal error of the firmware.
        FirmwareErr = 0x06, "FW_ERR";
        /// The input is too long or too short.
        InputLength = 0x07, "IN_LENGTH_ERR";
        /// The output is too long or too short.
        OutputLength = 0x08, "OUT_LENGTH_ERR";
        /// A reserved field is not zero.
        ReservedNotClear = 0x09, "RES_FLD_NOT_CLR_ERR";
        /// The entry is not of a known type.
        DescriptorType = 0x10, "CMD_DESCR_ERR";
    }

    /// Which kind of capabilities.
    pub enum CapType: u16, "MLX5_CAP_" {
        /// [`CmdHcaCap`](super::CmdHcaCap).
        General = 0x00, "GENERAL";
        /// On-demand paging.
        Odp = 0x02, "ODP";
        /// Atomic operations.
        Atomic = 0x03, "ATOMIC";
        /// RDMA over Ethernet.
        Roce = 0x04, "ROCE";
        /// [`CmdHcaCap2`](super::CmdHcaCap2).
        General2 = 0x20, "GENERAL_2";
        /// Which port traffic goes to.
        PortSelection = 0x25, "PORT_SELECTION";
        /// [`AdvVirtualizationCap`](super::AdvVirtualizationCap).
        AdvVirtualization = 0x26, "ADV_VIRTUALIZATION";
    }

    /// Which capabilities of a kind.
    pub enum CapMode: u16, "HCA_CAP_OPMOD_GET_" {
        /// All there could be.
        Max = 0, "MAX";
        /// Those in use.
        Current = 1, "CUR";
    }

    /// What pages are wanted for.
    pub enum QueryPagesOpMod: u16, "MLX5_QUERY_PAGES_IN_OP_MOD_" {
        /// To begin.
        Boot = 1, "BOOT_PAGES";
        /// To bring the function up.
        Init = 2, "INIT_PAGES";
        /// To work, and what of it is left over.
        Regular = 3, "REGULAR_PAGES";
    }

    /// What is done with pages.
    pub enum ManagePagesOpMod: u16, "MLX5_MANAGE_PAGES_IN_OP_MOD_" {
        /// There are none to give.
        AllocationFail = 0, "ALLOCATION_FAIL";
        /// The firmware gets them.
        AllocationSuccess = 1, "ALLOCATION_SUCCESS";
        /// The firmware gives some back.
        HcaReturnPages = 2, "HCA_RETURN_PAGES";
    }

    /// What is done with a register.
    pub enum AccessRegOpMod: u16, "MLX5_ACCESS_REGISTER_IN_OP_MOD_" {
        Write = 0, "WRITE";
        Read = 1, "READ";
    }

    /// A register of the firmware.
    pub enum RegisterId: u16, "MLX5_REG_" {
        /// [`HostEndianness`](super::HostEndianness).
        HostEndianness = 0x7004, "HOST_ENDIANNESS";
        /// [`DtorReg`](super::DtorReg).
        Dtor = 0xc00e, "DTOR";
    }

    /// How a function is shut down.
    pub enum TeardownProfile: u16, "MLX5_TEARDOWN_HCA_IN_PROFILE_" {
        /// When everything is done.
        GracefulClose = 0, "GRACEFUL_CLOSE";
        /// At once.
        ForceClose = 1, "FORCE_CLOSE";
        /// At once, by the register that follows.
        PrepareFastTeardown = 2, "PREPARE_FAST_TEARDOWN";
    }

    /// What has happened, in an [`Eqe`](super::Eqe).
    pub enum EventType: u8, "MLX5_EVENT_TYPE_" {
        /// Something is in a completion queue.
        Comp = 0x00, "COMP";
        CqError = 0x04, "CQ_ERROR";
        WqCatasError = 0x05, "WQ_CATAS_ERROR";
        /// The firmware has failed.
        InternalError = 0x08, "INTERNAL_ERROR";
        PortChange = 0x09, "PORT_CHANGE";
        /// Commands are done: [`CmdInterCompEvent`](super::CmdInterCompEvent).
        Cmd = 0x0a, "CMD";
        /// [`PagesReqEvent`](super::PagesReqEvent).
        PageRequest = 0x0b, "PAGE_REQUEST";
        NicVportChange = 0x0d, "NIC_VPORT_CHANGE";
        WqInvalReqError = 0x10, "WQ_INVAL_REQ_ERROR";
        WqAccessError = 0x11, "WQ_ACCESS_ERROR";
        /// A general object has changed: [`AffiliatedEventHeader`](super::AffiliatedEventHeader).
        ObjectChange = 0x27, "OBJECT_CHANGE";
    }

    /// A type of general object.
    pub enum ObjectType: u16, "MLX5_OBJ_TYPE_" {
        /// [`PageTrack`](super::PageTrack).
        PageTrack = 0x46, "PAGE_TRACK";
    }

    /// What a page tracker does.
    pub enum PageTrackState: u8, "MLX5_PAGE_TRACK_STATE_" {
        /// It notes what is written.
        Tracking = 0, "TRACKING";
        /// It reports what was written.
        Reporting = 1, "REPORTING";
        /// It has failed.
        Error = 2, "ERROR";
    }

    /// What kind of service a queue pair gives.
    pub enum QpServiceType: u8, "MLX5_QP_ST_" {
        /// Reliable, between two queue pairs.
        Rc = 0x00, "RC";
        /// Unreliable, between two queue pairs.
        Uc = 0x01, "UC";
        /// Unreliable, to any.
        Ud = 0x02, "UD";
    }
}
