//! The system calls that no dependency wraps; the only `unsafe` code.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use rustix::process::Uid;

// From Linux's include/uapi/linux/fcntl.h and asm-generic/fcntl.h, the same on
// every architecture; the libc crate lacks them for some of its targets.
const F_SETSIG: i32 = 10;
const F_RDLCK: i16 = 0;
const F_WRLCK: i16 = 1;
const F_UNLCK: i16 = 2;
const DN_MODIFY: i32 = 0x02;
const DN_CREATE: i32 = 0x04;
const DN_RENAME: i32 = 0x10;
const DN_ATTRIB: i32 = 0x20;

/// Blocks `signals` for this thread and returns a descriptor that becomes readable
/// when one of them is pending (signalfd(2)). If that fails, it blocks none.
///
/// # Errors
/// The error of sigprocmask(2) or signalfd(2); EMFILE when no descriptor is left.
pub fn signal_fd(signals: &[i32]) -> io::Result<OwnedFd> {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `set` is initialised by sigemptyset before anything reads it and
    // `before` by the first pthread_sigmask, and every pointer is to a local
    // that outlives the call.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for &signal in signals {
            check(libc::sigaddset(set.as_mut_ptr(), signal))?;
        }
        let mut before = MaybeUninit::uninit();
        // It returns the error itself, not -1.
        match libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), before.as_mut_ptr()) {
            0 => {}
            errno => return Err(io::Error::from_raw_os_error(errno)),
        }
        let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
        let fd = check(libc::signalfd(-1, set.as_ptr(), flags)).inspect_err(|_| {
            libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut());
        })?;
        // No other code knows this descriptor.
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// Gives SIGTERM its default action, ignores SIGPIPE and SIGXFSZ, and unblocks every
/// signal. With them ignored, a reader that is gone and a file larger than `ulimit -f`
/// are errors and do not kill the process. A parent may have changed any of these
/// (execve(2)).
pub fn reset_signals() {
    let mut none = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: no disposition is a function of this program; `none` is initialised by
    // sigemptyset before it is read. With these arguments no call fails.
    unsafe {
        libc::signal(libc::SIGTERM, libc::SIG_DFL);
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        libc::sigemptyset(none.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut());
    }
}

/// Closes every descriptor above standard error (`close_range` in close(2)).
///
/// # Errors
/// ENOSYS before Linux 5.9.
pub fn close_inherited() -> io::Result<()> {
    const FIRST: u32 = 3;
    // SAFETY: called before this process has opened anything, so no value owns a
    // descriptor that this closes.
    let result = unsafe { libc::syscall(libc::SYS_close_range, FIRST, u32::MAX, 0) };
    check(i32::try_from(result).unwrap_or(-1))?;
    Ok(())
}

/// `RLIMIT_NOFILE` and the like; the libc crate names their type for glibc only.
#[cfg(target_env = "gnu")]
pub type Resource = libc::__rlimit_resource_t;
#[cfg(not(target_env = "gnu"))]
pub type Resource = libc::c_int;

/// Sets the limit of a resource to `new`, if it is given, and returns the limit before
/// (prlimit(2)). `rlimit64` has 64 bits on every architecture.
///
/// # Errors
/// The error of prlimit(2).
pub fn limit(resource: Resource, new: Option<libc::rlimit64>) -> io::Result<libc::rlimit64> {
    let mut before = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    let new = new.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: both pointers are null or to locals that outlive the call.
    check(unsafe { libc::prlimit64(0, resource, new, &raw mut before) })?;
    Ok(before)
}

/// Acts as `user` from now on (seteuid(2)). Root can act as root again.
///
/// # Errors
/// The error of seteuid(2).
pub fn act_as(user: Uid) -> io::Result<()> {
    // SAFETY: the call takes an integer and touches no memory of this process.
    check(unsafe { libc::seteuid(user.as_raw()) })?;
    Ok(())
}

/// Asks the kernel to send `signal` to this process when its parent exits
/// (`PR_SET_PDEATHSIG` in prctl(2)).
///
/// # Errors
/// The error of prctl(2).
pub fn signal_when_parent_ends(signal: i32) -> io::Result<()> {
    // SAFETY: the option takes an integer and touches no memory of this process.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal) })?;
    Ok(())
}

/// Names this process for ps(1) and top(1) (`PR_SET_NAME` in prctl(2)); the kernel keeps
/// 15 bytes.
pub fn set_process_name(name: &CStr) {
    // SAFETY: `name` ends with a zero, and the kernel copies it.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
}

/// Asks the kernel to send `signal` to this process once, at the next creation, rename,
/// write or touch of an entry of `directory`, until `directory` is closed (`F_NOTIFY` in
/// fcntl(2)). Unlike inotify it has no limit per user.
///
/// # Errors
/// The error of fcntl(2); EINVAL on a kernel without dnotify.
pub fn notify_directory(directory: &File, signal: i32) -> io::Result<()> {
    let changes = DN_ATTRIB | DN_MODIFY | DN_CREATE | DN_RENAME;
    let fd = directory.as_raw_fd();
    // SAFETY: both commands take an integer and touch no memory of this process.
    unsafe {
        check(libc::fcntl(fd, F_SETSIG, signal))?;
        check(libc::fcntl(fd, libc::F_NOTIFY, changes))?;
    }
    Ok(())
}

/// Takes the write lock of an open file description, without waiting
/// (`F_OFD_SETLK` in fcntl(2)). The kernel frees it when `file` is closed, also if the
/// process is killed. `false` if another process holds it.
///
/// # Errors
/// The error of fcntl(2); EBADF if `file` is not open for writing.
pub fn try_lock(file: &File) -> io::Result<bool> {
    try_to_lock(file, &WHOLE)
}

fn try_to_lock(file: &File, bytes: &Lock) -> io::Result<bool> {
    match fcntl_lock(file, libc::F_OFD_SETLK, bytes) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}

/// The same for some bytes of it, until [`free_bytes`].
///
/// # Errors
/// As for [`try_lock`].
pub fn try_lock_bytes(file: &File, bytes: Range<i64>) -> io::Result<bool> {
    let bytes = Lock { kind: F_WRLCK, start: bytes.start, length: bytes.end - bytes.start };
    try_to_lock(file, &bytes)
}

/// Frees the lock of some bytes.
///
/// # Errors
/// The error of fcntl(2).
pub fn free_bytes(file: &File, bytes: Range<i64>) -> io::Result<()> {
    let bytes = Lock { kind: F_UNLCK, start: bytes.start, length: bytes.end - bytes.start };
    fcntl_lock(file, libc::F_OFD_SETLK, &bytes).map(|_| ())
}

/// Whether another process holds the write lock (`F_OFD_GETLK` in fcntl(2)). It takes
/// no lock, so a reader never delays a publisher.
///
/// # Errors
/// The error of fcntl(2).
pub fn is_locked(file: &File) -> io::Result<bool> {
    let lock = fcntl_lock(file, libc::F_OFD_GETLK, &WHOLE)?;
    Ok(lock.l_type == F_WRLCK)
}

/// Takes a shared lock on the byte `at`, which may be beyond the end. It also works for a
/// directory that is open for reading.
///
/// # Errors
/// The error of fcntl(2).
pub fn share_byte(file: &impl AsRawFd, at: i64) -> io::Result<()> {
    let byte = Lock { kind: F_RDLCK, start: at, length: 1 };
    fcntl_lock(file, libc::F_OFD_SETLK, &byte).map(|_| ())
}

/// Where the lock of another open file begins, if there is one on these bytes, which are
/// some. Of several it is any.
///
/// # Errors
/// The error of fcntl(2).
pub fn shared_byte_within(file: &impl AsRawFd, bytes: Range<i64>) -> io::Result<Option<i64>> {
    let bytes = Lock { kind: F_WRLCK, start: bytes.start, length: bytes.end - bytes.start };
    let found = fcntl_lock(file, libc::F_OFD_GETLK, &bytes)?;
    Ok((found.l_type == F_RDLCK || found.l_type == F_WRLCK).then_some(found.l_start))
}

/// What fcntl(2) locks; the length 0 means up to the end.
struct Lock {
    kind: i16,
    start: i64,
    length: i64,
}

/// The whole file, for writing.
const WHOLE: Lock = Lock { kind: F_WRLCK, start: 0, length: 0 };

fn fcntl_lock(file: &impl AsRawFd, command: i32, wanted: &Lock) -> io::Result<libc::flock> {
    // SAFETY: all zeroes is a valid `flock`: l_whence SEEK_SET, l_pid 0 as OFD locks want it.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = wanted.kind;
    lock.l_start = wanted.start;
    lock.l_len = wanted.length;
    // SAFETY: `lock` is a local that outlives the call.
    check(unsafe { libc::fcntl(file.as_raw_fd(), command, &raw mut lock) })?;
    Ok(lock)
}

/// Closes some of standard input, output and error. Servers wait until these streams
/// are closed: `mod_cgid` for input and output (one socket), `mod_cgi` for the error log
/// too. At exit the kernel would first remove an inotify instance, which takes time.
pub fn close_standard_streams(streams: &[i32]) {
    for &fd in streams {
        // SAFETY: the standard streams belong to the process, std opens no file in
        // their place, and no code reads or writes these any more.
        unsafe { libc::close(fd) };
    }
}

fn check(result: i32) -> io::Result<i32> {
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}
