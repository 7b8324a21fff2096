//! A place in the one order of all events of a store.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Cursor;

/// The place after an event, whatever its topic. Events are in the order of their times,
/// and those of one microsecond in the order of their topics' names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    /// The time of the event.
    pub cursor: Cursor,
    /// How many events of this microsecond come before the place: [`ALL`](Self::ALL), or
    /// less if there are more.
    pub nth: u32,
}

impl Position {
    /// After every event of its microsecond.
    pub const ALL: u32 = u32::MAX;

    /// The place after all events at `cursor`.
    #[must_use]
    pub fn after(cursor: Cursor) -> Self {
        Self { cursor, nth: Self::ALL }
    }

    /// Reads what [`Display`](fmt::Display) writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (time, nth) = match text.split_once('.') {
            Some((time, nth)) => (time, digits(nth, 10).filter(|&nth| nth > 0)?),
            None => (text, u64::from(Self::ALL)),
        };
        let cursor = Cursor::from_micros(digits(time, 36)?);
        Some(Self { cursor, nth: u32::try_from(nth).ok()? }).filter(|it| it.cursor.is_exact())
    }
}

/// A number without a sign.
fn digits(text: &str, radix: u32) -> Option<u64> {
    let is_plain = text.chars().all(|digit| digit.is_digit(radix));
    u64::from_str_radix(text, radix).ok().filter(|_| is_plain)
}

impl fmt::Display for Position {
    /// The microseconds in base 36. With `.N`, N events of this microsecond come before.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cursor.base36(f)?;
        match self.nth {
            Self::ALL => Ok(()),
            nth => write!(f, ".{nth}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_makes_the_round_trip() {
        let cursor = Cursor::from_micros(1_795_415_403_163_846);
        for (nth, text) in [(Position::ALL, "hof6g6si4m"), (3, "hof6g6si4m.3")] {
            let position = Position { cursor, nth };
            assert_eq!(position.to_string(), text);
            assert_eq!(Position::parse(text), Some(position));
        }
    }

    #[test]
    fn other_texts_are_no_position() {
        for text in ["", ".", "a.", "a.0", "a.-1", "+a", "a b", "é", "a.4294967296", "zzzzzzzzzzzz"]
        {
            assert_eq!(Position::parse(text), None, "{text}");
        }
    }
}
