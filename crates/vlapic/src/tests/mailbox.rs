//! The mailbox between processors.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use arch::apic::{DeliveryMode, Message, Shorthand};
use proptest::prelude::*;

use super::Fixture;
use crate::{Events, Mail, Mailbox, VectorSet};

fn set(vectors: &[u8]) -> VectorSet {
    let mut set = VectorSet::EMPTY;
    vectors.iter().for_each(|vector| set.insert(*vector));
    set
}

/// The first post of any kind kicks, the others do not; taking gives each once. Where the first was an edge, which a
/// processor may take in without leaving the guest, the first of another kind kicks too: else an NMI behind a posted
/// interrupt would wait for whatever ends the guest's run next.
#[test]
fn first_post_kicks() {
    let posts: &[&dyn Fn(&Mailbox) -> bool] = &[
        &|mailbox| mailbox.post(0x40, false),
        &|mailbox| mailbox.post(0xff, false),
        &|mailbox| mailbox.post(0x41, true),
        &|mailbox| mailbox.post(15, false),
        &|mailbox| mailbox.post_nmi(),
        &|mailbox| mailbox.post_init(),
        &|mailbox| mailbox.post_startup(0x9a),
        &|mailbox| mailbox.post_smi(),
        &|mailbox| mailbox.post_extint(),
    ];
    let all = Mail {
        edge: set(&[0x40, 0xff]),
        level: set(&[0x41]),
        events: Events { nmi: true, init: true, startup: Some(0x9a), smi: true, extint: true },
        illegal_vector: true,
    };
    for first in 0..posts.len() {
        let mailbox = Mailbox::new();
        assert!(mailbox.is_empty());
        // The order of INIT and start-up matters; rotate the others around them.
        assert!(posts[first](&mailbox));
        assert!(!mailbox.is_empty());
        let is_edge = first < 2;
        let told: Vec<_> = (0..posts.len()).filter(|&index| posts[index](&mailbox)).collect();
        assert_eq!(told, if is_edge { vec![2] } else { vec![] });
        let mail = mailbox.take();
        assert_eq!(mail, all);
        assert!(mailbox.is_empty());
        assert_eq!(mailbox.take(), Mail::default());
        assert!(posts[first](&mailbox), "empty again");
    }
}

/// A notification of L2 keeps nobody from being told of anything, and is told each time itself: the processor may have acted on
/// it long before it is taken. One vector at a time.
#[test]
fn notifications_of_l2_are_apart() {
    let mailbox = Mailbox::new();
    assert_eq!(mailbox.take_for_l2(), None);
    assert!(mailbox.post_for_l2(0));
    assert!(!mailbox.is_empty() && mailbox.post_for_l2(0) && !mailbox.post_for_l2(0xff));
    assert!(mailbox.post(0x40, false) && mailbox.post_nmi());
    assert_eq!(mailbox.take().edge, set(&[0x40]));
    assert!(!mailbox.is_empty());
    assert_eq!((mailbox.take_for_l2(), mailbox.take_for_l2()), (Some(0), None));
    assert!(mailbox.is_empty() && mailbox.post_for_l2(0xff));
    assert_eq!(mailbox.take_for_l2(), Some(0xff));
}

/// While one processor posts without end and another takes, the last one is taken.
#[test]
fn no_notification_of_l2_is_lost() {
    for round in 0..300_u32 {
        let (mailbox, posts) = (Mailbox::new(), AtomicU32::new(0));
        let seen = std::thread::scope(|scope| {
            let poster = scope.spawn(|| {
                for _ in 0..1 + round % 7 {
                    posts.fetch_add(1, Ordering::SeqCst);
                    assert!(mailbox.post_for_l2(0x55));
                }
            });
            let mut seen = 0;
            while !poster.is_finished() || !mailbox.is_empty() {
                if mailbox.take_for_l2().is_some() {
                    seen = posts.load(Ordering::SeqCst);
                }
            }
            seen
        });
        assert_eq!(seen, posts.load(Ordering::SeqCst), "what was posted last was looked at");
    }
}

/// A start-up that came before an INIT is void; of two start-ups the first counts.
#[test]
fn init_and_startup_in_order() {
    let mailbox = Mailbox::new();
    mailbox.post_startup(0x11);
    mailbox.post_init();
    assert_eq!(mailbox.take().events, Events { init: true, ..Events::NONE });
    mailbox.post_init();
    mailbox.post_startup(0x22);
    mailbox.post_startup(0x33);
    assert_eq!(mailbox.take().events, Events { init: true, startup: Some(0x22), ..Events::NONE });
}

/// Each delivery mode becomes its post.
#[test]
fn messages() {
    let message = Message {
        vector: 0x42,
        mode: DeliveryMode::Fixed,
        logical: false,
        level_triggered: true,
        destination: 0,
        xapic_destination: true,
        shorthand: Shorthand::None,
    };
    let level = Mail { level: set(&[0x42]), ..Mail::default() };
    let event = |events| Mail { events, ..Mail::default() };
    for (mode, mail) in [
        (DeliveryMode::Fixed, level),
        (DeliveryMode::LowestPriority, level),
        (DeliveryMode::Smi, event(Events { smi: true, ..Events::NONE })),
        (DeliveryMode::Reserved, Mail::default()),
        (DeliveryMode::Nmi, event(Events { nmi: true, ..Events::NONE })),
        (DeliveryMode::Init, event(Events { init: true, ..Events::NONE })),
        (DeliveryMode::StartUp, event(Events { startup: Some(0x42), ..Events::NONE })),
        (DeliveryMode::ExtInt, event(Events { extint: true, ..Events::NONE })),
    ] {
        let mailbox = Mailbox::new();
        assert_eq!(mailbox.deliver(&Message { mode, ..message }), mail != Mail::default());
        assert_eq!(mailbox.take(), mail, "{mode:?}");
    }
}

/// Draining puts vectors and their trigger modes into the APIC and hands the rest out.
#[test]
fn drain() {
    let mailbox = Mailbox::new();
    let mut fixture = Fixture::xapic(0);
    assert!(fixture.apic.drain(&mailbox).is_empty());
    mailbox.post(0x41, true);
    mailbox.post(0x35, false);
    mailbox.post(3, false);
    mailbox.post_nmi();
    assert_eq!(fixture.apic.drain(&mailbox), Events { nmi: true, ..Events::NONE });
    assert_eq!(fixture.errors(), 0x40);
    for vector in [0x41, 0x35] {
        assert!(fixture.apic.may_have_pending());
        assert_eq!(fixture.apic.acknowledge().unwrap().0, vector);
        fixture.apic.end_of_interrupt(&fixture.bus);
    }
    assert!(!fixture.apic.may_have_pending());
    assert_eq!(*fixture.bus.ended.borrow(), [0x41]);
    // A software-disabled APIC drops vectors and passes events on.
    let mut fixture = Fixture::reset(0);
    mailbox.post(0x41, true);
    mailbox.post_init();
    assert_eq!(fixture.apic.drain(&mailbox), Events { init: true, ..Events::NONE });
    assert_eq!(fixture.apic.highest_requested(), None);
}

/// Posters on other threads, a taker that looks only when it is kicked: no post is lost, and no kick is.
///
/// Each vector has a counter that its poster raises before it posts. Whenever the taker gets the vector it notes the
/// counter, so at the end it must have seen the last value of each. A lost kick leaves the taker waiting.
#[test]
fn nothing_is_lost() {
    const POSTS: u32 = 40_000;
    const POSTERS: u8 = 3;
    let mailbox = Mailbox::new();
    let counters: [AtomicU32; 256] = [const { AtomicU32::new(0) }; 256];
    let (kick, kicked) = mpsc::channel();
    std::thread::scope(|scope| {
        for poster in 0..POSTERS {
            let (kick, mailbox, counters) = (kick.clone(), &mailbox, &counters);
            scope.spawn(move || {
                for round in 0..POSTS {
                    // Four vectors for each poster, one in each word of the set; the last is level triggered.
                    let word = (round % 4) as u8;
                    let vector = word * 64 + 16 + poster;
                    counters[usize::from(vector)].fetch_add(1, Ordering::Relaxed);
                    if mailbox.post(vector, word == 3) {
                        kick.send(()).unwrap();
                    }
                }
            });
        }
        let mut seen = [0; 256];
        let mut unfinished: BTreeSet<usize> =
            (0..4).flat_map(|word| (0..POSTERS).map(move |poster| word * 64 + 16 + usize::from(poster))).collect();
        while !unfinished.is_empty() {
            kicked.recv_timeout(Duration::from_secs(20)).expect("a kick was lost");
            let mail = mailbox.take();
            for vector in 0..=255 {
                if mail.edge.contains(vector) || mail.level.contains(vector) {
                    assert_eq!(mail.level.contains(vector), vector >= 192);
                    let index = usize::from(vector);
                    seen[index] = counters[index].load(Ordering::Relaxed);
                    if seen[index] == POSTS / 4 {
                        unfinished.remove(&index);
                    }
                }
            }
        }
    });
    assert!(mailbox.take().edge == VectorSet::EMPTY);
}

/// Every single post is taken: each of 64 vectors is posted again when it was taken. Taking in two steps, a look and a clearing,
/// would lose what is posted between the two. So that it can be seen, this goes on until the two have often been at it at once.
#[test]
fn every_post_is_taken() {
    const AT_ONCE: u32 = 100_000;
    let mailbox = Mailbox::new();
    let (taken, posts, enough) = (AtomicU64::new(u64::MAX), AtomicU32::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let poster = scope.spawn(|| {
            for vector in (0..64).cycle() {
                let began = Instant::now();
                while taken.load(Ordering::SeqCst) & 1 << vector == 0 {
                    if enough.load(Ordering::SeqCst) {
                        return;
                    }
                    assert!(began.elapsed() < Duration::from_secs(5), "vector {vector} was posted and never taken");
                    std::hint::spin_loop();
                }
                taken.fetch_and(!(1 << vector), Ordering::SeqCst);
                posts.fetch_add(1, Ordering::SeqCst);
                mailbox.post(0x40 + vector, false);
            }
        });
        let (began, mut at_once) = (Instant::now(), 0);
        while at_once < AT_ONCE && began.elapsed() < Duration::from_secs(60) && !poster.is_finished() {
            let before = posts.load(Ordering::SeqCst);
            let [_, edge, ..] = mailbox.take().edge.words();
            at_once += u32::from(posts.load(Ordering::SeqCst) != before);
            taken.fetch_or(edge, Ordering::SeqCst);
        }
        enough.store(true, Ordering::SeqCst);
    });
}

proptest! {
    /// What was taken in two goes is, one after the other, what it would have been in one.
    #[test]
    fn two_goes_are_one(posts in prop::collection::vec((0u8..5, any::<u8>()), 0..8), first in 0usize..8) {
        let post = |mailbox: &Mailbox, (kind, page): (u8, u8)| match kind {
            0 => mailbox.post_nmi(),
            1 => mailbox.post_init(),
            2 => mailbox.post_startup(page),
            3 => mailbox.post_smi(),
            _ => mailbox.post_extint(),
        };
        let (whole, parts) = (Mailbox::new(), Mailbox::new());
        let mut taken = Events::NONE;
        for (number, what) in posts.into_iter().enumerate() {
            if number == first {
                taken = parts.take().events;
            }
            post(&whole, what);
            post(&parts, what);
        }
        prop_assert_eq!(taken.then(parts.take().events), whole.take().events);
    }
}
