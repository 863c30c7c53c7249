// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is in memory when the doorbell rings. The fake holds each entry and each block to the rules;
//! these tests are about what comes through.

use std::collections::HashSet;

use proptest::prelude::*;
use vfio_fsm_mlx5::command::{CommandError, Commands};
use vfio_fsm_mlx5::layout::{DeliveryStatus, Opcode};
use vfio_fsm_mlx5::queue::{CommandQueue, MAX_COMMAND_BYTES, Options};

use crate::fake::{Answer, Fake, command, options};

/// What a firmware answers that is to be recognised.
fn pattern(len: usize) -> Vec<u8> {
    let mut output: Vec<u8> = (0..len).map(|at| (at * 13 + 5) as u8).collect();
    output[..8].fill(0);
    output
}

fn echo(signatures: bool) -> (Fake, CommandQueue<Fake>) {
    let fake = Fake::new();
    fake.state.lock().signs = signatures;
    fake.handle(|seen| Answer::Output(pattern(seen.output_len)));
    let options = Options { signatures, ..options() };
    let queue = CommandQueue::new(fake.clone(), fake.dma.clone(), options).unwrap();
    (fake, queue)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// M20: A command of any length arrives as it was given, and its answer of any length comes
    /// back as it was written; blocks of earlier commands leave nothing in them.
    #[test]
    fn any_length_arrives(
        lengths in prop::collection::vec((8usize..5000, 8usize..5000), 1..6),
        signatures: bool,
    ) {
        let (fake, queue) = echo(signatures);
        for (input_len, output_len) in lengths {
            let input = command(Opcode::SaveVhcaState, input_len);
            let mut output = vec![0xaa; output_len];
            queue.execute(&input, &mut output).unwrap();
            let seen = fake.state.lock().seen.pop().unwrap();
            prop_assert_eq!(seen.input, input);
            prop_assert_eq!(seen.output_len, output_len);
            prop_assert_eq!(output, pattern(output_len));
        }
    }

    /// M20: What is no command is refused before anything is written for the firmware.
    #[test]
    fn what_is_too_short_is_refused(input_len in 0usize..24, output_len in 0usize..24) {
        let (fake, queue) = echo(false);
        let (input, mut output) = (vec![1; input_len], vec![0; output_len]);
        let done = queue.execute(&input, &mut output);
        let short = input_len < 8 || output_len < 8;
        let expected = CommandError::Length {
            input: input_len, output: output_len, max: MAX_COMMAND_BYTES,
        };
        prop_assert_eq!(done, if short { Err(expected) } else { Ok(()) });
        prop_assert_eq!(fake.seen().is_empty(), short);
    }
}

/// M20: So is what is too long, in either direction, and the longest is not.
#[test]
fn the_longest_command() {
    let fake = Fake::new();
    let queue = CommandQueue::new(fake.clone(), fake.dma.clone(), options()).unwrap();
    let before = fake.dma.used();
    let mut input = command(Opcode::CreateMkey, MAX_COMMAND_BYTES);
    queue.execute(&input, &mut [0; 16]).unwrap();
    assert_eq!(fake.state.lock().seen.pop().unwrap().input, input);
    assert_eq!(fake.dma.used(), before, "blocks of a long command are not kept");

    input.push(0);
    let refused = queue.execute(&input, &mut [0; 16]).unwrap_err();
    assert!(matches!(refused, CommandError::Length { .. }), "{refused}");
    assert!(queue.start(&input[..16], MAX_COMMAND_BYTES + 1).is_err());
    assert_eq!(fake.seen().len(), 0);
}

/// M20: An entry as the kernel's driver writes it, byte for byte, for a command with one block of
/// input and an answer that has room in the entry.
#[test]
fn an_entry_byte_for_byte() {
    let fake = Fake::new();
    fake.handle(|_| Answer::Hold);
    let queue = CommandQueue::new(fake.clone(), fake.dma.clone(), options()).unwrap();
    let base = u64::from(fake.register(0x10)) << 32 | u64::from(fake.register(0x14));
    let save = command(Opcode::SaveVhcaState, 32);
    let _first = queue.start(&save, 16).unwrap();
    let _second = queue.start(&save, 16).unwrap();

    let mut entry = [0; 64];
    fake.dma.read(base + 64, &mut entry).unwrap();
    let block = u64::from_be_bytes(entry[8..16].try_into().unwrap());
    let mut expected = [0; 64];
    expected[0] = 7;
    expected[7] = 32;
    expected[8..16].copy_from_slice(&block.to_be_bytes());
    expected[16..32].copy_from_slice(&save[..16]);
    expected[0x3b] = 16;
    expected[0x3c] = 2;
    expected[0x3f] = 1;
    expected[0x3d] = !expected.iter().fold(0, |sum, byte| sum ^ byte);
    assert_eq!(entry, expected);

    let mut data = [0; 576];
    fake.dma.read(block, &mut data).unwrap();
    let mut expected = [0; 576];
    expected[..16].copy_from_slice(&save[16..]);
    expected[0x23d] = 2;
    assert_eq!(data, expected);
}

/// M21: Tokens are 1 to 255 in turn, so that no two commands on their way have the same.
#[test]
fn tokens_take_turns() {
    let (fake, queue) = echo(false);
    for _ in 0..600 {
        queue.execute(&command(Opcode::AllocPd, 16), &mut [0; 16]).unwrap();
    }
    let tokens: Vec<u8> = fake.seen().iter().map(|seen| seen.token).collect();
    assert!(!tokens.contains(&0));
    for window in tokens.windows(255) {
        assert_eq!(window.iter().collect::<HashSet<_>>().len(), 255);
    }
}

/// M30: A firmware that asks for signatures gets them, and one whose answer is not signed is not
/// believed: not in the entry, and not in a mailbox.
#[test]
fn signatures() {
    let (fake, queue) = echo(true);
    let input = command(Opcode::QueryHcaCap, 700);
    for output_len in [16, 1500] {
        queue.execute(&input, &mut vec![0; output_len]).unwrap();
    }
    fake.state.lock().spoils = true;
    for output_len in [16, 1500] {
        let mut output = vec![0x77; output_len];
        let error = queue.execute(&input, &mut output).unwrap_err();
        assert_eq!(error, CommandError::Signature { opcode: Opcode::QueryHcaCap });
        assert!(output.iter().all(|byte| *byte == 0x77), "nothing of it is handed on");
    }

    fake.state.lock().spoils = false;
    for strange in [(1, 0), (0, 1)] {
        fake.state.lock().strange_tokens = strange;
        let error = queue.execute(&input, &mut [0; 1500]).unwrap_err();
        assert!(matches!(error, CommandError::Token { sent, seen, .. } if seen == sent + 1));
    }
    fake.state.lock().strange_tokens = (0, 0);
    queue.execute(&input, &mut [0; 1500]).unwrap();

    // Without being asked for, they are neither made nor looked at.
    let (fake, queue) = echo(false);
    fake.state.lock().spoils = true;
    queue.execute(&input, &mut [0; 16]).unwrap();
    fake.state.lock().signs = true;
    let error = queue.execute(&input, &mut [0; 16]).unwrap_err();
    let (opcode, status) = (Opcode::QueryHcaCap, DeliveryStatus::Signature);
    assert_eq!(error, CommandError::Delivery { opcode, status });
}

/// M20: Entries may be further apart than they are long.
#[test]
fn a_wider_stride() {
    let fake = Fake::with_geometry(4, 8);
    fake.handle(|seen| Answer::Output(pattern(seen.output_len)));
    let queue = CommandQueue::new(fake.clone(), fake.dma.clone(), options()).unwrap();
    let mut tickets = Vec::new();
    fake.handle(|_| Answer::Hold);
    for _ in 0..15 {
        tickets.push(queue.start(&command(Opcode::AllocPd, 600), 600).unwrap());
    }
    for (slot, ticket) in tickets.into_iter().enumerate() {
        let mut answer = pattern(600);
        answer[99] = slot as u8;
        fake.release(slot, &answer);
        let mut output = vec![0; 600];
        queue.finish(ticket, &mut output).unwrap();
        assert_eq!(output, answer);
    }
}
