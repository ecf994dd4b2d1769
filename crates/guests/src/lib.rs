//! What the guests share: the way from a multiboot loader into 64-bit Rust, a console, an exit, and the machine's parts.
//!
//! A guest is a program that has a whole machine to itself and is there to do to it what a kernel does, and some things
//! that no kernel should. Its log on the bare machine is the expectation for its run under Nestling, so a guest prints
//! how the machine behaves, never an address or a time.
//!
//! **Unsafe.** Every function here that touches the machine is safe to call although it could ruin the program around it
//! (write any port, MSR or control register): the caller is a test, whose subject is just that, and no memory but its
//! own is there to be harmed. The `// SAFETY:` comments say "the machine is ours" where that is the whole reason.
//!
//! | guest | what it is for |
//! |---|---|
//! | `hello` | the smallest: what the loader gave it, and an exit status (`exit=N`) |
//! | `smp` | starting, interrupting and restarting processors, in both APIC modes |
//! | `ipis` | interrupts by the thousand to itself or to another processor (`self`, `other`, `flood`, `moves`; `rounds=N`) |
//! | `timers` | PIT, RTC, UART, APIC timer; through PIC and IOAPIC; when interrupts are taken |
//! | `machine` | CPUID, control registers, MSRs, exceptions, ring 3, ports, device memory, other modes |
//! | `demo` | what `cargo xtask run` shows without a guest |
//! | `bench` | ticks of what may exit |
//! | `abuse` | what no kernel should do; the first argument says which |
//! | `echo` | says what is typed |
//! | `share`, `spinlock` | work and sleep beside other guests; a lock that two processors spin for |
//! | `vmx_instructions`, `vmx_fields`, `vmx_operands`, `vmx_32bit` | the VMX instructions, and what they refuse |
//! | `l2_entry`, `l2_state`, `l2_modes` | entries that fail; what entries and exits load and save; an L2 in every mode |
//! | `l2_exits`, `l2_msrs`, `l2_events`, `l2_timer` | what exits, and what the exit says |
//! | `l2_ept`, `l2_paging`, `l2_shadowing`, `l2_smp` | EPT, page tables, VMCS shadowing, two processors |
//! | `l2_apic`, `l2_posted` | an APIC for L2; interrupts posted to it |
//! | `l2_apicv`, `l2_inhibit` | L1's own APIC, changed by L2 |
//! | `oracle` | random VM entries (`seed=S count=N first=I`), a line for each; judged by `cargo xtask oracle --random` |
//!
//! Beside `NAME` lies `NAME.expected`: the log of the bare machine with one processor and no arguments, `NAME.2.expected`
//! with two processors, `NAME.WORD.expected` with the argument WORD. `l2_smp` and `l2_posted` have two processors always. Machines differ in
//! what their VMX offers: `cargo xtask oracle` compares each with itself.
//!
//! | you want to | look in |
//! |---|---|
//! | know how a guest starts | [`entry`] (32-bit to 64-bit), [`entry!`] |
//! | print, end the run | [`console`], [`exit()`] |
//! | see what the loader said | [`multiboot`] |
//! | take interrupts, survive faults | [`interrupts`], [`fault`] |
//! | touch ports, MSRs, memory, registers | [`port`], [`msr`], [`memory`], [`cpu`] |
//! | use the local APIC, IOAPIC, PIC, PIT, ACPI, PM timer | [`apic`], [`ioapic`], [`pic`], [`pit`], [`acpi`], [`pm_timer`] |
//! | start the other processors | [`smp`] |
//! | be a hypervisor | [`vmx`] |
#![no_std]
#![expect(clippy::macro_metavars_in_unsafe, reason = "`vmx_flags!`: an instruction's operands are written where it is")]
#![expect(clippy::cast_possible_truncation, reason = "a 64-bit machine, and numbers cut to what a register takes")]

pub mod acpi;
pub mod apic;
pub mod console;
pub mod cpu;
pub mod entry;
pub mod exit;
pub mod fault;
pub mod interrupts;
pub mod ioapic;
pub mod memory;
pub mod msr;
pub mod multiboot;
pub mod pic;
pub mod pit;
pub mod pm_timer;
pub mod port;
pub mod smp;
pub mod vmx;

pub use exit::exit;
pub use fault::{Fault, expect_fault};
