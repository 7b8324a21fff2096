//! The CGI executable.
#![cfg_attr(target_env = "gnu", no_main)]

/// The function that the C library calls. Rust's own start of a program reads
/// /proc/self/maps and makes a stack for the handler of a stack overflow. That
/// took 38 of the 90 µs that a publish was slower than a C program with the same
/// output. `run` does the necessary parts.
// The attribute is unsafe because two functions with this name would clash. This
// is the only one.
#[cfg(target_env = "gnu")]
#[allow(unsafe_code)]
#[unsafe(no_mangle)]
extern "C" fn main() -> std::ffi::c_int {
    novcomet::run().into()
}

/// Only the GNU C library tells Rust the arguments without that start.
#[cfg(not(target_env = "gnu"))]
fn main() -> std::process::ExitCode {
    novcomet::run().into()
}
