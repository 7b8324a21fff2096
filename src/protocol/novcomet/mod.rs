//! The protocol of 2011, and what has been added. docs/protocol.md has every byte
//! of it.

mod action;
mod batch;
mod inquiry;
mod json;
mod metrics;
mod ordered;
mod parse;
mod poll;
mod saved;
mod stream;

pub use action::Command;
pub use batch::MAX_BATCH;
pub use inquiry::Inquiry;
pub use parse::{MAX_TOPICS, parse};
pub use stream::{EventStream, Format, resume};

use super::problem::problem;
use super::{Action, Bounds, Protocol};
use crate::cgi::{Request, Response};
use crate::error::Error;
use crate::hub::Renderer;
use ordered::{OrderedPoll, OrderedStream};
use poll::Poll;
use saved::Saved;

/// The protocol.
pub struct NovComet;

impl Protocol for NovComet {
    fn name(&self) -> &'static str {
        "novcomet"
    }

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
            Saved::OrderedPoll => Box::new(OrderedPoll),
            Saved::OrderedStream(stream) => Box::<OrderedStream>::new(stream),
        })
    }
}
