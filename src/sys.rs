//! The few system calls that no crate of ours wraps; the only `unsafe` code.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

// From Linux's include/uapi/linux/fcntl.h and asm-generic/fcntl.h, the same on
// every architecture; the libc crate lacks them for some of its targets.
const F_SETSIG: i32 = 10;
const F_WRLCK: i16 = 1;
const DN_MODIFY: i32 = 0x02;
const DN_CREATE: i32 = 0x04;
const DN_RENAME: i32 = 0x10;
const DN_ATTRIB: i32 = 0x20;
const DN_MULTISHOT: i32 = 1 << 31;

/// Blocks `signals` for this thread and gives a descriptor that becomes
/// readable when one of them is pending (signalfd(2)).
///
/// # Errors
/// What sigprocmask(2) or signalfd(2) say; EMFILE when no descriptor is left.
pub fn signal_fd(signals: &[i32]) -> io::Result<OwnedFd> {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `set` is initialised by sigemptyset before anything reads it,
    // and every pointer is to a local that outlives the call.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for &signal in signals {
            check(libc::sigaddset(set.as_mut_ptr(), signal))?;
        }
        check(libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut()))?;
        let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
        let fd = check(libc::signalfd(-1, set.as_ptr(), flags))?;
        // Nobody else knows this descriptor.
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// Lets `signal` pass unnoticed by this process (signal(2)).
pub fn ignore(signal: i32) {
    // SAFETY: SIG_IGN is no handler of ours that could be run at a bad moment.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

/// Has `signal` sent to this process when its parent ends
/// (`PR_SET_PDEATHSIG` in prctl(2)).
///
/// # Errors
/// What prctl(2) says.
pub fn signal_when_parent_ends(signal: i32) -> io::Result<()> {
    // SAFETY: the option takes an integer and touches no memory of ours.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal) })?;
    Ok(())
}

/// Has `signal` sent to this process whenever an entry of `directory` is
/// created, renamed, written or touched, until `directory` is closed
/// (`F_NOTIFY` in fcntl(2)). Unlike inotify it has no limit per user.
///
/// # Errors
/// What fcntl(2) says; EINVAL on a kernel without dnotify.
pub fn notify_directory(directory: &File, signal: i32) -> io::Result<()> {
    let changes = DN_ATTRIB | DN_MODIFY | DN_CREATE | DN_RENAME;
    let fd = directory.as_raw_fd();
    // SAFETY: both commands take an integer and touch no memory of ours.
    unsafe {
        check(libc::fcntl(fd, F_SETSIG, signal))?;
        check(libc::fcntl(fd, libc::F_NOTIFY, changes | DN_MULTISHOT))?;
    }
    Ok(())
}

/// Takes the write lock of an open file description, without waiting
/// (`F_OFD_SETLK` in fcntl(2)). The kernel frees it when `file` is closed,
/// however the process ends. `false` when another holds it.
///
/// # Errors
/// What fcntl(2) says; EBADF when `file` is not open for writing.
pub fn try_lock(file: &File) -> io::Result<bool> {
    match fcntl_lock(file, libc::F_OFD_SETLK) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether somebody else holds the write lock; takes none itself, so that a
/// reader never stands in a publisher's way (`F_OFD_GETLK` in fcntl(2)).
///
/// # Errors
/// What fcntl(2) says.
pub fn is_locked(file: &File) -> io::Result<bool> {
    let lock = fcntl_lock(file, libc::F_OFD_GETLK)?;
    Ok(lock.l_type == F_WRLCK)
}

fn fcntl_lock(file: &File, command: i32) -> io::Result<libc::flock> {
    // SAFETY: all zeroes is a valid `flock`: the whole file, l_pid 0 as OFD locks want it.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = F_WRLCK;
    // SAFETY: `lock` is a local that outlives the call.
    check(unsafe { libc::fcntl(file.as_raw_fd(), command, &raw mut lock) })?;
    Ok(lock)
}

/// Closes standard input, output and error. Who reads our answer waits for the
/// end of it: `mod_cgid`, for whom input and output are one socket, for that of
/// both, `mod_cgi` for that of the error log too. At exit the kernel would take
/// down an inotify instance first.
pub fn hang_up() {
    for fd in 0..=2 {
        // SAFETY: the standard streams belong to the process, std opens nothing
        // in their place, and nothing is read or written after this.
        unsafe { libc::close(fd) };
    }
}

fn check(result: i32) -> io::Result<i32> {
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}
