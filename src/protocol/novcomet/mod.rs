//! The protocol of 2011, and what has been added. docs/protocol.md has every byte
//! of it.

mod action;
mod json;
mod parse;
mod poll;
mod stream;

pub use action::Command;
pub use parse::{MAX_TOPICS, parse};
pub use stream::{EventStream, Format, resume};

use serde::{Deserialize, Serialize};

use super::problem::problem;
use super::{Action, Bounds, Protocol};
use crate::cgi::{Request, Response};
use crate::error::Error;
use crate::hub::Renderer;
use poll::Poll;

/// The protocol.
pub struct NovComet;

impl Protocol for NovComet {
    fn speaks(&self, _: &Request) -> bool {
        true
    }

    fn parse(&self, request: &Request, bounds: &Bounds) -> Result<Box<dyn Action>, Error> {
        Ok(Box::new(parse(request, bounds.max_data)?))
    }

    fn refuse(&self, error: &Error) -> Response {
        problem(error)
    }

    fn restore(&self, saved: &str) -> Option<Box<dyn Renderer>> {
        Some(match serde_json::from_str(saved).ok()? {
            Saved::Poll => Box::new(Poll),
            Saved::Stream(stream) => Box::<EventStream>::new(stream),
        })
    }
}

/// A renderer on its way to another process.
#[derive(Serialize, Deserialize)]
enum Saved<Stream> {
    #[serde(rename = "novcomet-poll")]
    Poll,
    #[serde(rename = "novcomet-stream")]
    Stream(Stream),
}

impl<Stream: Serialize> Saved<Stream> {
    fn text(&self) -> String {
        // It has no map with keys that JSON cannot name, the only error.
        serde_json::to_string(self).unwrap_or_default()
    }
}
