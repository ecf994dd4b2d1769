//! Nestling's own counters at the end of its log: whether they explain every exit of a guest that is no hypervisor.

use super::Verdict;
use vmcs::ExitReason;

/// What a Linux's exits can be. Kicks are NMIs on Bochs.
const OF_LINUX: [ExitReason; 17] = [
    ExitReason::EXCEPTION_OR_NMI,
    ExitReason::EXTERNAL_INTERRUPT,
    ExitReason::INTERRUPT_WINDOW,
    ExitReason::CPUID,
    ExitReason::HLT,
    ExitReason::CONTROL_REGISTER,
    ExitReason::IO,
    ExitReason::RDMSR,
    ExitReason::WRMSR,
    ExitReason::TPR_BELOW_THRESHOLD,
    ExitReason::APIC_ACCESS,
    ExitReason::APIC_WRITE,
    ExitReason::VIRTUALIZED_EOI,
    ExitReason::EPT_VIOLATION,
    ExitReason::PREEMPTION_TIMER,
    ExitReason::WBINVD,
    ExitReason::XSETBV,
];

/// Each of `vcpus` vCPUs has its lines in the log, the reasons are Linux's, and their counts come to the total.
pub(super) fn explained(log: &[String], vcpus: u32) -> Verdict {
    for vcpu in 0..vcpus {
        let (total, reasons) =
            counts(log, vcpu).ok_or(format!("Nestling's log does not count exits of vCPU {vcpu}"))?;
        if let Some((name, count)) = reasons.iter().find(|(name, _)| OF_LINUX.iter().all(|known| known.name() != *name))
        {
            return Err(format!("vCPU {vcpu} had {count} exits by {name:?}, for which it had no reason"));
        }
        let sum: u64 = reasons.iter().map(|(_, count)| count).sum();
        if sum != total || total == 0 {
            return Err(format!("vCPU {vcpu} had {total} exits, of which {sum} have a reason"));
        }
    }
    Ok(())
}

/// All exits of a vCPU, and each reason with how many it had. Lines of several processors are mixed: "TIME cpuN INFO TEXT".
fn counts(log: &[String], vcpu: u32) -> Option<(u64, Vec<(&str, u64)>)> {
    let first = format!(" INFO vCPU {vcpu}: ");
    let (at, total) = log
        .iter()
        .enumerate()
        .find_map(|(at, line)| Some((at, line.split_once(&first)?.1.strip_suffix(" exits")?.parse().ok()?)))?;
    let processor = log[at].split(' ').nth(1);
    let own = log[at + 1..].iter().filter(|line| line.split(' ').nth(1) == processor);
    // How long it ran stands between.
    let texts = own.skip_while(|line| line.contains(&first)).map_while(|line| line.split_once(" INFO   "));
    let reasons = texts.filter_map(|(_, text)| {
        let (name, count) = text.rsplit_once(": ")?;
        Some((name, count.parse().ok()?))
    });
    Some((total, reasons.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "30.1 cpu0 INFO L1 reads MSR 0x34, which its machine does not have: #GP\n\
        32.1 cpu0 INFO vCPU 0: 15 exits\n32.1 cpu0 INFO vCPU 0: ran 9 ticks\n32.2 cpu1 INFO vCPU 1: 7 exits\n32.3 cpu0 INFO   external interrupt: 5\n\
        32.4 cpu1 INFO   HLT: 7\n32.5 cpu0 INFO   CPUID: 10\n32.6 cpu0 INFO 60 more accesses";

    /// The check accepts good counts and names what is wrong with bad ones.
    #[test]
    fn counts_are_judged() {
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(explained(&lines(GOOD), 2), Ok(()));
        for (good, bad, complaint) in [
            ("CPUID: 10", "CPUID: 9", "15 exits, of which 14"),
            ("HLT: 7", "unknown exit reason: 7", "vCPU 1 had 7 exits by \"unknown exit reason\""),
            ("vCPU 1: 7", "nothing: 7", "does not count exits of vCPU 1"),
        ] {
            let error = explained(&lines(&GOOD.replace(good, bad)), 2).unwrap_err();
            assert!(error.contains(complaint), "{error}");
        }
    }
}
