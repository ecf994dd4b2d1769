//! What one processor does once the guest is made: runs the vCPUs that are at home on it, and halts when none can run.

use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use arch::PAGE_SIZE;
use config::SelfTest;
use hw::frames::{FRAMES, zeroed_frame};
use hw::guest_state::GuestState;
use hw::vmx::{self, CurrentVmcs};
use hw::{apic, halt, percpu, tsc};
use nested::{ApicPages, Update};
use sched::{Decision, Member, RunQueue, Set, State};
use vcpu::{Activity, ApicHelp, Identity, Left, Stop, Vcpu};
use vlapic::Bus as _;
use vmcs::{Access as _, fields};

use crate::cpu::{Own, Processor};
use crate::guest::leak_one;
use crate::guest::{Guest, Sentence, leak, no_memory_for_tables, sentence};
use crate::tables::TableFrames;
use crate::world::Place;
use crate::{console, dump, failed_entry};

/// The guest, once it is made.
static GUEST: AtomicPtr<Guest> = AtomicPtr::new(core::ptr::null_mut());
/// Processors whose vCPUs have left for good.
static DONE: AtomicU32 = AtomicU32::new(0);

/// A vCPU at home on this processor, with all that belongs to it.
struct Resident {
    vcpu: Vcpu,
    own: Own,
    /// L2 ran when the vCPU last left the processor.
    left_in_l2: bool,
    state: GuestState,
    place: Place,
}

/// Hands the guest to the other processors.
pub(crate) fn publish(guest: &'static mut Guest) -> &'static Guest {
    let guest = core::ptr::from_mut(guest);
    GUEST.store(guest, Ordering::Release);
    for number in (0..).take(hw::layout::MAX_PROCESSORS) {
        if number != percpu::number() {
            apic::kick(number);
        }
    }
    // SAFETY: it came from a `&'static mut` and is only shared from here on.
    unsafe { &*guest }
}

/// The guest, if it is made.
pub(crate) fn guest() -> Option<&'static Guest> {
    // SAFETY: `publish` stored a pointer that stays valid and is only shared.
    unsafe { GUEST.load(Ordering::Acquire).as_ref() }
}

/// How many processors have run [`run`] to its end.
pub(crate) fn done() -> u32 {
    DONE.load(Ordering::Acquire)
}

/// Runs this processor's vCPUs until the VM stops. The guest's processors share its vCPUs evenly.
pub(crate) fn run(guest: &'static Guest) -> Result<(), Sentence> {
    let mine = (0..guest.vm.cpus()).skip(percpu::number() as usize).step_by(guest.processors as usize);
    let count = mine.clone().count();
    let slots = leak(count, |_| None)?;
    let queue = new_queue()?;
    for ((slot, index), id) in slots.iter_mut().zip(mine).zip(0..) {
        let resident = move_in(slot, guest, index, count > 1)?;
        let state = if resident.vcpu.activity() == Activity::Active { State::Ready } else { State::WaitsForSipi };
        let member = Member { vcpu: id, vm: 0, weight: 1, allowed: Set::ALL };
        let added = queue.add(member, state, tsc::now());
        added.map_err(|_| sentence(format_args!("a processor cannot run so many vCPUs")))?;
    }
    let mut loaded = None;
    while guest.vm.stop().is_none() {
        for (slot, id) in slots.iter_mut().zip(0..) {
            if slot.as_mut().is_some_and(Resident::has_reason_to_wake) {
                queue.wake(id, tsc::now());
            }
        }
        match queue.next(tsc::now()) {
            Decision::Run { vcpu: id, until } => {
                if loaded != Some(id)
                    && let Some(before) = loaded.and_then(|before: u16| slots.get_mut(usize::from(before))?.as_mut())
                {
                    // SAFETY: its registers are still in this processor: nobody else was loaded since.
                    unsafe { before.state.save() };
                }
                // A neighbour that waits for its timer may want the processor before the slice is over.
                let neighbours =
                    slots.iter().zip(0..).filter(|(_, other)| *other != id).filter_map(|(slot, _)| slot.as_ref());
                let until = neighbours.map(Resident::deadline).min().map_or(until, |deadline| until.min(deadline));
                let Some(resident) = slots.get_mut(usize::from(id)).and_then(Option::as_mut) else { break };
                let left = resident.run(loaded != Some(id), until);
                loaded = Some(id);
                let now = tsc::now();
                match left {
                    Left::Halted { deaf } => {
                        queue.halted(id, resident.deadline(), now);
                        if guest.vm.waits(resident.place.index, deaf) {
                            // SAFETY: the VMCS that just ran is still current, and no other value for it lives.
                            dump::guest(&resident.vcpu, &unsafe { CurrentVmcs::assume() });
                        }
                    }
                    Left::WaitsForSipi => {
                        queue.waits_for_sipi(id, now);
                        guest.vm.waits(resident.place.index, true);
                    }
                    Left::SliceOver => queue.preempted(id, now),
                    Left::Stop(stop) => {
                        queue.stopped(id, now);
                        guest.vm.end(stop);
                    }
                }
            }
            Decision::Idle { .. } => idle(slots),
            Decision::AllStopped => break,
        }
        console::pump();
    }
    for resident in slots.iter().flatten() {
        resident.account();
    }
    DONE.fetch_add(1, Ordering::AcqRel);
    Ok(())
}

/// Puts vCPU `index` into `slot`. Apart from [`run`], like [`new_queue`]: what is made here is large, and `run` keeps its place on
/// the stack while vCPUs run.
#[inline(never)]
fn move_in<'a>(
    slot: &'a mut Option<Resident>,
    guest: &'static Guest,
    index: usize,
    shared: bool,
) -> Result<&'a mut Resident, Sentence> {
    Ok(slot.insert(Resident::new(guest, index, shared)?))
}

/// Puts what [`Resident::new`] keeps for nested VMX where it stays; apart, for the same reason.
#[inline(never)]
fn move_in_nested<T>(make: impl FnOnce() -> T) -> Result<&'static mut T, Sentence> {
    leak_one(make())
}

/// This processor's queue.
#[inline(never)]
fn new_queue() -> Result<&'static mut RunQueue, Sentence> {
    let slice = tsc::frequency() / 100;
    let [queue, ..] = leak(1, |_| RunQueue::new(slice))? else { return Err(no_memory_for_tables()) };
    Ok(queue)
}

/// Halts until something may have happened: a kick, or the next deadline of a vCPU or of the devices.
fn idle(slots: &[Option<Resident>]) {
    // What was posted before this is seen by the loop, what comes later ends the halt by its kick.
    let woken = halt::take();
    if woken.kicked {
        return;
    }
    let deadline = slots.iter().flatten().map(Resident::deadline).min().unwrap_or(u64::MAX).min(console::deadline());
    if deadline <= tsc::now() {
        return;
    }
    if deadline != u64::MAX {
        apic::arm(deadline);
    }
    halt::wait();
    if deadline != u64::MAX {
        apic::disarm();
    }
}

impl Resident {
    /// The vCPU `index` of the guest, its VMCS written and current on this processor. `shared`: it is not alone here.
    fn new(guest: &'static Guest, index: usize, shared: bool) -> Result<Self, Sentence> {
        let no_memory = || sentence(format_args!("there is no memory left for a vCPU: give the machine more memory"));
        let vmcs = zeroed_frame().ok_or_else(no_memory)?;
        let state = GuestState::new(&mut FRAMES.lock()).ok_or_else(no_memory)?;
        // At most 64 vCPUs.
        let number = u16::try_from(index).unwrap_or(u16::MAX);
        let identity = Identity {
            index: number,
            cpus: u32::try_from(guest.vm.cpus()).unwrap_or(1),
            frequencies: guest.frequencies,
            has_vmx: guest.has_vmx,
            repairs_lost_rip: guest.on_bochs,
        };
        let mut vcpu = Vcpu::new(hw::cpuid::cpuid, &guest.machine, &guest.controls, identity);
        let pages = vcpu::Pages { vpid: guest.pages.vpid + number, ..guest.pages };
        // SAFETY: the frame was just allocated for this and is nobody else's.
        unsafe { vmx::write_revision(vmcs, guest.machine.basic.revision()) };
        // SAFETY: as above; this processor is in VMX root operation.
        unsafe { vmx::clear(vmcs) }.map_err(|_| sentence(format_args!("VMCLEAR of a new VMCS failed")))?;
        // SAFETY: as above; it was cleared, and nobody uses another current VMCS here.
        let mut current =
            unsafe { vmx::load(vmcs) }.map_err(|_| sentence(format_args!("VMPTRLD of a new VMCS failed")))?;
        vmx::write_host_state(&mut current, &guest.machine);
        let mut own = Own {
            vmcs01: vmcs,
            vmcs02: vmcs,
            shadow: vmcs,
            entered: [0; 2],
            vpid: pages.vpid,
            vpid02: L2_VPIDS + pages.vpid,
            ept02: None,
        };
        if guest.has_vmx {
            give_vmx(guest, &mut vcpu, &mut own, &pages)?;
            // SAFETY: as above; the VMCS that was current meanwhile is not used any more.
            current = unsafe { vmx::load(vmcs) }.map_err(|_| sentence(format_args!("VMPTRLD of a new VMCS failed")))?;
        }
        let mut cpu = Processor::new(current, &mut own, nested::Which::Vmcs01);
        vcpu.write_vmcs(&mut cpu, &guest.controls, &pages);
        let mut hardware = guest.apic.hardware;
        if guest.on_bochs && guest.processors > 1 {
            // ARCHITECTURE.md, "Errors of the emulator".
            hardware.delivery &= apic::kick_by_nmi();
        }
        hardware.posting &= hardware.delivery && !shared;
        if index == 0 {
            defmt::info!("the processor helps the guest's APICs with {}", hardware);
        }
        let page = guest.vm.virtual_apic(index);
        let help = ApicHelp {
            pages: ApicPages {
                hardware,
                virtual_apic: page,
                eptp: pages.eptp,
                eptp_with_apic: guest.apic.eptp,
                msr_bitmaps: guest.apic.msr_bitmaps,
            },
            virtual_apic: hw::physmem::physical(page),
            access: guest.apic.access,
            descriptor: guest.vm.descriptor(index),
            notification: hw::interrupts::NOTIFICATION,
        };
        vcpu.give_apic_help(&mut cpu, &help);
        guest.vm.set_help(index, hardware);
        if index == 0 {
            vcpu.start_flat(&mut cpu, guest.start);
            fail_on_purpose(guest, nested::Processor::vmcs(&mut cpu));
        }
        guest.vm.place(index, percpu::number());
        let place = Place { vm: guest.vm, index, mailbox: guest.vm.mailbox(index), shared };
        place.published(vcpu.apic.settings().identity());
        Ok(Self { vcpu, own, left_in_l2: false, state, place })
    }

    /// Runs the vCPU until it gives the processor back. `load`: another one was here before.
    fn run(&mut self, load: bool, until: u64) -> Left {
        let current = if load {
            // SAFETY: whoever was here before has been saved.
            unsafe { self.state.load(self.vcpu.xcr0()) };
            // SAFETY: the VMCS was cleared and written here and is active on this processor only; no other value for the
            // current VMCS lives.
            match unsafe { vmx::load(if self.left_in_l2 { self.own.vmcs02 } else { self.own.vmcs01 }) } {
                Ok(current) => current,
                Err(_) => return Left::Stop(Stop::EntryFailed),
            }
        } else {
            // SAFETY: it is still current from the last time, and no other value for it lives.
            unsafe { CurrentVmcs::assume() }
        };
        self.place.vm.runs(self.place.index);
        let mut cpu = Processor::new(
            current,
            &mut self.own,
            if self.left_in_l2 { nested::Which::Vmcs02 } else { nested::Which::Vmcs01 },
        );
        let left = self.vcpu.run(&mut cpu, &self.place, until);
        match left {
            Left::Stop(Stop::EntryFailed) => failed_entry::explain(),
            Left::Stop(Stop::UnexpectedExit(_)) => dump::current_vmcs(),
            // What L0 stopped, its author wants to see; an orderly end tells nothing.
            Left::Stop(stop) if stop.is_forced() => dump::guest(&self.vcpu, nested::Processor::vmcs(&mut cpu)),
            _ => {}
        }
        self.left_in_l2 = self.vcpu.in_l2();
        left
    }

    /// Whether a vCPU that waits should look whether it still has to.
    fn has_reason_to_wake(&mut self) -> bool {
        !self.place.vm.mailbox(self.place.index).is_empty()
            || self.deadline() <= tsc::now()
            || self.place.vm.take_pic_change(self.place.index)
    }

    /// When its timers, or the devices whose time it keeps, want it.
    fn deadline(&self) -> u64 {
        self.vcpu.deadline().min(self.place.device_deadline())
    }

    /// Its exits, for the end of the log.
    fn account(&self) {
        defmt::info!("vCPU {=u16}: {=u64} exits", self.vcpu.index(), self.vcpu.counters.total());
        for (reason, count) in self.vcpu.counters.iter() {
            defmt::info!("  {=str}: {=u64}", reason.name(), count);
        }
        if let Some(transitions) = self.vcpu.transitions().filter(|transitions| transitions.entries > 0) {
            defmt::info!(
                "  between L1 and L2: {=u64} entries, {=u64} exits to L1, {=u64} exits that L0 handled, {=u64} failed instructions, {=u64} failed entries",
                transitions.entries,
                transitions.exits_to_l1,
                transitions.exits_to_l0,
                transitions.failed_instructions,
                transitions.failed_entries
            );
        }
        let Some(counts) = self.vcpu.deferred_counts() else { return };
        for ((name, deferred), drained) in Update::NAMES.iter().zip(counts.deferred).zip(counts.drained) {
            if deferred > 0 {
                defmt::info!("  {=str} while L2 ran: deferred {=u64}, written {=u64}", *name, deferred, drained);
            }
        }
    }
}

/// VPIDs of L2s follow this number; those of L1s lie below.
const L2_VPIDS: u16 = 0x100;

/// Makes what the vCPU needs to run guests of L1: vmcs02, a shadow VMCS where the processor has them, tables for L2's memory.
fn give_vmx(guest: &Guest, vcpu: &mut Vcpu, own: &mut Own, pages: &vcpu::Pages) -> Result<(), Sentence> {
    let no_memory =
        || sentence(format_args!("there is no memory left for a guest's guest: give the machine more memory"));
    let region = |revision: u32| {
        let region = zeroed_frame().ok_or_else(no_memory)?;
        // SAFETY: the frame was just allocated for this and is nobody else's.
        unsafe { vmx::write_revision(region, revision) };
        // SAFETY: as above; this processor is in VMX root operation.
        unsafe { vmx::clear(region) }.map_err(|_| sentence(format_args!("VMCLEAR of a new VMCS failed")))?;
        Ok::<_, Sentence>(region)
    };
    let revision = guest.machine.basic.revision();
    own.vmcs02 = region(revision)?;
    // SAFETY: it was cleared, and nobody uses another current VMCS here.
    let mut vmcs02 =
        unsafe { vmx::load(own.vmcs02) }.map_err(|_| sentence(format_args!("VMPTRLD of a new VMCS failed")))?;
    vmx::write_host_state(&mut vmcs02, &guest.machine);
    if guest.shadowing.is_some() {
        own.shadow = region(revision | nested_shadow_bit())?;
    }
    let page = || {
        let frame = zeroed_frame().ok_or_else(no_memory)?;
        // SAFETY: the frame was free RAM that the direct map shows; this is the only reference to it.
        Ok::<_, Sentence>(nested::Page { words: unsafe { &mut *hw::physmem::pointer(frame) }, at: frame })
    };
    let nested_pages =
        nested::Pages::new(page()?, guest.msr_bitmap_words, page()?, guest.shadowing.is_some().then_some(own.shadow));
    let base = vcpu.nested_base(&guest.controls, pages, own.vpid02, guest.shadowing.is_some());
    let nested = move_in_nested(|| nested::Nested::new(&guest.machine, base, nested_pages))?;
    vcpu.give_vmx(nested);
    own.ept02 = Some(ept::Shadows::new(ept::Pool::new(TableFrames::default(), EPT02_FRAMES)).ok_or_else(no_memory)?);
    Ok(())
}

/// Bit 31 of the first word of a VMCS region: a shadow VMCS.
const fn nested_shadow_bit() -> u32 {
    1 << 31
}

/// Most frames that the tables for one vCPU's L2s take: 8 MiB map what a Linux touches while it boots.
const EPT02_FRAMES: usize = 2048;

/// What `selftest=` asks for.
#[expect(clippy::panic, reason = "the user asked for it")]
fn fail_on_purpose(guest: &Guest, vmcs: &mut CurrentVmcs) {
    match guest.self_test {
        None => {}
        // Bit 1 of RFLAGS must be 1 (SDM 3C 27.3.1.4 "Checks on Guest RIP, RFLAGS, and SSP").
        Some(SelfTest::Entry) => vmcs.write(fields::GUEST_RFLAGS, 0),
        Some(SelfTest::Panic) => panic!("selftest=panic"),
        // That is for bring-up.
        Some(SelfTest::Hang) => {}
    }
}

/// Bytes that L0 keeps for one vCPU beside its EPT and its guests': VMCS, register state, its own values, where others reach it;
/// for a hypervisor also vmcs02, the shadow VMCS, its VMX, and the two pages of [`nested::Pages`].
pub(crate) fn bytes_per_vcpu(guest: &Guest) -> u64 {
    let whole_pages = |bytes: usize| (bytes as u64).next_multiple_of(PAGE_SIZE);
    let own = whole_pages(size_of::<Option<Resident>>()) + PAGE_SIZE + GuestState::bytes() + crate::vm::BYTES_PER_VCPU;
    if !guest.has_vmx {
        return own;
    }
    let pages = 3 + u64::from(guest.shadowing.is_some());
    own + whole_pages(size_of::<nested::Nested>()) + pages * PAGE_SIZE
}
