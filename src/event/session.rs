//! [`SessionId`]: the name of a client's session.

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// The bytes of the random part, which nobody can guess (Bayeux asks for 128 bits).
pub const SECRET: usize = 16;

/// The digits of the part that all sessions of an address share.
const GROUP: usize = 8;

/// The name of a session: a hash of the client's address, and a part that only the client
/// and the store know.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SessionId(String);

impl SessionId {
    /// A session of a client whose address has the hash `group`.
    #[must_use]
    pub fn new(group: u32, secret: [u8; SECRET]) -> Self {
        Self(format!("{group:08x}{:032x}", u128::from_be_bytes(secret)))
    }

    /// Reads the name as a client sends it; `None` for another text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let is_name = text.len() == GROUP + 2 * SECRET && text.bytes().all(is_digit);
        is_name.then(|| Self(text.to_owned()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part that all sessions of an address share.
    #[must_use]
    pub fn group(&self) -> &str {
        &self.0[..GROUP]
    }
}

impl TryFrom<String> for SessionId {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        Self::parse(&text).ok_or_else(|| Error::bad_request("this is no name of a session"))
    }
}

impl From<SessionId> for String {
    fn from(id: SessionId) -> Self {
        id.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_makes_the_round_trip() {
        let id = SessionId::new(0xab, [7; SECRET]);
        assert_eq!(id.as_str(), "000000ab07070707070707070707070707070707");
        assert_eq!((id.group(), SessionId::parse(id.as_str())), ("000000ab", Some(id.clone())));
        for text in ["", "../a", &id.as_str().to_uppercase(), &id.as_str()[1..]] {
            assert_eq!(SessionId::parse(text), None, "{text}");
        }
    }
}
