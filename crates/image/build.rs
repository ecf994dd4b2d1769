//! Packs the embedded guest, and passes the linker scripts: ours, and defmt's, which collects the log's texts into a section that is not loaded.

use std::path::{Path, PathBuf};

fn main() {
    println!("cargo::rerun-if-env-changed=NESTLING_DEMO");
    match std::env::var_os("NESTLING_DEMO") {
        Some(demo) => pack(Path::new(&demo)),
        None => println!(
            "cargo::error=NESTLING_DEMO must name the guest that the image carries: `cargo xtask image` builds both"
        ),
    }
    let folder = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR for build scripts");
    let script = format!("{folder}/../../linker/nestling.ld");
    println!("cargo::rerun-if-changed={script}");
    println!("cargo::rustc-link-arg-bins=-T{script}");
    println!("cargo::rustc-link-arg-bins=-Tdefmt.x");
    // Segments follow each other in the file as in memory, which the address fields of multiboot1 ask for.
    println!("cargo::rustc-link-arg-bins=-zmax-page-size=4096");
    println!("cargo::rustc-link-arg-bins=-znognustack");
}

/// Writes `demo.deflate`: the guest at `demo` as a raw DEFLATE stream (RFC 1951), and its length in bytes to `demo_length`.
fn pack(demo: &Path) {
    println!("cargo::rerun-if-changed={}", demo.display());
    let Ok(bytes) = std::fs::read(demo) else {
        println!("cargo::error=cannot read the guest {}", demo.display());
        return;
    };
    let folder = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR for build scripts"));
    std::fs::write(folder.join("demo.deflate"), miniz_oxide::deflate::compress_to_vec(&bytes, 10))
        .expect("cargo makes OUT_DIR for build scripts");
    std::fs::write(folder.join("demo_length"), bytes.len().to_string()).expect("as above");
}
