// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What it costs to say SAVE_VHCA_STATE.
//!
//! `cargo bench -p vfio-fsm-mlx5 --bench encode` runs itself under valgrind, which counts
//! instructions and so does not care what else the machine does. The firmware is left out: it
//! answers in the doorbell, with a byte.

mod callgrind;

use std::hint::black_box;
use std::process::ExitCode;
use std::sync::OnceLock;

use vfio_fsm_mlx5::bar::{self, Registers};
use vfio_fsm_mlx5::command::Commands;
use vfio_fsm_mlx5::dma::{DmaSpace, DmaWindow};
use vfio_fsm_mlx5::layout::SaveVhcaStateIn;
use vfio_fsm_mlx5::queue::{CommandQueue, Options};
use vm_memory::{Bytes, bitmap::BitmapSlice};

use callgrind::instructions;

/// Gives each entry back when its doorbell rings.
struct Answers(OnceLock<DmaWindow>);

impl Registers for Answers {
    fn read32(&self, offset: usize) -> u32 {
        match offset {
            bar::CMDIF_REV => 5 << 16,
            bar::CMDQ_ADDRESS_LOW => 0x56,
            _ => 0,
        }
    }

    fn write32(&self, offset: usize, value: u32) {
        if offset == bar::COMMAND_DOORBELL
            && let Some(slice) = self.0.get().and_then(|window| window.as_volatile_slice().ok())
        {
            give_back(&slice, value.trailing_zeros() as usize);
        }
    }
}

fn give_back(queue: &vm_memory::VolatileSlice<'_, impl BitmapSlice>, slot: usize) {
    // Where it fails the command ends with a timeout, and the bench with it.
    let _ = queue.store(0u8, slot * 64 + 0x3f, std::sync::atomic::Ordering::Release);
}

fn save() -> SaveVhcaStateIn {
    let mut command = SaveVhcaStateIn::command();
    command
        .set_incremental(black_box(true))
        .set_set_track(black_box(false))
        .set_vhca_id(black_box(0x1234))
        .set_mkey(black_box(0x200))
        .set_size(black_box(0x3000));
    command
}

/// Lays the command out so many times.
fn layout(rounds: u64) -> Option<()> {
    (0..rounds).for_each(|_| {
        black_box(save());
    });
    Some(())
}

/// Gives the command, and takes the answer, so many times.
fn queue(rounds: u64) -> Option<()> {
    let dma = DmaSpace::new(1 << 20);
    let answers = Answers(OnceLock::new());
    let queue = CommandQueue::new(answers, dma.clone(), Options::default()).ok()?;
    // The first that was allocated.
    let window = dma.window(1 << 32, 4096).ok()?;
    queue.registers().0.set(window).ok()?;
    for _ in 0..rounds {
        let mut output = [0; 16];
        queue.execute(save().as_bytes(), &mut output).ok()?;
        black_box(output);
    }
    Some(())
}

fn report() -> Result<(), String> {
    for (what, means) in [
        ("layout", "to lay SAVE_VHCA_STATE out"),
        ("queue", "to lay it out, queue it, and take the answer"),
    ] {
        // What starting the program costs falls out of the difference.
        let more = instructions(what, 3000)?.saturating_sub(instructions(what, 1000)?);
        println!("{:>8.1} instructions {means}", more as f64 / 2000.0);
    }
    Ok(())
}

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let rounds = |args: &mut dyn Iterator<Item = String>| args.next()?.parse::<u64>().ok();
    let done = match args.next().as_deref() {
        Some("layout") => rounds(&mut args).and_then(layout).is_some(),
        Some("queue") => rounds(&mut args).and_then(queue).is_some(),
        // cargo gives --bench.
        _ => report().map_err(|error| eprintln!("encode: {error}")).is_ok(),
    };
    if done { ExitCode::SUCCESS } else { ExitCode::from(2) }
}
