//! Real-time notifications for the web server you already have: one process
//! reads a CGI environment, publishes an event or waits for one, answers, exits.
//!
//! The data flows one way: [`cgi`] → [`protocol`] → [`hub`] → [`store`] and back.

pub mod access;
pub mod cgi;
pub mod clock;
pub mod config;
pub mod error;
pub mod event;
pub mod hub;
pub mod input;
pub mod lots;
pub mod output;
pub mod protocol;
pub mod rights;
pub mod sandbox;
pub mod store;
mod sys;
pub mod token;

use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use access::Origin;
use cgi::{Caller, Request, Response};
use clock::ProcessClock;
use config::{Config, Sandbox};
use error::Error;
use event::Cursor;
use hub::{Alarm, Part, Patience, Subscription};
use input::{BODY_DEADLINE, Input};
use lots::Lots;
use output::Output;
use protocol::Command;
use protocol::stream::{self, Format};
use rights::{Pass, Rights};
use sandbox::FileSizeLimit;
use store::{Limits, Retention};

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
/// on `stdout`, says on `log` what is our own fault, and closes the standard
/// streams of the process.
pub fn run(
    variable: impl Fn(&str) -> Option<OsString> + Copy,
    stdin: impl Read + AsFd,
    stdout: impl Write + AsFd,
    mut log: impl Write,
) -> Served {
    sandbox::expect_signals();
    let config = Config::from_env(variable);
    let max_body = config.as_ref().map_or(0, Config::max_body);
    let stdin = Input::new(stdin, BODY_DEADLINE);
    let request = match Request::from_env(variable, stdin, max_body) {
        Ok(None) => return Served::NoRequest,
        Ok(Some(request)) => Ok(request),
        Err(error) => Err(error),
    };
    let caller = Caller::from_env(variable);
    let origins = config.as_ref().map_or(&[][..], |config| &config.access.origins);
    let reader = rights::reader(origins, &caller).cloned();
    let (mut output, mut alarm) = (Output::new(stdout), None);
    let served = config.and_then(|config| {
        let (reader, output, alarm) = (reader.as_ref(), &mut output, &mut alarm);
        Service { config, caller, reader, output, alarm }.serve(&request?)
    });
    if let Some(line) = served.as_ref().err().and_then(Error::log_line) {
        // In one write(2): mod_cgi makes a line of each.
        let _ = log.write_all(format!("novcomet: {line}\n").as_bytes());
    }
    // The server waits for the end of these and of `output`, and may poll for
    // ours if that comes late: all that is left to do is to write and to close.
    sys::hang_up(&[libc::STDIN_FILENO, libc::STDERR_FILENO]);
    let (response, served) = match served {
        Ok(response) => (response, Served::Answered),
        Err(error) => (Some(protocol::refusal(&error)), Served::Refused),
    };
    if let Some(response) = response.filter(|_| !output.has_begun()) {
        // Who does not listen any more loses nothing: the events are in the store.
        let _ = output.answer(&response.readable_by(reader.as_ref()).bytes());
    }
    drop(output);
    sys::hang_up(&[libc::STDOUT_FILENO]);
    drop(alarm);
    served
}

/// What it takes to serve one request.
struct Service<'a, W> {
    config: Config,
    caller: Caller,
    /// Whose page may read the answer, beside our own.
    reader: Option<&'a Origin>,
    output: &'a mut Output<W>,
    alarm: &'a mut Alarm,
}

impl<W: Write + AsFd> Service<'_, W> {
    /// `None` when there is nobody left to answer: the client went away, or
    /// has had its stream.
    fn serve(mut self, request: &Request) -> Result<Option<Response>, Error> {
        self.give_up(sandbox::limit_resources)?;
        let command = protocol::parse(request, self.config.max_data)?;
        let pass = self.admit(request, &command)?;
        let outcome = match command {
            Command::Head(command) => return Ok(Some(protocol::head(&command))),
            Command::Options => return Ok(Some(protocol::options(self.reader.is_some()))),
            Command::Publish(topics, data) => {
                let store = self.store()?;
                let _limit = self.give_up(|| FileSizeLimit::set(self.config.max_file()))?;
                self.give_up(|| sandbox::write_only_below(store.directory()))?;
                hub::publish(store.as_ref(), topics, data.as_deref())?
            }
            Command::Subscribe(subscriptions, wait) => {
                let mut clock = ProcessClock::start(self.caller.under_server);
                let patience = self.patience(wait, self.config.wait(), &pass);
                let store = self.store()?;
                self.give_up(|| sandbox::write_only_below(None))?;
                hub::wait(store.as_ref(), &mut clock, self.alarm, subscriptions, patience)?
            }
            Command::Stream(subscriptions, wait, format) => {
                return self.stream(subscriptions, wait, format, &pass).map(|()| None);
            }
        };
        pass.check(outcome.topics(), Cursor::now())?;
        Ok(protocol::answer(request.method, &outcome))
    }

    /// What the caller may hear of what `command` would tell.
    fn admit(&self, request: &Request, command: &Command) -> Result<Pass, Error> {
        let rights = Rights::new(&self.config.access, &self.caller);
        let now = Cursor::now();
        match command {
            Command::Publish(topics, _) => {
                rights.publish(request, topics, now).map(|()| Pass::default())
            }
            Command::Subscribe(subscriptions, _) | Command::Stream(subscriptions, ..) => {
                let topics: Vec<_> = subscriptions.iter().map(|each| &each.topic).collect();
                rights.subscribe(request, &topics, now)
            }
            Command::Head(command) => self.admit(request, command),
            Command::Options => Ok(Pass::default()),
        }
    }

    fn stream(
        &mut self,
        subscriptions: Vec<Subscription>,
        wait: Option<Duration>,
        format: Format,
        pass: &Pass,
    ) -> Result<(), Error> {
        let mut clock = ProcessClock::start(self.caller.under_server);
        let patience = self.patience(wait, jittered(self.config.stream), pass);
        let store = self.store()?;
        self.give_up(|| sandbox::write_only_below(None))?;
        let mut writer = stream::Writer::new(format);
        let mut head = Some(stream::head());
        let mut allowed = Ok(());
        let mut send = |part: &Part| {
            allowed = pass.check(part.topics(), Cursor::now());
            if allowed.is_err() {
                return false;
            }
            let text = writer.write(part);
            let bytes = match head.take() {
                Some(head) => head.begin(text).readable_by(self.reader).bytes(),
                None => text.into_bytes(),
            };
            self.output.stream(&bytes).is_ok()
        };
        hub::stream(store.as_ref(), &mut clock, self.alarm, subscriptions, patience, &mut send)?;
        allowed
    }

    fn store(&self) -> Result<Box<dyn store::Store>, Error> {
        let Config { keep: messages, keep_bytes: bytes, keep_age: age, .. } = self.config;
        let most = self.config.max_file();
        let Config { max_topics: topics, keep_free: free, stale, .. } = self.config;
        let limits = Limits { topics, free, stale };
        store::open(&self.config.store, Retention { messages, bytes, age, most }, limits)
    }

    /// Best effort, unless it is required.
    fn give_up<T>(&self, step: impl FnOnce() -> Result<T, Error>) -> Result<Option<T>, Error> {
        match self.config.sandbox {
            Sandbox::Off => Ok(None),
            Sandbox::On => Ok(step().ok()),
            Sandbox::Require => step().map(Some),
        }
    }

    fn patience(&self, wait: Option<Duration>, longest: Duration, pass: &Pass) -> Patience {
        let total = wait.unwrap_or(Duration::MAX).min(longest).min(pass.lasts(Cursor::now()));
        Patience { total, look: self.config.sleep }
    }
}

/// Up to a tenth less, so that streams that began together, after a restart
/// say, do not end together.
fn jittered(time: Duration) -> Duration {
    let share = u32::try_from(Lots::new().below(1000)).unwrap_or(0);
    time.saturating_sub(time / 10_000 * share)
}
