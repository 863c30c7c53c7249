// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The shim, and what it talks to, without libmlx5: a C compiler is needed, the packages are not.

use super::programs::{compile_shim, write};
use super::*;

const BY_HAND_C: &str = include_str!("../../../verify/libmlx5/by_hand.c");

/// A directory that is gone with the value.
struct Scratch(PathBuf);

impl Scratch {
    fn new(test: &str) -> Self {
        Self(std::env::temp_dir().join(format!("mlx5-shim-{test}-{}", std::process::id())))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn by_hand(scratch: &Scratch) -> Programs {
    let shim = compile_shim("cc", &scratch.0).unwrap();
    let source = write(&scratch.0, "by_hand.c", BY_HAND_C).unwrap();
    let client = source.with_extension("");
    let mut compile = Command::new("cc");
    compile.args(["-Wall", "-Wextra", "-Werror", "-o"]).arg(&client).arg(source);
    super::super::headers::run(compile).unwrap();
    Programs { shim, client, library_path: "".into(), library: PathBuf::new() }
}

/// M120: the shim answers as VFIO does, passes on what is not the device's, and makes memory that
/// is mapped the firmware's, too, for as long as it is.
#[test]
fn the_shim_is_a_vfio_device() {
    let scratch = Scratch::new("by-hand");
    let programs = by_hand(&scratch);
    let stage = Stage::new(config(), None).unwrap();
    let arguments = [LONGEST.to_string()];
    let played = stage.play(&programs, &arguments, &mut |_| false).unwrap();
    let failed: Vec<_> = played.checks.iter().filter(|check| !check.ok).collect();
    assert!(failed.is_empty() && played.status.success(), "{failed:?} {}", played.said);
    assert_eq!(played.checks.len(), 28);
    assert!(played.mapped.is_empty());
    let log = stage.firmware.log();
    let ends: Vec<_> = log.iter().map(|entry| (entry.opcode, entry.status)).collect();
    let enable = |status| (Opcode::EnableHca, status);
    assert_eq!(ends, [enable(CommandStatus::Ok), enable(CommandStatus::BadSysState)]);
}

/// M121: a client that is wrong, or ends by itself, is a report and no error, and leaves nothing.
#[test]
fn a_client_that_fails_is_told_of() {
    let scratch = Scratch::new("fails");
    let programs = by_hand(&scratch);
    let stage = Stage::new(config(), None).unwrap();
    let played = stage.play(&programs, &[], &mut |_| false).unwrap();
    assert_eq!((played.status.code(), played.checks.len()), (Some(2), 0));
    // An answer with another status.
    let slip = Slip::Output(Opcode::EnableHca, 7);
    let stage = Stage::new(config(), Some(slip)).unwrap();
    let played = stage.play(&programs, &[LONGEST.to_string()], &mut |_| false).unwrap();
    let failed: Vec<_> = played.checks.iter().filter(|check| !check.ok).collect();
    let [failed] = failed[..] else { panic!("{failed:?}") };
    assert!(failed.what.contains("answered"), "{failed:?}");
}

/// M122: what the packages do not have, and a compiler that is not there, is an error that says so.
#[test]
fn what_is_missing_is_an_error() {
    let scratch = Scratch::new("missing");
    let error = run(&scratch.0, "cc", &scratch.0.join("out")).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("mlx5dv.h") && text.contains("libibverbs-dev"), "{text}");
    for file in ["usr/include/infiniband/mlx5dv.h", "usr/lib/some/libmlx5.so.1"] {
        let path = scratch.0.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }
    let error = run(&scratch.0, "cc", &scratch.0.join("out")).unwrap_err();
    assert!(error.to_string().contains("libibverbs.so.1"), "{error}");
    fs::write(scratch.0.join("usr/lib/some/libibverbs.so.1"), "").unwrap();
    let error = run(&scratch.0, "no-such-compiler", &scratch.0.join("out")).unwrap_err();
    assert!(matches!(error, VerifyError::Start { .. }), "{error}");
    let error = run(&scratch.0, "cc", &scratch.0.join("out")).unwrap_err();
    assert!(matches!(error, VerifyError::Failed { .. }), "{error}");
}
