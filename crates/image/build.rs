//! Asks for the embedded guest, and passes the linker scripts: ours, and defmt's, which collects the log's texts into a section that is not loaded.

fn main() {
    println!("cargo::rerun-if-env-changed=NESTLING_DEMO");
    if std::env::var_os("NESTLING_DEMO").is_none() {
        println!(
            "cargo::error=NESTLING_DEMO must name the guest that the image carries: `cargo xtask image` builds both"
        );
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
