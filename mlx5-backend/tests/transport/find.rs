// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is found, in every combination.

use std::fs;

use vfio_fsm_mlx5::transport::{Choice, DetectError, ParseChoiceError, Transport};

use crate::tree::{Function, PF, Tree, VF, mlx5};

const CX6: &str = "0x101d";
const VF_ID: &str = "0x101e";

fn refused(tree: &Tree, address: &str, wanted: Option<Transport>) -> DetectError {
    tree.sysfs().find(address, wanted).unwrap_err()
}

/// Says all of these.
fn says(error: &DetectError, words: &[&str]) {
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "{text:?} does not say {word:?}");
    }
}

/// M170: A physical function with mlx5_core and a virtual one with mlx5_vfio_pci is the kernel's; one
/// with vfio-pci is user space's, whatever has the virtual one. The number is that of `virtfnN`, from
/// 1.
#[test]
fn who_owns_the_physical_function() {
    for name in ["mlx5_vfio_pci", "mlx5-vfio-pci"] {
        let tree = Tree::pair(mlx5(CX6, Some("mlx5_core")), mlx5(VF_ID, Some(name)));
        for wanted in [None, Some(Transport::Kernel)] {
            let found = tree.sysfs().find(VF, wanted).unwrap();
            assert_eq!((found.transport, found.function), (Transport::Kernel, 2));
            assert_eq!((found.vf, found.pf), (tree.path(VF), tree.path(PF)));
        }
    }
    for vf in [None, Some("vfio-pci"), Some("mlx5_core"), Some("mlx5_vfio_pci")] {
        let tree = Tree::pair(mlx5("0x1017", Some("vfio-pci")), mlx5("0x1018", vf));
        for wanted in [None, Some(Transport::Firmware)] {
            let found = tree.sysfs().find(&VF.to_uppercase(), wanted).unwrap();
            assert_eq!((found.transport, found.function), (Transport::Firmware, 2));
        }
    }
}

/// M171: Drivers, device, groups and what is asked for, all against each other: whatever is not one
/// of the two ways is an error of its own, and the first thing that must change is the one it names.
#[test]
fn every_combination() {
    let drivers = [None, Some("mlx5_core"), Some("vfio-pci"), Some("mlx5_vfio_pci"), Some("uio")];
    let mut seen = 0;
    for pf_driver in drivers {
        for vf_driver in drivers {
            for device in [VF_ID, "0x1018"] {
                for (pf_group, vf_group) in [(true, true), (true, false), (false, true)] {
                    let pf = Function { group: pf_group, ..mlx5(CX6, pf_driver) };
                    let vf = Function { group: vf_group, ..mlx5(device, vf_driver) };
                    let tree = Tree::pair(pf, vf);
                    for wanted in [None, Some(Transport::Kernel), Some(Transport::Firmware)] {
                        let case = format!("{pf_driver:?} {vf_driver:?} {device} {wanted:?}");
                        let found = tree.sysfs().find(VF, wanted);
                        let right = match (pf_driver, wanted, found) {
                            (Some("mlx5_core"), Some(Transport::Firmware), Err(error)) => {
                                matches!(error, DetectError::PfNotOurs { .. })
                            }
                            (Some("mlx5_core"), _, found) => match found {
                                Err(DetectError::NotMigratable { device: 0x1018, .. }) => {
                                    device == "0x1018"
                                }
                                Err(DetectError::VfDriver { driver, .. }) => {
                                    vf_driver != Some("mlx5_vfio_pci")
                                        && driver == vf_driver.map(|name| name.replace('-', "_"))
                                }
                                Err(DetectError::NoIommuGroup { path }) => {
                                    !vf_group && path == tree.path(VF)
                                }
                                Ok(found) => {
                                    found.transport == Transport::Kernel
                                        && device == VF_ID
                                        && vf_group
                                }
                                _ => false,
                            },
                            (Some("vfio-pci"), Some(Transport::Kernel), Err(error)) => {
                                matches!(error, DetectError::PfNotKernels { .. })
                            }
                            (Some("vfio-pci"), _, Ok(found)) => {
                                found.transport == Transport::Firmware && pf_group
                            }
                            (Some("vfio-pci"), _, Err(DetectError::NoIommuGroup { path })) => {
                                !pf_group && path == tree.path(PF)
                            }
                            (_, None, Err(DetectError::PfDriver { driver, .. })) => {
                                driver.as_deref() == pf_driver
                            }
                            (_, Some(Transport::Kernel), Err(error)) => {
                                matches!(error, DetectError::PfNotKernels { .. })
                            }
                            (_, Some(Transport::Firmware), Err(error)) => {
                                matches!(error, DetectError::PfNotOurs { .. })
                            }
                            _ => false,
                        };
                        assert!(right, "{case}: {:?}", tree.sysfs().find(VF, wanted));
                        seen += 1;
                    }
                }
            }
        }
    }
    assert_eq!(seen, 5 * 5 * 2 * 3 * 3);
}

/// M171: What is said leads on: the commands that bind, make, or switch on what is missing.
#[test]
fn what_to_do_next() {
    let kernel = || mlx5(CX6, Some("mlx5_core"));
    let vf = tree_error(kernel(), mlx5(VF_ID, Some("mlx5_core")));
    says(&vf, &["the driver mlx5_core", "modprobe mlx5_vfio_pci", "echo 0000:3b:00.2 > "]);
    says(&vf, &["/driver/unbind", "echo mlx5_vfio_pci > ", "/driver_override", "drivers_probe"]);
    let bare = tree_error(kernel(), mlx5(VF_ID, None));
    says(&bare, &["the driver none", "driver_override"]);
    assert!(!bare.to_string().contains("unbind"), "{bare}");
    says(&tree_error(kernel(), mlx5("0x1018", None)), &["15b3:1018", "15b3:101e", "ConnectX-6 Dx"]);
    let no_group = Function { group: false, ..mlx5(VF_ID, Some("mlx5_vfio_pci")) };
    says(&tree_error(kernel(), no_group), &["no iommu_group", "intel_iommu=on"]);
    let nobody = tree_error(mlx5(CX6, None), mlx5(VF_ID, None));
    says(&nobody, &["the driver none", "drivers/mlx5_core/bind", "vfio-pci"]);

    let tree = Tree::pair(kernel(), mlx5(VF_ID, Some("mlx5_vfio_pci")));
    says(&refused(&tree, VF, Some(Transport::Firmware)), &["mlx5_core", "--transport kernel"]);
    says(&refused(&tree, PF, None), &["is a physical function", "0000:3b:00.1, 0000:3b:00.2"]);
    let user = Tree::pair(mlx5(CX6, Some("vfio-pci")), mlx5(VF_ID, None));
    says(&refused(&user, VF, Some(Transport::Kernel)), &["vfio_pci", "--transport firmware"]);
}

fn tree_error(pf: Function, vf: Function) -> DetectError {
    refused(&Tree::pair(pf, vf), VF, None)
}

/// M171: What is no virtual function of an mlx5 device is not taken for one.
#[test]
fn not_a_virtual_function() {
    let tree = Tree::new();
    tree.add(PF, &mlx5(CX6, Some("mlx5_core")));
    says(&refused(&tree, PF, None), &["without virtual ones", "echo 1 > ", "/sriov_numvfs"]);
    says(&refused(&tree, VF, None), &["no device at", VF, "lspci"]);
    for (number, vendor, device) in [
        (1, "0x8086", "0x1520"),
        (2, "0x15b3", "0x1003"),
        (3, "0x15b3", "0x1028"),
        (4, "0x15b3", ""),
    ] {
        let address = format!("0000:4b:00.{number}");
        let driver = Some("mlx5_core");
        tree.add(&address, &Function { vendor, device, driver, group: true });
        let error = refused(&tree, &address, None);
        assert!(matches!(error, DetectError::NotMlx5 { .. }), "{error}");
        says(&error, &[&format!("{}:{}", &vendor[2..], device.trim_start_matches("0x"))]);
    }
    for device in ["0x1011", "0x1027", "0x2101", "0xa2dc"] {
        let tree = Tree::pair(mlx5(device, Some("vfio-pci")), mlx5(device, None));
        assert!(tree.sysfs().find(VF, None).is_ok(), "{device}");
    }
    for given in
        ["", "3b:00.2", "0000:3b:00", "../0000:3b:00.2", "0000:3b:00.2/..", "eth0", "0000:3b:00.10"]
    {
        let error = refused(&tree, given, None);
        assert!(matches!(error, DetectError::Address { .. }), "{given}: {error}");
    }
}

/// M171: A tree that changes meanwhile, or is none, is an error and no function.
#[test]
fn a_tree_that_does_not_fit() {
    let pair = || Tree::pair(mlx5(CX6, Some("mlx5_core")), mlx5(VF_ID, Some("mlx5_vfio_pci")));
    let tree = pair();
    tree.remove(PF, "virtfn1");
    let error = refused(&tree, VF, None);
    assert!(matches!(error, DetectError::NotListed { .. }), "{error}");
    let tree = pair();
    tree.remove(VF, "device");
    let error = refused(&tree, VF, None);
    assert!(matches!(error, DetectError::Unreadable { .. }), "{error}");
    let tree = pair();
    fs::remove_dir_all(tree.path(PF)).unwrap();
    let error = refused(&tree, VF, None);
    assert!(matches!(error, DetectError::NoSuchDevice { .. }), "{error}");
}

/// M172: `--transport` takes `auto` and the names, prints as it parses, and says what there is.
#[test]
fn choices() {
    assert_eq!("auto".parse(), Ok(Choice::Auto));
    assert_eq!(Choice::default(), Choice::Auto);
    for transport in Transport::ALL {
        let choice = Choice::Forced(transport);
        assert_eq!(choice.to_string().parse(), Ok(choice));
        assert_eq!(choice.transport(), Some(transport));
    }
    let error = "Kernel".parse::<Choice>().unwrap_err();
    assert_eq!(error, ParseChoiceError { given: "Kernel".into() });
    assert!(error.to_string().contains("auto, firmware, kernel and software"));
    assert_eq!(format!("{:>9}|{:<9}|", Choice::Auto, Transport::Kernel), "     auto|kernel   |");
}
