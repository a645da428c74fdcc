//! How the program is put together by the linker, where that is lld on x86-64 Linux with glibc (rustc's default
//! there, unless flags say something of linking). Elsewhere the program is linked as any other, and is the same but
//! for the memory that it takes.
//!
//! A kernel maps a program in pieces of 64 KiB around whatever is touched, and what an idle sidecar calls is a quarter
//! of its code, scattered over nearly all such pieces. So `layout.txt`, which `benches/layout.py` writes, names what is
//! called, and the linker puts that side by side.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;
use std::{env, fs};

const LAYOUT: &str = "layout.txt";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed={LAYOUT}");
    // Cargo doesn't know of these, since a wrapper around the compiler hands them over (profile/rustc).
    println!("cargo:rerun-if-changed=profile");
    println!("cargo:rerun-if-env-changed=WEFT_PROFILE");
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|found| found == value);
    let is_usual = is("TARGET", "x86_64-unknown-linux-gnu") && is("PROFILE", "release");
    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    let own_linker = env::var_os("RUSTC_LINKER").is_some() || flags.contains("link");
    if !is_usual || own_linker {
        return;
    }
    let layout = fs::read_to_string(LAYOUT).expect("layout.txt stands beside build.rs");
    let directory = env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    let script = Path::new(&directory).join("layout.ld");
    fs::write(&script, sections(&layout)).expect("OUT_DIR can be written to");
    println!("cargo:rustc-link-arg-bins=-Wl,-T,{}", script.display());
    if takes_relative_relocations() {
        // Nearly a MiB of relocations, all of it read at every start, becomes some KiB.
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

/// A linker script that adds to the usual one: what `layout` names comes first.
fn sections(layout: &str) -> String {
    let mut script = String::from("SECTIONS {\n  .text.first : {\n");
    for name in layout.lines().filter(|line| !line.is_empty()) {
        let sections = format!(".text.{name} .text.hot.{name} .text.unlikely.{name}");
        let _ = writeln!(script, "    *({sections})");
    }
    script.push_str("  }\n} INSERT BEFORE .text;\n");
    script
}

/// Whether the C library of this machine knows them, as glibc does from 2.36 on.
fn takes_relative_relocations() -> bool {
    let asked = Command::new("getconf").arg("GNU_LIBC_VERSION").output();
    let Ok(answer) = asked else { return false };
    let text = String::from_utf8_lossy(&answer.stdout);
    let version = text.trim().strip_prefix("glibc 2.");
    version.is_some_and(|minor| minor.parse::<u32>().is_ok_and(|minor| minor >= 36))
}
