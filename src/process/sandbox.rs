//! The rights that the process drops before it acts on a request. It does not need
//! them for the answer, and without them a bug can do little harm.

use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, IntoRawFd};
use std::process;

use landlock::{
    ABI, AccessFs, PathBeneath, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError,
    RulesetStatus,
};

use libc::rlimit64;
use rustix::io::fcntl_getfd;
use rustix::stdio::{dup2_stdin, dup2_stdout, stderr, stdin, stdout};

use crate::error::Error;
use crate::process::sys;

/// The limit of open descriptors, but for those of a crowd. Half of them are in use: the three standard
/// streams, the directory, an event file and its replacement, signals, inotify.
const DESCRIPTORS: u64 = 16;

/// Opens /dev/null in the place of each closed standard stream. Otherwise the next
/// file that is opened would get its number, and the output meant for the stream.
pub fn open_standard_streams() {
    for stream in [stdin(), stdout(), stderr()] {
        if fcntl_getfd(stream).is_err() {
            // open(2) returns the lowest free number, which is the stream's.
            let null = File::options().read(true).write(true).open("/dev/null");
            let _ = null.unwrap_or_else(|_| process::abort()).into_raw_fd();
        }
    }
}

/// Puts /dev/null in the place of standard input and output, which another process has
/// from now on.
pub fn detach_standard_streams() {
    if let Ok(null) = File::options().read(true).write(true).open("/dev/null") {
        let _ = dup2_stdin(&null);
        let _ = dup2_stdout(&null);
    } else {
        sys::close_standard_streams(&[libc::STDIN_FILENO, libc::STDOUT_FILENO]);
    }
}

/// Resets the signals that the process relies on, which a server or a shell may have
/// changed. SIGHUP and SIGINT stay as they are, because nohup(1) and `&` set them.
pub fn expect_signals() {
    sys::reset_signals();
}

/// Closes inherited descriptors, limits new ones, and forbids new processes and core
/// files with the data of a client. Call it before any file is opened. A process that
/// `may_lead` a crowd can raise the limit of descriptors again.
///
/// # Errors
/// 503, after every limit was tried.
pub fn limit_resources(may_lead: bool) -> Result<(), Error> {
    // Inherited descriptors could use up all numbers below the limit.
    let descriptors = sys::close_inherited().and_then(|()| limit_descriptors(may_lead));
    let processes = sys::limit(libc::RLIMIT_NPROC, Some(NOTHING));
    let core = sys::limit(libc::RLIMIT_CORE, Some(NOTHING));
    descriptors.and(processes).and(core).map(|_| ()).map_err(failed("limit its resources"))
}

fn limit_descriptors(may_lead: bool) -> io::Result<rlimit64> {
    let rlimit64 { rlim_cur, rlim_max } = sys::limit(libc::RLIMIT_NOFILE, None)?;
    let most = if may_lead { rlim_max } else { rlim_max.min(DESCRIPTORS) };
    let lower = rlimit64 { rlim_cur: rlim_cur.min(DESCRIPTORS), rlim_max: most };
    sys::limit(libc::RLIMIT_NOFILE, Some(lower))
}

const NOTHING: rlimit64 = rlimit64 { rlim_cur: 0, rlim_max: 0 };

/// Lets this process write files only below `directory` (`None`: nowhere), forbids it
/// to start programs, and drops the privileges that a program may gain. Files that
/// are open stay usable.
///
/// # Errors
/// 503 when the kernel has no Landlock (before Linux 5.13, or
/// switched off) or refuses it.
pub fn write_only_below(directory: Option<BorrowedFd<'_>>) -> Result<(), Error> {
    let failed = failed("confine itself by Landlock");
    match restrict(directory) {
        Ok(RulesetStatus::NotEnforced) => Err(failed(io::ErrorKind::Unsupported.into())),
        Ok(_) => Ok(()),
        // Every variant wraps the error of a system call. Their Display takes 27 kB.
        Err(_) => Err(failed(io::Error::last_os_error())),
    }
}

/// Uses the rights that this kernel knows. Every version refuses to move a file to
/// another directory; Linux 6.2 and later also refuse truncate(2).
fn restrict(directory: Option<BorrowedFd<'_>>) -> Result<RulesetStatus, RulesetError> {
    let writing = AccessFs::from_write(ABI::V5);
    let mut rules = Ruleset::default().handle_access(writing | AccessFs::Execute)?.create()?;
    if let Some(directory) = directory {
        let log = AccessFs::WriteFile | AccessFs::Truncate;
        let in_its_place = AccessFs::MakeReg | AccessFs::RemoveFile;
        rules = rules.add_rule(PathBeneath::new(directory, log | in_its_place))?;
    }
    rules.restrict_self().map(|status| status.ruleset)
}

/// Limits the size of written files until it is dropped. The limit ends with it,
/// because standard error may be a log that is larger already.
pub struct FileSizeLimit(rlimit64);

impl FileSizeLimit {
    /// Lowers the limit to `bytes`, unless it is lower already.
    ///
    /// # Errors
    /// 503 with the error of prlimit(2).
    pub fn set(bytes: u64) -> Result<Self, Error> {
        let set = sys::limit(libc::RLIMIT_FSIZE, None).and_then(|before| {
            let lower = rlimit64 { rlim_cur: before.rlim_cur.min(bytes), ..before };
            sys::limit(libc::RLIMIT_FSIZE, Some(lower))
        });
        set.map(Self).map_err(failed("limit the size of files"))
    }
}

impl Drop for FileSizeLimit {
    fn drop(&mut self) {
        let _ = sys::limit(libc::RLIMIT_FSIZE, Some(self.0));
    }
}

fn failed(doing: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |cause| {
        Error::misconfigured(
            &format!("cannot {doing}: {cause}"),
            "NOVCOMET_SANDBOX=on goes on without it",
        )
    }
}
