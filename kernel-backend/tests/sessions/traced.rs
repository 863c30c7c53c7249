// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is told to a subscriber of the crate tracing.

use std::fmt::Write;
use std::sync::Arc;

use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};
use vfio_fsm_core::{Features, Op};
use vfio_fsm_kernel::session::{Observer, Saving, Session, Tracing};

use crate::memory::{COMPAT, NoGuest, Shared, plan};

/// Keeps the text of every event.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<(Level, String)>>>);

impl Subscriber for Lines {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        struct Text(String);
        impl Visit for Text {
            fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
                write!(self.0, "{field}={value:?} ").unwrap();
            }
        }
        let mut text = Text(String::new());
        event.record(&mut text);
        self.0.lock().push((*event.metadata().level(), text.0));
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// V5: each op, each frame and the verdict is told; the sign of a reset once, as a warning.
#[test]
fn steps_and_evidence_are_told() {
    struct Resets(Shared, usize);
    impl Observer for Resets {
        fn before(&mut self, op: &Op<&[u8]>) {
            self.1 += usize::from(matches!(op, Op::Read { .. }));
            if self.1 == 2 {
                use vfio_fsm_core::vmm::Port;
                self.0.apply(Op::Reset, &mut []);
                self.1 += 1;
            }
        }
    }
    let lines = Lines::default();
    let device = Shared::new(Features::ALL, 7);
    let observer = (Resets(device.clone(), 0), Tracing::default());
    let saving = Saving::new(plan(), COMPAT, device, std::io::sink()).unwrap();
    let outcome = tracing::subscriber::with_default(lines.clone(), || {
        saving.observed(observer).run(&mut NoGuest)
    });
    assert!(!outcome.verdict.is_complete());
    let lines = lines.0.lock();
    let find =
        |text: &str| lines.iter().filter(|(_, line)| line.contains(text)).collect::<Vec<_>>();
    assert_eq!(find("op=SET PRE_COPY").len(), 1);
    assert_eq!(find("op=read fd#1 4 reply=bytes 4")[0].0, Level::TRACE);
    assert_eq!(find("frame=DATA of epoch 1").len(), 1);
    let warnings: Vec<_> = lines.iter().filter(|(level, _)| *level == Level::WARN).collect();
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].1.contains("evidence=read on the data_fd failed with ENODEV epoch=1"));
    assert!(lines.last().unwrap().1.contains("verdict=aborted, guest reset by itself"));
}
