//! Mercure, of the generations 0.x and 1.0. docs/mercure.md has every byte of it.

mod action;
mod fields;
mod place;
mod publish;
mod refusal;
mod stream;
mod subscribe;
mod subscriber;
mod subscriptions;

pub use publish::{MAX_FIELD, MAX_TOPICS, parse as parse_update};
pub use stream::UpdateStream;
pub use subscribe::{MAX_MATCHER, MAX_MATCHERS};

use super::{Action, Bounds, Protocol};
use crate::cgi::{Body, Method, Request, Response};
use crate::error::Error;
use crate::hub::Renderer;
use action::Command;
use place::Place;
use refusal::refusal;
use subscriptions::Question;

/// The protocol.
pub struct Mercure;

impl Protocol for Mercure {
    fn name(&self) -> &'static str {
        "mercure"
    }

    fn speaks(&self, request: &Request) -> bool {
        Place::of(&request.path).is_some()
    }

    fn parse(&self, request: &Request, bounds: &Bounds) -> Result<Box<dyn Action>, Error> {
        Ok(Box::new(match Place::of(&request.path) {
            Some(Place::Hub) => command(request, bounds)?,
            Some(Place::Metadata) => Command::Metadata {
                url: bounds.hub_url.ok_or(Error::NotFound)?.to_owned(),
                subscriptions: bounds.subscriptions,
            },
            Some(Place::Below) => below(request, bounds)?,
            None => return Err(Error::NotFound),
        }))
    }

    fn refuse(&self, error: &Error) -> Response {
        refusal(error)
    }

    fn restore(&self, saved: &str) -> Option<Box<dyn Renderer>> {
        UpdateStream::restore(saved).map(|stream| Box::new(stream) as _)
    }
}

/// The command of a request to the hub itself.
fn command(request: &Request, bounds: &Bounds) -> Result<Command, Error> {
    let form = match &request.body {
        Body::Empty => "",
        Body::Form(form) => form,
        Body::Text(_) => return Err(Error::UnsupportedBody),
    };
    let hub = || place::hub_url(request, &request.path, bounds.hub_url);
    let subscription = || {
        let mut subscription = subscribe::parse(request, form, &hub())?;
        if !bounds.subscriptions {
            subscription.matchers.clear();
        }
        Ok(subscription)
    };
    match request.method {
        Method::Options => Ok(Command::Options),
        Method::Post => publish::parse(form, &hub(), bounds.max_data).map(Command::Publish),
        Method::Head => subscription().map(Command::Head),
        _ => subscription().map(Command::Follow),
    }
}

/// The command of a request to what tells who subscribes, if that is configured.
fn below(request: &Request, bounds: &Bounds) -> Result<Command, Error> {
    if !bounds.subscriptions {
        return Err(Error::NotFound);
    }
    match request.method {
        Method::Options => Ok(Command::Options),
        Method::Get | Method::Head => {
            Question::parse(request, bounds.hub_url).map(Command::Subscriptions)
        }
        _ => Err(Error::MethodNotAllowed),
    }
}
