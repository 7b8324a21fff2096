//! What the process takes away from itself before it acts on a request: none
//! of it is needed for the answer, and a bug in what follows can do little.

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
use rustix::stdio::{stderr, stdin, stdout};

use crate::error::Error;
use crate::process::sys;

/// Standard input to error, the directory, an event file and the one that is
/// made in its place, signals, inotify: half of these.
const DESCRIPTORS: u64 = 16;

/// Opens /dev/null in the place of each standard stream that is closed: else a
/// file that we open would get its number, and what we say there.
pub fn open_standard_streams() {
    for stream in [stdin(), stdout(), stderr()] {
        if fcntl_getfd(stream).is_err() {
            // The lowest number that is free is this stream's.
            let null = File::options().read(true).write(true).open("/dev/null");
            let _ = null.unwrap_or_else(|_| process::abort()).into_raw_fd();
        }
    }
}

/// The signals that we rely on, whatever a server or a shell has left us.
/// SIGHUP and SIGINT stay as they are: nohup(1) and `&` set them on purpose.
pub fn expect_signals() {
    sys::reset_signals();
}

/// No descriptors but our own, no process beside this one, no core file with
/// what a client sent. Call it before anything is opened.
///
/// # Errors
/// 503, after every limit was tried.
pub fn limit_resources() -> Result<(), Error> {
    // With those in their places there may be none left below the limit.
    let descriptors = sys::close_inherited().and_then(|()| limit_descriptors());
    let processes = sys::limit(libc::RLIMIT_NPROC, Some(NOTHING));
    let core = sys::limit(libc::RLIMIT_CORE, Some(NOTHING));
    descriptors.and(processes).and(core).map(|_| ()).map_err(failed("limit its resources"))
}

fn limit_descriptors() -> io::Result<rlimit64> {
    let rlimit64 { rlim_cur, rlim_max } = sys::limit(libc::RLIMIT_NOFILE, None)?;
    let lower =
        rlimit64 { rlim_cur: rlim_cur.min(DESCRIPTORS), rlim_max: rlim_max.min(DESCRIPTORS) };
    sys::limit(libc::RLIMIT_NOFILE, Some(lower))
}

const NOTHING: rlimit64 = rlimit64 { rlim_cur: 0, rlim_max: 0 };

/// Lets this process write files below `directory` only (none: nowhere) and
/// start no program, and gives up the privileges that starting one may bring.
/// What is open already stays so.
///
/// # Errors
/// 503 when the kernel has no Landlock (before Linux 5.13, or
/// switched off) or refuses it.
pub fn write_only_below(directory: Option<BorrowedFd<'_>>) -> Result<(), Error> {
    let failed = failed("confine itself by Landlock");
    match restrict(directory) {
        Ok(RulesetStatus::NotEnforced) => Err(failed(io::ErrorKind::Unsupported.into())),
        Ok(_) => Ok(()),
        // Each of its errors is a system call's; to print them itself takes 27 kB.
        Err(_) => Err(failed(io::Error::last_os_error())),
    }
}

/// As far as this kernel knows these rights: moving a file to another
/// directory is refused by all, truncate(2) from Linux 6.2 on.
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

/// Bounds the files that are written while it lives. Not longer, and not
/// beyond recall: standard error may be a log that is longer already.
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
