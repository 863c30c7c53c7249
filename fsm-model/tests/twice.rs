// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
use vfio_fsm_core::Features;
use vfio_fsm_core::device::Bug;
use vfio_fsm_model::graph::{liveness, seen};

#[test]
fn probe() {
    let good: Vec<_> = Features::SETS.iter().map(|&f| seen(f, None)).collect();
    for (f, g) in Features::SETS.iter().zip(&good) {
        println!("{f}: {} {}", g.states(), g.transitions());
        for l in liveness(g) { println!("  {} {:?}", l.id, l.trap); }
        std::fs::write(format!("/tmp/rum/ours-{}", f.slug()), g.edge_list().join("\n") + "\n").unwrap();
    }
    for &bug in Bug::ALL {
        let mut line = format!("{}:", bug.slug());
        for (f, g) in Features::SETS.iter().zip(&good) {
            let b = seen(*f, Some(bug));
            let (x, y): (std::collections::BTreeSet<_>, std::collections::BTreeSet<_>) = (g.edge_list().into_iter().collect(), b.edge_list().into_iter().collect());
            line += &format!(" {}/{} -{} +{} [", b.states(), b.transitions(), x.difference(&y).count(), y.difference(&x).count());
            for l in liveness(&b) { if l.trap.is_some() { line += l.id; line += " "; } }
            line += "]";
        }
        println!("{line}");
    }
}
