//! The smallest guest: says what the loader gave it and ends with the status of the argument `exit=N`.
#![no_std]
#![no_main]

use guests::{entry, exit, multiboot, print, println};

entry!(main);

fn main() {
    println!("hello from a multiboot guest in 64-bit mode");
    print!("arguments:");
    for word in multiboot::arguments() {
        print!(" {word}");
    }
    println!();
    for (index, module) in multiboot::modules().enumerate() {
        // The file's folder depends on who loads it.
        let mut words = module.command_line.split_ascii_whitespace();
        let file = words.next().and_then(|path| path.rsplit('/').next()).unwrap_or("");
        print!("module {index}: {file}");
        for word in words {
            print!(" {word}");
        }
        println!("; {} bytes, checksum {:08x}", module.contents.len(), checksum(module.contents));
    }
    println!("goodbye");
    exit(multiboot::number("exit").unwrap_or(0))
}

/// FNV-1a with 32 bits: any changed, missing or displaced byte shows.
fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |sum, &byte| (sum ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}
