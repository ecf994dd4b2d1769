//! Where each vCPU lives at first.

use crate::member::{MAX_PROCESSORS, MAX_VCPUS, Member, Set};

/// No processor of the machine may run this vCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Homeless {
    /// Its number.
    pub vcpu: u16,
}

/// A home for each of `members`, by vCPU number, on a machine with `processors` processors: those who may go to the fewest
/// choose first, and each takes the processor with the least weight on it.
///
/// # Errors
/// A vCPU that may run on none of the processors.
pub fn place(members: &[Member], processors: u32) -> Result<[u16; MAX_VCPUS], Homeless> {
    let mut homes = [0; MAX_VCPUS];
    let mut weights = [0_u64; MAX_PROCESSORS];
    let there = Set::first(processors);
    for choices in 0..=64 {
        for member in members {
            let allowed = Set(member.allowed.0 & there.0);
            if allowed.0.count_ones() != choices {
                continue;
            }
            let home = allowed.iter().min_by_key(|&processor| weights[usize::from(processor)]);
            let home = home.ok_or(Homeless { vcpu: member.vcpu })?;
            weights[usize::from(home)] += u64::from(member.weight);
            if let Some(place) = homes.get_mut(usize::from(member.vcpu)) {
                *place = home;
            }
        }
    }
    Ok(homes)
}
