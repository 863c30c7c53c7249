// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What this firmware does where nothing public says what real firmware does.
//!
//! Public are the layouts (the kernel's header), what Linux' drivers and rdma-core's send and accept,
//! and some of their comments. The rest is below, each under a name, which also stands where the
//! code does it. A driver that relies on one of these relies on this firmware and not on hardware.

/// Something that was not known and had to be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assumption {
    /// Its name.
    pub id: &'static str,
    /// What this firmware does.
    pub does: &'static str,
    /// Why that and nothing else.
    pub because: &'static str,
    /// What would show that hardware does otherwise.
    pub wrong_if: &'static str,
}

macro_rules! assumptions {
    ($($id:literal, $does:literal, $because:literal, $wrong_if:literal;)*) => {
        /// All of them.
        ///
        /// | name | this firmware | because | wrong if |
        /// |---|---|---|---|
        $(#[doc = concat!("| `", $id, "` | ", $does, " | ", $because, " | ", $wrong_if, " |")])*
        pub const ASSUMPTIONS: &[Assumption] = &[
            $(Assumption { id: $id, does: $does, because: $because, wrong_if: $wrong_if },)*
        ];
    };
}

assumptions! {
    // Registers and queue.
    "A-HEALTH-COUNTER", "moves the counter with every tick",
        "drivers only want to see it move", "a driver that measures its rate";
    "A-QUEUE-ADDRESS", "takes the queue's address as soon as a half is written, and shows the shape again",
        "drivers write the upper half first and give no command between", "a driver that writes the lower half first";
    "A-DOORBELL", "leaves a slot alone that is busy, not the hardware's, or unmapped",
        "there is no place to answer into", "a health syndrome after such a doorbell";
    "A-DOORBELL-MERGED", "driven by memory, looks at all slots at each doorbell",
        "two writes between two polls are one; the owner bit says the rest", "never on hardware, where a write is a message";
    "A-MAILBOX-UNMAPPED", "answers FW_ERR for a mailbox that is not mapped",
        "it is the least wrong of the delivery statuses", "hardware that answers otherwise, or goes into a fatal state";
    "A-LENGTHS", "refuses an input that is not as long as its structure, and an output that is shorter; lenient, fills up with zeros",
        "BAD_INP_LEN and BAD_OUTP_LEN exist; rdma-core knows shorter structures", "hardware that takes another length";
    "A-EVENT-OF-CREATE-EQ", "sends no completion event for the command that makes the first command EQ",
        "both drivers poll for it", "an event of it in the new queue";
    "A-SYNDROME", "gives one number for each reason",
        "the vendor's numbers are not public", "never: nothing may depend on a syndrome";
    // Bringing up.
    "A-PHASE", "takes before ENABLE_HCA nothing, and before INIT_HCA only what the drivers send then; BAD_SYS_STATE",
        "the order of both drivers", "a command that works earlier";
    "A-INIT-PAGES", "refuses INIT_HCA without all the pages that QUERY_PAGES asked for",
        "it is what they are for", "an INIT_HCA that works without";
    "A-PAGES-CHECK", "takes a list of pages whole or not at all; each aligned, mapped, and new",
        "a driver's error that would otherwise show much later", "hardware that takes a page twice";
    "A-PAGES-REFUSED", "asks for nothing any more after a driver could not give",
        "the driver says so to end the request", "the same request coming again by itself";
    "A-PAGES-BACK", "gives all pages back but those that an initialised function needs",
        "drivers ask for all after TEARDOWN_HCA", "fewer pages coming back";
    "A-DTOR", "reads the register of timeouts as zero",
        "zero is: the driver's own default", "never: each firmware has its own";
    "A-TEARDOWN", "forgets everything that was not destroyed",
        "there is no later command that could", "objects that survive";
    "A-CAP-TYPES", "has no capabilities of the types that are not of the migration path, up to 0x3f; refuses types beyond",
        "drivers ask for many and use few", "never: each device has its own";
    "A-CAP-SET", "takes what is set as it comes",
        "drivers set what they have read, with less of it", "a SET_HCA_CAP that is refused for being too much";
    "A-CAP-OTHER", "shows what was set for another function as its maximum, too",
        "the PF sets migratable, and mlx5-vfio-pci then reads the maximum", "migratable not in the maximum after it was set";
    "A-IN-USE", "refuses with RES_BUSY to destroy what something else refers to",
        "destruction in the wrong order is an error of the driver", "a DEALLOC_PD that works while a memory key is in it";
    // Memory keys and queues.
    "A-MKEY-ACCESS", "needs local write for SAVE and local read for LOAD",
        "the firmware acts for the function that has made the key", "a SAVE that works with remote write alone";
    "A-MKEY-CHECKS", "answers BAD_RES for a key that is not there, BAD_PARAM for one that does not fit",
        "the statuses' names", "other statuses";
    "A-MTT-ACCESS", "with pg_access, leaves out the lowest three bits of each page address and checks no rights in them",
        "rdma-core sets both", "an access refused by them";
    "A-PAGE-OFFSET", "refuses a queue that does not begin with its first page",
        "no driver here makes one", "never: a limit of this firmware";
    "A-QP-KIND", "makes reliable connections over lists of pages only",
        "a page tracker needs no other", "never: a limit of this firmware";
    "A-CQ-EVENT", "sends a completion event with each completion, armed or not",
        "one too many does no harm to a driver that looks into the queue", "a driver that counts them";
    "A-CQ-FULL", "breaks the sender when a completion queue is full",
        "hardware has a CQ error for it", "a completion that waits for room";
    "A-EQ-FULL", "keeps 4096 events that find no room, and loses those beyond",
        "a driver must not lose a completion because of a short queue", "hardware that goes into a fatal state";
    // The VHCA.
    "A-NOT-MIGRATABLE", "answers BAD_RES to all five commands for a VHCA that is not migratable",
        "the driver looks at the capability before it registers", "another status, or a command that works";
    "A-SUSPEND-ORDER", "suspends the initiator first and each side once; BAD_RES_STATE otherwise",
        "no driver does otherwise", "a second SUSPEND that succeeds";
    "A-RESUME-ORDER", "resumes the responder first and only what is suspended; BAD_RES_STATE otherwise",
        "no driver does otherwise", "a RESUME of a running VHCA that succeeds";
    "A-RESUME-INCOMPLETE", "does not resume a VHCA of which only a part is loaded; BAD_RES_STATE",
        "half a state is no state", "a guest that runs after half a stream";
    "A-SAVE-EXCLUSIVE", "refuses SUSPEND, RESUME, incremental QUERY, SAVE and LOAD with RES_BUSY while a SAVE or LOAD is in flight",
        "comments of Linux' driver say that they must not overlap, and it waits", "another status, or one that waits for the SAVE";
    "A-SAVE-RUNNING", "saves a VHCA whose responder runs only with tracking, or to end it",
        "a state that changes while it is saved is none", "a plain SAVE of a running VHCA that succeeds";
    "A-TRACK-SUSPENDED", "refuses to track a VHCA whose responder is suspended; BAD_RES_STATE",
        "a comment of Linux' driver says that it fails", "another status";
    "A-INCREMENTAL", "goes on from an earlier SAVE if that one is tracked, or has left chunks",
        "chunks of STOP_COPY are incremental and not tracked in Linux' driver", "an incremental SAVE from nothing that succeeds";
    "A-INCREMENTAL-SIZE", "says 0 if nothing has changed; a header once the VHCA is suspended",
        "PRECOPY_INFO of Linux' driver saves only if there is more than 0, and STOP_COPY always", "a size of 0 in STOP_COPY";
    "A-REQUIRED-SIZE", "says whole pages, without chunks",
        "buffers are of pages", "never: the driver rounds up";
    "A-SIZE-32", "says all ones for a size that 32 bits cannot hold",
        "chunks are for those", "a device with such a state and without chunks";
    "A-CHUNK-BYTES", "says 8 MiB at most for a chunk",
        "Linux' driver takes chunks of 8 MiB at most", "larger ones";
    "A-SHORT-BUFFER", "refuses a buffer that is shorter than QUERY said, but that the last QUERY asked for chunks; BAD_PARAM",
        "SAVE has no bit for chunks, so QUERY's must count", "another status, or an image in pieces";
    "A-CLEANUP-SAVE", "takes a full SAVE without tracking of a running tracked VHCA for the end of tracking, and writes what an incremental one would",
        "Linux' driver gives it a buffer of the incremental size", "a full image in it, or a failure for want of room";
    "A-SAVE-FAILED", "ends tracking when a SAVE fails, and needs a full one next",
        "Linux' driver then saves a full image", "an incremental SAVE that works afterwards";
    "A-SAVE-HALF", "does not save a VHCA of which only a part is loaded; BAD_RES_STATE",
        "as A-RESUME-INCOMPLETE", "an image of it";
    "A-LOAD-RUNNING", "loads only with the responder suspended; BAD_RES_STATE",
        "RESUMING is entered from STOP", "a LOAD that works";
    "A-LOAD-DISABLED", "takes a LOAD for a VHCA that is not enabled, and does nothing",
        "reported of hardware by a third party", "an error";
    "A-IMAGE-FORMAT", "has images of its own, with a header, each for itself",
        "the format is the vendor's", "never: it is opaque";
    "A-SAME-SHAPE", "loads only an image of a VHCA with the same size of state; BAD_PARAM",
        "NVIDIA asks for the same device, firmware and capabilities", "a LOAD that adapts";
    "A-IMAGE-ORDER", "refuses an image that goes on from what was not loaded; BAD_RES_STATE",
        "migration_multi_load means in order", "images that load in any order";
    "A-IMAGE-CHECK", "finds any flipped bit in an image, unless told otherwise; BAD_PARAM",
        "silence would be the guest's loss", "a spoilt image that loads";
    "A-MIGRATION-STATE", "says idle if not tracked, then ready, or dirty when something has changed; never init",
        "the names", "init from hardware: new resources to be copied as initial bytes";
    "A-DIRTY-RUNNING", "dirties at its rate until the initiator is suspended; touch() and dirty() do at any time",
        "a device that starts nothing has little to change", "never: a model of a load";
    "A-FLR", "is running, untracked and fresh after a reset; enabled and migratable stay",
        "Linux' driver gives no command after one and takes the device for RUNNING", "a SAVE after a reset that goes on from before";
    "A-FLR-IN-FLIGHT", "fails a SAVE or LOAD that was in flight at a reset; BAD_RES_STATE",
        "there is nothing left to save", "an image from before the reset";
    // The page tracker.
    "A-TRACK-RANGES", "refuses no range, an empty one, more than the capability says, or more bytes than the address space",
        "the capability's names", "a tracker that takes them";
    "A-TRACK-STATE", "reports once at a time, and not from its error state; BAD_RES_STATE",
        "Linux' driver waits for the end", "two reports at a time";
    "A-TRACK-REPORT", "says REPORTING in the immediate data of all messages but the last, which says TRACKING and may be empty",
        "Linux' driver reads until it no longer says REPORTING", "an end that is told otherwise";
    "A-TRACK-RNR", "waits until there is a buffer to report into",
        "a reliable connection tries again", "a report that is lost";
    "A-TRACK-BROKEN", "goes into its error state, with the event, when a report cannot be delivered or too much is dirty",
        "a report that is lost is memory that is lost", "a tracker that says nothing";
}
