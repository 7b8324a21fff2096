//! A CGI with its own check: `subscribed[NAME]` waits for mail in `MAILBOXES/NAME`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs};

use novcomet::NovComet;

fn main() -> ExitCode {
    let mailboxes = PathBuf::from(env::var_os("MAILBOXES").unwrap_or("/var/mail".into()));
    NovComet::new().tries(20).sleep(2).check(|id| {
        // A client can ask for "../secret", so only a plain name is a mailbox.
        let name = Path::new(id).file_name().filter(|name| *name == id)?;
        fs::metadata(mailboxes.join(name)).ok()?.modified().ok()
    })
}
