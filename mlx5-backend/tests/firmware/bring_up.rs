// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! From power-on to INIT_HCA and back.

use vfio_fsm_mlx5::dma::DmaBuffer;
use vfio_fsm_mlx5::firmware::{Config, Syndrome, VhcaConfig};
use vfio_fsm_mlx5::layout::*;

use crate::driver::{Driver, Failure, VHCA};

/// An event queue of `2^log_size` entries in `memory`, owner bits set, vector 7.
pub(crate) fn create_eq(
    driver: &mut Driver,
    uar: u32,
    memory: &DmaBuffer,
    log_size: u8,
    events: u64,
) -> u32 {
    memory.write(0, &vec![0xff; memory.len()]).unwrap();
    let mut bytes = vec![0; CreateEqIn::BYTES + memory.len() / 4096 * 8];
    let mut input = CreateEqIn::new(&mut bytes[..]).unwrap();
    input.set_opcode(Opcode::CreateEq).set_event_bitmask([events, 0, 0, 0]);
    input.eq_context_entry_mut().set_log_eq_size(log_size).set_uar_page(uar).set_intr(7);
    input.pas_mut()[..8].copy_from_slice(&memory.iova().to_be_bytes());
    let out = driver.exec(&bytes, 16).unwrap();
    u32::from(CreateEqOut::new(&out[..]).unwrap().eq_number())
}

fn pages_wanted(driver: &mut Driver, kind: QueryPagesOpMod) -> Result<i32, Failure> {
    let out = driver.exec(QueryPagesIn::command().set_op_mod(kind).as_bytes(), 16)?;
    Ok(QueryPagesOut::new(&out[..]).unwrap().num_pages())
}

fn give(driver: &mut Driver, pages: &[u64]) -> Result<(), Failure> {
    let mut input = ManagePagesIn::command();
    input.set_op_mod(ManagePagesOpMod::AllocationSuccess).set_input_num_entries(pages.len() as u32);
    let mut bytes = input.as_bytes().to_vec();
    bytes.extend(pages.iter().flat_map(|page| page.to_be_bytes()));
    driver.plain(&bytes)
}

fn take_back(driver: &mut Driver, count: u32) -> Vec<u64> {
    let mut input = ManagePagesIn::command();
    input.set_op_mod(ManagePagesOpMod::HcaReturnPages).set_input_num_entries(count);
    let out = driver.exec(input.as_bytes(), 16 + 8 * count as usize).unwrap();
    let out = ManagePagesOut::new(&out[..]).unwrap();
    let pages = out.pas().as_chunks::<8>().0.iter().map(|page| u64::from_be_bytes(*page));
    pages.take(out.output_num_entries() as usize).collect()
}

fn caps(driver: &mut Driver, function: u16, op_mod: u16) -> Result<Vec<u8>, Failure> {
    let mut input = QueryHcaCapIn::command();
    input.set_op_mod(op_mod).set_function_id(function).set_other_function(function != 0);
    let out = driver.exec(input.as_bytes(), 4112)?;
    Ok(out[16..].to_vec())
}

/// M47: the sequence both drivers follow, with an error of each step.
#[test]
fn up_and_down() {
    let mut driver = Driver::new(Config::default());
    let issi = QueryIssiIn::command();
    let init = InitHcaIn::command();
    assert_eq!(driver.exec(issi.as_bytes(), 112), Err(Syndrome::HcaState.into()));
    driver.exec(EnableHcaIn::command().as_bytes(), 12).unwrap();
    assert_eq!(driver.plain(EnableHcaIn::command().as_bytes()), Err(Syndrome::HcaState.into()));

    let out = driver.exec(issi.as_bytes(), 112).unwrap();
    assert_eq!(QueryIssiOut::new(&out[..]).unwrap().supported_issi_dw0() & 2, 2);
    let set = |issi| SetIssiIn::command().set_current_issi(issi).as_bytes().to_vec();
    assert_eq!(driver.plain(&set(2)), Err(Syndrome::Issi.into()));
    driver.plain(&set(1)).unwrap();
    let out = driver.exec(issi.as_bytes(), 112).unwrap();
    assert_eq!(QueryIssiOut::new(&out[..]).unwrap().current_issi(), 1);

    assert_eq!(driver.plain(init.as_bytes()), Err(Syndrome::PagesMissing.into()));
    let memory = driver.space.allocate(80 * 4096).unwrap();
    let pages: Vec<_> = (0..80).map(|n| memory.iova() + n * 4096).collect();
    assert_eq!(pages_wanted(&mut driver, QueryPagesOpMod::Boot), Ok(16));
    give(&mut driver, &pages[..16]).unwrap();
    assert_eq!(pages_wanted(&mut driver, QueryPagesOpMod::Boot), Ok(0));
    assert_eq!(pages_wanted(&mut driver, QueryPagesOpMod::Init), Ok(64));
    assert_eq!(pages_wanted(&mut driver, QueryPagesOpMod::Other(9)), Err(Syndrome::OpMod.into()));
    for bad in [pages[0], pages[20] + 8, 0x7000] {
        let refused = give(&mut driver, &[pages[16], bad]);
        assert_eq!(refused, Err(Syndrome::PageAddress.into()), "{bad:#x}");
    }
    give(&mut driver, &pages[16..]).unwrap();
    assert_eq!(driver.firmware.counts().pages, 80);

    driver.plain(init.as_bytes()).unwrap();
    assert_eq!(driver.plain(init.as_bytes()), Err(Syndrome::HcaState.into()));
    driver.alloc_pd();
    assert!(take_back(&mut driver, 100).is_empty(), "they are in use");
    driver.plain(TeardownHcaIn::command().as_bytes()).unwrap();
    assert_eq!(driver.firmware.counts().pds, 0);
    assert_eq!(driver.plain(TeardownHcaIn::command().as_bytes()), Err(Syndrome::HcaState.into()));
    let mut back = take_back(&mut driver, 100);
    back.sort_unstable();
    assert_eq!(back, pages);
    driver.exec(DisableHcaIn::command().as_bytes(), 12).unwrap();
    assert_eq!(driver.plain(AllocPdIn::command().as_bytes()), Err(Syndrome::HcaState.into()));
}

/// M47: registers and adapter.
#[test]
fn registers() {
    let mut driver = Driver::new(Config::of(VhcaConfig::default()));
    let mut write = AccessRegIn::command();
    write.set_register_id(RegisterId::HostEndianness).set_op_mod(AccessRegOpMod::Write);
    let write = [write.as_bytes(), &[5; 16]].concat();
    driver.exec(&write, 32).unwrap();
    let mut read = AccessRegIn::command();
    read.set_register_id(RegisterId::HostEndianness).set_op_mod(AccessRegOpMod::Read);
    let read = [read.as_bytes(), &[0; 16]].concat();
    assert_eq!(driver.exec(&read, 32).unwrap()[16..], [5; 16]);
    let mut unknown = AccessRegIn::command();
    unknown.set_register_id(RegisterId::Other(1));
    assert_eq!(driver.plain(unknown.as_bytes()), Err(Syndrome::Register.into()));
    let out = driver.exec(QueryAdapterIn::command().as_bytes(), 272).unwrap();
    let vendor = QueryAdapterOut::new(&out[..]).unwrap().query_adapter_struct().ieee_vendor_id();
    assert_eq!(vendor, 0x2c9);
    driver.plain(ModifyNicVportContextIn::command().as_bytes()).unwrap();
}

/// M48: the capabilities by which a driver knows that it can migrate a function.
#[test]
fn capabilities() {
    let vhca = VhcaConfig { migratable: false, ..VhcaConfig::default() };
    let mut driver = Driver::new(Config::of(vhca).with_chunks());
    let own = caps(&mut driver, 0, 1).unwrap();
    let own = CmdHcaCap::new(&own[..]).unwrap();
    assert!(own.migration() && own.hca_cap_2() && own.adv_virtualization());
    let second = caps(&mut driver, 0, 0x41).unwrap();
    let second = CmdHcaCap2::new(&second[..]).unwrap();
    assert!(second.migration_multi_load() && second.migration_tracking_state());
    assert!(second.migration_in_chunks() && second.migration_state());

    let vf = caps(&mut driver, 1, 1).unwrap();
    assert_eq!(CmdHcaCap::new(&vf[..]).unwrap().vhca_id(), VHCA);
    let vf = caps(&mut driver, 1, 0x40).unwrap();
    assert!(!CmdHcaCap2::new(&vf[..]).unwrap().migratable());
    assert_eq!(driver.suspend(SuspendOpMod::Initiator), Err(Syndrome::NotMigratable.into()));

    let mut set = SetHcaCapIn::command();
    set.set_other_function(true).set_function_id(1).set_op_mod(0x40);
    set.capability_mut().as_bytes_mut()[..256].copy_from_slice(&vf[..256]);
    set.capability_mut().as_bytes_mut()[0x10] |= 0x80;
    driver.plain(set.as_bytes()).unwrap();
    let vf = caps(&mut driver, 1, 0x40).unwrap();
    assert!(CmdHcaCap2::new(&vf[..]).unwrap().migratable());
    driver.suspend(SuspendOpMod::Initiator).unwrap();

    assert_eq!(caps(&mut driver, 2, 0), Err(Syndrome::NoFunction.into()));
    assert_eq!(caps(&mut driver, 0, 0x100), Err(Syndrome::Capability.into()));
    assert_eq!(caps(&mut driver, 0, 8).unwrap(), vec![0; 4096]);
}

/// M48: a virtual function that is not enabled takes a LOAD and forgets it.
#[test]
fn load_before_enable() {
    let mut source = Driver::new(Config::of(VhcaConfig { seed: 2, ..VhcaConfig::default() }));
    source.stop();
    let image = source.full_image();
    let mut driver =
        Driver::new(Config::of(VhcaConfig { enabled: false, ..VhcaConfig::default() }));
    let buffer = driver.buffer(0x3000);
    let fresh = driver.vhca().digest();
    driver.stop();
    assert_eq!(driver.migration_state(), MigrationState::Uninitialized);
    driver.load(&image, &buffer).unwrap();
    assert_eq!(driver.vhca().digest(), fresh);
    let function = |id| EnableHcaIn::command().set_function_id(id).as_bytes().to_vec();
    assert_eq!(driver.plain(&function(2)), Err(Syndrome::NoFunction.into()));
    driver.plain(&function(1)).unwrap();
    driver.load(&image, &buffer).unwrap();
    assert_eq!(driver.vhca().digest(), source.vhca().digest());
}

/// M49: pages are asked for by event, and by QUERY_PAGES until they are given or refused.
#[test]
fn page_requests() {
    let mut driver = Driver::new(Config::of(VhcaConfig::default()));
    let uar = driver.alloc_uar();
    let memory = driver.space.allocate(4096).unwrap();
    create_eq(&mut driver, uar, &memory, 6, 1 << 0xb);
    driver.firmware.request_pages(2, 3);
    let mut eqe = Eqe::zeroed();
    memory.read(64, eqe.as_bytes_mut()).unwrap();
    assert_eq!(eqe.event_type(), EventType::PageRequest);
    assert_eq!((eqe.page_request().function_id(), eqe.page_request().num_pages()), (0, 3));
    assert_eq!(pages_wanted(&mut driver, QueryPagesOpMod::Regular), Ok(6));
    let page = driver.space.allocate(4096).unwrap();
    give(&mut driver, &[page.iova()]).unwrap();
    assert_eq!(pages_wanted(&mut driver, QueryPagesOpMod::Regular), Ok(5));
    driver.plain(ManagePagesIn::command().as_bytes()).unwrap();
    assert_eq!(pages_wanted(&mut driver, QueryPagesOpMod::Regular), Ok(0));
}
