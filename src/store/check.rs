//! Events that somebody's own program finds: whatever can say when it changed
//! last.

use std::time::Duration;

use super::{Budget, Reading, Readings, Store, Watch};
use crate::error::Error;
use crate::event::{Cursor, Since, Topic};

/// A store that asks `check` when a topic had its last event. It has no
/// messages, and is looked at again and again.
pub struct CheckStore<F>(pub F);

impl<F: Fn(&str) -> Option<Cursor>> Store for CheckStore<F> {
    fn publish(&self, _: &Topic, _: Option<&str>) -> Result<Cursor, Error> {
        let why = "nothing is published here: its events are what a program finds by itself";
        Err(Error::bad_request(why))
    }

    /// A time that went back is a gap: what it was set to before is unknown.
    fn look(&self, wanted: &[(&Topic, Since)], _: &mut Budget) -> Result<Readings, Error> {
        let read = |&(topic, since): &(&Topic, Since)| {
            Some(Ok(match (self.0(topic.as_str()), since) {
                (None, since) => Reading::quiet(since.cursor().unwrap_or(Cursor::SMALLEST)),
                (Some(last), Since::Cursor(cursor)) => {
                    Reading { gap: cursor > last, ..Reading::quiet(last) }
                }
                (Some(last), _) => Reading::quiet(last),
            }))
        };
        Ok(wanted.iter().map(read).collect())
    }

    fn watch(&self, _: &[Topic]) -> Result<Box<dyn Watch>, Error> {
        Ok(Box::new(super::Polled(Duration::MAX)))
    }
}
