//! The faults of a file store, each with a hint for the administrator.

use std::io::{self, ErrorKind};
use std::path::Path;

use crate::error::Error;
use crate::store::fault::{self, FULL, UNUSABLE, is_full};

/// `doing` something to `path` failed. Returns a function for `map_err`, which
/// formats nothing until then: a publish asks for some ten of them.
pub fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |cause| {
        let what = format!("cannot {doing} {}", path.display());
        fault::failed(&what, &cause, hint(doing, &cause))
    }
}

/// An event file that exists and cannot be opened belongs to another user.
fn hint(doing: &str, cause: &io::Error) -> &'static str {
    use ErrorKind::{InvalidData, NotADirectory, NotFound, PermissionDenied, ReadOnlyFilesystem};
    match cause.kind() {
        NotFound | NotADirectory => "create the directory, or name another in NOVCOMET_STORE",
        PermissionDenied if doing == "open" => {
            "another user owns it: give it to the web server's user (chown) or let that user write (chmod), or name a directory of NovComet's own in NOVCOMET_STORE"
        }
        PermissionDenied | ReadOnlyFilesystem => {
            "let the web server's user write there, or name another directory in NOVCOMET_STORE"
        }
        InvalidData => "it holds no messages; remove it, another program made it",
        _ if is_full(cause) => "make room on that file system",
        _ => "see the system's log",
    }
}

/// A directory, a FIFO or another special file has the name of an event file.
pub fn not_a_file(path: &Path) -> Error {
    unusable(path, "is not a regular file", "remove it, another program made it")
}

/// A neighbour may have planted a hard link to the file.
pub fn linked(path: &Path) -> Error {
    unusable(path, "has another name too (a hard link)", "remove it, another program made it")
}

/// The file has the shortened name of one topic, and the header of another.
pub fn of_other_topic(path: &Path) -> Error {
    unusable(path, "names another topic in its first line", "remove it, another program made it")
}

/// Only the owner of a file can set a time, and another user can only set the
/// present time (utimensat(2)).
pub fn time_ahead(path: &Path) -> Error {
    let what = "has a time ahead of the clock, and no later time can be set";
    unusable(path, what, "set the clock, or remove the file")
}

/// Another publisher has held the topic's lock until the deadline.
pub fn lock_held(path: &Path) -> Error {
    let what = format!("{} is locked by another process", path.display());
    Error::unavailable(
        "the topic is busy; try again",
        &what,
        "end that process (fuser -v shows it)",
    )
}

/// The publisher was stopped while it was at work.
pub fn stopped(path: &Path) -> Error {
    let what = format!("a publish to {} took seconds", path.display());
    Error::unavailable(
        "the message may have come too late for some; try again",
        &what,
        "see why the machine or the disk is slow",
    )
}

/// No more than the share that stays free is left on the file system.
pub fn no_space(path: &Path, percent: u8) -> Error {
    let what = format!("less than {percent} % of the file system of {} is free", path.display());
    Error::full(FULL, &what, "make room there, or lower NOVCOMET_KEEP_FREE")
}

/// The directory has as many event files as it may have.
pub fn too_many_topics(path: &Path, limit: usize) -> Error {
    let what = format!("{} has {limit} event files", path.display());
    let detail = "the store has no room for another topic; nothing was published";
    Error::full(detail, &what, "remove some, or raise NOVCOMET_MAX_TOPICS")
}

fn unusable(path: &Path, what: &str, hint: &str) -> Error {
    Error::unavailable(UNUSABLE, &format!("{} {what}", path.display()), hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_is_logged_but_not_sent() {
        let path = Path::new("/dev/shm/a.comet");
        for (error, status) in [
            (failed("read", path)(ErrorKind::Other.into()), 503),
            (not_a_file(path), 503),
            (linked(path), 503),
            (of_other_topic(path), 503),
            (time_ahead(path), 503),
            (lock_held(path), 503),
            (no_space(path, 5), 507),
            (too_many_topics(path, 7), 507),
        ] {
            let line = error.log_line().unwrap();
            assert!(line.contains("/dev/shm/a.comet") && line.contains("; "), "{line}");
            assert!(!error.to_string().contains("/dev"), "{error}");
            assert_eq!(error.status(), status, "{line}");
        }
    }

    #[test]
    fn hint_names_the_owner() {
        let denied = io::Error::from_raw_os_error(libc::EACCES);
        let line = failed("open", Path::new("/dev/shm/a.comet"))(denied).log_line().unwrap();
        assert!(line.starts_with("cannot open /dev/shm/a.comet: Permission denied"));
        assert!(line.contains("another user owns it") && line.ends_with("NOVCOMET_STORE"));
    }
}
