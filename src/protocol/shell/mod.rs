//! The command line. Persons and scripts at a shell use it.

mod arguments;
mod command;
mod lines;
mod remote;
mod who;

pub use arguments::{Asked, USAGE, Wrong, parse};
pub use command::Command;
pub use remote::Question;

use super::{Action, Bounds, Protocol};
use crate::cgi::{Head, Request, Response};
use crate::error::Error;
use crate::hub::Renderer;
use command::Bounded;

/// The protocol of one command. Answers have no head, and errors are told by the log only.
pub struct Shell(pub Command);

impl Protocol for Shell {
    fn name(&self) -> &'static str {
        "shell"
    }

    fn speaks(&self, request: &Request) -> bool {
        !request.is_cgi
    }

    fn parse(&self, _: &Request, bounds: &Bounds) -> Result<Box<dyn Action>, Error> {
        Ok(Box::new(Bounded { command: self.0.clone(), max_data: bounds.max_data }))
    }

    fn refuse(&self, _: &Error) -> Response {
        Head::unwritten().body("")
    }

    /// A shell's subscriber waits by itself.
    fn restore(&self, _: &str) -> Option<Box<dyn Renderer>> {
        None
    }
}
