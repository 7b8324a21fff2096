//! The protocols: one folder and one line in `all.rs` each.

pub mod all;
pub mod bayeux;
mod grip;
pub mod mercure;
pub mod novcomet;
mod options;
pub mod problem;
pub mod shell;
mod sse;

use crate::auth::Access;
use crate::cgi::{Request, Response};
use crate::error::Error;
use crate::hub::{Hub, Renderer, Wanted};

/// The limits of a request, as configured.
#[derive(Debug, Clone, Copy)]
pub struct Bounds<'a> {
    /// Longest message, in bytes.
    pub max_data: usize,
    /// The public URL of the hub, if it is configured.
    pub hub_url: Option<&'a str>,
    /// Whether a hub tells who subscribes.
    pub subscriptions: bool,
}

/// A protocol between a client and a server.
pub trait Protocol {
    /// Its name.
    fn name(&self) -> &'static str;

    /// Whether `request` is one of this protocol.
    fn speaks(&self, request: &Request) -> bool;

    /// The action that `request` asks for.
    ///
    /// # Errors
    /// The fault of the request (400, 413).
    fn parse(&self, request: &Request, bounds: &Bounds) -> Result<Box<dyn Action>, Error>;

    /// The answer to a request that cannot be served.
    fn refuse(&self, error: &Error) -> Response;

    /// The renderer of what one of this protocol has saved; `None` for another's.
    fn restore(&self, saved: &str) -> Option<Box<dyn Renderer>>;
}

/// An action that a request asks for.
pub trait Action {
    /// The rights that the action needs before it is performed.
    fn access(&self) -> Access<'_>;

    /// Whether it writes to the store: the sandbox leaves that open.
    fn writes(&self) -> bool;

    /// Performs it; `hub` is the only way to the store.
    ///
    /// # Errors
    /// Those of the hub and the store.
    fn perform(self: Box<Self>, hub: &Hub) -> Result<Step, Error>;

    /// The answer if the client has not the rights, unless it is that of [`Protocol::refuse`].
    fn forbid(&self, error: &Error) -> Option<Response> {
        let _ = error;
        None
    }
}

/// The next step after an action.
pub enum Step {
    /// The answer.
    Answer(Response),
    /// The answer, although the server failed in a part of it.
    Partial(Response, Error),
    /// To wait for events.
    Wait(Box<Wanted>),
}
