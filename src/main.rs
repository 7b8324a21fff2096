//! The CGI executable.

use std::env;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::process::ExitCode;

use novcomet::{Served, cgi, run};

const USAGE: &str = "\
usage: QUERY_STRING='publish=ID&data=TEXT' comet.cgi
       QUERY_STRING='subscribed[ID]=0&wait=10' comet.cgi
       QUERY_STRING='subscribed[ID]=earliest&stream=1' comet.cgi
       comet.cgi --help | --version

Publishes an event, or waits for one, as a web server would have it do.
Settings: NOVCOMET_STORE (file:///dev/shm) and others: man comet.cgi
";

fn main() -> ExitCode {
    // As a File: `io::stdout` would write line by line, and wake the server twice.
    let Ok(stdout) = io::stdout().as_fd().try_clone_to_owned() else {
        return ExitCode::FAILURE;
    };
    let variable = |name: &str| env::var_os(name);
    match run(variable, io::stdin().lock(), File::from(stdout), io::stderr()) {
        Served::NoRequest => shell(),
        // A web server takes an exit status for a crash; a shell script wants one.
        Served::Refused if !cgi::is_cgi(variable) => ExitCode::FAILURE,
        Served::Answered | Served::Refused => ExitCode::SUCCESS,
    }
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
