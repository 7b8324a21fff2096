//! Counts the pieces that subscribers receive.

use std::time::Duration;

use super::update::Piece;
use crate::event::Cursor;
use crate::process::figures::{self, Counter};

/// Counts a piece for a subscriber that has waited for so long. A wake-up is measured by
/// the oldest of its events, if that happened during the wait.
pub(super) fn count(piece: &Piece, waited: Duration) {
    let Tally { events, gaps, oldest } = Tally::of(piece);
    figures::add(Counter::Deliveries, events);
    figures::add(Counter::Gaps, gaps);
    let now = Cursor::now();
    if let Some(oldest) = oldest.filter(|oldest| *oldest > now.before(waited)) {
        figures::woken(oldest.age(now));
    }
}

#[derive(Default)]
struct Tally {
    events: u64,
    gaps: u64,
    oldest: Option<Cursor>,
}

impl Tally {
    fn of(piece: &Piece) -> Self {
        let mut tally = Self::default();
        match piece {
            Piece::Updates(updates) => {
                for update in updates {
                    let oldest = update.messages.first().map_or(update.cursor, |first| first.id);
                    tally.add(update.messages.len().max(1), update.gap, oldest);
                }
            }
            Piece::Events { events, .. } => {
                for event in events {
                    tally.add(1, event.gap, event.cursor);
                }
            }
            _ => {}
        }
        tally
    }

    fn add(&mut self, events: usize, gap: bool, oldest: Cursor) {
        self.events += events as u64;
        self.gaps += u64::from(gap);
        self.oldest = Some(self.oldest.map_or(oldest, |known| known.min(oldest)));
    }
}
