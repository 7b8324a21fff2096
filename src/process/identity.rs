//! Which processes may wait together: those of one user, executable, server, store and
//! configuration.

use std::collections::BTreeSet;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::fd::BorrowedFd;

use rustix::fs::{FileType, fstat, stat};
use rustix::process::{Pid, geteuid, getpgrp, getppid};
use rustix::stdio::stdin;

/// The numbers that the kernel gives to processes must be this many before one that was
/// given is free to be given again soon. Under systemd they are 4,194,304.
pub const MANY: u32 = 1 << 20;

/// A name in the abstract namespace for the processes that have all of this in common with
/// us: `configuration` and the `store` with its directory, user, executable, and the server
/// that has started us. `None` if the executable is not known (no /proc).
///
/// A server's processes share its process group. The daemon of `mod_cgid` is another one
/// after each restart of Apache, and its requests end with it.
#[must_use]
pub fn name(
    configuration: &impl Hash,
    store: &str,
    directory: Option<BorrowedFd<'_>>,
) -> Option<String> {
    let prefix = prefix(store, directory)?;
    let executable = stat("/proc/self/exe").ok()?;
    let mut hasher = DefaultHasher::new();
    configuration.hash(&mut hasher);
    (executable.st_dev, executable.st_ino, executable.st_mtime).hash(&mut hasher);
    geteuid().as_raw().hash(&mut hasher);
    getpgrp().as_raw_pid().hash(&mut hasher);
    if is_of_cgid() {
        getppid().map(Pid::as_raw_pid).hash(&mut hasher);
    }
    Some(format!("{prefix}{:016x}", hasher.finish()))
}

/// The names of all processes that listen for those who wait for this store, of any user and
/// server. `None` if the kernel does not say (`/proc/net/unix`).
#[must_use]
pub fn names(store: &str, directory: Option<BorrowedFd<'_>>) -> Option<BTreeSet<String>> {
    let prefix = prefix(store, directory)?;
    // Any user can give any bytes as a name.
    let sockets = fs::read("/proc/net/unix").ok()?;
    let sockets = String::from_utf8_lossy(&sockets);
    let name = |line: &str| line.split_once(" @").map(|(_, name)| name.to_owned());
    Some(sockets.lines().filter_map(name).filter(|name| name.starts_with(&prefix)).collect())
}

/// The beginning of the names for a store: its directory, or the server at its URL.
fn prefix(store: &str, directory: Option<BorrowedFd<'_>>) -> Option<String> {
    let mut hasher = DefaultHasher::new();
    match directory {
        None => store.hash(&mut hasher),
        Some(directory) => {
            let directory = fstat(directory).ok()?;
            (directory.st_dev, directory.st_ino).hash(&mut hasher);
        }
    }
    Some(format!("novcomet/together/{:016x}/", hasher.finish()))
}

/// Such a name among those of all machines: with the boot of the kernel and the network
/// namespace, in which a name is unique (`network_namespaces(7)`).
#[must_use]
pub fn place(name: &str) -> String {
    let mut hasher = DefaultHasher::new();
    fs::read_to_string("/proc/sys/kernel/random/boot_id").ok().hash(&mut hasher);
    fs::read_link("/proc/self/ns/net").ok().hash(&mut hasher);
    format!("{name}@{:016x}", hasher.finish())
}

/// Whether this process must live as long as its request. At the end of a request
/// `mod_cgid` sends SIGTERM and SIGKILL to the number that its CGI had. That may be
/// another process by then, where numbers are few.
#[must_use]
pub fn must_stay() -> bool {
    let most = || fs::read_to_string("/proc/sys/kernel/pid_max").ok()?.trim().parse().ok();
    is_of_cgid() && most().is_none_or(|most: u32| most < MANY)
}

/// Under `mod_cgid` standard input is a socket.
fn is_of_cgid() -> bool {
    let is_socket =
        |stat: rustix::fs::Stat| FileType::from_raw_mode(stat.st_mode) == FileType::Socket;
    fstat(stdin()).is_ok_and(is_socket)
}
