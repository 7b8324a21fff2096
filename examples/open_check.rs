//! A check of a descriptor that is already open, like that of a database. `subscribed[any]`
//! waits for a change of the file `WATCHED`.

use std::env;
use std::fs::File;
use std::process::ExitCode;

use novcomet::NovComet;

fn main() -> ExitCode {
    let watched = env::var_os("WATCHED").and_then(|path| File::open(path).ok());
    NovComet::new().check(|_| watched.as_ref()?.metadata().ok()?.modified().ok())
}
