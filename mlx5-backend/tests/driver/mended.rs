// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Faults that the driver once had and has no more, put back into a copy of it: each is found, and
//! by what it breaks.

use vfio_fsm_core::{Errno, Fd, Op, Reply, State};
use vfio_fsm_mlx5::layout::{CommandStatus, Opcode};
use vfio_fsm_mlx5::verify::driver::{
    Arena, Build, Built, Completion, FINDINGS, Failure, LinuxDriver, Meanwhile, Options, Scripted,
    transcript,
};

use crate::program::{SHIPPING, place, source};

fn with(name: &str, file: &str, from: &str, to: &str) -> Built {
    let build = Build::new(&source()).sanitized().with_change(file, from, to);
    build.build(&place(name)).unwrap_or_else(|error| panic!("{error}"))
}

fn start(built: &Built, options: Options) -> LinuxDriver<Scripted> {
    let arena = Arena::new(1 << 12).unwrap();
    built.start(Scripted::new(false), &arena, options).unwrap()
}

/// What a blocked read says when the VF is reset, while the SAVE that it waits for has failed and
/// the worker is late.
fn read_during_reset(built: &Built) -> Reply<usize> {
    let options = Options { completion: Completion::Awaited, ..Options::default() };
    let mut driver = start(built, options);
    let mut buf = [0; 64];
    driver.try_apply(Op::set(State::StopCopy), &mut buf).unwrap();
    let failure = Failure::Status(CommandStatus::InternalErr);
    driver.firmware_mut().fail_next(Opcode::SaveVhcaState, failure);
    let read = Op::Read { fd: Fd(1), len: 64 };
    // The record in front of the image is there at once.
    assert!(matches!(driver.try_apply(read, &mut buf).unwrap(), Reply::Bytes(_)));
    driver.meanwhile(Meanwhile::Wait, Op::Reset);
    driver.try_apply(read, &mut buf).unwrap().map(<[u8]>::len)
}

/// M105: a reader that is blocked wakes when its session ends (B23).
#[test]
#[ignore = "needs the kernel's sources"]
fn a_blocked_reader_wakes() {
    assert_eq!(read_during_reset(&SHIPPING), Reply::Errno(Errno::ENODEV));
    let wake = "wake_up_interruptible(&mvdev->saving_migf->poll_wait);";
    let asleep = with("asleep", "main.c", wake, "");
    assert_eq!(read_during_reset(&asleep), Reply::Errno(Errno::EAGAIN), "a signal ends the wait");
}

/// What ends a driver, or is left of it, when there are no pages beyond these for SET.
fn set_with_pages(built: &Built, to: State, pages: u32) -> Result<(), String> {
    let mut driver = start(built, Options::default());
    driver.pages_left(Some(pages)).unwrap();
    let reply = driver.try_apply(Op::set(to), &mut []).map_err(|error| error.to_string())?;
    assert_eq!(reply, Reply::Errno(Errno::ENOMEM));
    driver.finish(1).map_err(|error| error.to_string())
}

/// M103: a failed step to RESUMING frees its session once (B28).
#[test]
#[ignore = "needs the kernel's sources"]
fn a_session_is_freed_once() {
    assert_eq!(set_with_pages(&SHIPPING, State::Resuming, 0), Ok(()));
    let put = "out:\n\tfput(migf->filp);";
    let twice = with("twice", "main.c", put, "out:\n\tkfree(migf);\n\tfput(migf->filp);");
    let error = set_with_pages(&twice, State::StopCopy, 0).expect_err("it is freed twice");
    assert!(error.contains("heap-use-after-free"), "{error}");
}

/// M103: a failed step to PRE_COPY frees no buffer that it did not get (B30).
#[test]
#[ignore = "needs the kernel's sources"]
fn an_errno_is_no_buffer() {
    // Two buffers and their headers take five pages; the next is of the first image.
    let results: Vec<_> =
        (0..8).map(|pages| set_with_pages(&SHIPPING, State::PreCopy, pages)).collect();
    assert_eq!(results, vec![Ok(()); 8]);
    let free = with("errno", "main.c", "\t\t\tgoto out_pd;", "\t\t\tgoto out_save;");
    let results = (0..8).map(|pages| set_with_pages(&free, State::PreCopy, pages));
    let errors: Vec<String> = results.filter_map(Result::err).collect();
    assert!(!errors.is_empty(), "an errno was freed, and nobody noticed");
}

/// M100: the status of a SAVE that has failed decides what follows (B26).
#[test]
#[ignore = "needs the kernel's sources"]
fn the_status_of_a_save_is_looked_at() {
    let deaf = with("deaf", "cmd.c", "if (status == -EREMOTEIO)", "if (0)");
    let (deaf, sound) = (
        transcript(&deaf, false, Completion::Behind),
        transcript(&SHIPPING, false, Completion::Behind).unwrap(),
    );
    assert!(deaf.is_err_and(|error| error.to_string().contains("ENODEV")));
    assert!(sound.contains("falls back to full image"));
}

/// M103: nobody lets a session go while its SAVE is in flight.
#[test]
#[ignore = "needs the kernel's sources"]
fn a_session_outlives_its_save() {
    let wait = "mlx5_cmd_cleanup_async_ctx(&mvdev->saving_migf->async_ctx);";
    let hasty = with("hasty", "main.c", wait, "");
    for (built, sound) in [(&*SHIPPING, true), (&hasty, false)] {
        let options = Options { completion: Completion::Awaited, ..Options::default() };
        let mut driver = start(built, options);
        driver.try_apply(Op::set(State::StopCopy), &mut []).unwrap();
        driver.try_apply(Op::CloseFd { fd: Fd(1) }, &mut []).unwrap();
        driver.try_apply(Op::Reset, &mut []).unwrap();
        let ended = driver.complete().and_then(|_| driver.finish(1));
        assert_eq!(ended.is_ok(), sound, "{ended:?}");
    }
}

/// M104: where a page's suggestion is followed, its finding shows itself no more.
#[test]
#[ignore = "needs the kernel's sources"]
fn a_suggestion_mends() {
    let gone = "mvdev->mdev_detach = true;";
    let runs = "mvdev->mdev_detach = true; mvdev->mig_state = VFIO_DEVICE_STATE_RUNNING;";
    let mended = with("reloads", "cmd.c", gone, runs);
    for finding in FINDINGS {
        let shows = finding.show(&mended);
        assert_eq!(shows.is_ok(), finding.page != "mlx5-pf-reload", "{}: {shows:?}", finding.what);
    }
}
