// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whatever bytes a file has, reading it does not panic; and whatever reading accepts can be
//! replayed on the core's device, in time and without a panic.
#![expect(clippy::expect_used, clippy::panic, reason = "helpers of tests fail as tests do")]

#[expect(unreachable_pub, reason = "it is of a crate of its own, too")]
#[path = "../fuzz/src/trace.rs"]
mod property;

/// Nothing is planted in the property here.
const PLANTED: bool = false;

use std::borrow::Cow;
use std::fs;
use std::sync::LazyLock;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use vfio_conform::replay::Verdict;
use vfio_conform::suite::Suite;
use vfio_conform::target::Reference;
use vfio_conform::trace::{self, Data, Expect, Header, Slots, Step, Trace};
use vfio_fsm_core::{
    EndOfStream, Errno, Fault, Fd, FdFlags, Features, Leaves, Op, RawState, State,
};

/// Generated traces of every kind, the short ones: what mutations begin with.
static SEEDS: LazyLock<Vec<Trace>> = LazyLock::new(|| {
    let traces = Suite::ALL.iter().flat_map(|suite| suite.generate_all());
    traces.filter(|trace| trace.steps.len() < 40).collect()
});

/// Files that were hard on some reader once, or are at a limit.
static CORPUS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus");
    let files = fs::read_dir(folder).expect("the corpus is there");
    let mut paths: Vec<_> = files.map(|file| file.expect("an entry").path()).collect();
    paths.sort_unstable();
    paths.iter().map(|path| fs::read(path).expect("it is a file")).collect()
});

/// How many files each test makes: more with `FUZZ_ITERATIONS=100000`.
fn iterations() -> u32 {
    std::env::var("FUZZ_ITERATIONS").ok().and_then(|text| text.parse().ok()).unwrap_or(512)
}

/// A file of one trace.
fn written(trace: &Trace) -> Vec<u8> {
    let mut file = Vec::new();
    trace::write([trace], &mut file).expect("memory takes everything");
    file
}

/// What happens to a file on the way.
#[derive(Clone, Debug)]
enum Damage {
    Flip(Index, u8),
    Insert(Index, Vec<u8>),
    Cut(Index),
    Drop(Index, usize),
    /// A line again, elsewhere.
    Repeat(Index, Index),
    /// One word of the format for another.
    Swap(&'static str, &'static str),
    /// A number for another.
    Number(Index, u64),
}

const WORDS: &[&str] = &[
    "reset",
    "open",
    "close",
    "get_state",
    "data_size",
    "RUNNING",
    "STOP",
    "RESUMING",
    "PRE_COPY",
    "read",
    "uring_read",
    "pread",
    "poll",
    "seek",
    "close_fd",
    "fd_flags",
    "into",
    "same_as",
    "until_end",
    "chunk",
    "device",
    "ok",
    "no_fd",
    "failure",
    "written",
    "size",
    "errno",
    "fd",
    "state",
    "bytes",
    "len",
    "slot",
    "flipped",
    "bit",
    "part",
    "of",
    "drop",
    "add",
    "true",
    "false",
    "null",
    "[",
    "{",
    "}",
    "]",
    "\"",
    ",",
    ":",
];

fn damage() -> impl Strategy<Value = Damage> {
    let number = prop_oneof![
        0..10_u64,
        select(vec![255, 256, 4095, 1 << 20, u64::from(u32::MAX), 1 << 32, u64::MAX]),
    ];
    let index = any::<Index>;
    prop_oneof![
        1 => (index(), any::<u8>()).prop_map(|(at, byte)| Damage::Flip(at, byte)),
        1 => (index(), vec(any::<u8>(), 1..8)).prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        1 => index().prop_map(Damage::Cut),
        1 => (index(), 1..40_usize).prop_map(|(at, len)| Damage::Drop(at, len)),
        1 => (index(), index()).prop_map(|(from, to)| Damage::Repeat(from, to)),
        4 => (select(WORDS), select(WORDS)).prop_map(|(from, to)| Damage::Swap(from, to)),
        4 => (index(), number).prop_map(|(at, number)| Damage::Number(at, number)),
    ]
}

impl Damage {
    fn apply(&self, file: &mut Vec<u8>) {
        if file.is_empty() {
            return;
        }
        match self {
            Self::Flip(at, byte) => *at.get_mut(file) ^= byte,
            Self::Insert(at, bytes) => {
                let at = at.index(file.len());
                file.splice(at..at, bytes.iter().copied());
            }
            Self::Cut(at) => file.truncate(at.index(file.len())),
            Self::Drop(at, len) => {
                let at = at.index(file.len());
                file.drain(at..file.len().min(at + len));
            }
            Self::Repeat(from, to) => {
                let mut lines: Vec<_> = file.split_inclusive(|&byte| byte == b'\n').collect();
                let line = *from.get(&lines);
                lines.insert(to.index(lines.len()), line);
                *file = lines.concat();
            }
            Self::Swap(from, to) => {
                let text = String::from_utf8_lossy(file).replacen(from, to, 2);
                *file = text.into_bytes();
            }
            Self::Number(at, number) => {
                let starts: Vec<_> = (1..file.len())
                    .filter(|&i| file[i].is_ascii_digit() && file[i - 1] == b':')
                    .collect();
                if starts.is_empty() {
                    return;
                }
                let start = *at.get(&starts);
                let len = file[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
                file.splice(start..start + len, number.to_string().bytes());
            }
        }
    }
}

fn fd() -> impl Strategy<Value = Fd> {
    prop_oneof![8 => 0..5_u32, 1 => Just(u32::MAX)].prop_map(Fd)
}

/// At least 1: no expectation admits a read of no bytes.
fn len() -> impl Strategy<Value = u32> {
    prop_oneof![1..100_u32, Just(1 << 20), Just(u32::MAX)]
}

fn state() -> impl Strategy<Value = RawState> {
    prop_oneof![10 => 0..8_u32, 1 => any::<u32>()].prop_map(RawState)
}

fn errno() -> impl Strategy<Value = Errno> {
    (1..200_i32).prop_map(Errno)
}

fn fault() -> impl Strategy<Value = Fault> {
    let leaves = prop_oneof![Just(Leaves::Source), Just(Leaves::Error)];
    prop_oneof![
        Just(Fault::FdTableFull),
        Just(Fault::ResetInside),
        (0..6_u8, errno(), leaves).prop_map(|(hop, errno, leaves)| Fault::ArcFails {
            hop,
            errno,
            leaves
        }),
    ]
}

fn data() -> impl Strategy<Value = Data> {
    let slot = (0..3_u8, 0..4_u32, 1..4_u32, 0..40_u32, any::<u8>());
    prop_oneof![
        vec(any::<u8>(), 0..50).prop_map(Data::Hex),
        (any::<u8>(), 0..200_u32).prop_map(|(byte, len)| Data::Fill { byte, len }),
        slot.prop_map(|(slot, part, of, drop, add)| {
            Data::Slot { slot, part: part % of, of, drop, add }
        }),
        (0..3_u8, any::<u32>()).prop_map(|(slot, bit)| Data::Flipped { slot, bit }),
    ]
}

fn op() -> impl Strategy<Value = Op<Data>> {
    let set = (state(), proptest::option::weighted(0.2, fault()));
    prop_oneof![
        7 => select(vec![
            Op::Open,
            Op::Close,
            Op::GetFeatures,
            Op::GetState,
            Op::Reset,
            Op::DataSize,
            Op::OptInPrecopyV2,
        ]),
        8 => set.prop_map(|(to, fault)| Op::SetState { to, fault }),
        4 => (fd(), len()).prop_map(|(fd, len)| Op::Read { fd, len }),
        1 => (fd(), len()).prop_map(|(fd, len)| Op::UringRead { fd, len }),
        1 => (fd(), len()).prop_map(|(fd, len)| Op::Pread { fd, len }),
        4 => (fd(), data()).prop_map(|(fd, bytes)| Op::Write { fd, bytes }),
        1 => fd().prop_map(|fd| Op::Seek { fd }),
        1 => fd().prop_map(|fd| Op::Poll { fd }),
        1 => fd().prop_map(|fd| Op::PrecopyInfo { fd }),
        1 => fd().prop_map(|fd| Op::FdFlags { fd }),
        1 => fd().prop_map(|fd| Op::CloseFd { fd }),
        1 => any::<u8>().prop_map(Op::Touch),
    ]
}

/// Everything that may be answered, so that a trace goes on whatever comes.
fn anything() -> Expect {
    let flags = |read, write| FdFlags { read, write, cloexec: true };
    let amounts = Expect::Info { initial: trace::Amount::Any, dirty: trace::Amount::Any };
    Expect::AnyOf(vec![
        Expect::Ok,
        Expect::State((0..8).map(RawState).collect()),
        Expect::AnyOf((0..8).map(Expect::Features).collect()),
        Expect::AnyOf((1..100).map(|fd| Expect::Fd(Fd(fd))).collect()),
        Expect::NoFd,
        Expect::Bytes { max: u32::MAX },
        Expect::Written,
        Expect::EndOfStream(EndOfStream::Temporary),
        Expect::EndOfStream(EndOfStream::Permanent),
        Expect::Size,
        amounts,
        Expect::Ready { readable: None, writable: None },
        Expect::FdFlags(flags(true, false)),
        Expect::FdFlags(flags(false, true)),
        Expect::Failure,
    ])
}

/// A number, small ones and their neighbours above all.
fn number() -> impl Strategy<Value = u32> {
    prop_oneof![8 => 0..6_u32, 1 => any::<u32>(), 1 => Just(u32::MAX)]
}

/// On device 0, and whatever it answers is right.
fn plain(op: Op<Data>) -> Step {
    Step {
        device: 0,
        op,
        until_end: false,
        into: None,
        chunk: None,
        expect: anything(),
        same_as: None,
    }
}

/// A step that is mostly sound.
fn step() -> impl Strategy<Value = Step> {
    let slot = || proptest::option::weighted(0.4, 0..3_u8);
    let chunk = proptest::option::weighted(0.4, 1..50_u32);
    (prop_oneof![4 => Just(0), 1 => Just(1_u8)], op(), any::<bool>(), slot(), chunk).prop_map(
        |(device, op, until_end, into, chunk)| {
            let reads = matches!(op, Op::Read { .. } | Op::UringRead { .. });
            let writes = matches!(op, Op::Write { .. });
            Step {
                device,
                until_end: until_end && reads,
                into: into.filter(|_| reads),
                chunk: chunk.filter(|_| writes),
                op,
                expect: anything(),
                same_as: None,
            }
        },
    )
}

fn trace() -> impl Strategy<Value = Trace> {
    // The first four fill the slots, so that most writes of slots mean something.
    let read = Op::Read { fd: Fd(1), len: 64 };
    let fill = move |slot| Step { into: Some(slot), ..plain(read.clone()) };
    let set = plain(Op::set(State::StopCopy));
    (select(&Features::SETS), vec(step(), 1..40)).prop_map(move |(features, random)| {
        let first = [set.clone(), fill(0), fill(1), fill(2)];
        let header = Header {
            version: trace::VERSION,
            name: "fuzz".to_owned(),
            features,
            steps: None,
            covers: Vec::new(),
            dangerous: None,
        };
        Trace { header, steps: first.into_iter().chain(random).collect() }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(iterations()) })]

    /// Anything at all.
    #[test]
    fn any_bytes_are_read_or_refused(file in vec(any::<u8>(), 0..2000)) {
        property::check(&file);
    }

    /// Words of the format in any order.
    #[test]
    fn any_words_are_read_or_refused(words in vec(select(WORDS), 0..80)) {
        property::check(words.concat().as_bytes());
    }

    /// A good file with some damage.
    #[test]
    fn damaged_files_are_read_or_refused(
        seed in any::<Index>(),
        damages in vec(damage(), 1..4),
    ) {
        let mut file = written(seed.get(&SEEDS));
        damages.iter().for_each(|damage| damage.apply(&mut file));
        property::check(&file);
    }

    /// The same to the files of the corpus.
    #[test]
    fn the_corpus_is_read_or_refused(
        seed in any::<Index>(),
        damages in vec(damage(), 0..4),
    ) {
        let mut file = seed.get(&CORPUS).clone();
        damages.iter().for_each(|damage| damage.apply(&mut file));
        property::check(&file);
    }

    /// A bit is flipped, that one and no other; of nothing there is none.
    #[test]
    fn any_bit_is_flipped(held in vec(any::<u8>(), 0..40), bit in any::<u32>()) {
        let mut slots = Slots::default();
        slots.set(0, held.clone());
        let flipped = Data::Flipped { slot: 0, bit };
        let bytes = flipped.resolve(&slots).expect("the slot is filled").into_owned();
        prop_assert_eq!(bytes.len(), held.len());
        let bits = held.len() as u64 * 8;
        let differ = |at: &u64| (bytes[*at as usize / 8] ^ held[*at as usize / 8]) >> (at % 8) & 1 == 1;
        let seen: Vec<_> = (0..bits).filter(differ).collect();
        let want: Vec<_> = u64::from(bit).checked_rem(bits).into_iter().collect();
        prop_assert_eq!(seen, want);
    }

    /// A part of a slot is a part, or it is refused: by the reader, and by the data itself.
    #[test]
    fn any_part_is_one_or_is_refused(
        held in vec(any::<u8>(), 0..70),
        (part, of) in (number(), number()),
        (drop, add) in (number(), any::<u8>()),
    ) {
        let data = Data::Slot { slot: 0, part, of, drop, add };
        let mut slots = Slots::default();
        slots.set(0, held.clone());
        let resolved = data.resolve(&slots).map(Cow::into_owned);
        prop_assert_eq!(resolved.is_some(), part < of);
        if let Some(bytes) = resolved {
            let (n, part, of) = (held.len() as u64, u64::from(part), u64::from(of));
            let cut = |part: u64| (n * part / of) as usize;
            let mut expected: Vec<_> =
                held[cut(part)..cut(part + 1)].iter().map(|byte| byte.wrapping_add(add)).collect();
            expected.truncate(expected.len().saturating_sub(drop as usize));
            prop_assert_eq!(bytes, expected);
        }
        let mut writes = SEEDS[0].clone();
        writes.header.steps = None;
        let read = Op::Read { fd: Fd(1), len: 9 };
        let write = Op::Write { fd: Fd(1), bytes: data };
        writes.steps = vec![Step { into: Some(0), ..plain(read) }, plain(write)];
        prop_assert_eq!(property::check(&written(&writes)), usize::from(part < of));
    }

    /// Any steps with a meaning, whatever they do to the device, are carried out to the last.
    #[test]
    fn any_sound_trace_runs_to_its_end(trace in trace()) {
        let file = written(&trace);
        prop_assert_eq!(property::check(&file), 1);
        let verdict = property::replay(&trace, [Reference::new(), Reference::new()]);
        prop_assert_eq!(verdict, Verdict::Pass);
    }
}

/// Of the corpus as it is, some files are good ones and some are refused.
#[test]
fn the_corpus_has_both() {
    let read = |file: &&Vec<u8>| property::check(file) > 0;
    let good = CORPUS.iter().filter(read).count();
    assert!((5..CORPUS.len() - 4).contains(&good), "{good} of {}", CORPUS.len());
}

/// What the mutations are worth: a fair part of the files they make is still read.
#[test]
fn damage_is_not_always_fatal() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    let mut runner = TestRunner::deterministic();
    let strategy = (any::<Index>(), vec(damage(), 1..4));
    let mut read = 0;
    for _ in 0..300 {
        let (seed, damages) = strategy.new_tree(&mut runner).expect("never rejects").current();
        let mut file = written(seed.get(&SEEDS));
        damages.iter().for_each(|damage| damage.apply(&mut file));
        read += property::check(&file);
    }
    println!("{read} of 300 damaged files are read");
    assert!((30..290).contains(&read), "{read} of 300");
}
