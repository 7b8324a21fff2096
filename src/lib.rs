//! Real-time notifications for the web server you already have: one process
//! reads a CGI environment, publishes an event or waits for one, answers, exits.
//!
//! The data flows one way: [`cgi`] → [`protocol`] → [`hub`] → [`store`] and back.

pub mod cgi;
pub mod clock;
pub mod config;
pub mod error;
pub mod event;
pub mod hub;
pub mod protocol;
pub mod store;
mod sys;

use std::ffi::OsString;
use std::io::{Read, Write};
use std::time::Duration;

use cgi::{Request, Response};
use clock::ProcessClock;
use config::Config;
use error::Error;
use hub::Patience;
use protocol::Command;

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Served {
    /// There was none: neither a server nor a query called us.
    NoRequest,
    /// It was answered, or its client had gone.
    Answered,
    /// It was answered with an error.
    Refused,
}

/// Serves the request that the environment describes: reads `stdin`, answers
/// on `stdout`, and says on `log` what is our own fault.
pub fn run(
    variable: impl Fn(&str) -> Option<OsString> + Copy,
    stdin: impl Read,
    stdout: impl Write,
    mut log: impl Write,
) -> Served {
    let request = match Request::from_env(variable, stdin) {
        Ok(None) => return Served::NoRequest,
        Ok(Some(request)) => Ok(request),
        Err(error) => Err(error),
    };
    let (response, served) = match request.and_then(|request| serve(variable, &request)) {
        Ok(None) => return Served::Answered,
        Ok(Some(response)) => (response, Served::Answered),
        Err(error) => {
            if let Some(line) = error.log_line() {
                // In one write(2): mod_cgi makes a line of each.
                let _ = log.write_all(format!("novcomet: {line}\n").as_bytes());
            }
            (protocol::refusal(&error), Served::Refused)
        }
    };
    // Who does not listen any more loses nothing: the events are in the store.
    let _ = response.write(stdout);
    served
}

/// `None` when the client went away.
fn serve(
    variable: impl Fn(&str) -> Option<OsString>,
    request: &Request,
) -> Result<Option<Response>, Error> {
    let config = Config::from_env(&variable)?;
    let outcome = match protocol::parse(request)? {
        Command::Head => return Ok(Some(protocol::head())),
        Command::Options => return Ok(Some(protocol::options())),
        Command::Publish(topics) => hub::publish(store::open(&config.store)?.as_ref(), topics)?,
        Command::Subscribe(subscriptions, wait) => {
            let mut clock = ProcessClock::start(cgi::is_cgi(&variable));
            let store = store::open(&config.store)?;
            let patience = Patience {
                total: wait.unwrap_or(Duration::MAX).min(config.wait()),
                look: config.sleep,
            };
            hub::wait(store.as_ref(), &mut clock, subscriptions, patience)?
        }
    };
    Ok(protocol::answer(&outcome))
}
