//! A watch on a directory, by inotify or dnotify.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

use super::name::file_name;
use super::survey::{Known, topic_at};
use crate::event::Topic;
use crate::process::sys;
use crate::store::{Changes, Watch};

/// A file appears by creation or by a rename, or the directory itself goes away.
const DIRECTORY: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR);

/// touch(1) sets both times: `IN_ATTRIB`. A write, or a new modification time alone, is
/// `IN_MODIFY`. A deleted file reports its link count: `IN_ATTRIB`.
const FILE: WatchFlags = WatchFlags::ATTRIB
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::DONT_FOLLOW);

/// Every change of a file in the directory, by its name.
const ALL_FILES: WatchFlags = WatchFlags::ATTRIB
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVED_FROM);

/// How many false wake-ups by dnotify in a row a subscriber accepts, and the time after
/// which one more is accepted. A publish wakes every subscriber in the directory twice.
/// With 1,000 subscribers to other topics, 13 publishes a second took half a processor.
/// After too many false wake-ups a subscriber receives its own event later by this time.
const MAX_FALSE_WAKEUPS: u32 = 16;
const REFILL_INTERVAL: Duration = Duration::from_millis(250);

/// The bytes of a queue that are read at once.
const QUEUED: usize = 4096;

/// Watches the event files of some topics.
pub struct DirectoryWatch {
    directory: PathBuf,
    /// The topics, by the names of their files.
    topics: BTreeMap<PathBuf, Topic>,
    /// Whether changes of every topic are reported.
    is_of_all: bool,
    /// The number of the directory's watch.
    number: Option<i32>,
    known: Known,
    mechanism: Mechanism,
    bucket: Bucket,
}

/// inotify wakes only for the watched files, but a user has 128 instances
/// (`fs.inotify.max_user_instances`). dnotify has no such limit, but wakes for the whole
/// directory.
enum Mechanism {
    Inotify {
        queue: OwnedFd,
        /// The files with a watch of their own, by its number.
        files: BTreeMap<i32, PathBuf>,
    },
    Dnotify {
        signals: OwnedFd,
        directory: Option<File>,
    },
    /// The caller reads at intervals.
    Nothing,
}

impl DirectoryWatch {
    /// A watch on files in `directory`. The files need not exist.
    /// What `known` knows of all topics is kept true.
    pub fn new(directory: PathBuf, known: Known) -> Self {
        let mechanism = Mechanism::inotify().unwrap_or_else(|_| Mechanism::dnotify());
        let (topics, bucket) = (BTreeMap::new(), Bucket::new());
        Self { directory, topics, is_of_all: false, number: None, known, mechanism, bucket }
    }
}

/// Adds the watches of `names` again, because a replaced file has another inode. The
/// directory comes first, so that no file appears unnoticed in between. It keeps the events
/// that were asked for before, because others may need them. Returns the number of its watch:
/// another directory has another.
fn add_watches(
    queue: &OwnedFd,
    files: &mut BTreeMap<i32, PathBuf>,
    directory: (&Path, WatchFlags),
    names: Vec<PathBuf>,
) -> Result<Option<i32>, Errno> {
    let (directory, flags) = directory;
    let number = add_watch(queue, directory, flags | WatchFlags::MASK_ADD)?.ok();
    for name in names {
        match add_watch(queue, &directory.join(&name), FILE)? {
            Ok(watch) => drop(files.insert(watch, name)),
            // A file without read permission is watched through its directory.
            Err(Errno::ACCESS) => {
                let changes = WatchFlags::ATTRIB | WatchFlags::MODIFY | WatchFlags::MASK_ADD;
                add_watch(queue, directory, flags | changes)?.ok();
            }
            Err(_) => {}
        }
    }
    Ok(number)
}

/// The outer error means that `fs.inotify.max_user_watches` is used up.
fn add_watch(
    inotify: &OwnedFd,
    path: &Path,
    flags: WatchFlags,
) -> Result<Result<i32, Errno>, Errno> {
    match inotify::add_watch(inotify, path, flags) {
        Err(Errno::NOSPC) => Err(Errno::NOSPC),
        // The file is missing or cannot be watched. The next read handles both.
        other => Ok(other),
    }
}

impl Watch for DirectoryWatch {
    fn arm(&mut self, topics: &[&Topic]) {
        let mut names = Vec::with_capacity(topics.len());
        for &topic in topics {
            let name = file_name(topic);
            if !self.topics.contains_key(&name) {
                self.topics.insert(name.clone(), topic.clone());
            }
            names.push(name);
        }
        if let Mechanism::Inotify { queue, files } = &mut self.mechanism {
            let flags = if self.is_of_all { DIRECTORY | ALL_FILES } else { DIRECTORY };
            match add_watches(queue, files, (&self.directory, flags), names) {
                Ok(number) if number == self.number => {}
                Ok(number) => {
                    self.number = number;
                    self.known.forget();
                }
                Err(_) => {
                    self.mechanism = Mechanism::dnotify();
                    self.known.forget();
                }
            }
        }
        if let Mechanism::Dnotify { directory, .. } = &mut self.mechanism {
            let there = fs::metadata(&self.directory).ok();
            let held = directory.as_ref().and_then(|held| held.metadata().ok());
            if there.map(|it| (it.dev(), it.ino())) != held.map(|it| (it.dev(), it.ino())) {
                *directory = File::open(&self.directory).ok();
            }
            // It reports one change, so none arrives during a cooldown.
            directory.take_if(|it| sys::notify_directory(it, libc::SIGRTMIN()).is_err());
        }
    }

    fn arm_all(&mut self) {
        self.is_of_all = true;
        self.known.watch(!matches!(self.mechanism, Mechanism::Nothing));
    }

    fn forget(&mut self, topic: &Topic) {
        let name = file_name(topic);
        self.topics.remove(&name);
        if let Mechanism::Inotify { queue, files } = &mut self.mechanism {
            files.retain(|&watch, file| {
                let is_other = *file != name;
                if !is_other {
                    // The kernel has removed that of a deleted file.
                    let _ = inotify::remove_watch(&*queue, watch);
                }
                is_other
            });
        }
    }

    fn fd(&mut self, _: Duration) -> Option<BorrowedFd<'_>> {
        match &self.mechanism {
            Mechanism::Inotify { queue: fd, .. } | Mechanism::Dnotify { signals: fd, .. } => {
                Some(fd.as_fd())
            }
            Mechanism::Nothing => None,
        }
    }

    fn changes(&mut self) -> Changes {
        let changes = match &self.mechanism {
            Mechanism::Inotify { queue, files } => {
                let of_name = |name: &Path| match self.topics.get(name) {
                    None if self.is_of_all => {
                        topic_at(&self.directory, name.as_os_str().as_bytes())
                    }
                    known => known.cloned(),
                };
                changed(queue, files, of_name)
            }
            Mechanism::Dnotify { signals, .. } => {
                drain(signals);
                Changes::Any
            }
            Mechanism::Nothing => Changes::Any,
        };
        match &changes {
            Changes::Any => self.known.forget(),
            Changes::Of(topics) | Changes::InOrder(topics) => self.known.change(topics),
        }
        changes
    }

    fn catch_up(&mut self) -> Changes {
        if let Mechanism::Inotify { .. } = self.mechanism {
            return self.changes();
        }
        self.known.forget();
        Changes::Of(Vec::new())
    }

    fn report_false_wakeup(&mut self) {
        self.bucket.spend();
    }

    fn cooldown(&self) -> Duration {
        match self.mechanism {
            Mechanism::Dnotify { .. } => self.bucket.cooldown(),
            _ => Duration::ZERO,
        }
    }
}

impl Drop for DirectoryWatch {
    fn drop(&mut self) {
        self.known.watch(false);
    }
}

/// A token bucket of [`MAX_FALSE_WAKEUPS`] that gains one every [`REFILL_INTERVAL`].
struct Bucket {
    left: u32,
    filled: Instant,
}

impl Bucket {
    fn new() -> Self {
        Self { left: MAX_FALSE_WAKEUPS, filled: Instant::now() }
    }

    fn spend(&mut self) {
        while self.left < MAX_FALSE_WAKEUPS && self.filled.elapsed() >= REFILL_INTERVAL {
            self.left += 1;
            self.filled += REFILL_INTERVAL;
        }
        if self.left == MAX_FALSE_WAKEUPS {
            self.filled = Instant::now();
        }
        self.left = self.left.saturating_sub(1);
    }

    /// The time until the bucket has one again.
    fn cooldown(&self) -> Duration {
        match self.left {
            0 => REFILL_INTERVAL.saturating_sub(self.filled.elapsed()),
            _ => Duration::ZERO,
        }
    }
}

impl Mechanism {
    fn inotify() -> Result<Self, Errno> {
        let queue = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        Ok(Self::Inotify { queue, files: BTreeMap::new() })
    }

    /// The kernel sends SIGIO when the queue of real-time signals is full.
    fn dnotify() -> Self {
        match sys::signal_fd(&[libc::SIGRTMIN(), libc::SIGIO]) {
            Ok(signals) => Self::Dnotify { signals, directory: None },
            Err(_) => Self::Nothing,
        }
    }
}

/// Reads the queue. An event in the directory has a name, and one of a file the number of
/// its watch. An event of the directory itself, and the overflow of the queue, have
/// neither, and may be about any topic.
fn changed(
    queue: &OwnedFd,
    files: &BTreeMap<i32, PathBuf>,
    of_name: impl Fn(&Path) -> Option<Topic>,
) -> Changes {
    let mut queued = [MaybeUninit::uninit(); QUEUED];
    let mut events = inotify::Reader::new(queue, &mut queued);
    let (mut changed, mut is_any) = (BTreeSet::new(), false);
    while let Ok(event) = events.next() {
        let named = event.file_name().map(|name| Path::new(OsStr::from_bytes(name.to_bytes())));
        let file = named.or_else(|| files.get(&event.wd()).map(PathBuf::as_path));
        is_any |= file.is_none() && !event.events().contains(ReadFlags::IGNORED);
        changed.extend(file.and_then(&of_name));
    }
    if is_any { Changes::Any } else { Changes::Of(changed.into_iter().collect()) }
}

/// Empties the queue, which is non-blocking.
fn drain(fd: &OwnedFd) {
    let mut queued = [MaybeUninit::<u8>::uninit(); QUEUED];
    while rustix::io::read(fd, &mut queued).is_ok() {}
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory and a watch on one topic in it; `None` if other programs use all
    /// instances of inotify.
    fn watched(name: &str) -> Option<(PathBuf, DirectoryWatch)> {
        let directory =
            std::env::temp_dir().join(format!("novcomet-{name}-{}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        let watch = DirectoryWatch::new(directory.clone(), Known::default());
        matches!(watch.mechanism, Mechanism::Inotify { .. }).then_some((directory, watch))
    }

    fn topic() -> Topic {
        Topic::new("a").unwrap()
    }

    fn of_it() -> Changes {
        Changes::Of(vec![topic()])
    }

    const NOTHING: Changes = Changes::Of(Vec::new());

    #[test]
    fn other_names_concern_no_watch() {
        let Some((directory, mut watch)) = watched("names") else { return };
        let touch = |name: &str| drop(File::create(directory.join(name)).unwrap());
        watch.arm(&[&topic()]);
        for name in [".novcomet-7-1.5", "b.comet", "a.comet.bak", "aa.comet"] {
            touch(name);
            assert_eq!(watch.changes(), NOTHING, "{name}");
        }
        let rename = |to: &str| fs::rename(directory.join("b.comet"), directory.join(to)).unwrap();
        rename("c.comet");
        assert_eq!(watch.changes(), NOTHING);
        touch("b.comet");
        rename("a.comet");
        assert_eq!((watch.changes(), watch.changes()), (of_it(), NOTHING), "once");
        // The file gets its own watch at the next arming.
        watch.arm(&[&topic()]);
        touch("a.comet");
        assert_eq!(watch.changes(), of_it(), "an event of the file itself");
        watch.forget(&topic());
        touch("a.comet");
        assert_eq!(watch.changes(), NOTHING, "forgotten");
        fs::remove_dir_all(&directory).unwrap();
        assert_eq!(watch.changes(), Changes::Any, "an event of the directory itself");
    }

    /// The kernel keeps 16,384 events (`fs.inotify.max_queued_events`).
    #[test]
    fn full_queue_concerns_every_watch() {
        let Some((directory, mut watch)) = watched("queue") else { return };
        let most = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
        let most: usize = most.trim().parse().unwrap();
        watch.arm(&[&topic()]);
        let names = ["b.comet", "c.comet"].map(|name| directory.join(name));
        File::create(&names[0]).unwrap();
        // The kernel merges equal events in a row into one.
        for number in 0..=most {
            fs::rename(&names[number % 2], &names[(number + 1) % 2]).unwrap();
        }
        assert_eq!(watch.changes(), Changes::Any);
        fs::remove_dir_all(&directory).unwrap();
    }
}
