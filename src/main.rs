//! The CGI executable.
#![no_main]

use std::ffi::c_int;

/// The function that the C library calls. Rust's own start of a program reads
/// /proc/self/maps and makes a stack for the handler of a stack overflow. That
/// took 38 of the 90 µs that a publish was slower than a C program with the same
/// output. `run` does the necessary parts.
// The attribute is unsafe because two functions with this name would clash. This
// is the only one.
#[allow(unsafe_code)]
#[unsafe(no_mangle)]
extern "C" fn main() -> c_int {
    novcomet::run().into()
}
