// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Memory that both sides know.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use proptest::prelude::*;
use vfio_fsm_core::Errno;
use vfio_fsm_mlx5::dma::{DmaBuffer, DmaError, DmaSpace, MapDma};
use vm_memory::MmapRegion;

/// M38: A buffer is whole pages of zeros, which both sides see, and nothing once it is dropped.
#[test]
fn both_sides() {
    let space = DmaSpace::new(1 << 20);
    for bytes in [0, 1, 4096] {
        assert_eq!(space.allocate(bytes).unwrap().len(), 4096);
    }
    let buffer = space.allocate(4097).unwrap();
    assert_eq!((buffer.len(), buffer.iova() % 4096, space.used()), (8192, 0, 8192));
    let mut bytes = [1; 8192];
    space.read(buffer.iova(), &mut bytes).unwrap();
    assert_eq!(bytes, [0; 8192]);

    buffer.write(8000, &[1, 2, 3]).unwrap();
    space.read(buffer.iova() + 8001, &mut bytes[..2]).unwrap();
    assert_eq!(bytes[..2], [2, 3]);
    space.write(buffer.iova() + 4095, &[7, 8]).unwrap();
    assert_eq!((buffer.load(4095), buffer.load(4096)), (Ok(7), Ok(8)));

    let window = space.window(buffer.iova(), 8192).unwrap();
    let iova = buffer.iova();
    drop(buffer);
    assert_eq!(space.used(), 0);
    assert_eq!(space.read(iova, &mut [0]), Err(DmaError::Unmapped { iova, len: 1 }));
    assert_eq!(window.as_volatile_slice().unwrap().len(), 8192, "what is held stays memory");
}

/// M38: Neither side gets further than the memory goes.
#[test]
fn outside() {
    let space = DmaSpace::new(1 << 20);
    let buffer = space.allocate(4096).unwrap();
    let (iova, size) = (buffer.iova(), 4096);
    let outside = |offset, len| Err(DmaError::Outside { offset, len, size });
    assert_eq!(buffer.write(4095, &[0; 2]), outside(4095, 2));
    assert_eq!(buffer.read(usize::MAX, &mut [0; 2]), outside(usize::MAX, 2));
    assert_eq!(buffer.store(4096, 1), outside(4096, 1));
    assert_eq!(buffer.load(4096).map(|_| ()), outside(4096, 1));
    let beyond = DmaError::Unmapped { iova: iova + 4096, len: 5 };
    assert_eq!(space.write(iova + 4090, &[0; 11]), Err(beyond));
    assert_eq!(space.window(iova + 4090, 11).map(drop), Err(beyond));
    for iova in [0, iova - 1, u64::MAX] {
        assert_eq!(space.read(iova, &mut [0]).unwrap_err().errno(), Errno::EFAULT);
    }
}

/// M38: A space has no more memory than it may, however it is asked.
#[test]
fn the_limit() {
    let space = DmaSpace::new(3 * 4096);
    let two = space.allocate(5000).unwrap();
    let refused = DmaError::Limit { asked: 8192, used: 8192, limit: 3 * 4096 };
    assert_eq!(space.allocate(4097).map(drop), Err(refused));
    assert_eq!(refused.errno(), Errno::ENOMEM);
    let one = space.allocate(1).unwrap();
    assert!(space.allocate(1).is_err());
    drop((one, two));
    assert_eq!(space.allocate(3 * 4096).unwrap().len(), 3 * 4096);
    for bytes in [usize::MAX, usize::MAX - 4096] {
        assert!(space.allocate(bytes).is_err());
        assert!(DmaSpace::new(u64::MAX).allocate(bytes).is_err());
    }
}

/// M38: Memory of others is where they put it, not on top of something, and not given to others.
#[test]
fn attached() {
    let space = DmaSpace::new(1 << 20);
    let memory = |bytes| Arc::new(MmapRegion::<()>::new(bytes).unwrap());
    let first = space.allocate(1).unwrap();
    let iova = first.iova();
    for (at, bytes) in [(iova, 4096), (iova - 4096, 8192), (123, 4096), (u64::MAX - 4095, 4096)] {
        let refused = DmaError::Placement { iova: at, len: bytes as u64 };
        assert_eq!(space.attach(at, memory(bytes)), Err(refused));
    }
    space.attach(iova + 4096, memory(8192)).unwrap();
    space.attach(0, memory(4096)).unwrap();
    let second = space.allocate(4096).unwrap();
    assert_eq!(second.iova(), iova + 3 * 4096);
    // An access may go from one to the next, as on a bus.
    space.write(iova, &[9; 4 * 4096]).unwrap();
    assert_eq!(second.load(4095), Ok(9));
    assert_eq!(space.used(), 8192);

    assert_eq!(space.detach(iova + 4096).unwrap().size(), 8192);
    assert!(space.detach(iova + 4096).is_err());
    assert!(space.detach(iova).is_err(), "a buffer is not taken out from under its owner");
    assert_eq!(space.allocate(8192).unwrap().iova(), iova + 4096);
    space.detach(0).unwrap();
}

#[derive(Default)]
struct Iommu {
    mapped: Mutex<BTreeMap<u64, Arc<MmapRegion>>>,
    fails: Mutex<bool>,
}

struct Handle(Arc<Iommu>);

impl MapDma for Handle {
    fn map(&self, iova: u64, memory: &Arc<MmapRegion>) -> io::Result<()> {
        if *self.0.fails.lock() {
            return Err(io::Error::from_raw_os_error(28));
        }
        assert!(self.0.mapped.lock().insert(iova, memory.clone()).is_none());
        Ok(())
    }

    fn unmap(&self, iova: u64, len: u64) -> io::Result<()> {
        if *self.0.fails.lock() {
            return Err(io::Error::from_raw_os_error(5));
        }
        assert_eq!(self.0.mapped.lock().remove(&iova).unwrap().size() as u64, len);
        Ok(())
    }
}

/// M38: The IOMMU knows what is allocated and nothing else; what it does not map is not there, and
/// the address of what it does not let go is not given to anything else.
#[test]
fn an_iommu() {
    let iommu = Arc::new(Iommu::default());
    let space = DmaSpace::with_iommu(1 << 20, Box::new(Handle(iommu.clone())));
    let buffer = space.allocate(5000).unwrap();
    assert_eq!(iommu.mapped.lock().keys().copied().collect::<Vec<_>>(), [buffer.iova()]);
    *iommu.fails.lock() = true;
    let refused = DmaError::Map { iova: buffer.iova() + 8192, len: 4096, errno: Errno::ENOSPC };
    assert_eq!(space.allocate(1).map(drop), Err(refused));
    assert_eq!(space.used(), 8192);

    let iova = buffer.iova();
    drop(buffer);
    *iommu.fails.lock() = false;
    assert_eq!(space.used(), 8192, "the device may still write there");
    assert!(space.read(iova, &mut [0]).is_err());
    let next = space.allocate(1).unwrap();
    assert_eq!(next.iova(), iova + 8192);
    drop(next);
    assert_eq!(iommu.mapped.lock().len(), 1);
}

proptest! {
    /// M38: However buffers come and go, no two overlap, and all that was freed can be had again in
    /// one piece.
    #[test]
    fn no_two_overlap(steps in prop::collection::vec((0usize..20, 1usize..40_000), 1..80)) {
        let space = DmaSpace::new(256 << 20);
        let mut buffers: Vec<DmaBuffer> = Vec::new();
        for (which, bytes) in steps {
            if which < buffers.len() {
                buffers.swap_remove(which);
            } else {
                buffers.push(space.allocate(bytes).unwrap());
            }
            let mut ranges: Vec<_> =
                buffers.iter().map(|b| (b.iova(), b.iova() + b.len() as u64)).collect();
            ranges.sort_unstable();
            prop_assert!(ranges.windows(2).all(|pair| pair[0].1 <= pair[1].0));
            let used: u64 = ranges.iter().map(|(start, end)| end - start).sum();
            prop_assert_eq!(space.used(), used);
        }
        let first = DmaSpace::new(4096).allocate(1).unwrap().iova();
        buffers.clear();
        prop_assert_eq!(space.allocate(64 << 20).unwrap().iova(), first);
    }
}
