//! One event file, as a reader sees it.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use filetime::FileTime;
use rustix::fs::OFlags;

use super::dir_entry::{DirEntry, is_publisher_time};
use super::fault::{failed, not_a_file, of_other_topic};
use super::log::{self, End, Head, Messages};
use super::name::is_shortened;
use crate::error::Error;
use crate::event::{Cursor, Since, Topic};
use crate::process::sys;
use crate::store::{Budget, Reading, Retention};

/// How far the kernel's time of a file may be behind the clock: one tick, which is 10 ms
/// at most.
pub const TICK: Duration = Duration::from_millis(10);

/// An open event file.
pub struct EventFile<'a> {
    pub entry: DirEntry<'a>,
    pub file: File,
}

impl<'a> EventFile<'a> {
    /// Opens the file; `None` if it no longer exists.
    pub fn open(entry: DirEntry<'a>, access: OFlags) -> Result<Option<Self>, Error> {
        match entry.open(access) {
            Ok(file) => {
                let opened = Self { entry, file };
                match opened.metadata()?.is_file() {
                    true => Ok(Some(opened)),
                    false => Err(not_a_file(entry.path)),
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => match entry.stat()? {
                Some(_) => Err(failed("open", entry.path)(error)),
                None => Ok(None),
            },
        }
    }

    pub fn metadata(&self) -> Result<Metadata, Error> {
        self.file.metadata().map_err(failed("read the time of", self.entry.path))
    }

    /// Device and inode.
    pub fn identity(&self) -> Result<(u64, u64), Error> {
        self.metadata().map(|found| (found.dev(), found.ino()))
    }

    /// Reads the messages after `since`. It reads the time before the messages. A
    /// publisher that comes later gives its message a later time, so no subscriber gets
    /// a cursor that skips a message.
    ///
    /// `None` if no message fits into `budget`.
    pub fn read(
        &self,
        topic: &Topic,
        since: Since,
        budget: &mut Budget,
        retention: Retention,
    ) -> Result<Option<Reading>, Error> {
        let before = self.metadata()?;
        let (seen, settled) = self.settle(before)?;
        self.check_topic(topic, &seen)?;
        let read = |since| self.messages(&seen, since, retention);
        let time = if settled { time_of(&seen) } else { Cursor::SMALLEST };
        let mut found = read(since)?;
        let gap = match since {
            // A subscriber at the last cursor of the topic has every message.
            Since::Cursor(cursor) if cursor == found.last.max(time) => false,
            Since::Cursor(cursor) if settled && cursor > found.last.max(time) => true,
            Since::Cursor(cursor) => found.dropped.is_some() || self.is_before(&seen, cursor)?,
            Since::Order(cursor) => found.dropped.is_some() || self.has_dropped(&seen, cursor)?,
            _ => false,
        };
        if gap && !matches!(since, Since::Order(_)) {
            found = read(Since::Earliest)?;
        }
        let is_first = budget.is_untouched();
        let (mut messages, mut more) = log::decode(&found.lines, |one| budget.take(topic, one));
        let next = messages.last().filter(|_| more);
        if next.map_or(Ok(false), |next| self.is_before(&seen, next.id))? {
            // A subscriber that continued from there would get a gap and the same
            // messages again. They are an answer of their own, as an oversized
            // message is.
            messages.clear();
            if is_first {
                (messages, more) = log::decode(&found.lines, |_| true);
            }
        }
        if messages.is_empty() && more {
            return Ok(None);
        }
        let standing = match (messages.last(), since) {
            (Some(last), _) if more => last.id,
            (_, Since::Cursor(cursor)) if !gap => found.last.max(time).max(cursor),
            _ => found.last.max(time),
        };
        let pending = (!settled && messages.is_empty()).then(|| time_of(&seen));
        let is_new = |time: &Cursor| *time > standing;
        Ok(Some(Reading { messages, standing, pending: pending.filter(is_new), gap }))
    }

    /// Whether no publisher was at work when the file had the time in `before`. It tests
    /// the lock between two reads of the time. A file that has been replaced is not
    /// settled: later publishers may not have seen its last time.
    fn settle(&self, before: Metadata) -> Result<(Metadata, bool), Error> {
        if before.len() == 0 && is_publisher_time(before.mtime_nsec().unsigned_abs()) {
            return Ok((before, true));
        }
        let locked =
            sys::is_locked(&self.file).map_err(failed("look at the lock of", self.entry.path))?;
        let now = self.metadata()?;
        let settled = !locked && now.nlink() > 0 && time_of(&now) == time_of(&before);
        Ok((now, settled))
    }

    fn messages(&self, seen: &Metadata, since: Since, kept: Retention) -> Result<Messages, Error> {
        if seen.len() == 0 || since == Since::Now {
            let last = self.end(seen, kept.max_file_bytes)?.last;
            return Ok(Messages { lines: Vec::new(), last, dropped: None });
        }
        log::messages(&self.file, seen.len(), since, kept, Cursor::now())
            .map_err(failed("read", self.entry.path))
    }

    /// Whether `cursor` is older than the messages that were kept at the last compaction,
    /// or than the creation of the topic. (The cursor of a topic without events is older
    /// than every creation.)
    fn is_before(&self, seen: &Metadata, cursor: Cursor) -> Result<bool, Error> {
        let made = born_of(seen);
        if made.is_some_and(|made| cursor > made.after(TICK)) {
            return Ok(false);
        }
        let header = self.head(seen)?.header;
        let dropped = header.as_ref().and_then(|header| header.dropped);
        let born = match header {
            Some(header) if header.inode == seen.ino() => Some(header.born),
            // A copy: all its messages are older than the file.
            Some(_) => made.map(|made| made.after(TICK)),
            None => made,
        };
        Ok(dropped.is_some_and(|dropped| cursor < dropped)
            || cursor > Cursor::SMALLEST && born.is_some_and(|born| cursor < born))
    }

    /// Whether a message after `cursor` is no longer kept.
    fn has_dropped(&self, seen: &Metadata, cursor: Cursor) -> Result<bool, Error> {
        let dropped = self.head(seen)?.header.and_then(|header| header.dropped);
        Ok(dropped.is_some_and(|dropped| cursor < dropped))
    }

    /// Refuses a file whose header names another topic than its shortened name. A file
    /// that `touch` created has no header yet.
    pub fn check_topic(&self, topic: &Topic, seen: &Metadata) -> Result<(), Error> {
        if !is_shortened(topic) {
            return Ok(());
        }
        let named = self.head(seen)?.header.and_then(|header| header.topic);
        match named.is_some_and(|named| named != *topic) {
            true => Err(of_other_topic(self.entry.path)),
            false => Ok(()),
        }
    }

    /// The first message after `after`, from a few lines of a log that was written by this
    /// program only; [`Cursor::LARGEST`] if there is none, `None` if it is not known.
    pub fn first_after(&self, after: Cursor) -> Option<Cursor> {
        let seen = self.metadata().ok()?;
        if seen.len() == 0 {
            return Some(Cursor::LARGEST);
        }
        let head = self.head(&seen).ok()?;
        head.header.filter(|header| header.inode == seen.ino())?;
        match head.oldest {
            Some(oldest) if oldest > after => Some(oldest),
            _ => log::first_after(&self.file, seen.len(), after).ok()?,
        }
    }

    /// Whether it is empty, as `touch` makes it, or begins with the header of a log.
    pub fn is_log(&self) -> Result<bool, Error> {
        let seen = self.metadata()?;
        Ok(seen.len() == 0 || self.head(&seen)?.header.is_some())
    }

    /// The beginning of its log.
    pub fn head(&self, seen: &Metadata) -> Result<Head, Error> {
        match seen.len() {
            0 => Ok(Head { header: None, oldest: None }),
            length => Head::read(&self.file, length).map_err(failed("read", self.entry.path)),
        }
    }

    /// The end of its log.
    pub fn end(&self, seen: &Metadata, max_bytes: u64) -> Result<End, Error> {
        match seen.len() {
            0 => Ok(End { last: Cursor::SMALLEST, whole: 0 }),
            length => {
                log::end(&self.file, length, max_bytes).map_err(failed("read", self.entry.path))
            }
        }
    }
}

/// The time of the last event; [`Cursor::SMALLEST`] if the time is not a cursor.
pub fn time_of(metadata: &Metadata) -> Cursor {
    let time = FileTime::from_last_modification_time(metadata);
    Cursor::at(time.unix_seconds(), time.nanoseconds()).known()
}

/// The time of the file's creation; `None` if the file system has none, or if the file's
/// time was set by hand to an earlier one.
pub fn born_of(metadata: &Metadata) -> Option<Cursor> {
    let made = FileTime::from_creation_time(metadata)?;
    let made = Cursor::at(made.unix_seconds(), made.nanoseconds());
    (made <= time_of(metadata)).then_some(made)
}
