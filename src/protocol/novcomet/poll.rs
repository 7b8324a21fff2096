//! The answer of a poll.

use super::json::{JSON, message_size, timeout_json, updates_json};
use super::saved::Saved;
use crate::cgi::{Head, Response};
use crate::error::Error;
use crate::event::{Message, Topic};
use crate::hub::{Piece, Renderer};
use crate::protocol::problem::problem;

/// One object of JSON.
pub struct Poll;

impl Renderer for Poll {
    fn head(&self) -> Head {
        Head::new(200, JSON)
    }

    fn render(&mut self, piece: &Piece) -> Vec<u8> {
        match piece {
            Piece::Updates(updates) => updates_json(updates).into_bytes(),
            Piece::Timeout(cursors) => timeout_json(cursors).into_bytes(),
            // Pieces of streams, and of subscribers by pattern.
            _ => Vec::new(),
        }
    }

    fn size(&self, _: &Topic, message: &Message) -> usize {
        message_size(message)
    }

    fn refuse(&self, error: &Error) -> Response {
        problem(error)
    }

    fn save(&self) -> String {
        Saved::<()>::Poll.text()
    }
}
