//! Cursors that a client may have rounded: several languages print fewer than all decimals of a
//! number (PHP 14 digits, Perl 15).

use super::subscription::Subscription;
use super::update::MAX_PIECE;
use crate::error::Error;
use crate::event::{Cursor, Since, Topic};
use crate::store::Store;

/// The widest rounding: to tenths of a second. A cursor is never a whole second.
const COARSEST: u64 = 100_000;

/// The largest error at which a single later event is taken for the client's own, in microseconds:
/// that of 14 digits, as PHP prints them.
const CERTAIN: u64 = 50;

/// The origin of a cursor that looks rounded.
enum Origin {
    /// The server has issued it, as far as the store can tell.
    Exact,
    /// It was this one before it was rounded.
    Rounded(Cursor),
    /// It was this one or a later one.
    Doubtful(Cursor),
}

/// Replaces rounded cursors by the first that the client may have had, so it misses nothing.
/// Returns whether it may have had a later one: then it gets some messages once more.
///
/// # Errors
/// 503 if the store cannot be used.
pub fn unround(store: &dyn Store, subscriptions: &mut [Subscription]) -> Result<bool, Error> {
    let mut is_doubtful = false;
    for Subscription { topic, since } in subscriptions {
        let Some((cursor, error)) = may_be_rounded(*since) else { continue };
        match origin(store, topic, cursor, error)? {
            Origin::Exact => {}
            Origin::Rounded(first) => *since = Since::Cursor(first),
            Origin::Doubtful(first) => (*since, is_doubtful) = (Since::Cursor(first), true),
        }
    }
    Ok(is_doubtful)
}

/// Whether one of these may be rounded. In a Redis, one of ten exact cursors looks so too.
pub fn is_possible(subscriptions: &[Subscription]) -> bool {
    subscriptions.iter().any(|each| may_be_rounded(each.since).is_some())
}

/// A cursor with fewer than six decimals, and by how many microseconds it may be wrong.
fn may_be_rounded(since: Since) -> Option<(Cursor, u64)> {
    let Since::Cursor(cursor) = since else { return None };
    let is_multiple = |unit: &u64| cursor.micros() % unit == 0;
    let unit = [COARSEST, 10_000, 1_000, 100, 10].into_iter().find(is_multiple)?;
    (cursor > Cursor::SMALLEST).then_some((cursor, unit / 2))
}

/// Looks for the events that are so near that the cursor of one may have become `cursor`.
fn origin(store: &dyn Store, topic: &Topic, cursor: Cursor, error: u64) -> Result<Origin, Error> {
    let first = Cursor::from_micros(cursor.micros() - error - 1);
    let last = Cursor::from_micros(cursor.micros() + error);
    let found = store.read(topic, Since::Cursor(first), MAX_PIECE)?;
    let ids = found.messages.iter().map(|message| message.id);
    // Without events, the standing is where the look began.
    let is_near = |id: &Cursor| first < *id && *id <= last;
    let mut near: Vec<_> = ids.chain([found.standing]).filter(is_near).collect();
    near.dedup();
    Ok(match near[..] {
        [] => Origin::Exact,
        _ if near.contains(&cursor) => Origin::Exact,
        // A later one may be new to a client that made its cursor from its own clock.
        [only] if only <= cursor || error <= CERTAIN => Origin::Rounded(only),
        [first, ..] => Origin::Doubtful(first.min(cursor)),
    })
}
