//! An exit of L2: to L1, if it is L1's; otherwise L0 does what it does for L1, on vmcs02, which is current.

use core::cell::Cell;

use arch::control::{Cr0, Cr4, Efer};
use arch::segment::AccessRights;
use arch::{Fault, Gpr, GuestMemory, GuestPhys, L2Phys, Linear, Width};
use emulate::{Device, Done, Failure};
use ept::{Denied, Ept12, L2Memory, ModificationLog};
use nested::{Abort, EptOutcome, L1Memory, Route, Synthesized};
use vmcs::fields::*;
use vmcs::qualification::{CrAccess, EptQualification, EptViolation, IoAccess};
use vmcs::{Access, ExitReason, InstructionInfo};

use crate::control_registers::{CR0_OWNED, cr0_is_legal, cr4_owned};
use crate::cpu::Cpu;
use crate::exits::memory::Devices;
use crate::exits::msr_list::ListedMsrs;
use crate::exits::{Next, control_register, handle_decoded, lost_rip, port, vmx_operand};
use crate::registers::VmcsRegisters;
use crate::skip::{finish_at, pause_between_iterations, skip_instruction};
use crate::state::{Activity, Vcpu};
use crate::stop::Stop;
use crate::world::World;

/// Bit 31 of the exit reason: the processor refused the entry.
const ENTRY_FAILURE: u32 = 1 << 31;

/// Handles the exit that vmcs02 describes.
#[inline(always)]
pub(super) fn handle<C: Cpu, W: World>(vcpu: &mut Vcpu, cpu: &mut C, world: &W, reason: ExitReason) -> Next {
    let now = cpu.tsc();
    if let Some(vector) = world.mailbox().take_for_l2() {
        // Before this exit, as far as L1 and L2 can tell; the processor may have been quicker.
        vcpu.notified_for_l2(cpu, world, vector);
    }
    let Some(nested) = vcpu.nested.as_mut() else { return Next::Resume };
    nested.entered();
    match nested.route(reason, cpu.vmcs(), &vcpu.regs, world.memory(), now) {
        // INIT comes before the timer (SDM 3C 26.5.1 "VMX-Preemption Timer").
        Route::L1 if reason == ExitReason::PREEMPTION_TIMER && vcpu.init_latched => Next::Attend,
        Route::L1 => {
            if reason == ExitReason::PREEMPTION_TIMER {
                lost_rip::restore(vcpu, cpu, world);
            }
            reflect(vcpu, cpu, world)
        }
        Route::L0 if !nested.steps_l2() => by_l0(vcpu, cpu, world, reason),
        other if !nested.steps_l2() => unseen(vcpu, cpu, world, reason, other, now),
        other => stepped(vcpu, cpu, world, reason, other, now),
    }
}

/// The same under the "monitor trap flag": an instruction of L2's that L0 executes ends with an exit like those that the
/// processor does (SDM 3C 26.5.2 "Monitor Trap Flag").
#[cold]
#[inline(never)]
fn stepped<C: Cpu, W: World>(
    vcpu: &mut Vcpu,
    cpu: &mut C,
    world: &W,
    reason: ExitReason,
    route: Route,
    now: u64,
) -> Next {
    // An instruction moves RIP, an iteration with REP the count.
    let place = |vcpu: &Vcpu, cpu: &mut C| (cpu.vmcs().read(GUEST_RIP), vcpu.regs.get(Gpr::Rcx));
    let before = place(vcpu, cpu);
    let next = match route {
        Route::L0 => by_l0(vcpu, cpu, world, reason),
        other => unseen(vcpu, cpu, world, reason, other, now),
    };
    let is_free = vcpu.injection.is_none() && vcpu.exit_of_l2.is_none() && vcpu.activity == Activity::Active;
    if next == Next::Stop || !vcpu.in_l2 || !is_free || place(vcpu, cpu) == before {
        return next;
    }
    vcpu.exit_of_l2 = Some(Synthesized { reason: ExitReason::MONITOR_TRAP_FLAG.0, ..Synthesized::default() });
    Next::Attend
}

/// The processor has refused to enter L2, for a reason that is L1's or by a bug of L0's.
#[cold]
#[inline(never)]
pub(crate) fn refused<C: Cpu, W: World>(vcpu: &mut Vcpu, cpu: &mut C, world: &W) -> Next {
    match vcpu.nested.as_ref().and_then(|nested| nested.exit_for_refusal(cpu, world.memory())) {
        Some(exit) => synthesize(vcpu, cpu, world, exit),
        None => vcpu.stops(Stop::EntryFailed),
    }
}

/// What the machine does without an exit, and L0 after one that began at `start`: L2 must not lose the time.
#[inline(never)]
fn unseen<C: Cpu, W: World>(
    vcpu: &mut Vcpu,
    cpu: &mut C,
    world: &W,
    reason: ExitReason,
    route: Route,
    start: u64,
) -> Next {
    let next = match route {
        Route::Ept => ept(vcpu, cpu, world, reason),
        Route::ShadowAccess => shadow_access(vcpu, cpu, world, reason),
        Route::VmFunction => vm_function(vcpu, cpu, world),
        Route::L1 | Route::L0 => Next::Resume,
    };
    let ticks = cpu.tsc().wrapping_sub(start);
    if vcpu.in_l2
        && let Some(nested) = &mut vcpu.nested
    {
        nested.spare_timer(ticks);
    }
    next
}

/// L1 gets the exit as the processor made it.
#[inline]
fn reflect<C: Cpu, W: World>(vcpu: &mut Vcpu, cpu: &mut C, world: &W) -> Next {
    let Some(nested) = vcpu.nested.take() else { return Next::Resume };
    let refused = cpu.vmcs().read(EXIT_REASON) & ENTRY_FAILURE != 0;
    let mut msrs = ListedMsrs { vcpu, world };
    let done = if refused {
        nested.exit_from_refused_entry(cpu, world.memory(), &mut msrs)
    } else {
        nested.reflect(cpu, world.memory(), &mut msrs, 0)
    };
    vcpu.nested = Some(nested);
    after_exit(vcpu, world, done)
}

/// L1 gets an exit that L0 made.
#[cold]
pub(crate) fn synthesize<C: Cpu, W: World>(vcpu: &mut Vcpu, cpu: &mut C, world: &W, exit: Synthesized) -> Next {
    let activity = match vcpu.activity {
        Activity::Active => 0,
        Activity::Halted => 1,
        Activity::WaitForSipi => 3,
    };
    let Some(nested) = vcpu.nested.take() else { return Next::Resume };
    let done = nested.synthesize(cpu, world.memory(), &mut ListedMsrs { vcpu, world }, activity, exit);
    vcpu.nested = Some(nested);
    after_exit(vcpu, world, done)
}

/// L1 runs again. Nothing can have changed about its events unless one waits.
#[inline(always)]
fn after_exit<W: World>(vcpu: &mut Vcpu, world: &W, done: Result<(), Abort>) -> Next {
    vcpu.in_l2 = false;
    if vcpu.nested.as_ref().is_some_and(|nested| nested.posted().is_some()) {
        world.l2_takes_posts(None);
    }
    vcpu.activity = Activity::Active;
    vcpu.leaves_l2_at_once = false;
    match done {
        Ok(()) if vcpu.has_event_for_l1() => Next::Attend,
        Ok(()) => Next::Resume,
        Err(abort) => vcpu.stops(Stop::VmxAbort(abort)),
    }
}

/// What L0 does for L2 as it does for L1, and the exits that are L0's own.
#[inline(never)]
fn by_l0<C: Cpu, W: World>(vcpu: &mut Vcpu, cpu: &mut C, world: &W, reason: ExitReason) -> Next {
    if let Some(nested) = &mut vcpu.nested {
        nested.transitions.exits_to_l0 += 1;
    }
    match reason {
        ExitReason::EPT_VIOLATION if let Some(exit) = access_to_apic(vcpu, cpu) => synthesize(vcpu, cpu, world, exit),
        // These may cut the delivery of an event short.
        ExitReason::EPT_VIOLATION | ExitReason::EPT_MISCONFIGURATION | ExitReason::EXTERNAL_INTERRUPT => {
            vcpu.requeue_cut_short(cpu.vmcs());
            handle_decoded(vcpu, cpu, world, reason)
        }
        ExitReason::CONTROL_REGISTER => match CrAccess::decode(cpu.vmcs().read(EXIT_QUALIFICATION)) {
            CrAccess::MovTo { register: 0, source } => mov_to_cr0(vcpu, cpu, source),
            CrAccess::MovTo { register: 4, source } => mov_to_cr4(vcpu, cpu, source),
            _ => handle_decoded(vcpu, cpu, world, reason),
        },
        ExitReason::IO => match IoAccess::decode(cpu.vmcs().read(EXIT_QUALIFICATION)) {
            access if access.string => string_io(vcpu, cpu, world, access),
            access => port::handle(vcpu, cpu, world, access),
        },
        _ => handle_decoded(vcpu, cpu, world, reason),
    }
}

/// INS or OUTS of L2 at a port that L1 leaves to it: the operand is in L2's memory.
#[cold]
fn string_io<C: Cpu, W: World>(vcpu: &mut Vcpu, cpu: &mut C, world: &W, access: IoAccess) -> Next {
    let Some(nested) = vcpu.nested.as_ref() else { return Next::Resume };
    let Some(&ept12) = nested.ept12() else { return port::handle(vcpu, cpu, world, access) };
    let log = nested.modification_log();
    let denied = Cell::new(None);
    let memory = L2Memory::new(world.memory(), &ept12, log.as_ref(), ept::Access::READ, &denied);
    let from = cpu.vmcs().read(GUEST_RIP);
    let (outcome, to) = port::transfer(vcpu, cpu, world, &memory, access);
    if let Some(nested) = &mut vcpu.nested {
        nested.keep_log(log.as_ref());
        if let Some((at, denied)) = denied.take() {
            let exit = nested.denied_to_l0(cpu, denied, at, OPERAND.bits());
            return synthesize(vcpu, cpu, world, exit);
        }
    }
    port::finish(vcpu, cpu, outcome, from, to)
}

/// What an exit says of an access to an operand, beside whether it was read or written: SDM 3C, table "Exit Qualification for
/// EPT Violations".
const OPERAND: EptQualification = EptQualification::LINEAR_VALID.union(EptQualification::TRANSLATED);

/// The exit for an access to vmcs12's APIC-access page where L1 uses no EPT and has no memory.
fn access_to_apic(vcpu: &Vcpu, cpu: &mut impl Cpu) -> Option<Synthesized> {
    let violation = EptViolation::read(cpu.vmcs());
    vcpu.nested.as_ref()?.apic_access_exit(cpu.vmcs(), violation.guest_physical, violation.qualification)
}

/// A MOV to CR0 that changes a bit of L0's and none of L1's. As for L1: the read shadow takes the bit, and L2 executes its
/// instruction again. The value must be one that VMX non-root operation takes (SDM 3C 24.8 "Restrictions on VMX Operation").
fn mov_to_cr0(vcpu: &mut Vcpu, cpu: &mut impl Cpu, source: Gpr) -> Next {
    let value = control_register::read_operand(vcpu, cpu, source);
    let vmcs = cpu.vmcs();
    let cr4 = Cr4::from_bits_retain(vmcs.read(GUEST_CR4));
    let efer = Efer::from_bits_retain(vmcs.read(GUEST_IA32_EFER));
    let long = AccessRights(vmcs.read(GUEST_CS_ACCESS_RIGHTS)).is_long() && efer.contains(Efer::LMA);
    let Some(nested) = &vcpu.nested else { return Next::Resume };
    let free = if nested.is_unrestricted() { (Cr0::PE | Cr0::PG).bits() } else { 0 };
    if !nested.capabilities().cr0.permits_ignoring(value, free) || !cr0_is_legal(value, cr4, efer, long) {
        return vcpu.inject_fault(cpu, Fault::Gp(0));
    }
    let owned = CR0_OWNED.bits() & !nested.cr0_mask();
    let shadow = cpu.vmcs().read(CR0_READ_SHADOW);
    cpu.vmcs().write(CR0_READ_SHADOW, shadow & !owned | value & owned);
    Next::Resume
}

fn mov_to_cr4(vcpu: &mut Vcpu, cpu: &mut impl Cpu, source: Gpr) -> Next {
    let value = control_register::read_operand(vcpu, cpu, source);
    let Some(nested) = &vcpu.nested else { return Next::Resume };
    let fits = nested.capabilities().cr4.permits(value) && value & !vcpu.cr4_offered.bits() == 0;
    if !fits {
        return vcpu.inject_fault(cpu, Fault::Gp(0));
    }
    let owned = cr4_owned(vcpu.cr4_offered) & !nested.cr4_mask();
    let shadow = cpu.vmcs().read(CR4_READ_SHADOW);
    cpu.vmcs().write(CR4_READ_SHADOW, shadow & !owned | value & owned);
    Next::Resume
}

/// L2 met something in EPT02, and L1 uses EPT.
#[inline(never)]
fn ept<C: Cpu, W: World>(vcpu: &mut Vcpu, cpu: &mut C, world: &W, reason: ExitReason) -> Next {
    if reason != ExitReason::EPT_VIOLATION {
        // EPT02 has no misconfigured entry: L0 made them.
        return vcpu.stops(Stop::UnexpectedExit(reason.0));
    }
    let violation = EptViolation::read(cpu.vmcs());
    let Some(nested) = vcpu.nested.as_mut() else { return Next::Resume };
    match nested.ept_violation(cpu, world.memory(), &violation) {
        EptOutcome::Resolved => {
            nested.transitions.exits_to_l0 += 1;
            vcpu.requeue_cut_short(cpu.vmcs());
            if vcpu.injection.is_some() { Next::Attend } else { Next::Resume }
        }
        EptOutcome::Exit(exit) => synthesize(vcpu, cpu, world, exit),
        EptOutcome::Device(at) => {
            nested.transitions.exits_to_l0 += 1;
            device(vcpu, cpu, world, &violation, at)
        }
    }
}

/// L1's tables lead L2 to a device of L1's, or to nothing: the instruction is emulated on L2's memory.
fn device<C: Cpu, W: World>(vcpu: &mut Vcpu, cpu: &mut C, world: &W, violation: &EptViolation, at: GuestPhys) -> Next {
    let Some(nested) = vcpu.nested.as_ref() else { return Next::Resume };
    if let Some(exit) = nested.apic_access_exit(cpu.vmcs(), at, violation.qualification) {
        return synthesize(vcpu, cpu, world, exit);
    }
    if let Some(stop) = super::memory::out_of_reach(cpu.vmcs(), violation) {
        return vcpu.stops(stop);
    }
    if violation.qualification.contains(EptQualification::FETCH) {
        return super::memory::fetch(vcpu, cpu, world, at);
    }
    let Some(&ept12) = nested.ept12() else { return Next::Resume };
    let log = nested.modification_log();
    let denied = Cell::new(None);
    let memory = L2Memory::new(world.memory(), &ept12, log.as_ref(), ept::Access::READ, &denied);
    let now = cpu.tsc();
    let from = cpu.vmcs().read(GUEST_RIP);
    let devices = Devices { apic: &mut vcpu.apic, world, now, guest_now: now.wrapping_add(vcpu.tsc_offset) };
    let mut device = L2Devices { devices, memory: world.memory(), ept12: &ept12, log: log.as_ref(), denied: &denied };
    let mut registers = VmcsRegisters::new(cpu.vmcs(), &mut vcpu.regs, &vcpu.cpuid, from);
    let outcome = emulate::access(&mut registers, &memory, &mut device, violation.guest_physical);
    let to = registers.rip;
    let denied = denied.take();
    if let Some(nested) = &mut vcpu.nested {
        nested.keep_log(log.as_ref());
        if let Some((at, denied)) = denied {
            let exit = nested.denied_to_l0(cpu, denied, at, violation.qualification.bits());
            return synthesize(vcpu, cpu, world, exit);
        }
    }
    match outcome {
        Ok(Done::Complete) => finish_at(vcpu, cpu, from, to).attending(),
        Ok(Done::Repeating) => pause_between_iterations(vcpu, cpu),
        Err(Failure::NotDevice) => Next::Resume,
        Err(Failure::Fault(fault)) => vcpu.inject_fault(cpu, fault),
        Err(Failure::Unsupported { bytes, .. }) => vcpu.stops(Stop::UnknownInstruction { rip: Linear(from), bytes }),
    }
}

/// L1's devices, at L2's addresses.
struct L2Devices<'a, W, M> {
    devices: Devices<'a, W>,
    memory: &'a M,
    ept12: &'a Ept12,
    log: Option<&'a ModificationLog>,
    denied: &'a Cell<Option<(L2Phys, Denied)>>,
}

impl<W: World, M: L1Memory> L2Devices<'_, W, M> {
    fn translate(&self, at: GuestPhys, access: ept::Access) -> Option<GuestPhys> {
        let at = L2Phys(at.get());
        match self.ept12.translate(self.memory, self.log, at, access) {
            Ok(found) => Some(found.address),
            Err(denied) => {
                self.denied.set(Some((at, denied)));
                None
            }
        }
    }
}

impl<W: World, M: L1Memory> Device for L2Devices<'_, W, M> {
    fn read(&mut self, at: GuestPhys, width: Width) -> u64 {
        self.translate(at, ept::Access::READ).map_or(width.mask(), |at| self.devices.read(at, width))
    }

    fn write(&mut self, at: GuestPhys, width: Width, value: u64) {
        if let Some(at) = self.translate(at, ept::Access::WRITE) {
            self.devices.write(at, width, value);
        }
    }
}

/// VMREAD or VMWRITE of L2 on the shadow VMCS that L1 gave it.
#[cold]
fn shadow_access<C: Cpu, W: World>(vcpu: &mut Vcpu, cpu: &mut C, world: &W, reason: ExitReason) -> Next {
    if super::instruction::privilege_level(cpu.vmcs()) != 0 {
        return vcpu.inject_fault(cpu, Fault::Gp(0));
    }
    let info = InstructionInfo(cpu.vmcs().read(VM_EXIT_INSTRUCTION_INFO));
    let encoding = vmx_operand::register(&vcpu.regs, cpu.vmcs(), info.number_2());
    let ept12 = vcpu.nested.as_ref().and_then(|nested| nested.ept12().copied());
    let log = vcpu.nested.as_ref().and_then(|nested| nested.modification_log());
    let denied = Cell::new(None);
    let outcome = match &ept12 {
        None => shadow_access_in(vcpu, cpu, world, world.memory(), reason, info, encoding),
        Some(ept12) => {
            let memory = L2Memory::new(world.memory(), ept12, log.as_ref(), ept::Access::READ, &denied);
            shadow_access_in(vcpu, cpu, world, &memory, reason, info, encoding)
        }
    };
    if let (Some((at, denied)), Some(nested)) = (denied.take(), &mut vcpu.nested) {
        let exit = nested.denied_to_l0(cpu, denied, at, OPERAND.bits());
        return synthesize(vcpu, cpu, world, exit);
    }
    match outcome {
        Ok(outcome) => {
            let flags = cpu.vmcs().read(GUEST_RFLAGS);
            cpu.vmcs().write(GUEST_RFLAGS, outcome.flags(flags));
            skip_instruction(vcpu, cpu)
        }
        Err(fault) => vcpu.inject_fault(cpu, fault),
    }
}

/// The same, with operands in `memory`, which is L2's.
fn shadow_access_in<C: Cpu, W: World>(
    vcpu: &mut Vcpu,
    cpu: &mut C,
    world: &W,
    memory: &dyn GuestMemory,
    reason: ExitReason,
    info: InstructionInfo,
    encoding: u64,
) -> Result<nested::Outcome, Fault> {
    if reason == ExitReason::VMREAD {
        let Some(nested) = vcpu.nested.as_mut() else { return Err(Fault::Ud) };
        match nested.vmread_by_l2(world.memory(), encoding) {
            Ok(value) => vmx_operand::put(vcpu, cpu, memory, info, value).map(|()| nested::Outcome::Succeed),
            Err(outcome) => Ok(outcome),
        }
    } else {
        let value = vmx_operand::take(vcpu, cpu, memory, info)?;
        let Some(nested) = vcpu.nested.as_mut() else { return Err(Fault::Ud) };
        Ok(nested.vmwrite_by_l2(world.memory(), encoding, value))
    }
}

/// VMFUNC of L2.
#[cold]
fn vm_function<C: Cpu, W: World>(vcpu: &mut Vcpu, cpu: &mut C, world: &W) -> Next {
    let (eax, ecx) = (vcpu.regs.eax(), vcpu.regs.ecx());
    let Some(nested) = vcpu.nested.as_mut() else { return Next::Resume };
    if nested.vm_function(cpu, world.memory(), eax, ecx) {
        skip_instruction(vcpu, cpu)
    } else {
        reflect(vcpu, cpu, world)
    }
}
