// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What can happen, and what comes of it.

use std::fmt::Display;

use vfio_fsm_core::device::Device;
use vfio_fsm_core::vmm::frame::Frame;
use vfio_fsm_core::vmm::{Event, Gate, Hook, Piece, Wait};
use vfio_fsm_core::{Errno, Fault, Fd, Leaves, Op, RawState, Reply, State};

use super::device::{BLANK, Hardware, RECORD};
use super::slip::{StreamSlip, Wrong};
use super::stream::{Chunk, Packet};
use super::world::{Here, Source, Target, There, World};
use super::{Action, Judgement, Move, Pace, Setting, System};
use crate::property::Rule;
use crate::session::around::{Hands, Said, Session as _, is_own, keep_order, may_pass};
use crate::session::slip::Slip;
use crate::session::{Trouble, open_choices, ticks, troubles_of_set};

/// The lines of a run, if somebody reads them.
pub(super) type Log<'a> = Option<&'a mut Vec<String>>;

fn tell(log: &mut Log<'_>, line: impl FnOnce() -> String) {
    if let Some(lines) = log {
        lines.push(line());
    }
}

impl<const N: usize> System<N> {
    pub(super) fn new(
        setting: Setting,
        wrong: Option<Wrong>,
        rules: &'static [Rule<Judgement<N>>],
    ) -> Self {
        let start = World::new(&setting, wrong);
        let mut system = Self { setting, wrong, rules, start };
        let mut settled = start;
        system.settle(&mut settled, &mut None);
        system.start = settled;
        system
    }

    /// How it begins.
    pub(super) const fn start(&self) -> World<N> {
        self.start
    }

    /// The world after it.
    pub(super) fn next(&self, before: &World<N>, action: Action) -> World<N> {
        let mut after = self.play(before, action, None);
        self.forget(&mut after);
        after
    }

    /// Drops what has been judged and can make no difference any more.
    pub(super) fn forget(&self, world: &mut World<N>) {
        let over = self.is_over(world);
        world.forget(&self.start, over);
    }

    fn is(&self, slip: StreamSlip) -> bool {
        self.wrong == Some(Wrong::Stream(slip))
    }

    fn has(&self, slip: Slip) -> bool {
        self.slip() == Some(slip)
    }

    const fn slip(&self) -> Option<Slip> {
        match self.wrong {
            Some(Wrong::Session(slip)) => Some(slip),
            _ => None,
        }
    }

    const fn is_eager(&self) -> bool {
        matches!(self.setting.pace, Pace::Eager)
    }

    // ---- what can happen

    pub(super) fn offer(&self, world: &World<N>, actions: &mut Vec<Action>) {
        if self.is_over(world) {
            return;
        }
        if self.is_eager() && self.offer_destination(world, actions, true) {
            return;
        }
        if !self.is_eager() {
            self.offer_destination(world, actions, false);
        }
        if world.here != Here::Failed {
            self.offer_source(world, actions);
            self.offer_guest_and_host(world, actions);
        }
        self.offer_messages(world, actions);
    }

    /// Whether all is over, at both ends.
    pub(super) fn is_over(&self, world: &World<N>) -> bool {
        match world.there {
            There::Working => false,
            There::Failed => world.here == Here::Failed,
            There::Started => {
                world.here == Here::HandedOver && !self.is(StreamSlip::ResumesAfterHandOver)
            }
        }
    }

    /// Whether the first thing that happens to a device may happen to this one.
    fn may_be_hit(&self, world: &World<N>, index: usize) -> bool {
        let (left, all) = (world.left, self.setting.left);
        let hit = (left.touches, left.guest_resets, left.host_resets, left.faults)
            != (all.touches, all.guest_resets, all.host_resets, all.faults);
        index == 0 || hit || !self.setting.symmetric
    }

    /// What the destination can do; of all devices, or, `first`, of the first that can do anything.
    fn offer_destination(&self, world: &World<N>, actions: &mut Vec<Action>, first: bool) -> bool {
        if world.there != There::Working {
            return false;
        }
        let before = actions.len();
        let may_start = world.here == Here::HandedOver
            || self.is(StreamSlip::StartsUnasked)
            || self.is(StreamSlip::StartsBeforeEnd);
        if may_start && world.is_loaded() && !world.to.is_broken() {
            actions.push(Action::Start);
        }
        for (index, member) in world.destination.iter().enumerate() {
            let act = |step| Action::Destination(index, step);
            match member.session.said() {
                Said::Do(op) => {
                    let hit = self.may_be_hit(world, index);
                    let fails = hit && world.left.faults > 0;
                    let troubles = troubles(&op, &member.device, fails);
                    actions.extend(troubles.map(|trouble| act(Move::Go(trouble))));
                    self.offer_reset_there(world, index, actions);
                }
                Said::Wait(Wait::Frame) if !self.is_eager() => {
                    let comes = world.wires[index].head().is_some();
                    actions.extend(comes.then_some(act(Move::Take)));
                    self.offer_reset_there(world, index, actions);
                }
                Said::Wait(Wait::Run) if !self.is_eager() => {
                    self.offer_reset_there(world, index, actions);
                }
                Said::Wait(wait) if ticks(wait) => actions.push(act(Move::Tick)),
                _ => {}
            }
            if first && actions.len() > before {
                break;
            }
        }
        let busy = actions.len() > before;
        // While it waits nothing is lost by giving up later.
        let cancels = (busy || !first) && world.left.cancels > 0 && !world.to.is_broken();
        actions.extend(cancels.then_some(Action::Cancel { here: false }));
        busy
    }

    fn offer_reset_there(&self, world: &World<N>, index: usize, actions: &mut Vec<Action>) {
        let may = self.setting.resets_behind_last_look || !world.lives[index].looked;
        let resets = may && world.left.host_resets > 0 && self.may_be_hit(world, index);
        actions.extend(resets.then_some(Action::ResetThere(index)));
    }

    fn offer_source(&self, world: &World<N>, actions: &mut Vec<Action>) {
        for (index, member) in world.source.iter().enumerate() {
            let act = |step| Action::Source(index, step);
            match member.session.said() {
                Said::Do(op) => {
                    let fails = world.left.faults > 0 && self.may_be_hit(world, index);
                    let troubles = troubles(&op, &member.device, fails);
                    actions.extend(troubles.map(|trouble| act(Move::Go(trouble))));
                }
                Said::Send(_) => {
                    let room = world.wires[index].has_room();
                    actions.extend(room.then_some(act(Move::Go(Trouble::None))));
                }
                Said::Call(_) if !self.goes_by_itself(world, index) && member.at.is_none() => {
                    actions.push(act(Move::Go(Trouble::None)));
                    actions.extend((world.left.faults > 0).then_some(act(Move::Refuse)));
                }
                Said::Decide(decision) => {
                    let mut decision = decision;
                    // The others have stopped, so this one does not begin anew with the guest.
                    decision.choices.restart &= !(N > 1 && world.halted);
                    let choices = open_choices(decision);
                    actions.extend(choices.map(|choice| act(Move::Choose(choice))));
                }
                Said::Wait(wait) if ticks(wait) => {
                    actions.push(act(Move::Tick));
                    let decides =
                        wait == Wait::Switchover && !self.is(StreamSlip::NeverSwitchesOver);
                    actions.extend(decides.then_some(act(Move::Switchover)));
                }
                _ => {}
            }
        }
        if world.here == Here::Working && world.are_complete() {
            actions.push(Action::HandOver);
        }
        let may_cancel = world.here == Here::Working || self.is(StreamSlip::ResumesAfterHandOver);
        if may_cancel && world.left.cancels > 0 && !world.from.is_broken() {
            actions.push(Action::Cancel { here: true });
        }
    }

    fn offer_guest_and_host(&self, world: &World<N>, actions: &mut Vec<Action>) {
        let left = world.left;
        for index in 0..N {
            if world.lives[index].resetting {
                actions.push(Action::ResetDone(index));
                continue;
            }
            let hit = self.may_be_hit(world, index);
            let guest = hit && !world.halted;
            actions.extend((guest && left.touches > 0).then_some(Action::Touch(index)));
            actions.extend((guest && left.guest_resets > 0).then_some(Action::GuestReset(index)));
            actions.extend((hit && left.host_resets > 0).then_some(Action::HostReset(index)));
            let writes = hit && left.touches > 0 && world.starts_dma(index);
            let others = (0..N).filter(|&to| writes && to != index && reached(world, to));
            actions.extend(others.map(|to| Action::Dma { from: index, to }));
        }
    }

    fn offer_messages(&self, world: &World<N>, actions: &mut Vec<Action>) {
        let tells = !self.is(StreamSlip::TellsNothing);
        let failed = world.there == There::Failed && world.here != Here::Failed && tells;
        if failed && !world.from.is_broken() {
            actions.push(Action::HearFailure);
        }
        let given_up = world.here == Here::Failed && world.there == There::Working;
        if given_up && !world.to.is_broken() {
            actions.push(Action::HearGivenUp);
        }
    }

    /// Whether the hook that a session of the source calls is nothing to be decided: to halt the
    /// vCPUs is, when all have come to it.
    fn goes_by_itself(&self, world: &World<N>, index: usize) -> bool {
        let member = &world.source[index];
        let Said::Call(hook) = member.session.said() else { return false };
        if N == 1 {
            return hook != Hook::Freeze;
        }
        if member.at.is_some() {
            return may_pass(&world.from, index, self.slip());
        }
        let mut group = world.from;
        let _arrived = group.arrive(index, hook, member.aborts());
        group.due() != Some(Hook::Freeze)
    }

    // ---- what comes of it

    pub(super) fn play(&self, before: &World<N>, action: Action, mut log: Log<'_>) -> World<N> {
        let mut world = *before;
        let log = &mut log;
        match action {
            Action::Source(index, step) => self.go_here(&mut world, index, step, log),
            Action::Destination(index, step) => self.go_there(&mut world, index, step, log),
            Action::Cancel { here: true } => {
                world.left.cancels -= 1;
                world.from.fail();
                tell(log, || "source VMM: gives up".to_owned());
            }
            Action::Cancel { here: false } => {
                world.left.cancels -= 1;
                world.to.fail();
                tell(log, || "destination VMM: gives up".to_owned());
            }
            Action::HandOver => {
                world.here = Here::HandedOver;
                tell(log, || "source VMM: hands over".to_owned());
            }
            Action::Start => {
                world.run();
                tell(log, || "destination VMM: starts".to_owned());
            }
            Action::HearFailure => {
                world.from.fail();
                tell(log, || "source VMM: hears that the destination has failed".to_owned());
            }
            Action::HearGivenUp => {
                world.to.fail();
                tell(log, || "destination VMM: hears that the source has given up".to_owned());
            }
            _ => self.happen(&mut world, action, log),
        }
        self.settle(&mut world, log);
        world
    }

    /// What guest, host and devices do.
    fn happen(&self, world: &mut World<N>, action: Action, log: &mut Log<'_>) {
        let (name, index) = match action {
            Action::Touch(index) => {
                world.left.touches -= 1;
                touch(&mut world.source[index].device);
                ("guest touches device", index)
            }
            Action::Dma { to, .. } => {
                world.left.touches -= 1;
                touch(&mut world.source[to].device);
                ("DMA of another to device", to)
            }
            Action::GuestReset(index) => {
                world.left.guest_resets -= 1;
                self.reset_here(world, index);
                ("guest RESETs device", index)
            }
            Action::HostReset(index) => {
                world.left.host_resets -= 1;
                let life = &mut world.lives[index];
                (life.reset, life.reset_since_stop) = (true, true);
                if self.setting.in_two_parts {
                    world.lives[index].resetting = true;
                    let _reply = world.source[index].device.apply(Op::Touch(BLANK), &mut []);
                } else {
                    self.reset_here(world, index);
                }
                ("host RESETs device", index)
            }
            Action::ResetDone(index) => {
                self.reset_here(world, index);
                ("driver hears of the RESET of device", index)
            }
            Action::ResetThere(index) => {
                world.left.host_resets -= 1;
                let _reply = world.destination[index].device.apply(Op::Reset, &mut []);
                ("destination host RESETs device", index)
            }
            _ => return,
        };
        tell(log, || format!("{name} {index}"));
    }

    fn reset_here(&self, world: &mut World<N>, index: usize) {
        let _reply = world.source[index].device.apply(Op::Reset, &mut []);
        let life = &mut world.lives[index];
        (life.resetting, life.reset) = (false, true);
    }

    fn go_here(&self, world: &mut World<N>, index: usize, step: Move, log: &mut Log<'_>) {
        let mut session = world.source[index].session;
        match (session.ask(), step) {
            (Said::Do(op), Move::Go(trouble)) => {
                world.left.faults -= u8::from(trouble != Trouble::None);
                return self.carry_out_here(world, index, op.map(|_piece| &[][..]), trouble, log);
            }
            (Said::Send(frame), _) => return self.send(world, index, frame, log),
            (Said::Call(hook), _) => {
                let done = step != Move::Refuse;
                world.left.faults -= u8::from(!done);
                return self.call_here(world, index, hook, done, log);
            }
            (Said::Decide(decision), Move::Choose(choice)) => {
                let _told = session.decide(choice);
                tell(log, || format!("source {index}: {}: {choice}", decision.evidence));
            }
            (_, Move::Switchover) => {
                let _refused = session.event(Event::Switchover);
                tell(log, || format!("source {index}: switchover"));
            }
            _ => {
                let _refused = session.event(Event::Tick);
                tell(log, || format!("source {index}: looks again"));
            }
        }
        world.source[index].session = session;
    }

    fn carry_out_here(
        &self,
        world: &mut World<N>,
        index: usize,
        op: Op<&[u8]>,
        trouble: Trouble,
        log: &mut Log<'_>,
    ) {
        let member = &mut world.source[index];
        let held = member.session.data_fd().copied();
        // A data_fd that silently took another's place is the one that is used.
        let newest = member.device.fds().last().filter(|_| self.has(Slip::SwapsFd));
        let op = op.map_fd(|fd| newest.unwrap_or(fd));
        let mut hands = Hands { device: &mut member.device, slip: self.slip(), held };
        let mut buf = [0; RECORD];
        let (op, reply) = hands.carry_out(op, trouble, &mut buf);
        let told = hands.report(&op, reply);
        let failed_set = matches!((op, reply), (Op::SetState { .. }, Reply::Errno(_)));
        if failed_set && self.wrong == Some(Wrong::Stream(StreamSlip::ResetsQuietly)) {
            let _reply = member.device.apply(Op::Reset, &mut []);
        }
        member.session.ask();
        let _told = member.session.reply(told);
        let state = member.device.fsm().state();
        tell(log, || format!("source {index}: {op} => {}   [{state}]", shown(reply, &buf)));
        let (life, wire) = (&mut world.lives[index], &mut world.wires[index]);
        match (op, reply) {
            (Op::Read { fd, .. }, Reply::Bytes(len)) => {
                (wire.read, wire.from) = (Chunk::new(buf, len), Some(fd));
            }
            (Op::SetState { to, .. }, Reply::Fd(_)) if to == State::StopCopy.into() => {
                life.stopped_with = Some(member.device.actions().registers());
                life.reset_since_stop = life.resetting;
            }
            _ => {}
        }
    }

    fn send(&self, world: &mut World<N>, index: usize, frame: Frame, log: &mut Log<'_>) {
        let session = &mut world.source[index].session;
        session.ask();
        let _told = session.sent();
        tell(log, || format!("source {index}: sends {frame}"));
        let wire = &mut world.wires[index];
        let packet =
            Packet { frame, chunk: std::mem::take(&mut wire.read), from: wire.from.take() };
        if world.there != There::Working {
            return;
        }
        if self.is(StreamSlip::ReplaysSession) && matches!(frame, Frame::Data { .. }) {
            if let Some(old) = wire.kept.filter(|old| old.frame.epoch() < frame.epoch()) {
                let len = old.chunk.bytes().len() as u32;
                wire.push(Packet { frame: Frame::Data { epoch: frame.epoch(), len }, ..old });
            }
            wire.kept = Some(packet);
        }
        wire.push(packet);
    }

    /// A session of the source calls a hook.
    fn call_here(
        &self,
        world: &mut World<N>,
        index: usize,
        hook: Hook,
        done: bool,
        log: &mut Log<'_>,
    ) {
        if N > 1 && done {
            world.source[index].arrive(&mut world.from, index, hook);
            tell(log, || format!("source {index}: comes to {hook}"));
            return;
        }
        if N > 1 {
            // That the vCPUs cannot be halted is found out with the last to come.
            world.from.fail();
        } else {
            if done {
                self.call_source(&mut world.halted, hook);
            }
            let session = &mut world.source[index].session;
            session.ask();
            let _told = session.called(done);
        }
        tell(log, || format!("source VMM: {}{hook}", if done { "" } else { "cannot " }));
    }

    fn call_source(&self, halted: &mut bool, hook: Hook) {
        match hook {
            Hook::Freeze => *halted = !self.has(Slip::GuestRunsOn),
            Hook::Thaw => *halted = self.has(Slip::ForgetsThaw),
            _ => {}
        }
    }

    fn go_there(&self, world: &mut World<N>, index: usize, step: Move, log: &mut Log<'_>) {
        let member = &mut world.destination[index];
        match (member.session.ask(), step) {
            (Said::Do(op), Move::Go(trouble)) => {
                world.left.faults -= u8::from(trouble != Trouble::None);
                self.carry_out_there(world, index, op, trouble, log);
            }
            (_, Move::Take) => self.take(world, index, log),
            _ => {
                let _refused = member.session.event(Event::Tick);
            }
        }
    }

    fn carry_out_there(
        &self,
        world: &mut World<N>,
        index: usize,
        op: Op<Piece>,
        trouble: Trouble,
        log: &mut Log<'_>,
    ) {
        let member = &mut world.destination[index];
        let payload = world.wires[index].payload;
        let op = op.map(|piece| piece.of(payload.bytes()));
        let held = member.session.data_fd().copied();
        let mut hands = Hands { device: &mut member.device, slip: self.slip(), held };
        let (op, reply) = hands.carry_out(op, trouble, &mut []);
        let told = hands.report(&op, reply);
        let told = if self.is(StreamSlip::BelievesInReset) && op == Op::Reset {
            Reply::Ok
        } else if self.is(StreamSlip::BelievesInReset) && op == Op::GetState {
            member.session.at().map_or(told, |at| Reply::State(at.into()))
        } else {
            told
        };
        member.session.ask();
        let _told = member.session.reply(told);
        // The first GET behind the end is the last look.
        let looks = matches!((op, reply), (Op::GetState, Reply::State(_)));
        world.lives[index].looked |= looks && world.wires[index].came.ended;
        if member.session.said() == Said::Wait(Wait::Frame) {
            world.wires[index].payload = Chunk::default();
        }
        let state = member.device.fsm().state();
        tell(log, || format!("destination {index}: {op} => {reply}   [{state}]"));
    }

    /// The next frame comes out of the stream, and is handed to the loader.
    fn take(&self, world: &mut World<N>, index: usize, log: &mut Log<'_>) {
        let session = &mut world.destination[index].session;
        let wire = &mut world.wires[index];
        let Some(packet) = wire.pop() else { return };
        let epoch = session.epoch();
        let frame = match packet.frame {
            Frame::Discard { .. } if self.is(StreamSlip::IgnoresDiscard) => return,
            Frame::Data { len, .. } if self.is(StreamSlip::IgnoresDiscard) => {
                Frame::Data { epoch, len }
            }
            Frame::InitialBytesSent { .. } if self.is(StreamSlip::IgnoresDiscard) => {
                Frame::InitialBytesSent { epoch }
            }
            Frame::End { .. } if self.is(StreamSlip::IgnoresDiscard) => Frame::End { epoch },
            frame => frame,
        };
        wire.came.take(&Packet { frame, ..packet });
        wire.payload = packet.chunk;
        session.ask();
        let _told = session.frame(frame);
        tell(log, || format!("destination {index}: {frame} comes"));
    }

    // ---- what follows by itself

    /// Everything that is done with the step before it, and what the VMMs then know.
    fn settle(&self, world: &mut World<N>, log: &mut Log<'_>) {
        if world.here != Here::Failed {
            self.settle_source(world, log);
        }
        if world.there == There::Working {
            self.settle_destination(world, log);
        }
    }

    fn settle_source(&self, world: &mut World<N>, log: &mut Log<'_>) {
        loop {
            let World { source, from, halted, .. } = world;
            if source.iter().any(Source::aborts) {
                from.fail();
                *halted &= !self.has(Slip::ThawsEarly);
            }
            let mut moved = keep_order(from, source, true, self.slip(), |_, hook| {
                self.call_source(halted, hook);
                tell(log, || format!("source VMM: {hook}"));
                true
            });
            for index in 0..N {
                while self.goes_on_here(world, index, log) {
                    moved = true;
                }
            }
            if !moved {
                break;
            }
        }
        let over = |member: &Source| member.verdict().is_some() && member.ended;
        if world.from.is_broken() && world.source.iter().all(over) {
            world.here = Here::Failed;
        }
    }

    /// One such step of one session, if there is one.
    fn goes_on_here(&self, world: &mut World<N>, index: usize, log: &mut Log<'_>) -> bool {
        match world.source[index].session.said() {
            Said::Do(op) if is_quiet(&op) => {
                let op = op.map(|_piece| &[][..]);
                self.carry_out_here(world, index, op, Trouble::None, log);
            }
            Said::Send(frame @ (Frame::Data { .. } | Frame::InitialBytesSent { .. }))
                if self.is_eager() =>
            {
                self.send(world, index, frame, log);
            }
            Said::Call(hook) if self.goes_by_itself(world, index) => {
                let member = &mut world.source[index];
                if member.at.is_some() {
                    let open = self.passes(world.from.gate(index));
                    member.pass(open);
                } else {
                    self.call_here(world, index, hook, true, log);
                }
            }
            _ => return false,
        }
        true
    }

    fn passes(&self, gate: Gate) -> bool {
        gate == Gate::Open || self.has(Slip::IgnoresGates)
    }

    fn settle_destination(&self, world: &mut World<N>, log: &mut Log<'_>) {
        loop {
            let World { destination, to, there, .. } = world;
            if destination.iter().any(Target::aborts) {
                to.fail();
            }
            let mut moved = keep_order(to, destination, false, self.slip(), |group, hook| {
                if hook == Hook::Thaw && !group.is_broken() {
                    *there = There::Started;
                }
                tell(log, || format!("destination VMM: {hook}"));
                true
            });
            for index in 0..N {
                while self.goes_on_there(world, index, log) {
                    moved = true;
                }
            }
            if !moved {
                break;
            }
        }
        let over = |member: &Target| member.verdict().is_some() && member.ended;
        let failed = world.to.is_broken() && world.destination.iter().all(over);
        if failed && world.there == There::Working {
            world.there = There::Failed;
        }
    }

    fn goes_on_there(&self, world: &mut World<N>, index: usize, log: &mut Log<'_>) -> bool {
        let member = &mut world.destination[index];
        match member.session.said() {
            Said::Do(op) if is_quiet(&op) => {
                self.carry_out_there(world, index, op, Trouble::None, log);
            }
            Said::Call(hook) if N == 1 && !is_own(hook) => {
                if hook == Hook::Thaw && !member.aborts() {
                    world.there = There::Started;
                }
                member.session.ask();
                let _told = member.session.called(true);
                tell(log, || format!("destination VMM: {hook}"));
            }
            Said::Call(hook) if member.at.is_none() => {
                member.arrive(&mut world.to, index, hook);
                tell(log, || format!("destination {index}: comes to {hook}"));
            }
            Said::Call(_) if may_pass(&world.to, index, self.slip()) => {
                let open = self.passes(world.to.gate(index));
                member.pass(open);
            }
            Said::Wait(Wait::Frame) if self.is_eager() && world.wires[index].head().is_some() => {
                self.take(world, index, log);
            }
            Said::Wait(Wait::Frame)
                if self.is(StreamSlip::StartsBeforeEnd)
                    && member.device.actions().is_loadable() =>
            {
                let epoch = member.session.epoch();
                member.session.ask();
                let _told = member.session.frame(Frame::End { epoch });
            }
            _ => return false,
        }
        true
    }
}

/// What is done with the step before it.
const fn is_quiet<B>(op: &Op<B>) -> bool {
    matches!(op, Op::GetFeatures | Op::OptInPrecopyV2 | Op::DataSize | Op::CloseFd { .. })
}

/// What may go wrong with this op.
fn troubles<B>(
    op: &Op<B>,
    device: &Device<Hardware, 2>,
    fails: bool,
) -> impl Iterator<Item = Trouble> + use<B> {
    let of_set = |to: RawState| {
        let first = |trouble: &Trouble| match trouble {
            Trouble::Set(Fault::ArcFails { hop, leaves, .. }) => {
                *hop == 0 && matches!(leaves, Leaves::Source | Leaves::Error)
            }
            _ => true,
        };
        troubles_of_set(device, to).filter(move |trouble| fails && first(trouble))
    };
    let (set, other) = match *op {
        Op::SetState { to, .. } => (Some(of_set(to)), None),
        _ => (None, fails.then_some(Trouble::Errno(Errno::EIO))),
    };
    [Trouble::None].into_iter().chain(set.into_iter().flatten()).chain(other)
}

/// Whether DMA reaches the device: not one that was reset and that nobody has set up again.
fn reached<const N: usize>(world: &World<N>, index: usize) -> bool {
    !world.source[index].device.actions().is_blank()
}

/// By the guest, or by DMA of another device.
fn touch(device: &mut Device<Hardware, 2>) {
    let value = device.actions().next_value();
    let _reply = device.apply(Op::Touch(value), &mut []);
}

fn shown(reply: Reply<u32, Fd>, buf: &[u8]) -> impl Display {
    match reply {
        Reply::Bytes(len) => format!("\"{}\"", buf[..len as usize].escape_ascii()),
        reply => reply.to_string(),
    }
}
