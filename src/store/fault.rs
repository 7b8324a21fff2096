//! The faults of a store, in words for the client and for the log.

use std::io::{self, ErrorKind};

use crate::error::Error;

/// The text for the client if a store does not work.
pub const UNUSABLE: &str = "the store cannot be used; the server's error log says why";
/// The text for the client if a store has no space.
pub const FULL: &str = "the store is full; nothing was published";

/// Whether the cause is a lack of space.
pub fn is_full(cause: &io::Error) -> bool {
    use ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(cause.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

/// `what` failed because of `cause`: 507 if space is missing, 503 otherwise.
pub fn failed(what: &str, cause: &io::Error, hint: &str) -> Error {
    let what = format!("{what}: {cause}");
    match is_full(cause) {
        true => Error::full(FULL, &what, hint),
        false => Error::unavailable(UNUSABLE, &what, hint),
    }
}

/// The server that keeps the store, such as `Redis at h:6379`, cannot be used.
pub fn server_failed(server: &str, cause: &io::Error) -> Error {
    failed(&format!("cannot use {server}"), cause, server_hint(cause))
}

fn server_hint(cause: &io::Error) -> &'static str {
    use ErrorKind::{
        AddrNotAvailable, AlreadyExists, InvalidData, InvalidInput, NotFound, PermissionDenied,
        ReadOnlyFilesystem, Unsupported,
    };
    match cause.kind() {
        PermissionDenied => "correct the user and password in NOVCOMET_STORE",
        NotFound => "correct the address, or the number of the database, in NOVCOMET_STORE",
        InvalidInput => "correct its certificate, or ca, cert and key in NOVCOMET_STORE",
        AlreadyExists => {
            "remove that key, which another program wrote, or set another prefix in NOVCOMET_STORE"
        }
        ReadOnlyFilesystem => "name the server that takes writes in NOVCOMET_STORE",
        AddrNotAvailable => "name a server of the cluster as redis://host:port in NOVCOMET_STORE",
        Unsupported => "use Redis 7 or later",
        InvalidData => "name a Redis 7 or a memcached 1.6, or later, in NOVCOMET_STORE",
        _ if is_full(cause) => "give it more memory, or lower NOVCOMET_KEEP_BYTES",
        _ => "check that it runs and answers",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_hint_fits_the_cause() {
        let hint = |kind: ErrorKind| server_failed("Redis at h", &kind.into()).log_line().unwrap();
        assert!(hint(ErrorKind::NotFound).contains("number of the database"));
        assert!(hint(ErrorKind::AlreadyExists).contains("remove that key"));
        assert!(hint(ErrorKind::TimedOut).ends_with("check that it runs and answers"));
    }

    #[test]
    fn missing_space_is_507() {
        let status = |errno| failed("x", &io::Error::from_raw_os_error(errno), "y").status();
        assert_eq!(status(libc::ENOSPC), 507);
        assert_eq!(status(libc::EDQUOT), 507);
        assert_eq!(status(libc::EACCES), 503);
    }
}
