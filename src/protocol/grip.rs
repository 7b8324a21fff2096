//! The requests of a proxy that holds streams (GRIP): it returns a link that it was given, of any
//! protocol.

use url::form_urlencoded;

use super::problem::problem;
use super::{Action, Bounds, Protocol, Step};
use crate::auth::Access;
use crate::cgi::{Head, Method, Request, Response};
use crate::error::Error;
use crate::hub::{Hub, Renderer};

/// The parameter of the link.
const LINK: &str = "grip";

/// The protocol.
pub struct Grip;

impl Protocol for Grip {
    fn name(&self) -> &'static str {
        "grip"
    }

    fn speaks(&self, request: &Request) -> bool {
        request.method == Method::Get && request.query.starts_with(b"grip=")
    }

    fn parse(&self, request: &Request, _: &Bounds) -> Result<Box<dyn Action>, Error> {
        let link = form_urlencoded::parse(&request.query).find(|(name, _)| name == LINK);
        let link = link.map(|(_, link)| link.into_owned()).unwrap_or_default();
        Ok(Box::new(NextLink(link)))
    }

    fn refuse(&self, error: &Error) -> Response {
        problem(error)
    }

    fn restore(&self, _: &str) -> Option<Box<dyn Renderer>> {
        None
    }
}

/// To go on with a stream.
struct NextLink(String);

impl Action for NextLink {
    /// The rights are in the link.
    fn access(&self) -> Access<'_> {
        Access::None
    }

    fn writes(&self) -> bool {
        false
    }

    /// A link that is no longer valid ends the stream: its client reconnects. A proxy that reads
    /// an error asks several times before it ends the stream.
    fn perform(self: Box<Self>, hub: &Hub) -> Result<Step, Error> {
        match hub.go_on(&self.0) {
            Ok(wanted) => Ok(Step::Wait(Box::new(wanted))),
            Err(error) if error.status() < 500 && hub.has_holder() => {
                Ok(Step::Answer(Head::new(200, "text/event-stream").body("")))
            }
            Err(error) => Err(error),
        }
    }
}
