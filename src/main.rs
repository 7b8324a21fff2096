//! The CGI executable.
#![no_main]

use std::env;
use std::ffi::c_int;

const USAGE: &str = "\
usage: QUERY_STRING='publish=ID&data=TEXT' comet.cgi
       QUERY_STRING='subscribed[ID]=0&wait=10' comet.cgi
       QUERY_STRING='subscribed[ID]=earliest&stream=1' comet.cgi
       comet.cgi --help | --version

Publishes an event, or waits for one, as a web server would have it do.
Settings: NOVCOMET_STORE (file:///dev/shm) and others: man comet.cgi
";

/// What the C library calls. The start of std would come before a `main` of its
/// own: it reads /proc/self/maps and makes a stack for the handler of a stack
/// that overflows, which took 38 of the 90 µs that a publish took more than a C
/// program that prints the same. What of it counts for us is in `serve`.
// An unsafe attribute, for two functions of one name would be: this is the only one.
#[allow(unsafe_code)]
#[unsafe(no_mangle)]
extern "C" fn main() -> c_int {
    novcomet::serve().unwrap_or_else(shell).into()
}

/// A person called us, not a server.
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
