// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a replay costs beside the calls of the device that it cannot do without.

use std::cell::RefCell;
use std::hint::black_box;

use vfio_conform::replay::{Options, Replayer, Target, TargetError};
use vfio_conform::suite::Suite;
use vfio_conform::trace::{Need, Trace};
use vfio_fsm_core::{Features, Op, Reply};

use super::super::Result;
use super::super::replay::TargetName;
use super::{Bench, Findings, Table};

/// A call that a replay has made.
enum Call {
    Fresh(Features),
    /// With the number of what is written, and so much room for what is read.
    Op(Op<usize>, usize),
}

/// Calls of the source and the destination (0 and 1), in their order.
#[derive(Default)]
struct Calls {
    all: Vec<(usize, Call)>,
    written: Vec<Vec<u8>>,
}

/// A device whose calls are taken down.
struct Recorded<'a> {
    target: Box<dyn Target>,
    number: usize,
    calls: &'a RefCell<Calls>,
}

impl Target for Recorded<'_> {
    fn offers(&self, features: Features) -> bool {
        self.target.offers(features)
    }

    fn can(&self, need: Need) -> bool {
        self.target.can(need)
    }

    fn fresh(&mut self, features: Features) -> std::result::Result<(), TargetError> {
        self.calls.borrow_mut().all.push((self.number, Call::Fresh(features)));
        self.target.fresh(features)
    }

    fn apply<'b>(&mut self, op: Op<&[u8]>, buf: &'b mut [u8]) -> Reply<&'b [u8]> {
        let calls = &mut *self.calls.borrow_mut();
        let number = calls.written.len();
        let op_by_number = op.map(|bytes| {
            calls.written.push(bytes.to_vec());
            number
        });
        calls.all.push((self.number, Call::Op(op_by_number, buf.len())));
        self.target.apply(op, buf)
    }

    fn take_anomaly(&mut self) -> Option<String> {
        self.target.take_anomaly()
    }
}

pub(super) fn measure(bench: &Bench) -> Result<Findings> {
    let mut table =
        Table::new("every suite, replayed: calls a second", ["replay", "bare loop", "time ratio"]);
    let traces: Vec<Trace> = Suite::ALL.iter().flat_map(|suite| suite.generate_all()).collect();
    for name in targets() {
        if bench.is_over() {
            break;
        }
        bench.now(&format!("replay on {name}"));
        let target: TargetName = name.parse()?;
        let calls = record(target.open(None)?, &traces).into_inner();
        let ops = calls.all.iter().filter(|(_, call)| matches!(call, Call::Op(..))).count() as f64;
        let (mut ours, mut other) = (target.open(None)?, target.open(None)?);
        let mut buffer = vec![0; 1 << 20];
        let compared = bench.compare(
            || {
                replay(&mut ours, &traces);
                Ok(())
            },
            || bare(&mut other, &calls, &mut buffer),
        )?;
        if let Some(compared) = compared {
            let rate = |time: std::time::Duration| Some(ops / time.as_secs_f64());
            let figures = [rate(compared.ours), rate(compared.other), Some(compared.ratio)];
            table.row(name, figures);
        }
    }
    Ok(Findings::table(table))
}

#[cfg(feature = "mlx5")]
const fn targets() -> [&'static str; 2] {
    ["reference", "mlx5"]
}

#[cfg(not(feature = "mlx5"))]
const fn targets() -> [&'static str; 1] {
    ["reference"]
}

fn record(targets: Vec<Box<dyn Target>>, traces: &[Trace]) -> RefCell<Calls> {
    let calls = RefCell::new(Calls::default());
    let recorded = targets.into_iter().enumerate().map(|(number, target)| {
        Box::new(Recorded { target, number, calls: &calls }) as Box<dyn Target + '_>
    });
    replay(&mut recorded.collect::<Vec<_>>(), traces);
    calls
}

fn replay(targets: &mut [Box<dyn Target + '_>], traces: &[Trace]) {
    let targets = targets.iter_mut().map(|target| &mut **target as &mut dyn Target).collect();
    let mut replayer = Replayer::new(targets);
    for trace in traces {
        black_box(replayer.replay(trace, Options::default()));
    }
}

/// The same calls, and nothing looks at what they are answered.
fn bare(targets: &mut [Box<dyn Target>], calls: &Calls, buffer: &mut [u8]) -> Result<()> {
    for (number, call) in &calls.all {
        let Some(target) = targets.get_mut(*number) else { continue };
        match call {
            Call::Fresh(features) => target.fresh(*features)?,
            Call::Op(op, room) => {
                let room = buffer.get_mut(..*room).unwrap_or_default();
                let written = |number: usize| calls.written.get(number);
                let op = op.map(|number| written(number).map_or(&[][..], Vec::as_slice));
                black_box(target.apply(op, room));
            }
        }
    }
    Ok(())
}
