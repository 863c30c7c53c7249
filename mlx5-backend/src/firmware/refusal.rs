// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Why a command was not carried out.

use std::fmt;

use crate::layout::CommandStatus;

/// A status other than OK, and the syndrome with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: CommandStatus,
    pub(crate) syndrome: u32,
}

macro_rules! syndromes {
    ($($variant:ident = $number:literal, $status:ident, $text:literal;)*) => {
        /// What this firmware gives as syndrome: one number a reason.
        ///
        /// Real firmware's numbers are only the vendor's to read (assumption A-SYNDROME).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Syndrome {
            $(#[doc = concat!($text, ".")] $variant,)*
        }

        impl Syndrome {
            /// All there are.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The number that is in the answer.
            pub const fn number(self) -> u32 {
                match self { $(Self::$variant => $number,)* }
            }

            /// The status it comes with.
            pub const fn status(self) -> CommandStatus {
                match self { $(Self::$variant => CommandStatus::$status,)* }
            }
        }

        impl fmt::Display for Syndrome {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$variant => $text,)* })
            }
        }
    };
}

syndromes! {
    UnknownCommand = 0x5f_0001, BadOp, "there is no such command";
    OpMod = 0x5f_0002, BadParam, "the command has no such variant";
    InputLength = 0x5f_0003, BadInputLen, "the input is not as long as its structure";
    OutputLength = 0x5f_0004, BadOutputLen, "the answer has no room for its structure";
    Reserved = 0x5f_0005, BadParam, "a reserved field of the command is not zero";
    HcaState = 0x5f_0010, BadSysState, "the function is not in the state for this command";
    NoFunction = 0x5f_0011, BadParam, "there is no such function";
    Issi = 0x5f_0012, BadParam, "this ISSI is not supported";
    PagesMissing = 0x5f_0013, BadSysState, "the firmware has not got its pages yet";
    PageAddress = 0x5f_0014, BadParam, "a page is not aligned, not mapped, or given twice";
    Register = 0x5f_0016, BadParam, "there is no such register, or it cannot be written";
    Capability = 0x5f_0017, BadParam, "there is no such capability type";
    NoPd = 0x5f_0020, BadRes, "there is no such protection domain";
    NoMkey = 0x5f_0021, BadRes, "there is no such memory key";
    NoUar = 0x5f_0022, BadRes, "there is no such UAR page";
    NoEq = 0x5f_0023, BadRes, "there is no such event queue";
    NoCq = 0x5f_0024, BadRes, "there is no such completion queue";
    NoQp = 0x5f_0025, BadRes, "there is no such queue pair";
    NoObject = 0x5f_0026, BadRes, "there is no such general object";
    InUse = 0x5f_0027, ResBusy, "something else still uses it";
    NoRoom = 0x5f_0028, NoRes, "there are as many of them as there can be";
    MkeyContext = 0x5f_0030, BadParam, "this memory key's context cannot be";
    MkeyAccess = 0x5f_0031, BadParam, "the memory key does not allow this access";
    MkeyRange = 0x5f_0032, BadParam, "the buffer is longer than its memory key";
    Unmapped = 0x5f_0033, BadParam, "the memory key's pages are not mapped";
    QueueContext = 0x5f_0034, BadParam, "this queue's context cannot be";
    QpState = 0x5f_0035, BadQpState, "the queue pair is in another state";
    ObjectType = 0x5f_0040, BadParam, "there is no such type of general object";
    TrackRange = 0x5f_0041, BadParam, "the ranges are not what a page tracker can track";
    TrackPage = 0x5f_0042, BadParam, "the page or message size is not what a page tracker has";
    TrackState = 0x5f_0043, BadResState, "the page tracker is in its error state";
    NoVhca = 0x5f_0050, BadParam, "there is no such VHCA";
    NotMigratable = 0x5f_0051, BadRes, "the VHCA is not migratable";
    SuspendState = 0x5f_0052, BadResState, "that side is suspended already, or out of turn";
    ResumeState = 0x5f_0053, BadResState, "that side is not suspended, or out of turn";
    SaveRunning = 0x5f_0054, ResBusy, "a SAVE of the VHCA is in flight";
    NotTracked = 0x5f_0055, BadResState, "nothing was saved that this could go on from";
    TrackSuspended = 0x5f_0056, BadResState, "a suspended VHCA cannot be tracked";
    NotSuspended = 0x5f_0057, BadResState, "the VHCA is running";
    ShortBuffer = 0x5f_0058, BadParam, "the buffer is shorter than QUERY said";
    BadImage = 0x5f_0059, BadParam, "this is not an image of this kind of VHCA";
    CorruptImage = 0x5f_005a, BadParam, "the image's contents are not what was saved";
    ImageOrder = 0x5f_005b, BadResState, "something is missing before this image";
    StateMissing = 0x5f_005c, BadResState, "the VHCA's state is not loaded completely";
    WasReset = 0x5f_005d, BadResState, "the VHCA was reset meanwhile";
}

impl From<Syndrome> for Refusal {
    fn from(syndrome: Syndrome) -> Self {
        Self { status: syndrome.status(), syndrome: syndrome.number() }
    }
}
