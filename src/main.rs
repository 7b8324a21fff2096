//! The CGI executable.

use std::env;
use std::io;
use std::process::ExitCode;

use novcomet::input::Stdin;
use novcomet::output::Stdout;
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
    let variable = |name: &str| env::var_os(name);
    match run(variable, Stdin, Stdout, io::stderr()) {
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
