//! Files that decide about rights or hold secrets: no other user may read them, or have put
//! them there.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// Why a file cannot be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed(pub Errno);

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Errno::LOOP => f.write_str("is a symbolic link; name the file itself"),
            cause => write!(f, "cannot be opened: {}", io::Error::from(cause)),
        }
    }
}

/// Opens a file to [`read`] it. A link is not followed, and a FIFO without a writer is not
/// waited for.
///
/// # Errors
/// That of open(2).
pub fn open(path: &Path) -> Result<File, Closed> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map(File::from).map_err(Closed)
}

/// The content of a file of at most `max` bytes. The checks are about the open file, because
/// its name may change meanwhile.
///
/// # Errors
/// The fault of a file that other users can read or could have put there, with the remedy.
pub fn read(file: File, max: u64) -> Result<Vec<u8>, String> {
    let found = file.metadata().map_err(|cause| format!("cannot be looked at: {cause}"))?;
    let us = rustix::process::geteuid().as_raw();
    let fault = match () {
        () if !found.is_file() => "is not a regular file",
        () if found.uid() != 0 && found.uid() != us => {
            "belongs to another user than root and the web server's; chown it"
        }
        () if found.mode() & 0o007 != 0 => "is open to other users; chmod o= it",
        () if found.mode() & 0o020 != 0 => "can be written by its group; chmod g-w it",
        () if found.nlink() != 1 => "has another name too (a hard link); make a new file",
        () if names_users(&file) => "has an ACL that names users or groups; setfacl -b it",
        () if found.len() > max => return Err(format!("is larger than {max} bytes")),
        () => "",
    };
    if !fault.is_empty() {
        return Err(fault.into());
    }
    let mut bytes = Vec::new();
    let read = file.take(max).read_to_end(&mut bytes);
    read.map(|_| bytes).map_err(|cause| format!("cannot be read: {cause}"))
}

/// Whether an ACL gives rights to more than the owner, the group and the others (acl(5)).
fn names_users(file: &File) -> bool {
    // linux/posix_acl_xattr.h: a version, then for each entry tag and permissions
    // of 16 bits and an id of 32, all in little-endian.
    const VERSION: usize = 4;
    const ENTRY: usize = 8;
    const NAMED: [u8; 2] = [0x02, 0x08];
    // Room for the four entries of an ACL without names; more of them do not fit.
    let mut acl = [0; VERSION + 4 * ENTRY];
    match rustix::fs::fgetxattr(file, "system.posix_acl_access", &mut acl) {
        Ok(length) => acl[..length]
            .get(VERSION..)
            .unwrap_or_default()
            .chunks(ENTRY)
            .any(|it| NAMED.contains(&it[0])),
        Err(errno) => errno == Errno::RANGE,
    }
}
