//! Bayeux 1.0 by long polling, for clients of `CometD` and Faye. docs/bayeux.md has every byte of
//! it.

mod action;
mod channel;
mod message;
mod poll;
mod reply;

pub use message::MAX_MESSAGES;

use super::problem::challenged;
use super::{Action, Bounds, Protocol};
use crate::cgi::{Method, Request, Response};
use crate::error::Error;
use crate::hub::Renderer;
use action::{COOKIE, Command, METHODS};
use message::Message;
use poll::Connect;

/// The path. The server may have it below another one.
const PATH: &str = "/bayeux";

/// What `CometD`'s client adds to the path, as does a slash.
const SUFFIXES: [&str; 5] = ["", "/", "/handshake", "/connect", "/disconnect"];

/// The protocol.
pub struct Bayeux;

impl Protocol for Bayeux {
    fn name(&self) -> &'static str {
        "bayeux"
    }

    fn speaks(&self, request: &Request) -> bool {
        let end = request.path.rfind(PATH).map(|at| &request.path[at + PATH.len()..]);
        end.is_some_and(|end| SUFFIXES.contains(&end))
    }

    fn parse(&self, request: &Request, bounds: &Bounds) -> Result<Box<dyn Action>, Error> {
        Ok(Box::new(match request.method {
            Method::Options => Command::Options,
            Method::Post => Command::Messages(messages(request, bounds.max_data)?),
            _ => return Err(Error::MethodNotAllowed),
        }))
    }

    fn refuse(&self, error: &Error) -> Response {
        challenged(error, METHODS, None)
    }

    fn restore(&self, saved: &str) -> Option<Box<dyn Renderer>> {
        Connect::restore(saved).map(|connect| Box::new(connect) as _)
    }
}

fn messages(request: &Request, max_data: usize) -> Result<action::Request, Error> {
    let messages = Message::read_all(&request.body)?;
    let is_handshake = |message: &&Message| message.channel() == "/meta/handshake";
    let token = messages.iter().find(is_handshake).and_then(Message::token);
    Ok(action::Request { messages, browser: cookie(&request.cookie), token, max_data })
}

/// The secret in the cookie, if it has the form of one.
fn cookie(header: &[u8]) -> Option<String> {
    let header = std::str::from_utf8(header).ok()?;
    let mut pairs = header.split(';').filter_map(|pair| pair.trim().split_once('='));
    let (_, value) = pairs.find(|(name, _)| *name == COOKIE)?;
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    (value.len() == 32 && value.bytes().all(is_digit)).then(|| value.to_owned())
}
