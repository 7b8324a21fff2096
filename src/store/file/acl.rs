//! The access control list of a file (acl(5)), as the bytes of its extended attribute.

use std::fs::File;
use std::io;

use rustix::fs::{XattrFlags, fgetxattr, fremovexattr, fsetxattr};
use rustix::io::Errno;

const NAME: &str = "system.posix_acl_access";

/// The longest list, in bytes. An entry has 8 bytes, so this is enough for 500.
const MOST: usize = 4096;

/// Reads the list of a file; `None` if the file has only its mode.
///
/// # Errors
/// The error of fgetxattr(2); ERANGE for a list that is longer than [`MOST`].
pub fn of(file: &File) -> io::Result<Option<Vec<u8>>> {
    let mut acl = [0; MOST];
    match fgetxattr(file, NAME, &mut acl) {
        Ok(length) => Ok(Some(acl[..length].to_vec())),
        Err(error) if says_none(error) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Gives the file this list, and with it its mode; `None` removes the list, including
/// one that it inherited from its directory.
///
/// # Errors
/// The error of fsetxattr(2) or fremovexattr(2).
pub fn set(file: &File, acl: Option<&[u8]>) -> io::Result<()> {
    let done = match acl {
        Some(acl) => fsetxattr(file, NAME, acl, XattrFlags::empty()),
        None => fremovexattr(file, NAME),
    };
    match done {
        Err(error) if acl.is_some() || !says_none(error) => Err(error.into()),
        _ => Ok(()),
    }
}

/// The file has no list, or its file system does not support lists.
fn says_none(error: Errno) -> bool {
    matches!(error, Errno::NODATA | Errno::OPNOTSUPP)
}
