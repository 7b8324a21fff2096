//! What the processes of one user have done with a store.
//!
//! The sums are in a file beside the events. It has several slots, and each process adds to
//! one that no other process is writing to. So nobody waits, and a kill loses nothing that was
//! counted. The file exists once the figures have been asked for. Until then nothing is
//! counted.

use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use rustix::fs::{
    FallocateFlags, FileType, Mode, OFlags, Stat, fallocate, fstat, ftruncate, openat,
};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::sys;

/// The beginning of the file's name. The user's number follows. Another layout would need
/// another name.
const NAME: &str = ".novcomet.figures-";

/// How many processes can write at once. A process takes some 3 µs.
const SLOTS: usize = 64;

/// The numbers of a slot.
const NUMBERS: usize = 96;

/// The bytes of a slot.
const SLOT: usize = NUMBERS * size_of::<u64>();

/// The bytes of the file.
pub const BYTES: u64 = (SLOTS * SLOT) as u64;

/// A kind of event that is counted, by its place in a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counter {
    /// Events that were published.
    Publishes,
    /// Events that were sent to a subscriber.
    Deliveries,
    /// Times that a subscriber was told that messages may be missing.
    Gaps,
    /// Failures of the store.
    StoreErrors,
    /// Requests that could not wait, because all slots were taken.
    SlotsRefused,
    /// Times that a leader has left its subscribers to the standby.
    Handovers,
    /// Times that a leader was killed.
    LostLeaders,
    /// The microseconds of all wake-ups.
    WakeMicros,
}

/// The place of the refusals, one for each of [`STATUSES`].
const REFUSALS: usize = 32;

/// The HTTP statuses of refusals.
pub const STATUSES: [u16; 12] = [400, 401, 403, 404, 405, 408, 413, 414, 415, 501, 503, 507];

/// The place of the wake-ups, one for each of [`WAKE_MICROS`] and one for longer ones.
const WAKES: usize = 64;

/// The upper bounds of the classes of wake-ups, in microseconds.
pub const WAKE_MICROS: [u64; 11] =
    [1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000];

/// The file of this process. A process has one store.
static OWN: OnceLock<File> = OnceLock::new();

/// What this process has counted and not yet written.
static PENDING: [AtomicU64; NUMBERS] = [const { AtomicU64::new(0) }; NUMBERS];

/// From now on this process counts, if its user's file is in `directory`.
pub fn count_in(directory: BorrowedFd<'_>) {
    if OWN.get().is_none() {
        if let Some(file) = existing(directory, OFlags::empty()).filter(|(_, is_whole)| *is_whole) {
            let _ = OWN.set(file.0);
        }
    }
}

/// Creates the file of this process's user in `directory`.
///
/// # Errors
/// The error of fallocate(2) or ftruncate(2).
pub fn begin(directory: BorrowedFd<'_>) -> io::Result<()> {
    match existing(directory, OFlags::CREATE) {
        // A file that is too short is made longer. No number is lost.
        // It takes its space now: a full disk could not be told later.
        Some((file, false)) => match fallocate(&file, FallocateFlags::empty(), 0, BYTES) {
            Err(Errno::OPNOTSUPP) => Ok(ftruncate(&file, BYTES)?),
            allocated => Ok(allocated?),
        },
        _ => Ok(()),
    }
}

/// Adds `count` to a counter. It is written by the next [`flush`].
pub fn add(counter: Counter, count: u64) {
    PENDING[counter as usize].fetch_add(count, Relaxed);
}

/// Counts a refused request.
pub fn refused(status: u16) {
    if let Some(index) = STATUSES.iter().position(|&known| known == status) {
        PENDING[REFUSALS + index].fetch_add(1, Relaxed);
    }
}

/// Counts an event that was sent so long after it had happened.
pub fn woken(after: Duration) {
    let micros = u64::try_from(after.as_micros()).unwrap_or(u64::MAX);
    let class = WAKE_MICROS.iter().take_while(|&&bound| micros > bound).count();
    PENDING[WAKES + class].fetch_add(1, Relaxed);
    add(Counter::WakeMicros, micros);
}

/// Writes what this process has counted. It waits for nobody: if all slots were taken, it
/// would be written the next time.
pub fn flush() {
    let Some(file) = OWN.get() else { return };
    if PENDING.iter().all(|number| number.load(Relaxed) == 0) {
        return;
    }
    let first = process::id() as usize;
    let mut slots = (first..first + SLOTS).map(|number| number % SLOTS);
    // Without locks, as in some network file systems, nothing is counted.
    let _ = slots.find(|&slot| !matches!(try_slot(file, slot), Ok(false)));
}

/// Writes to a slot; `false` if another process has its lock.
fn try_slot(file: &File, slot: usize) -> io::Result<bool> {
    let place = |slot: usize| i64::try_from(slot * SLOT).unwrap_or(i64::MAX);
    let bytes = place(slot)..place(slot + 1);
    let is_free = sys::try_lock_bytes(file, bytes.clone())?;
    if is_free {
        let written = write_to(file, (slot * SLOT) as u64);
        sys::free_bytes(file, bytes).and(written)?;
    }
    Ok(is_free)
}

/// Adds to the slot at `start`, whose lock this process has.
fn write_to(file: &File, start: u64) -> io::Result<()> {
    let mut bytes = [0; SLOT];
    file.read_exact_at(&mut bytes, start)?;
    let mut sums = Sums(numbers(&bytes));
    for (sum, number) in sums.0.iter_mut().zip(&PENDING) {
        *sum = sum.wrapping_add(number.load(Relaxed));
    }
    for (bytes, sum) in bytes.chunks_exact_mut(size_of::<u64>()).zip(sums.0) {
        bytes.copy_from_slice(&sum.to_ne_bytes());
    }
    file.write_all_at(&bytes, start)?;
    for number in &PENDING {
        number.store(0, Relaxed);
    }
    Ok(())
}

fn numbers(bytes: &[u8]) -> [u64; NUMBERS] {
    let mut numbers = [0; NUMBERS];
    for (number, bytes) in numbers.iter_mut().zip(bytes.chunks_exact(size_of::<u64>())) {
        *number = bytes.try_into().map_or(0, u64::from_ne_bytes);
    }
    numbers
}

/// The sums at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sums([u64; NUMBERS]);

impl Sums {
    /// Reads the figures of this process's user in `directory`; `None` if nothing is counted.
    #[must_use]
    pub fn read(directory: BorrowedFd<'_>) -> Option<Self> {
        let (file, _) = existing(directory, OFlags::empty())?;
        let mut bytes = vec![0; SLOTS * SLOT];
        file.read_exact_at(&mut bytes, 0).ok()?;
        let mut sums = [0_u64; NUMBERS];
        for slot in bytes.chunks_exact(SLOT) {
            for (sum, number) in sums.iter_mut().zip(numbers(slot)) {
                *sum = sum.wrapping_add(number);
            }
        }
        Some(Self(sums))
    }

    /// The sum of a counter.
    #[must_use]
    pub fn get(&self, counter: Counter) -> u64 {
        self.0[counter as usize]
    }

    /// The refusals by their HTTP status.
    pub fn refusals(&self) -> impl Iterator<Item = (u16, u64)> {
        STATUSES.into_iter().zip(self.0[REFUSALS..].iter().copied())
    }

    /// The wake-ups of each class, those above all bounds last.
    #[must_use]
    pub fn wakes(&self) -> &[u64] {
        &self.0[WAKES..=WAKES + WAKE_MICROS.len()]
    }
}

/// As in the store: no link is followed, and no FIFO is waited for.
const SAFELY: OFlags =
    OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// The file of this process's user, and whether it is whole. Another user could lock a file
/// that it can open, so nobody else can.
fn existing(directory: BorrowedFd<'_>, how: OFlags) -> Option<(File, bool)> {
    let name: PathBuf = format!("{NAME}{}", geteuid().as_raw()).into();
    let access = SAFELY | OFlags::RDWR | how;
    let file = openat(directory, name, access, Mode::RUSR | Mode::WUSR).ok()?;
    let found = fstat(&file).ok().filter(is_own)?;
    let is_whole = usize::try_from(found.st_size).is_ok_and(|size| size >= SLOTS * SLOT);
    Some((file.into(), is_whole))
}

fn is_own(found: &Stat) -> bool {
    let mode = Mode::from_raw_mode(found.st_mode);
    FileType::from_raw_mode(found.st_mode) == FileType::RegularFile
        && found.st_uid == geteuid().as_raw()
        && found.st_nlink == 1
        && !mode.intersects(Mode::RWXG | Mode::RWXO)
}
