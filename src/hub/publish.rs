//! Publishing to several topics.

use super::update::Outcome;
use crate::error::Error;
use crate::event::{Event, Topic};
use crate::store::Store;

/// Publishes to every topic, in order.
///
/// # Errors
/// The store's, at the first topic that fails; those before it are published.
pub fn publish(
    store: &dyn Store,
    topics: Vec<Topic>,
    data: Option<&str>,
) -> Result<Outcome, Error> {
    let publish = |topic: Topic| {
        let cursor = store.publish(&topic, data)?;
        Ok(Event { topic, cursor })
    };
    topics.into_iter().map(publish).collect::<Result<_, _>>().map(Outcome::Published)
}
