//! A guest of the program's own.

use core::arch::{asm, global_asm};

use arch::{Gpr, GuestRegs};
use vmcs::fields::{
    GUEST_ACTIVITY_STATE, GUEST_INTERRUPTIBILITY_INFO, GUEST_PENDING_DBG_EXCEPTIONS, GUEST_RFLAGS, GUEST_RIP,
    GUEST_RSP, VM_EXIT_INSTRUCTION_LEN,
};
use vmcs::{Access, Capabilities};

use super::instructions::{self, VmResult, must};
use super::{Controls, Current, Report, enter, pages, setup, state};

/// The number with which an [`L2`] calls when its code has come to its end.
pub const DONE: u64 = 0xd07e;
/// Pages of an L2's stack.
const STACK_PAGES: usize = 4;

global_asm!(
    r#"
    .global l2_start
l2_start:
    call rdi
    mov eax, {done}
    vmcall
    ud2
    "#,
    done = const DONE,
);

unsafe extern "C" {
    fn l2_start();
}

/// VMCALL with `number` in RAX: what an L2 says to the program that runs it. Returns what that left in RAX.
pub fn call(number: u64) -> u64 {
    let answer;
    // SAFETY: the program may change RAX.
    unsafe { asm!("vmcall", inout("rax") number => answer) };
    answer
}

/// A guest with its VMCS, which is current from the guest's making on, until another one's is.
#[derive(Debug)]
pub struct L2 {
    /// Its registers but RSP, RIP and RFLAGS.
    pub regs: GuestRegs,
    /// Its VMCS.
    pub region: u64,
    /// Whether the next entry is by VMRESUME.
    pub launched: bool,
    /// The end of its stack.
    pub stack: u64,
    /// What its controls are.
    pub controls: Controls,
    /// What the machine offers.
    pub capabilities: Capabilities,
}

impl L2 {
    /// A 64-bit guest that runs `code` on a stack of its own and then calls with [`DONE`].
    pub fn new(code: fn()) -> Self {
        let capabilities = setup::capabilities();
        let region = setup::region();
        must("a new VMCS", instructions::vmclear(region).and_then(|()| instructions::vmptrld(region)));
        let stack = pages::take_several(STACK_PAGES) + 4096 * STACK_PAGES as u64;
        let (regs, controls) = (GuestRegs::default(), Controls::default());
        let mut l2 = Self { regs, region, launched: false, stack, controls, capabilities };
        l2.reset(code);
        l2
    }

    /// Makes the VMCS, which is the current one, what it was when it was new.
    pub fn reset(&mut self, code: fn()) {
        super::current::zero(&self.capabilities);
        state::write_host();
        enter::write_exit_address();
        state::write_guest(l2_start as *const () as u64, self.stack);
        self.controls = Controls::of_64_bit();
        self.controls.write(&self.capabilities);
        self.regs = GuestRegs::default();
        self.regs.set(Gpr::Rdi, code as *const () as u64);
    }

    /// Lets the guest run `code` from its beginning, with nothing blocked or pending; all else is as it is.
    pub fn restart(&mut self, code: fn()) {
        self.regs.set(Gpr::Rdi, code as *const () as u64);
        let mut current = Current;
        current.write(GUEST_RIP, l2_start as *const () as u64);
        current.write(GUEST_RSP, self.stack);
        current.write(GUEST_RFLAGS, 2);
        current.write(GUEST_INTERRUPTIBILITY_INFO, 0);
        current.write(GUEST_ACTIVITY_STATE, 0);
        current.write(GUEST_PENDING_DBG_EXCEPTIONS, 0);
    }

    /// Changes the controls by `change`; says whether the machine has them. They stay as they are if it has not.
    pub fn control(&mut self, change: impl FnOnce(&mut Controls)) -> bool {
        let mut controls = self.controls;
        change(&mut controls);
        if controls.check(&self.capabilities).is_err() {
            return false;
        }
        self.controls = controls;
        controls.write(&self.capabilities);
        true
    }

    /// VMLAUNCH the first time, VMRESUME from then on. A failed entry leaves it at that.
    #[inline(always)]
    pub fn enter(&mut self) -> VmResult {
        enter::enter(&mut self.regs, self.launched)?;
        self.launched = true;
        Ok(())
    }

    /// Enters the guest and says why it came back.
    pub fn run(&mut self) -> Report {
        let before = self.launched;
        match self.enter() {
            Ok(()) => {
                let report = Report::read(&self.regs);
                if report.is_entry_failure() {
                    self.launched = before;
                }
                report
            }
            Err(failure) => Report::Failed(failure),
        }
    }

    /// Goes on behind the instruction that exited.
    #[inline(always)]
    pub fn skip(&mut self) {
        let mut current = Current;
        let length = current.read(VM_EXIT_INSTRUCTION_LEN);
        let rip = current.read(GUEST_RIP);
        current.write(GUEST_RIP, rip + u64::from(length));
    }

    /// Makes the guest's VMCS the current one again.
    pub fn load(&self) {
        must("the VMCS of a guest", instructions::vmptrld(self.region));
    }
}

/// Lets the guest run `code` from its beginning and prints each exit, going on behind the instruction that made it. Ends with the
/// code, with an exit that no instruction made, or with a failed entry.
pub fn follow(l2: &mut L2, what: &str, code: fn()) {
    /// More exits than any code has that is followed.
    const MOST: usize = 20;
    l2.restart(code);
    for number in 0..MOST {
        let report = l2.run();
        // After what the code prints itself.
        if number == 0 {
            crate::print!(" {what}: ");
        }
        crate::print!("{report}");
        if report.is_done() || !report.is_instruction() {
            break;
        }
        crate::print!("; ");
        l2.skip();
    }
    crate::println!();
}
