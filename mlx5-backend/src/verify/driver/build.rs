// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Makes a program of the driver's own files and our stand-ins for the rest of the kernel.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::DriverError;

/// What is ours: `verify/driver` of this crate.
const OURS: &[(&str, &str)] = &[
    ("harness.h", include_str!("../../../verify/driver/harness.h")),
    ("host.c", include_str!("../../../verify/driver/host.c")),
    ("kernel.c", include_str!("../../../verify/driver/kernel.c")),
    ("kernel.h", include_str!("../../../verify/driver/kernel.h")),
    ("mlx5_core.c", include_str!("../../../verify/driver/mlx5_core.c")),
    ("mlx5_core.h", include_str!("../../../verify/driver/mlx5_core.h")),
    ("wire.c", include_str!("../../../verify/driver/wire.c")),
    ("wire.h", include_str!("../../../verify/driver/wire.h")),
];

/// Headers that are `kernel.h` under another name.
const AS_KERNEL: &[&str] = &[
    "linux/anon_inodes.h",
    "linux/bitfield.h",
    "linux/cdev.h",
    "linux/device.h",
    "linux/eventfd.h",
    "linux/file.h",
    "linux/interrupt.h",
    "linux/iommu.h",
    "linux/iova_bitmap.h",
    "linux/irqbypass.h",
    "linux/kernel.h",
    "linux/mm.h",
    "linux/module.h",
    "linux/mutex.h",
    "linux/notifier.h",
    "linux/pci.h",
    "linux/pm_runtime.h",
    "linux/poll.h",
    "linux/rcupdate.h",
    "linux/refcount.h",
    "linux/sched/mm.h",
    "linux/types.h",
    "linux/uaccess.h",
    "linux/uuid.h",
    "linux/workqueue.h",
    "rdma/ib_verbs.h",
];

/// Headers that are `mlx5_core.h` under another name.
const AS_CORE: &[&str] = &["linux/mlx5/driver.h", "linux/mlx5/vport.h"];

/// What is taken as it is: where in the kernel's sources, and under which name.
const TAKEN: &[(&str, &str)] = &[
    ("drivers/vfio/pci/mlx5/cmd.c", "cmd.c"),
    ("drivers/vfio/pci/mlx5/cmd.h", "cmd.h"),
    ("drivers/vfio/pci/mlx5/main.c", "main.c"),
    ("include/linux/mlx5/cq.h", "linux/mlx5/cq.h"),
    ("include/linux/mlx5/device.h", "linux/mlx5/device.h"),
    ("include/linux/mlx5/doorbell.h", "linux/mlx5/doorbell.h"),
    ("include/linux/mlx5/eq.h", "linux/mlx5/eq.h"),
    ("include/linux/mlx5/mlx5_ifc.h", "linux/mlx5/mlx5_ifc.h"),
    ("include/linux/mlx5/mlx5_ifc_fpga.h", "linux/mlx5/mlx5_ifc_fpga.h"),
    ("include/linux/mlx5/qp.h", "linux/mlx5/qp.h"),
    ("include/linux/vfio.h", "linux/vfio.h"),
    ("include/linux/vfio_pci_core.h", "linux/vfio_pci_core.h"),
    ("include/uapi/linux/vfio.h", "uapi/linux/vfio.h"),
];

/// The file of which only a part is taken: the state machine and the features in front of the
/// driver. The rest of it is groups, containers and device nodes, which would need as many
/// stand-ins again and are beside the subject.
const VFIO_MAIN: &str = "drivers/vfio/vfio_main.c";
/// The part begins with this line...
const FROM: &str = "int vfio_mig_get_next_state(";
/// ...and ends before this one.
const TO: &str = "static long vfio_device_fops_unl_ioctl(";
/// The way in to what is static there.
const WAY_IN: &str = "long verify_device_feature(struct vfio_device *device, \
     struct vfio_device_feature *feature)\n{\n\treturn vfio_ioctl_device_feature(device, feature);\n}\n";

/// What the kernel itself is compiled with, as far as it changes what C means, and warnings.
const FLAGS: &[&str] = &[
    "-std=gnu11",
    "-D_GNU_SOURCE",
    "-O1",
    "-g",
    "-fno-strict-aliasing",
    "-fwrapv",
    "-fno-delete-null-pointer-checks",
    "-Wall",
    "-Werror=implicit-function-declaration",
];

/// With what, and from where, the driver is built.
#[derive(Clone, Debug)]
pub struct Build {
    source: PathBuf,
    compiler: String,
    sanitized: bool,
    changes: Vec<(String, String, String)>,
}

/// The paths, below the top of the kernel's sources, that a build reads.
pub fn needed() -> impl Iterator<Item = &'static str> {
    TAKEN.iter().map(|(path, _)| *path).chain([VFIO_MAIN])
}

impl Build {
    /// From the kernel's sources, of which `source` is the top; [`needed`] says what has to be
    /// there. With `cc`, which may be any C compiler that GCC's extensions do not frighten.
    pub fn new(source: &Path) -> Self {
        let (source, compiler) = (source.to_owned(), "cc".to_owned());
        Self { source, compiler, sanitized: false, changes: Vec::new() }
    }

    /// With another compiler.
    #[must_use]
    pub fn compiler(mut self, compiler: &str) -> Self {
        compiler.clone_into(&mut self.compiler);
        self
    }

    /// Under the address and undefined-behaviour sanitizers: what is freed twice, used after it was
    /// freed or never freed ends the process, and the check with it. Four times slower.
    #[must_use]
    pub const fn sanitized(mut self) -> Self {
        self.sanitized = true;
        self
    }

    /// With one text of one file replaced by another: to show that a check can fail. The file is
    /// the copy; the text has to be there.
    #[must_use]
    pub fn with_change(mut self, file: &str, from: &str, to: &str) -> Self {
        self.changes.push((file.to_owned(), from.to_owned(), to.to_owned()));
        self
    }

    /// Builds the program in the directory `out`, which is made if need be.
    pub fn build(&self, out: &Path) -> Result<Built, DriverError> {
        for (name, text) in OURS {
            put(&out.join(name), text)?;
        }
        for (names, header) in [(AS_KERNEL, "kernel.h"), (AS_CORE, "mlx5_core.h")] {
            for name in names {
                put(&out.join(name), &format!("#include <{header}>\n"))?;
            }
        }
        for (path, name) in TAKEN {
            put(&out.join(name), &get(&self.source.join(path))?)?;
        }
        put(&out.join("fsm.c"), &self.state_machine()?)?;
        for change in &self.changes {
            replace(out, change)?;
        }
        self.compile(out)
    }

    /// The part of `vfio_main.c`.
    fn state_machine(&self) -> Result<String, DriverError> {
        let path = self.source.join(VFIO_MAIN);
        let text = get(&path)?;
        let line = |pattern: &'static str| {
            let missing = || DriverError::Pattern { path: path.clone(), pattern };
            text.find(&format!("\n{pattern}")).map(|at| at + 1).ok_or_else(missing)
        };
        let (from, to) = (line(FROM)?, line(TO)?);
        let part = text.get(from..to).unwrap_or_default();
        Ok(format!("#include \"harness.h\"\n{part}\n{WAY_IN}"))
    }

    fn compile(&self, out: &Path) -> Result<Built, DriverError> {
        let program = out.join("driver");
        let mut cc = Command::new(&self.compiler);
        cc.current_dir(out).args(FLAGS).args(["-I.", "-o", "driver"]);
        if self.sanitized {
            cc.args(["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]);
        }
        let ours = OURS.iter().map(|(name, _)| *name).filter(|name| name.ends_with(".c"));
        cc.args(ours).args(["cmd.c", "main.c", "fsm.c"]);
        let output = cc.output().map_err(DriverError::file("run the compiler in", out))?;
        if !output.status.success() {
            let said = last_lines(&String::from_utf8_lossy(&output.stderr), 30);
            return Err(DriverError::Compiler { compiler: self.compiler.clone(), said });
        }
        Ok(Built { program })
    }
}

/// The driver as a program.
#[derive(Clone, Debug)]
pub struct Built {
    pub(super) program: PathBuf,
}

fn get(path: &Path) -> Result<String, DriverError> {
    fs::read_to_string(path).map_err(DriverError::file("read", path))
}

fn put(path: &Path, text: &str) -> Result<(), DriverError> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).map_err(DriverError::file("create", dir))?;
    }
    fs::write(path, text).map_err(DriverError::file("write", path))
}

fn replace(out: &Path, (file, from, to): &(String, String, String)) -> Result<(), DriverError> {
    let path = out.join(file);
    let text = get(&path)?;
    if !text.contains(from) {
        return Err(DriverError::Found(format!("{file} has no {from:?} that could be changed")));
    }
    put(&path, &text.replacen(from, to, 1))
}

pub(super) fn first_lines(text: &str, most: usize) -> String {
    text.lines().take(most).collect::<Vec<_>>().join("\n")
}

fn last_lines(text: &str, most: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(most)..].join("\n")
}
