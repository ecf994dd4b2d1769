//! Hands the guests their own linker script.
//!
//! The script stands here and not in `linker/`: it lays out guests, which are programs of their own, not the image.

fn main() {
    let folder = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    println!("cargo::rerun-if-changed=linker.ld");
    println!("cargo::rustc-link-arg-bins=-T{folder}/linker.ld");
    println!("cargo::rustc-link-arg-bins=-zmax-page-size=4096");
    println!("cargo::rustc-link-arg-bins=--no-gc-sections");
    // The demo is embedded in the image as it is: without symbols.
    println!("cargo::rustc-link-arg-bin=demo=-s");
}
