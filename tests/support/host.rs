//! The machine of the tests: its programs, its shared memory, and the rights of the
//! tests.

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A program where Debian installs it or, without its service, where tests/packages
/// unpacks it.
pub fn program(name: &str) -> PathBuf {
    found(name).unwrap_or_else(|| panic!("{name} is missing; `make test` installs it"))
}

/// The same, if there is one.
pub fn found(name: &str) -> Option<PathBuf> {
    let unpacked = concat!(env!("CARGO_MANIFEST_DIR"), "/target/packages");
    let roots = ["/", unpacked].map(Path::new);
    let of_root = |root: &Path| ["usr/sbin", "usr/bin"].map(|folder| root.join(folder).join(name));
    roots.into_iter().flat_map(of_root).find(|path| path.exists())
}

/// A directory in shared memory. tests/run hands in one that it removes.
pub fn shared_memory() -> PathBuf {
    std::env::var_os("TESTS_SHM").unwrap_or_else(|| "/dev/shm".into()).into()
}

/// A port of loopback that no server listens on. Another process may take it before
/// the caller does.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

pub fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

/// Says that `what` was not run because it needs something that is absent: past the
/// harness, which shows what a test prints only if it fails, and to tests/run,
/// which sums it up.
pub fn not_run(what: &str, needs: &str) {
    let line = format!("NOT RUN: {what} needs {needs}\n");
    io::stderr().write_all(line.as_bytes()).unwrap();
    if let Some(path) = std::env::var_os("TESTS_NOT_RUN") {
        let mut sum = File::options().append(true).create(true).open(path).unwrap();
        sum.write_all(line.as_bytes()).unwrap();
    }
}
