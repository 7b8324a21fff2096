//! The index of a topic: its messages without their text.

use std::io::{self, ErrorKind};

use serde::{Deserialize, Serialize};

use crate::event::{Cursor, Since};
use crate::store::Retention;

/// The bytes of a message in addition to its text, as in a line of the file store.
const OVERHEAD: u64 = 42;

/// The index of a topic, with times in microseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    /// The first event. Older cursors belong to an earlier index.
    born: u64,
    /// The last message that is no longer kept; 0 if all are kept.
    dropped: u64,
    /// The last event.
    last: u64,
    /// The messages that are kept and the bytes that they take, oldest first.
    messages: Vec<(u64, u64)>,
}

/// The messages for a reader, without their text.
#[derive(Debug, PartialEq, Eq)]
pub struct Wanted {
    pub messages: Vec<Cursor>,
    pub standing: Cursor,
    pub gap: bool,
}

impl Index {
    /// # Errors
    /// `AlreadyExists` for content of another program.
    pub fn parse(content: &[u8]) -> io::Result<Self> {
        let index = serde_json::from_slice(content).ok().filter(Self::is_sound);
        index.ok_or_else(|| {
            io::Error::new(ErrorKind::AlreadyExists, "it is not an index of NovComet")
        })
    }

    /// Whether the times are cursors and in order.
    fn is_sound(&self) -> bool {
        let ids = || self.messages.iter().map(|&(id, _)| id);
        let times = || [self.born, self.dropped, self.last].into_iter().chain(ids());
        ids().is_sorted_by(|one, next| one < next)
            && times().all(|time| time <= self.last)
            && self.last().is_exact()
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    pub fn last(&self) -> Cursor {
        Cursor::from_micros(self.last)
    }

    /// The index after another event, with a message of `data` bytes or without one.
    pub fn next(before: Option<&Self>, data: Option<usize>, retention: Retention) -> Self {
        let now = Cursor::now();
        let id = before.map_or(now, |index| index.last().next(now)).micros();
        let first = || Self { born: id, dropped: 0, last: id, messages: Vec::new() };
        // After the largest cursor the index starts again.
        let mut next = before.filter(|index| index.last < id).cloned().unwrap_or_else(first);
        next.last = id;
        if let Some(size) = data {
            next.messages.push((id, size as u64 + OVERHEAD));
            let from = next.kept_from(retention, now);
            next.dropped = next.dropped_before(from);
            next.messages.drain(..from);
        }
        next
    }

    /// The messages that `next` has dropped.
    pub fn dropped_by(&self, next: &Self) -> Vec<Cursor> {
        let is_dropped = |&&(id, _): &&(u64, u64)| id <= next.dropped;
        self.messages.iter().filter(is_dropped).map(|&(id, _)| Cursor::from_micros(id)).collect()
    }

    /// The position of the oldest kept message. The newest is always kept.
    fn kept_from(&self, retention: Retention, now: Cursor) -> usize {
        let mut bytes = 0;
        let is_kept = |&(back, &(id, size)): &(usize, &(u64, u64))| {
            bytes = size.saturating_add(bytes);
            back == 0
                || back < retention.messages
                    && bytes <= retention.bytes
                    && Cursor::from_micros(id).age(now) <= retention.age
        };
        let kept = self.messages.iter().rev().enumerate().take_while(is_kept).count();
        self.messages.len() - kept
    }

    fn dropped_before(&self, from: usize) -> u64 {
        from.checked_sub(1).map_or(self.dropped, |last| self.messages[last].0)
    }

    /// The messages after `since`, up to `limit` bytes but at least one.
    pub fn wanted(&self, since: Since, limit: usize, retention: Retention, now: Cursor) -> Wanted {
        let mut from = self.kept_from(retention, now);
        if since == Since::Latest {
            from = self.messages.len().saturating_sub(1);
        }
        let gap = matches!(since, Since::Cursor(cursor) if self.is_gap(cursor.micros(), from));
        let since = if gap { Since::Earliest } else { since };
        let mut size = 0;
        let mut more = false;
        let mut messages = Vec::new();
        for &(id, bytes) in &self.messages[from..] {
            let id = Cursor::from_micros(id);
            if since.includes(id) {
                size = bytes.saturating_add(size);
                more = size > limit as u64 && !messages.is_empty();
                if more {
                    break;
                }
                messages.push(id);
            }
        }
        let standing = match (messages.last(), since) {
            (Some(&last), _) if more => last,
            (_, Since::Cursor(cursor)) => self.last().max(cursor),
            _ => self.last(),
        };
        Wanted { messages, standing, gap }
    }

    /// A reader without any event has the smallest cursor.
    fn is_gap(&self, cursor: u64, from: usize) -> bool {
        let seen = cursor > Cursor::SMALLEST.micros();
        cursor > self.last || seen && cursor < self.born || cursor < self.dropped_before(from)
    }
}
