//! One vCPU with all that belongs to it, on its way between processors.

use arch::PAGE_SIZE;
use config::SelfTest;
use hw::frames::{FRAMES, zeroed_frame};
use hw::guest_state::GuestState;
use hw::percpu;
use hw::vmx::{self, CurrentVmcs, VmFail};
use nested::{ApicPages, Posting, Update};
use sched::{Counters, Set, State};
use vcpu::{Activity, ApicHelp, Identity, Left, Stop, Vcpu};
use vlapic::Bus as _;
use vmcs::{Access as _, fields};

use crate::cpu::{Own, Processor};
use crate::guest::{Guest, Sentence, leak_one, sentence};
use crate::scheduler::here;
use crate::tables::TableFrames;
use crate::world::Place;
use crate::{dump, failed_entry};

/// A vCPU.
pub(crate) struct Resident {
    /// Its virtual machine.
    pub(crate) guest: &'static Guest,
    /// What of it is not in a VMCS.
    pub(crate) vcpu: Vcpu,
    own: Own,
    /// L2 ran when the vCPU last left the processor.
    left_in_l2: bool,
    state: GuestState,
    place: Place,
    /// Those who wake it find this processor at its [`Place`]. So it stays while it only waits for its next turn, when it looks
    /// for what they left anyway.
    is_at_place: bool,
    /// The processor on which its VMCSs may be active, with this processor's host state.
    active_on: Option<u16>,
    /// The processors that may have cached translations of it.
    ran_on: Set,
}

/// Puts vCPU `index` of `guest` into `slot`, in the state that is returned. `shares`: there may be others on its processor. Apart from the caller, who keeps his place on the stack
/// while vCPUs run: what is made here is large.
#[inline(never)]
pub(crate) fn move_in(
    slot: &mut Option<Resident>,
    guest: &'static Guest,
    index: usize,
    shares: bool,
) -> Result<State, Sentence> {
    let resident = slot.insert(Resident::new(guest, index, shares)?);
    Ok(if resident.vcpu.activity() == Activity::Active { State::Ready } else { State::WaitsForSipi })
}

/// Puts what [`Resident::new`] keeps for nested VMX where it stays; apart, for the same reason.
#[inline(never)]
fn move_in_nested<T>(make: impl FnOnce() -> T) -> Result<&'static mut T, Sentence> {
    leak_one(make())
}

impl Resident {
    /// The vCPU `index` of the guest, its VMCSs written and active nowhere.
    fn new(guest: &'static Guest, index: usize, shares: bool) -> Result<Self, Sentence> {
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
            writable_xapic_id: guest.writable_xapic_ids,
            gets_kicks: guest.gets_kicks,
        };
        let mut vcpu = Vcpu::new(hw::cpuid::cpuid, &guest.machine, &guest.controls, identity);
        let pages = vcpu::Pages { vpid: guest.pages.vpid + number, ..guest.pages };
        // SAFETY: the frame was just allocated for this and is nobody else's.
        unsafe { vmx::write_revision(vmcs, guest.machine.basic.revision()) };
        // SAFETY: as above; this processor is in VMX root operation.
        unsafe { vmx::clear(vmcs) }.map_err(vmcs_failed)?;
        // SAFETY: as above; it was cleared, and nobody uses another current VMCS here.
        let mut current = unsafe { vmx::load(vmcs) }.map_err(vmcs_failed)?;
        let mut own = Own {
            vmcs01: vmcs,
            vmcs02: vmcs,
            shadow: vmcs,
            entered: [0; 2],
            vpid: pages.vpid,
            vpid02: L2_VPIDS + pages.vpid,
            ept02: None,
        };
        let mut hardware = guest.apic.hardware;
        if guest.on_bochs && guest.gets_kicks {
            // ARCHITECTURE.md, "Errors of the emulator".
            hardware.delivery &= hw::apic::kick_by_nmi();
        }
        // A notification that comes too late means nothing to another vCPU; but Bochs makes an interrupt of it.
        hardware.posting &= hardware.delivery && !(guest.on_bochs && shares);
        if guest.has_vmx {
            // Bochs wants more than the manual.
            let alignment = if guest.on_bochs { PAGE_SIZE } else { 64 };
            let posting =
                hardware.posting.then_some(Posting { notification: hw::interrupts::NOTIFICATION_OF_L2, alignment });
            give_vmx(guest, &mut vcpu, &mut own, &pages, posting)?;
            // SAFETY: as above; the VMCS that was current meanwhile is not used any more.
            current = unsafe { vmx::load(vmcs) }.map_err(vmcs_failed)?;
        }
        let mut cpu = Processor::new(current, &mut own, nested::Which::Vmcs01);
        vcpu.write_vmcs(&mut cpu, &guest.controls, &pages);
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
        if shares && guest.vm.cpus() > 1 {
            vcpu.notice_spinning(&mut cpu, &guest.machine);
        }
        guest.vm.set_help(index, hardware);
        if index == 0 {
            vcpu.start_flat(&mut cpu, guest.start);
            fail_on_purpose(guest, nested::Processor::vmcs(&mut cpu));
        }
        let place = Place { vm: guest.vm, index, mailbox: guest.vm.mailbox(index) };
        place.published(vcpu.apic.settings().identity());
        let (active_on, ran_on) = (Some(here()), Set::NONE);
        let mut resident =
            Self { guest, vcpu, own, left_in_l2: false, state, place, is_at_place: false, active_on, ran_on };
        // SAFETY: its registers were never loaded.
        unsafe { resident.leave_processor(false) };
        Ok(resident)
    }

    /// Runs the vCPU until it gives the processor back. `load`: another one was here before, or nobody; `after_save`: one that has
    /// just been saved.
    pub(crate) fn run(&mut self, load: bool, after_save: bool, until: u64) -> Left {
        let place = self.place;
        if !self.is_at_place {
            self.is_at_place = true;
            place.vm.runs(place.index, percpu::number());
        }
        let which = if self.left_in_l2 { nested::Which::Vmcs02 } else { nested::Which::Vmcs01 };
        let current = if load {
            match self.load(after_save) {
                Ok(current) => current,
                Err(_) => return Left::Stop(Stop::EntryFailed),
            }
        } else {
            // SAFETY: it is still current from the last time, and no other value for it lives.
            unsafe { CurrentVmcs::assume() }
        };
        let mut cpu = Processor::new(current, &mut self.own, which);
        let left = self.vcpu.run(&mut cpu, &place, until);
        match left {
            Left::Stop(Stop::EntryFailed) => failed_entry::explain(),
            Left::Stop(Stop::UnexpectedExit(_)) => dump::current_vmcs(),
            // What L0 stopped, its author wants to see; an orderly end tells nothing.
            Left::Stop(stop) if stop.is_forced() => dump::guest(&self.vcpu, nested::Processor::vmcs(&mut cpu)),
            _ => {}
        }
        self.left_in_l2 = self.vcpu.in_l2();
        self.own.entered[usize::from(self.left_in_l2)] = vmx::entered();
        left
    }

    /// Those who wake it find no processor any more: it goes to sleep, to another processor, or for good.
    #[inline(never)]
    pub(crate) fn leave_place(&mut self) {
        self.is_at_place = false;
        self.place.vm.leaves(self.place.index);
    }

    /// Loads registers and VMCS, whose predecessors have been saved.
    fn load(&mut self, after_save: bool) -> Result<CurrentVmcs, VmFail> {
        // SAFETY: the caller has saved what was here.
        unsafe { self.state.load(self.vcpu.xcr0(), after_save) };
        if self.active_on != Some(here()) {
            self.arrive()?;
        }
        let region = if self.left_in_l2 { &self.own.vmcs02 } else { &self.own.vmcs01 };
        // SAFETY: the VMCS was cleared and written and is active on this processor only, where it has stayed so since the other
        // value was read; no other value for the current VMCS lives.
        unsafe { vmx::load_entered(region, self.own.entered[usize::from(self.left_in_l2)]) }
    }

    /// Its VMCSs, which are active nowhere, get this processor's host state, and what the processor has cached of the vCPU is
    /// dropped: while it was elsewhere, it was told there what to drop.
    #[cold]
    fn arrive(&mut self) -> Result<(), VmFail> {
        self.active_on = Some(here());
        for region in [self.own.vmcs02, self.own.vmcs01] {
            // SAFETY: it was cleared where it was before, and no other value for the current VMCS lives.
            let mut vmcs = unsafe { vmx::load(region) }?;
            vmx::write_host_state(&mut vmcs, &self.guest.machine);
        }
        if self.ran_on.has(here()) {
            // Where the machine has no VPIDs, every entry and exit flushes anyway. L1's EPT never changes.
            let _ = vmx::invvpid_single(self.own.vpid);
            if self.own.ept02.is_some() {
                let _ = vmx::invvpid_single(self.own.vpid02);
                let _ = vmx::invept_all();
            }
        }
        self.ran_on.0 |= 1 << here();
        Ok(())
    }

    /// Saves the registers that are in this processor.
    ///
    /// # Safety
    /// They are this vCPU's: nobody else was loaded since it ran here.
    pub(crate) unsafe fn save(&mut self) {
        // SAFETY: the caller's promise.
        unsafe { self.state.save(self.vcpu.xcr0()) };
    }

    /// Lets the vCPU go to another processor; its registers are saved if they are in this one.
    ///
    /// # Safety
    /// `is_loaded` as for [`Self::save`]. No value for the current VMCS lives, if that is its own.
    pub(crate) unsafe fn leave_processor(&mut self, is_loaded: bool) {
        self.leave_place();
        if is_loaded {
            // SAFETY: the caller's promise.
            unsafe { self.save() };
        }
        if self.active_on.take().is_none() {
            return;
        }
        // The shadow VMCS too: what VMREAD and VMWRITE of L1 changed may be in the processor.
        for region in [self.own.vmcs01, self.own.vmcs02, self.own.shadow] {
            // SAFETY: it was made for this vCPU, and is active here or nowhere.
            let _ = unsafe { vmx::clear(region) };
        }
        self.own.entered = [0; 2];
        self.vcpu.vmcs_was_cleared();
    }

    /// The vCPU sleeps; `deaf` when no interrupt can wake it. Whether its virtual machine ends by that.
    pub(crate) fn waits(&self, deaf: bool) -> bool {
        self.place.vm.waits(self.place.index, deaf)
    }

    /// Whether something was left for it to look at, other than by its timers.
    pub(crate) fn has_reason_to_wake(&self) -> bool {
        let (vm, index) = (self.place.vm, self.place.index);
        !vm.mailbox(index).is_empty() || vm.take_pic_change(index) || vm.stop().is_some()
    }

    /// When its timers, or the devices whose time it keeps, want it.
    pub(crate) fn deadline(&self) -> u64 {
        self.vcpu.deadline().min(self.place.device_deadline())
    }

    /// Its exits, for the log.
    /// `several`: there are other virtual machines, and its own is named. `counters`: what the queue says.
    pub(crate) fn account(&self, several: bool, counters: &Counters) {
        let (index, exits) = (self.vcpu.index(), self.vcpu.counters.total());
        let (name, space) = if several { (self.guest.name.as_str(), " ") } else { ("", "") };
        defmt::info!("{=str}{=str}vCPU {=u16}: {=u64} exits", name, space, index, exits);
        defmt::info!(
            "{=str}{=str}vCPU {=u16}: ran {=u64} ticks, waited {=u64}; {=u64} wakes, {=u64} ticks from one until it ran, at most {=u64}; {=u64} switches, {=u64} migrations",
            name,
            space,
            index,
            counters.ran,
            counters.waited,
            counters.wakes,
            counters.wake_latency / counters.wakes.max(1),
            counters.longest_wake,
            counters.switches,
            counters.migrations
        );
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
            if transitions.posted > 0 {
                defmt::info!("  interrupts that L1 had posted: given to L2 {=u64} times", transitions.posted);
            }
        }
        let Some(counts) = self.vcpu.deferred_counts() else { return };
        for ((name, deferred), drained) in Update::NAMES.iter().zip(counts.deferred).zip(counts.drained) {
            if deferred > 0 {
                defmt::info!("  {=str} while L2 ran: deferred {=u64}, written {=u64}", *name, deferred, drained);
            }
        }
    }
}

/// VPIDs of L2s follow this number; those of L1s lie below: 1 more than the vCPU's number on the machine.
const L2_VPIDS: u16 = 0x100;

/// Makes what the vCPU needs to run guests of L1: vmcs02, a shadow VMCS where the processor has them, tables for L2's memory.
fn give_vmx(
    guest: &Guest,
    vcpu: &mut Vcpu,
    own: &mut Own,
    pages: &vcpu::Pages,
    posting: Option<Posting>,
) -> Result<(), Sentence> {
    let region = |revision: u32| {
        let region = zeroed_frame().ok_or_else(no_memory)?;
        // SAFETY: the frame was just allocated for this and is nobody else's.
        unsafe { vmx::write_revision(region, revision) };
        // SAFETY: as above; this processor is in VMX root operation.
        unsafe { vmx::clear(region) }.map_err(vmcs_failed)?;
        Ok::<_, Sentence>(region)
    };
    let revision = guest.machine.basic.revision();
    own.vmcs02 = region(revision)?;
    // SAFETY: it was cleared, and nobody uses another current VMCS here.
    unsafe { vmx::load(own.vmcs02) }.map_err(vmcs_failed)?;
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
    let base = vcpu.nested_base(&guest.controls, pages, own.vpid02, guest.shadowing.is_some(), posting);
    let nested = move_in_nested(|| nested::Nested::new(&guest.machine, base, nested_pages))?;
    vcpu.give_vmx(nested);
    own.ept02 = Some(ept::Shadows::new(ept::Pool::new(TableFrames::default(), EPT02_FRAMES)).ok_or_else(no_memory)?);
    Ok(())
}

#[cold]
#[inline(never)]
fn no_memory() -> Sentence {
    sentence(format_args!("there is no memory left for a vCPU or its guests: give the machine more memory"))
}

#[cold]
#[inline(never)]
fn vmcs_failed(_: VmFail) -> Sentence {
    sentence(format_args!("VMCLEAR or VMPTRLD of a new VMCS failed"))
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
