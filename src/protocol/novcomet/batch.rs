//! Several messages in one POST. Each is like a request of its own.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::json::state;
use crate::error::Error;
use crate::event::{Event, Topic};
use crate::hub::Publication;
use crate::protocol::problem::details;

/// How many messages a batch has at most.
pub const MAX_BATCH: usize = 64;

/// A message of a batch, or why it is refused.
pub type Entry = Result<Publication, Error>;

/// Reads a batch. A message has at most `max_data` bytes.
///
/// # Errors
/// [`Error::BadRequest`] for what is not an array of JSON, and for a wrong number of messages.
pub fn parse(text: &str, max_data: usize) -> Result<Vec<Entry>, Error> {
    let refuse = |why: &str| Err(Error::bad_request(why));
    let Ok(entries) = serde_json::from_str::<Vec<&RawValue>>(text) else {
        return refuse(r#"batch is JSON: [{"publish":"ID","data":"TEXT"}]"#);
    };
    match entries.len() {
        0 => refuse("a batch has at least one message"),
        1..=MAX_BATCH => Ok(entries.iter().map(|one| entry(one.get(), max_data)).collect()),
        _ => refuse(&format!("a batch has at most {MAX_BATCH} messages")),
    }
}

/// What each request would have been answered, in order.
#[must_use]
pub fn answer(published: &[Result<Event, Error>]) -> String {
    let answer = |one: &Result<Event, Error>| match one {
        Ok(Event { topic, cursor }) => state(1, [(topic, cursor)].into_iter()),
        Err(error) => details(error),
    };
    format!("[{}]", published.iter().map(answer).collect::<Vec<_>>().join(","))
}

#[derive(Deserialize)]
struct Fields {
    publish: String,
    data: Option<String>,
}

fn entry(json: &str, max_data: usize) -> Entry {
    // serde would also take an array.
    let fields = Some(json).filter(|json| json.starts_with('{'));
    let fields = fields.and_then(|json| serde_json::from_str(json).ok());
    let Some(Fields { publish, data }) = fields else {
        return Err(Error::bad_request(r#"a message is {"publish":"ID","data":"TEXT"}"#));
    };
    if data.as_ref().is_some_and(|data| data.len() > max_data) {
        return Err(Error::MessageTooLong(max_data));
    }
    Ok(Publication { topic: Topic::new(publish)?, data })
}
