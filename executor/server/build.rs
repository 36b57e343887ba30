//! Links the program with compact relative relocations: position-independent code needs an entry for each address in its
//! tables, and the usual form of those entries is 0.6 MB of the file. Needs glibc 2.36 where the program runs. Functions that came
//! out alike are one.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let target = |name| std::env::var(name).unwrap_or_default();
    if target("CARGO_CFG_TARGET_OS") == "linux" && target("CARGO_CFG_TARGET_ENV") == "gnu" {
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
        // The linker that comes with Rust for this architecture knows it; the system's need not.
        if target("CARGO_CFG_TARGET_ARCH") == "x86_64" {
            println!("cargo:rustc-link-arg-bins=-Wl,--icf=all");
        }
    }
}
