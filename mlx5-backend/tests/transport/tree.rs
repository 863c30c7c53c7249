// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A tree like sysfs.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use tempfile::TempDir;
use vfio_fsm_mlx5::transport::Sysfs;

pub(crate) const PF: &str = "0000:3b:00.0";
pub(crate) const VF: &str = "0000:3b:00.2";

/// A function's directory.
pub(crate) struct Function {
    pub(crate) vendor: &'static str,
    pub(crate) device: &'static str,
    pub(crate) driver: Option<&'static str>,
    pub(crate) group: bool,
}

pub(crate) const fn mlx5(device: &'static str, driver: Option<&'static str>) -> Function {
    Function { vendor: "0x15b3", device, driver, group: true }
}

pub(crate) struct Tree(TempDir);

impl Tree {
    pub(crate) fn new() -> Self {
        let tree = Self(TempDir::new().unwrap());
        fs::create_dir_all(tree.0.path().join("bus/pci/devices")).unwrap();
        tree
    }

    /// A usual host's: a physical function, and `VF` as the second of its virtual ones.
    pub(crate) fn pair(pf: Function, vf: Function) -> Self {
        let tree = Self::new();
        tree.add(PF, &pf);
        tree.add("0000:3b:00.1", &mlx5("0x101e", Some("mlx5_core")));
        tree.add(VF, &vf);
        tree.link(0, "0000:3b:00.1");
        tree.link(1, VF);
        tree
    }

    pub(crate) fn path(&self, address: &str) -> PathBuf {
        let root = self.0.path().canonicalize().unwrap();
        root.join("devices/pci0000:3a").join(address)
    }

    pub(crate) fn add(&self, address: &str, function: &Function) {
        let path = self.0.path().join("devices/pci0000:3a").join(address);
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("vendor"), format!("{}\n", function.vendor)).unwrap();
        fs::write(path.join("device"), format!("{}\n", function.device)).unwrap();
        if let Some(driver) = function.driver {
            symlink(format!("../../../bus/pci/drivers/{driver}"), path.join("driver")).unwrap();
        }
        if function.group {
            let groups = self.0.path().join("kernel/iommu_groups/7");
            fs::create_dir_all(&groups).unwrap();
            symlink("../../../kernel/iommu_groups/7", path.join("iommu_group")).unwrap();
        }
        let link = self.0.path().join("bus/pci/devices").join(address);
        symlink(format!("../../../devices/pci0000:3a/{address}"), link).unwrap();
    }

    /// Makes a function the n-th virtual one.
    pub(crate) fn link(&self, number: u16, vf: &str) {
        let path = self.0.path().join("devices/pci0000:3a");
        symlink(format!("../{PF}"), path.join(vf).join("physfn")).unwrap();
        symlink(format!("../{vf}"), path.join(PF).join(format!("virtfn{number}"))).unwrap();
    }

    pub(crate) fn remove(&self, address: &str, name: &str) {
        fs::remove_file(self.path(address).join(name)).unwrap();
    }

    pub(crate) fn sysfs(&self) -> Sysfs {
        Sysfs::at(self.0.path())
    }
}
