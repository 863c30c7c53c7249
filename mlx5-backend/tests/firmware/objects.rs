// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Protection domains, UARs, memory keys and queues: made, refused, destroyed.

use vfio_fsm_mlx5::firmware::{Config, Syndrome, VhcaConfig};
use vfio_fsm_mlx5::layout::*;

use crate::driver::{Driver, Failure, mkey_command, save_command};

fn driver() -> Driver {
    Driver::new(Config::of(VhcaConfig::default()))
}

fn destroy(opcode: Opcode, number: u32) -> Vec<u8> {
    let mut input = [0; 16];
    input[..2].copy_from_slice(&u16::from(opcode).to_be_bytes());
    input[8..12].copy_from_slice(&number.to_be_bytes());
    input.to_vec()
}

/// M50: what is destroyed was there, and nothing else still uses it.
#[test]
fn destroyed_once() {
    let mut driver = driver();
    let buffer = driver.buffer(4096);
    let uar = driver.alloc_uar();
    let memory = driver.space.allocate(4096).unwrap();
    let eq = crate::bring_up::create_eq(&mut driver, uar, &memory, 2, 0);
    for (opcode, number) in [(Opcode::DeallocPd, buffer.pd), (Opcode::DeallocUar, uar)] {
        assert_eq!(driver.plain(&destroy(opcode, number)), Err(Syndrome::InUse.into()));
    }
    let order = [
        (Opcode::DestroyMkey, buffer.index, Syndrome::NoMkey),
        (Opcode::DeallocPd, buffer.pd, Syndrome::NoPd),
        (Opcode::DestroyEq, eq, Syndrome::NoEq),
        (Opcode::DeallocUar, uar, Syndrome::NoUar),
        (Opcode::DestroyCq, 5, Syndrome::NoCq),
        (Opcode::DestroyQp, 5, Syndrome::NoQp),
    ];
    for (opcode, number, missing) in order {
        if number != 5 {
            driver.plain(&destroy(opcode, number)).unwrap();
        }
        assert_eq!(driver.plain(&destroy(opcode, number)), Err(missing.into()));
    }
}

/// M51: a memory key whose context cannot be.
#[test]
fn mkey_contexts() {
    let mut driver = driver();
    let pd = driver.alloc_pd();
    let memory = driver.space.allocate(3 * 4096).unwrap();
    let mut check = |wanted: Failure, spoil: &dyn Fn(&mut CreateMkeyIn<&mut [u8]>)| {
        let mut bytes = mkey_command(pd, &memory);
        spoil(&mut CreateMkeyIn::new(&mut bytes[..]).unwrap());
        assert_eq!(driver.exec(&bytes, 16), Err(wanted));
    };
    check(Syndrome::NoPd.into(), &|input| {
        input.memory_key_mkey_entry_mut().set_pd(99);
    });
    check(Syndrome::MkeyContext.into(), &|input| {
        input.memory_key_mkey_entry_mut().set_access_mode(MkeyAccessMode::Klm);
    });
    check(Syndrome::MkeyContext.into(), &|input| {
        input.memory_key_mkey_entry_mut().set_free(true);
    });
    check(Syndrome::MkeyContext.into(), &|input| {
        input.memory_key_mkey_entry_mut().set_log_page_size(11);
    });
    check(Syndrome::MkeyContext.into(), &|input| {
        input.memory_key_mkey_entry_mut().set_len(5 * 4096);
    });
    check(Syndrome::MkeyContext.into(), &|input| input.klm_pas_mtt_mut()[7] = 3);
    check(Syndrome::InputLength.into(), &|input| {
        input.set_translations_octword_actual_size(3);
    });
}

/// M51: rights in the page addresses are rights, where the command says so.
#[test]
fn pg_access() {
    let mut driver = driver();
    let pd = driver.alloc_pd();
    let memory = driver.space.allocate(0x3000).unwrap();
    let mut bytes = mkey_command(pd, &memory);
    let mut input = CreateMkeyIn::new(&mut bytes[..]).unwrap();
    input.set_pg_access(true);
    for page in input.klm_pas_mtt_mut().as_chunks_mut::<8>().0 {
        page[7] |= 3;
    }
    let out = driver.exec(&bytes, 16).unwrap();
    let key = CreateMkeyOut::new(&out[..]).unwrap().mkey_index() << 8;
    driver.stop();
    driver.plain(&save_command(false, false, key, 0x3000)).unwrap();
    let mut magic = [0; 4];
    memory.read(0, &mut magic).unwrap();
    assert_eq!(&magic, b"VHCA");
}

/// M52: SAVE and LOAD go through the key and nothing but the key.
#[test]
fn save_through_mkey() {
    let mut driver = driver();
    driver.stop();
    let buffer = driver.buffer(0x3000);
    let mut save = |key, size| driver.plain(&save_command(false, false, key, size));
    assert_eq!(save(buffer.key() + 0x100, 0x3000), Err(Syndrome::NoMkey.into()));
    assert_eq!(save(buffer.key() | 1, 0x3000), Err(Syndrome::NoMkey.into()), "low byte");
    assert_eq!(save(buffer.index, 0x3000), Err(Syndrome::NoMkey.into()), "index, not key");
    assert_eq!(save(buffer.key(), 0x3001), Err(Syndrome::MkeyRange.into()));
    assert_eq!(save(buffer.key(), 9998), Err(Syndrome::ShortBuffer.into()));
    assert_eq!(save(buffer.key(), 9999), Ok(()));
}

/// M52: a key that may not be written is not, and one that may not be read is not.
#[test]
fn rights() {
    let mut driver = driver();
    driver.stop();
    for (read, write) in [(true, false), (false, true)] {
        let pd = driver.alloc_pd();
        let memory = driver.space.allocate(0x3000).unwrap();
        let mut bytes = mkey_command(pd, &memory);
        let mut input = CreateMkeyIn::new(&mut bytes[..]).unwrap();
        input.memory_key_mkey_entry_mut().set_lr(read).set_lw(write);
        let out = driver.exec(&bytes, 16).unwrap();
        let key = CreateMkeyOut::new(&out[..]).unwrap().mkey_index() << 8;
        let saved = driver.plain(&save_command(false, false, key, 0x3000));
        let mut load = LoadVhcaStateIn::command();
        load.set_vhca_id(crate::driver::VHCA).set_mkey(key).set_size(9999);
        let loaded = driver.plain(load.as_bytes());
        if write {
            assert_eq!((saved, loaded), (Ok(()), Err(Syndrome::MkeyAccess.into())));
        } else {
            // Readable, but there is no image in it.
            let no_image = Err(Syndrome::BadImage.into());
            assert_eq!((saved, loaded), (Err(Syndrome::MkeyAccess.into()), no_image));
        }
    }
}

/// M52: memory that is unmapped under a key fails the command that reaches it.
#[test]
fn unmapped() {
    let mut driver = driver();
    driver.stop();
    let crate::driver::Buffer { index, memory, .. } = driver.buffer(0x3000);
    drop(memory);
    let saved = driver.plain(&save_command(false, false, index << 8, 0x3000));
    assert_eq!(saved, Err(Syndrome::Unmapped.into()));
}

/// M52: pages that are not neighbours are one buffer all the same.
#[test]
fn scattered_pages() {
    let mut driver = driver();
    driver.stop();
    let pd = driver.alloc_pd();
    let memory = driver.space.allocate(0x3000).unwrap();
    let mut bytes = mkey_command(pd, &memory);
    let mut input = CreateMkeyIn::new(&mut bytes[..]).unwrap();
    let list = input.klm_pas_mtt_mut();
    let last: [u8; 8] = list[16..24].try_into().unwrap();
    list.copy_within(0..8, 16);
    list[..8].copy_from_slice(&last);
    let out = driver.exec(&bytes, 16).unwrap();
    let key = CreateMkeyOut::new(&out[..]).unwrap().mkey_index() << 8;
    driver.plain(&save_command(false, false, key, 0x3000)).unwrap();
    let mut scattered = vec![0; 0x3000];
    memory.read(0, &mut scattered).unwrap();
    let image = [&scattered[0x2000..], &scattered[0x1000..0x2000], &scattered[..0x1000]].concat();
    assert_eq!(image[..9999], driver.full_image());
}
