//! Who is addressed (SDM 3A "Determining IPI Destination", "Determining IPI Destination in x2APIC Mode").

use arch::apic::{DeliveryMode, Message, Shorthand};
use proptest::prelude::*;

use crate::{Directory, Identity, Mode, TargetSet};

const FIXED: Message = Message {
    vector: 0x40,
    mode: DeliveryMode::Fixed,
    logical: false,
    level_triggered: false,
    destination: 0,
    xapic_destination: true,
    shorthand: Shorthand::None,
};

const APIC: Identity =
    Identity { id: 0, logical_id: 0, cluster: false, mode: Mode::Xapic, software_enabled: true, priority: 0 };

fn directory(identities: &[Identity]) -> Directory<96> {
    let directory = Directory::new();
    for (index, identity) in identities.iter().enumerate() {
        directory.publish(index, *identity);
    }
    directory
}

#[track_caller]
fn check(directory: &Directory<96>, message: Message, from: Option<usize>, expected: &[usize]) {
    assert_eq!(directory.targets(&message, from, |_| None).iter().collect::<Vec<_>>(), expected, "{message:?}");
}

fn physical(destination: u32) -> Message {
    Message { destination, ..FIXED }
}

fn logical(destination: u32) -> Message {
    Message { destination, logical: true, ..FIXED }
}

fn wide(message: Message) -> Message {
    Message { xapic_destination: false, ..message }
}

/// Four xAPICs with ids that are not their indexes.
fn flat() -> Directory<96> {
    directory(&[0, 1, 2, 3].map(|index| Identity { id: 4 + index, logical_id: 1 << index, ..APIC }))
}

#[test]
fn xapic_physical() {
    for (destination, expected) in [(4, &[0][..]), (7, &[3]), (0, &[]), (0xff, &[0, 1, 2, 3])] {
        check(&flat(), physical(destination), None, expected);
    }
}

#[test]
fn xapic_flat() {
    for (destination, expected) in
        [(1, &[0][..]), (8, &[3]), (0b1010, &[1, 3]), (0xf0, &[]), (0, &[]), (0xff, &[0, 1, 2, 3])]
    {
        check(&flat(), logical(destination), Some(0), expected);
    }
    // "All ones" is everybody, also one without a logical id.
    check(&directory(&[APIC]), logical(0xff), None, &[0]);
}

#[test]
fn xapic_cluster() {
    let directory =
        directory(&[0x11, 0x12, 0x21, 0x28].map(|logical_id| Identity { logical_id, cluster: true, ..APIC }));
    for (destination, expected) in [
        (0x11, &[0][..]),
        (0x13, &[0, 1]),
        (0x1f, &[0, 1]),
        (0x29, &[2, 3]),
        (0x31, &[]),
        (0x10, &[]),
        (0xff, &[0, 1, 2, 3]),
    ] {
        check(&directory, logical(destination), None, expected);
    }
}

/// x2APICs 0 to 63 (clusters 0 to 3), the physical ids beyond 8 bits at the end.
fn x2apic() -> Directory<96> {
    let id = |index: usize| u32::try_from(if index < 64 { index } else { 0x100 + index }).unwrap();
    let identity = |index| Identity { id: id(index), mode: Mode::X2apic, ..APIC };
    directory(&(0..66).map(identity).collect::<Vec<_>>())
}

#[test]
fn x2apic_physical() {
    let everybody: Vec<_> = (0..66).collect();
    check(&x2apic(), wide(physical(63)), None, &[63]);
    check(&x2apic(), wide(physical(0x141)), None, &[65]);
    check(&x2apic(), wide(physical(0x41)), None, &[]);
    check(&x2apic(), wide(physical(0xffff_ffff)), None, &everybody);
    // 0xff is an id like any other to an x2APIC, and everybody to an IOAPIC.
    check(&x2apic(), wide(physical(0xff)), None, &[]);
    check(&x2apic(), physical(0xff), None, &everybody);
    check(&x2apic(), physical(5), None, &[5]);
}

#[test]
fn x2apic_logical() {
    let everybody: Vec<_> = (0..66).collect();
    check(&x2apic(), wide(logical(0x0000_0001)), None, &[0]);
    check(&x2apic(), wide(logical(0x0003_8001)), None, &[48, 63]);
    check(&x2apic(), wide(logical(0x0014_0001)), None, &[64]);
    check(&x2apic(), wide(logical(0x0004_ffff)), None, &[]);
    check(&x2apic(), wide(logical(0x0001_0000)), None, &[]);
    check(&x2apic(), wide(logical(0xffff_ffff)), None, &everybody);
    // The eight bits of an IOAPIC are the first eight of cluster 0.
    check(&x2apic(), logical(0x83), None, &[0, 1, 7]);
    check(&x2apic(), logical(0xff), None, &everybody);
}

/// While processors go to x2APIC mode one after the other, both kinds are there: a logical destination that an xAPIC
/// cannot hold must not be cut to 8 bits and hit one.
#[test]
fn mixed_modes() {
    let xapic = Identity { logical_id: 0xff, ..APIC };
    let directory = directory(&[xapic, Identity { id: 0x21, mode: Mode::X2apic, ..APIC }]);
    check(&directory, wide(logical(0x0002_0002)), None, &[1]);
    check(&directory, wide(physical(0x21)), None, &[1]);
    check(&directory, wide(physical(0x100)), None, &[]);
    check(&directory, wide(physical(0xffff_ffff)), None, &[0, 1]);
    check(&directory, physical(0xff), None, &[0, 1]);
}

#[test]
fn shorthands() {
    for (shorthand, from, expected) in [
        (Shorthand::Myself, Some(2), &[2][..]),
        (Shorthand::AllIncludingSelf, Some(2), &[0, 1, 2, 3]),
        (Shorthand::AllExcludingSelf, Some(2), &[0, 1, 3]),
        (Shorthand::Myself, None, &[]),
    ] {
        check(&flat(), Message { shorthand, ..physical(4) }, from, expected);
    }
}

/// The lowest task priority wins, then the lowest index; a software-disabled APIC does not compete.
#[test]
fn lowest_priority() {
    let message = |destination| Message { mode: DeliveryMode::LowestPriority, ..logical(destination) };
    let with = |priorities: [u8; 4]| {
        let directory = flat();
        for (index, priority) in priorities.into_iter().enumerate() {
            directory.publish(index, Identity { priority, ..directory.identity(index) });
        }
        directory
    };
    check(&with([0x30, 0x20, 0x10, 0x20]), message(0xf), None, &[2]);
    check(&with([0x30, 0x20, 0x10, 0x20]), message(0b1011), None, &[1]);
    check(&with([0x30, 0x30, 0x30, 0x30]), message(0b1100), None, &[2]);
    check(&with([0x30, 0x20, 0x10, 0x20]), message(0xff), None, &[2]);
    check(&with([0x30, 0x20, 0x10, 0x20]), message(0), None, &[]);
    let directory = with([0x30, 0x20, 0x10, 0x20]);
    directory.publish(2, Identity { software_enabled: false, ..directory.identity(2) });
    check(&directory, message(0xf), None, &[1]);
    check(&directory, message(0b100), None, &[]);
    let physical = Message { mode: DeliveryMode::LowestPriority, ..physical(7) };
    check(&directory, physical, None, &[3]);
}

/// A globally disabled APIC and one that never published receive nothing; two with one id both do.
#[test]
fn absent_and_doubled() {
    let directory = flat();
    directory.publish(1, Identity { mode: Mode::Disabled, ..directory.identity(1) });
    directory.publish(3, Identity { id: 4, ..directory.identity(3) });
    check(&directory, physical(5), None, &[]);
    check(&directory, physical(0xff), None, &[0, 2, 3]);
    check(&directory, Message { shorthand: Shorthand::AllIncludingSelf, ..FIXED }, Some(0), &[0, 2, 3]);
    check(&directory, physical(4), None, &[0, 3]);
    // Software-disabled APICs still receive INIT and the like.
    directory.publish(0, Identity { software_enabled: false, ..directory.identity(0) });
    check(&directory, Message { mode: DeliveryMode::Init, ..physical(4) }, None, &[0, 3]);
}

proptest! {
    /// What one publishes the others see, all of it.
    #[test]
    fn identities_survive(id: u32, logical_id: u8, cluster: bool, software_enabled: bool, priority: u8, mode in 0..3usize) {
        let mode = [Mode::Disabled, Mode::Xapic, Mode::X2apic][mode];
        let identity = Identity { id, logical_id, cluster, mode, software_enabled, priority };
        let directory = Directory::<2>::new();
        directory.publish(1, identity);
        directory.publish(2, APIC);
        assert_eq!(directory.identity(1), identity);
        assert_eq!(directory.identity(0).mode, Mode::Disabled);
    }

    /// The set of targets is a set.
    #[test]
    fn target_sets(members in prop::collection::btree_set(0..300usize, 0..40)) {
        let mut set = TargetSet::EMPTY;
        members.iter().for_each(|member| set.insert(*member));
        let inside: Vec<_> = members.iter().copied().filter(|member| *member < TargetSet::CAPACITY).collect();
        assert_eq!(set.iter().collect::<Vec<_>>(), inside);
        assert!((0..300).all(|index| set.contains(index) == inside.contains(&index)));
        assert_eq!(set.is_empty(), inside.is_empty());
    }
}
