// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a session does, as events of the crate tracing.

use tracing::{debug, trace, warn};
use vfio_fsm_core::vmm::frame::Frame;
use vfio_fsm_core::vmm::{Evidence, Verdict};
use vfio_fsm_core::{Op, Reply};

use super::{Interest, Observer, Standing};

/// Makes an event of each op and its reply, each frame, each turn to the VMM, and the verdict.
///
/// What happens per chunk is at level `trace`, the rest at `debug`; a sign of a reset, and a device
/// that did not come back, at `warn`. Which device it is says the span that the session runs in.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tracing {
    /// The latest that was told.
    evidence: Option<Evidence>,
}

impl Observer for Tracing {
    fn after(&mut self, op: &Op<&[u8]>, reply: &Reply<&[u8]>) {
        let reply = reply.map(<[u8]>::len);
        match op {
            Op::Read { .. } | Op::Write { .. } => trace!(%op, %reply, "op"),
            _ => debug!(%op, %reply, "op"),
        }
    }

    fn frame(&mut self, frame: &Frame) {
        match frame {
            Frame::Data { .. } => trace!(%frame, "frame"),
            _ => debug!(%frame, "frame"),
        }
    }

    fn pause(&mut self, interest: &Interest, standing: &Standing) {
        if let Some(evidence) = standing.evidence.filter(|_| standing.evidence != self.evidence) {
            warn!(%evidence, epoch = standing.epoch, "the device was reset");
        }
        self.evidence = standing.evidence;
        match interest {
            Interest::Done(verdict @ Verdict::Stuck { .. }) => warn!(%verdict, "over"),
            Interest::Done(verdict) => debug!(%verdict, "over"),
            Interest::Call(hook) => debug!(%hook, "call"),
            Interest::Decide(decision) => debug!(%decision, "decide"),
            waiting => trace!(?waiting, "wait"),
        }
    }
}
