//! Events that a program finds itself: any source with a time of its last change.

use std::time::Duration;

use super::{Budget, Kept, Reading, Readings, Store, Watch};
use crate::error::Error;
use crate::event::{Cursor, Draft, Message, Since, Topic};

/// A store that asks `check` for the time of a topic's last event. It has no messages,
/// and is polled.
pub struct CheckStore<F>(pub F);

impl<F: Fn(&str) -> Option<Cursor>> Store for CheckStore<F> {
    fn put(&self, _: &Topic, _: Option<Draft>) -> Result<Cursor, Error> {
        let why = "this store is read-only: its events come from a program";
        Err(Error::bad_request(why))
    }

    /// A time that went back is a gap, because times between are unknown.
    fn look(&self, wanted: &[(&Topic, Since)], _: &mut Budget) -> Result<Readings, Error> {
        let read = |&(topic, since): &(&Topic, Since)| {
            Some(Ok(match (self.0(topic.as_str()), since) {
                (None, since) => Reading::quiet(since.without_events()),
                (Some(last), Since::Cursor(cursor)) => {
                    Reading { gap: cursor > last, ..Reading::quiet(last) }
                }
                (Some(last), _) => Reading::quiet(last),
            }))
        };
        Ok(wanted.iter().map(read).collect())
    }

    fn kept(&self, _: &Topic, _: &dyn Fn(&Message) -> bool) -> Result<Kept, Error> {
        Err(Error::NotImplemented("this store keeps nothing: its events come from a program"))
    }

    fn watch(&self) -> Box<dyn Watch> {
        Box::new(super::Polled(Duration::MAX))
    }
}
