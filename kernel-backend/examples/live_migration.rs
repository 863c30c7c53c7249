// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A live migration between two processes: `cargo run --example live_migration`.
//!
//! The source starts this program again as the destination and gives it a socket for the stream.
//! On its standard output the destination says when it has loaded the initial bytes, which the
//! source waits for before it stops the guest, and when it runs.

use std::error::Error;
use std::io::{BufRead, BufReader, stdin};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{ChildStdout, Command, Stdio};

use vfio_fsm_core::device::{Device, Memory};
use vfio_fsm_core::vmm::frame::Limits;
use vfio_fsm_core::vmm::{Event, Hook, LoadPlan, Plan};
use vfio_fsm_core::{Features, Op};
use vfio_fsm_kernel::session::{Interest, Loading, Saving, Session, Standing, Vmm};

type Registers = Device<Memory<4096>, 2>;

struct Source(BufReader<ChildStdout>);

impl Source {
    fn hears(&mut self, word: &str) -> bool {
        let mut line = String::new();
        self.0.read_line(&mut line).is_ok() && line.trim_end() == word
    }
}

impl Vmm for Source {
    fn hook(&mut self, hook: Hook) -> bool {
        println!("source: {hook}");
        true
    }

    fn wait(&mut self, interest: &Interest, standing: &Standing) -> Option<Event> {
        println!("source: {interest:?}, ready: {}", standing.left.ready);
        match interest {
            Interest::Switchover if standing.left.ready => Some(Event::Switchover),
            Interest::Switchover if self.hears("loaded") => Some(Event::Ack),
            _ => Some(Event::PeerLost),
        }
    }
}

struct Destination;

impl Vmm for Destination {
    fn hook(&mut self, hook: Hook) -> bool {
        match hook {
            Hook::InitialBytesLoaded => println!("loaded"),
            hook => eprintln!("destination: {hook}"),
        }
        true
    }
}

fn source() -> Result<(), Box<dyn Error>> {
    let (ours, theirs) = UnixStream::pair()?;
    let mut child = Command::new(std::env::current_exe()?)
        .arg("destination")
        .stdin(OwnedFd::from(theirs))
        .stdout(Stdio::piped())
        .spawn()?;
    let answers = BufReader::new(child.stdout.take().ok_or("no standard output")?);
    let mut device = Registers::new(Features::ALL, Memory::new());
    device.apply(Op::Touch(42), &mut []);

    let mut vmm = Source(answers);
    let plan = Plan { ack: true, ..Plan::LIVE };
    let mut saving = Saving::new(plan, "4096 registers", device, ours)?;
    println!("source: {}", saving.run(&mut vmm).verdict);
    if vmm.hears("runs") {
        println!("source: it runs there");
    } else {
        // The guest goes on here, as if nothing had been.
        saving.event(Event::Cancel)?;
        println!("source: {}", saving.run(&mut vmm).verdict);
    }
    child.wait()?;
    Ok(())
}

fn destination() -> Result<(), Box<dyn Error>> {
    let stream = UnixStream::from(stdin().as_fd().try_clone_to_owned()?);
    let blank = Registers::new(Features::ALL, Memory::new());
    let (plan, limits) = (LoadPlan::default(), Limits { max_data: Plan::LIVE.chunk });
    let accepts = |compat: &str| compat == "4096 registers";
    let mut loading = Loading::new(plan, limits, accepts, blank, stream);
    let outcome = loading.run(&mut Destination);
    eprintln!("destination: {}", outcome.verdict);
    if outcome.verdict.is_complete() && loading.port().actions().registers() == &[42; 4096] {
        println!("runs");
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    if std::env::args().nth(1).is_some() { destination() } else { source() }
}
