//! The CGI executable.

use std::env;
use std::process::ExitCode;

const USAGE: &str = "\
usage: QUERY_STRING='publish=ID&data=TEXT' comet.cgi
       QUERY_STRING='subscribed[ID]=0&wait=10' comet.cgi
       QUERY_STRING='subscribed[ID]=earliest&stream=1' comet.cgi
       comet.cgi --help | --version

Publishes an event, or waits for one, as a web server would have it do.
Settings: NOVCOMET_STORE (file:///dev/shm) and others: man comet.cgi
";

fn main() -> ExitCode {
    novcomet::serve().unwrap_or_else(shell)
}

/// A person called us, not a server.
fn shell() -> ExitCode {
    match env::args_os().nth(1) {
        Some(option) if option == "--version" => {
            println!("comet.cgi {}", env!("CARGO_PKG_VERSION"));
        }
        Some(option) if option != "--help" => {
            eprint!("comet.cgi: unknown option\n{USAGE}");
            return ExitCode::from(2);
        }
        _ => print!("{USAGE}"),
    }
    ExitCode::SUCCESS
}
