//! The topics of a directory, by the times of their files.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, Mode, OFlags, RawDir, openat};

use super::dir_entry::{DirEntry, Stat};
use super::event_file::{EventFile, TICK};
use super::fault::failed;
use super::name::{Named, file_name, topic_of};
use crate::error::Error;
use crate::event::{Cursor, Topic};
use crate::store::{Clock, Seen};

/// The bytes of a directory that are read at once.
const LISTING_BUFFER: usize = 16_384;

/// How often the directory is listed, although a watch has told of every change: a wake-up
/// is only a hint.
const RELIST: Duration = Duration::from_secs(5);

/// And how many times as long as that took, so that many who wait alone on a busy machine do
/// not keep it busy.
const RELIST_RATIO: u32 = 100;
const MAX_RELIST: Duration = Duration::from_secs(60);

/// How much of the end of a log is read for its last message.
const LONGEST_END: u64 = 1 << 20;

/// The topics that a process knows. A watch on all of them says which have changed.
#[derive(Clone, Default)]
pub struct Known(Rc<RefCell<Index>>);

#[derive(Default)]
struct Index {
    of_topic: BTreeMap<Topic, Seen>,
    by_time: BTreeSet<Seen>,
    is_watched: bool,
    /// When the directory was listed, and how long what is known counts; `None` if it does
    /// not.
    listed: Option<(Instant, Duration)>,
    changed: BTreeSet<Topic>,
}

impl Known {
    /// From now on every change is told, or none any more.
    pub fn watch(&self, is_watched: bool) {
        let mut index = self.0.borrow_mut();
        if index.is_watched != is_watched {
            *index = Index { is_watched, ..Index::default() };
        }
    }

    /// There are events in these topics, or they have been removed. No survey has sessions.
    pub fn change<'t>(&self, topics: impl IntoIterator<Item = &'t Topic>) {
        let mut index = self.0.borrow_mut();
        // A listing finds them.
        if index.listed.is_none() {
            return;
        }
        let public = topics.into_iter().filter(|topic| topic.session().is_none());
        index.changed.extend(public.cloned());
    }

    /// Changes have been missed.
    pub fn forget(&self) {
        self.0.borrow_mut().listed = None;
    }

    /// The topics with an event after `after`.
    pub fn after(&self, directory: &Path, after: Cursor) -> Result<Vec<Seen>, Error> {
        let mut index = self.0.borrow_mut();
        index.refresh(directory).map_err(failed("list", directory))?;
        Ok(index.by_time.iter().rev().take_while(|seen| seen.until > after).cloned().collect())
    }
}

impl Index {
    fn refresh(&mut self, directory: &Path) -> io::Result<()> {
        let changed = std::mem::take(&mut self.changed);
        if self.listed.is_some_and(|(at, counts)| self.is_watched && at.elapsed() < counts) {
            for topic in changed {
                self.look_at(directory, topic);
            }
            return Ok(());
        }
        self.list(directory)
    }

    fn list(&mut self, directory: &Path) -> io::Result<()> {
        self.of_topic.clear();
        self.by_time.clear();
        // A listing that fails does not count.
        self.listed = None;
        let begin = Instant::now();
        let how = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = openat(CWD, directory, how, Mode::empty())?;
        let mut buffer = [MaybeUninit::uninit(); LISTING_BUFFER];
        let mut entries = RawDir::new(opened.as_fd(), &mut buffer);
        while let Some(entry) = entries.next() {
            if let Some(topic) = topic_at(directory, entry?.file_name().to_bytes()) {
                self.look_at(directory, topic);
            }
        }
        let counts = (begin.elapsed() * RELIST_RATIO).clamp(RELIST, MAX_RELIST);
        self.listed = Some((begin, counts));
        Ok(())
    }

    /// A file that cannot be looked at has no events.
    fn look_at(&mut self, directory: &Path, topic: Topic) {
        if let Some(known) = self.of_topic.remove(&topic) {
            self.by_time.remove(&known);
        }
        let path = directory.join(file_name(&topic));
        let entry = DirEntry { directory: CWD, name: &path, path: &path };
        if let Ok(Some(found)) = entry.stat() {
            let is_message = || is_last_message(entry, found.time);
            let seen = seen(topic.clone(), &found, Cursor::now(), is_message);
            self.by_time.insert(seen.clone());
            self.of_topic.insert(topic, seen);
        }
    }
}

/// The topic of a file. If its name is shortened, the header says which.
pub fn topic_at(directory: &Path, name: &[u8]) -> Option<Topic> {
    match topic_of(name)? {
        Named::Topic(topic) => Some(topic),
        Named::InHeader => {
            let path = directory.join(OsStr::from_bytes(name));
            let entry = DirEntry { directory: CWD, name: &path, path: &path };
            let file = EventFile::open(entry, OFlags::RDONLY).ok()??;
            let topic = file.head(&file.metadata().ok()?).ok()?.header?.topic?;
            (file_name(&topic).as_os_str().as_bytes() == name).then_some(topic)
        }
    }
}

/// When the file need not be found any more. The kernel's time may be behind the clock, and
/// be whole microseconds by chance. A publisher may take its time in the microsecond of the
/// kernel's tick: then it is that of its message. Of a time in the future the last change of the
/// file counts.
fn seen(topic: Topic, found: &Stat, now: Cursor, is_message: impl FnOnce() -> bool) -> Seen {
    let is_kernels = !found.is_publisher_time || found.time == found.changed && !is_message();
    let (clock, until) = match found.time {
        time if time > now => (Clock::Ahead, found.changed.after(TICK)),
        time if is_kernels => (Clock::Other, time.after(TICK)),
        time => (Clock::Store, time),
    };
    Seen { until, topic, clock }
}

/// Whether the last message of a log has this time.
fn is_last_message(entry: DirEntry, time: Cursor) -> bool {
    let last = || {
        let file = EventFile::open(entry, OFlags::RDONLY).ok()??;
        Some(file.end(&file.metadata().ok()?, LONGEST_END).ok()?.last)
    };
    last() == Some(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    fn at(micros: u64) -> Cursor {
        Cursor::from_micros(1_795_415_403 * SECOND + micros)
    }

    fn seen_at(time: u64, changed: u64, is_publisher_time: bool) -> (Clock, Cursor) {
        seen_with(time, changed, is_publisher_time, false)
    }

    fn seen_with(
        time: u64,
        changed: u64,
        is_publisher_time: bool,
        is_message: bool,
    ) -> (Clock, Cursor) {
        // Any file: its times are replaced.
        let path = Path::new("/proc/self/stat");
        let found = DirEntry { directory: CWD, name: path, path }.stat().unwrap().unwrap();
        let stat = Stat { time: at(time), changed: at(changed), is_publisher_time, ..found };
        let topic = Topic::new("a").unwrap();
        let seen = seen(topic, &stat, at(10 * SECOND), || is_message);
        (seen.clock, seen.until)
    }

    /// One in a thousand of the kernel's times is whole microseconds. Then the time of the
    /// change is the same, which a publisher's is only by chance.
    #[test]
    fn kernel_time_of_whole_microseconds_is_no_publishers() {
        assert_eq!(seen_at(5, 7, true), (Clock::Store, at(5)));
        assert_eq!(seen_at(5, 5, true), (Clock::Other, at(5).after(TICK)));
        assert_eq!(seen_with(5, 5, true, true), (Clock::Store, at(5)));
        assert_eq!(seen_at(5, 7, false), (Clock::Other, at(5).after(TICK)));
        let ahead = seen_at(11 * SECOND, 7, true);
        assert_eq!(ahead, (Clock::Ahead, at(7).after(TICK)));
    }
}
