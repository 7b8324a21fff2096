//! The settings and the store, as this shell has them.

use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::statfs;
use rustix::process::geteuid;

use super::finding::{Findings, quoted};
use crate::auth::token::Key;
use crate::config::Config;
use crate::error::Error;
use crate::settings;
use crate::store::open::{Location, locate};
use crate::store::{Limits, Retention, Store};

/// The store of this shell.
pub struct Own {
    pub location: Location,
    pub store: Box<dyn Store>,
}

/// Reads the settings. Each invalid one of the environment is told.
pub fn settings(
    environment: impl Fn(&str) -> Option<OsString> + Copy,
    findings: &mut Findings,
) -> Option<Config> {
    let mut wrong: Vec<String> = Vec::new();
    let loaded = loop {
        let valid = |name: &str| environment(name).filter(|_| !wrong.iter().any(|it| it == name));
        let error = match Config::load(valid, |_| None) {
            Ok(config) => break config,
            Err(error) => error,
        };
        findings.error(&error);
        wrong.push(variable_of(&error).filter(|name| valid(name).is_some())?);
    };
    if !wrong.is_empty() {
        return None;
    }
    let named = environment("NOVCOMET_CONF").filter(|path| !path.is_empty());
    let path = named.unwrap_or(settings::PATH.into());
    let file = match Path::new(&path).exists() {
        true => format!("of {} and the environment", path.to_string_lossy()),
        false => "of the environment (there is no settings file that this user sees)".into(),
    };
    findings.ok(&format!("the settings {file} are valid"));
    Some(loaded)
}

/// The name of the variable with an invalid value.
fn variable_of(error: &Error) -> Option<String> {
    let line = error.log_line()?;
    let end = line.find(|it: char| !it.is_ascii_uppercase() && it != '_')?;
    Some(line[..end].to_owned())
}

/// Reads the key of tokens, if there is one.
pub fn key(config: &Config, findings: &mut Findings) {
    let Some(file) = &config.access.token else { return };
    match Key::read(file) {
        Ok(_) => findings.ok(&format!("the key of tokens is valid: {}", file.path.display())),
        Err(error) => findings.error(&error),
    }
}

/// Opens the store and tries it out.
pub fn store(config: &Config, findings: &mut Findings) -> Option<Own> {
    let location = locate(&config.store).map_err(|error| findings.error(&error)).ok()?;
    if let Some(path) = location.path() {
        directory(path, findings)?;
    }
    let store = open(&location, config).map_err(|error| findings.error(&error)).ok()?;
    match store.try_out() {
        Ok(()) => findings.ok(&format!("the store can be written{}", free_share(&location))),
        Err(error)
            if error.status() == 503
                && !findings.are_of_page()
                && !geteuid().is_root()
                && location.path().is_some() =>
        {
            findings.note("this user may not write to the store; the web server's user may");
        }
        Err(error) => findings.error(&error),
    }
    Some(Own { location, store })
}

fn open(location: &Location, config: &Config) -> Result<Box<dyn Store>, Error> {
    let Config { keep: messages, keep_bytes: bytes, keep_age: age, .. } = *config;
    let Config { max_topics: topics, keep_free: free, stale, poll, .. } = *config;
    let retention = Retention { messages, bytes, age, max_file_bytes: config.max_file() };
    location.open(retention, Limits { topics, free, stale }, poll)
}

/// Looks at the rights of the directory. `None` if it cannot be a store.
fn directory(path: &Path, findings: &mut Findings) -> Option<()> {
    let shown = path.display();
    let found = match fs::metadata(path) {
        Ok(found) if found.is_dir() => found,
        Ok(_) => {
            findings.fault(&format!("the store {shown} is no directory"), &creation(path));
            return None;
        }
        Err(cause) => {
            let what = format!("the store {shown} cannot be used: {cause}");
            let fix = match cause.kind() {
                io::ErrorKind::NotFound => creation(path),
                _ => format!("namei -l {}", quoted(&shown.to_string())),
            };
            findings.fault(&what, &fix);
            return None;
        }
    };
    rights(path, &found, findings);
    Some(())
}

fn rights(path: &Path, found: &Metadata, findings: &mut Findings) {
    const WORLD_WRITABLE: u32 = 0o002;
    const STICKY: u32 = 0o1000;
    let (shown, mode) = (path.display(), found.mode() & 0o7777);
    let place = if is_in_memory(path) { "in memory" } else { "on a disk, which is slower" };
    let what = format!(
        "the store {shown} is {place}, with mode {mode:o}, owner {} and group {}",
        found.uid(),
        found.gid()
    );
    match (mode & WORLD_WRITABLE != 0, mode & STICKY != 0) {
        (true, false) => findings
            .fault(&format!("{what}: every user can delete topics"), &format!("chmod +t {shown}")),
        (true, true) => findings.note(&format!(
            "{what}: every user of this machine can create, read and delete topics \
             (docs/install.md, \"A directory of its own\")"
        )),
        (false, _) => findings.ok(&what),
    }
}

/// The command that makes the directory for the user of Debian's web servers.
pub fn creation(path: &Path) -> String {
    match path == Path::new("/run/novcomet") {
        true => "systemd-tmpfiles --create novcomet.conf".into(),
        false => format!("install -d -m 2770 -g www-data {}", quoted(&path.to_string_lossy())),
    }
}

fn is_in_memory(path: &Path) -> bool {
    /// `TMPFS_MAGIC` and `RAMFS_MAGIC` (linux/magic.h).
    const MEMORY: [u32; 2] = [0x0102_1994, 0x8584_58f6];
    statfs(path).is_ok_and(|found| {
        let kind = u64::try_from(found.f_type).unwrap_or_default();
        MEMORY.iter().any(|&memory| kind & u64::from(u32::MAX) == u64::from(memory))
    })
}

fn free_share(location: &Location) -> String {
    let share = || {
        let found = statfs(location.path()?).ok()?;
        (found.f_bavail * 100).checked_div(found.f_blocks)
    };
    share().map(|share| format!(", and {share} % of its file system are free")).unwrap_or_default()
}
