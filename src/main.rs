//! The CGI executable.
#![no_main]

use std::env;
use std::ffi::c_int;

const USAGE: &str = "\
usage: QUERY_STRING='publish=ID&data=TEXT' comet.cgi
       QUERY_STRING='subscribed[ID]=0&wait=10' comet.cgi
       QUERY_STRING='subscribed[ID]=earliest&stream=1' comet.cgi
       comet.cgi --help | --version

Publishes an event, or waits for one, as it does for a web server.
Settings: NOVCOMET_STORE (file:///dev/shm) and others: man comet.cgi
";

/// The function that the C library calls. Rust's own start of a program reads
/// /proc/self/maps and makes a stack for the handler of a stack overflow. That
/// took 38 of the 90 µs that a publish was slower than a C program with the same
/// output. `serve` does the necessary parts.
// The attribute is unsafe because two functions with this name would clash. This
// is the only one.
#[allow(unsafe_code)]
#[unsafe(no_mangle)]
extern "C" fn main() -> c_int {
    novcomet::serve().unwrap_or_else(shell).into()
}

/// Answers a person in a shell. Without a query there is no request.
fn shell() -> u8 {
    match env::args_os().nth(1) {
        Some(option) if option == "--version" => {
            println!("comet.cgi {}", env!("CARGO_PKG_VERSION"));
        }
        Some(option) if option != "--help" => {
            eprint!("comet.cgi: unknown option\n{USAGE}");
            return 2;
        }
        _ => print!("{USAGE}"),
    }
    0
}
