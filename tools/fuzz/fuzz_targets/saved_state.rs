//! Saved nested state with any bytes: it is refused, and nothing was changed, or it is restored, and then saving it again
//! gives the same bytes, and L2 can run if it did.
#![no_main]

use std::cell::RefCell;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use nested::{SAVED_BYTES, Which};
use testkit::NestedBench;

#[derive(Arbitrary, Debug)]
enum Input {
    Bytes(Vec<u8>),
    /// A state in which L2 runs, L1 runs, or L1 has no VMX operation, with changed words.
    Words {
        stage: u8,
        shadowing: bool,
        words: Vec<(u16, u64)>,
        flips: Vec<(u16, u8)>,
    },
}

thread_local! {
    static BENCHES: RefCell<[NestedBench; 2]> = RefCell::new([NestedBench::new(false), NestedBench::new(true)]);
}

fn saved(bench: &mut NestedBench) -> [u8; SAVED_BYTES] {
    let mut bytes = [0; SAVED_BYTES];
    bench.nested.save(&mut bench.cpu, &mut bytes);
    bytes
}

fn state(bench: &mut NestedBench, stage: u8) -> [u8; SAVED_BYTES] {
    bench.restart();
    if stage % 4 > 0 {
        bench.start();
        bench.write_valid();
    }
    if stage % 4 > 1 {
        bench.launch();
    }
    if stage % 4 == 3 {
        bench.nested.entered();
    }
    saved(bench)
}

fuzz_target!(|input: Input| {
    BENCHES.with_borrow_mut(|benches| {
        let (bench, bytes) = match &input {
            Input::Bytes(bytes) => (&mut benches[0], bytes.clone()),
            Input::Words { stage, shadowing, words, flips } => {
                let bench = &mut benches[usize::from(*shadowing)];
                let mut bytes = state(bench, *stage).to_vec();
                for &(word, value) in words {
                    let at = 8 * (usize::from(word) % (SAVED_BYTES / 8));
                    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
                }
                for &(at, bit) in flips {
                    bytes[usize::from(at) % SAVED_BYTES] ^= 1 << (bit % 8);
                }
                (bench, bytes)
            }
        };
        bench.restart();
        let before = saved(bench);
        match bench.nested.restore(&mut bench.cpu, &bench.ram, &bytes, &bench.l1) {
            Err(error) => {
                assert!(!error.to_string().is_empty());
                assert!(saved(bench) == before && bench.cpu.current() == Which::Vmcs01);
            }
            Ok(()) => {
                assert!(saved(bench)[..] == bytes[..]);
                if bench.nested.in_l2() {
                    bench.assert_vmcs02_is_valid();
                } else if bench.nested.in_vmx_operation() && bench.nested.has_current() {
                    bench.vmcs12();
                }
            }
        }
    });
});
