//! Real-time notifications for the web server you already have: one process
//! reads a CGI environment, publishes an event or waits for one, answers, exits.
//!
//! The data flows one way: `cgi` → `protocol` → `hub` → `store` and back.

// They are public for the tests, the benches and the fuzz targets only.
#[doc(hidden)]
pub mod auth;
#[doc(hidden)]
pub mod cgi;
#[doc(hidden)]
pub mod config;
#[doc(hidden)]
pub mod error;
#[doc(hidden)]
pub mod event;
#[doc(hidden)]
pub mod hub;
mod net;
#[doc(hidden)]
pub mod process;
#[doc(hidden)]
pub mod protocol;
#[doc(hidden)]
pub mod store;

use std::env;
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use auth::rights::{Pass, Rights};
use cgi::{Caller, FieldValue, Request, Response};
use config::{Config, Sandbox};
use error::Error;
use event::Cursor;
use hub::{Alarm, Part, Patience, Subscription, Terms};
use process::clock::{Clock, ProcessClock};
use process::input::{BODY_DEADLINE, Input, Stdin};
use process::output::{Output, Stdout};
use process::random::Random;
use process::sandbox::FileSizeLimit;
use process::slots::{Slot, Slots};
use protocol::novcomet::Command;
use protocol::novcomet::stream::{self, Format};
use store::check::CheckStore;
use store::{Budget, Limits, Retention, Store};

/// A CGI of one's own, over whatever can say when it changed last: every
/// protocol of ours, and no event file.
///
/// ```no_run
/// use std::process::ExitCode;
///
/// fn main() -> ExitCode {
///     novcomet::NovComet::new().tries(20).sleep(2).check(|id| {
///         let name = id.chars().all(char::is_alphanumeric).then_some(id)?;
///         std::fs::metadata(format!("/var/mail/{name}")).ok()?.modified().ok()
///     })
/// }
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct NovComet {
    tries: Option<u32>,
    sleep: Option<f64>,
}

impl NovComet {
    /// With the settings of the environment, `NOVCOMET_*`.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many looks a request takes, unless the environment says.
    #[must_use]
    pub fn tries(mut self, tries: u32) -> Self {
        self.tries = Some(tries);
        self
    }

    /// How many seconds are between two looks, unless the environment says.
    #[must_use]
    pub fn sleep(mut self, seconds: impl Into<f64>) -> Self {
        self.sleep = Some(seconds.into());
        self
    }

    /// Serves the request of this process: a subscriber of a topic has news
    /// when `check` gives a later time for it than before; `None` is a topic
    /// without events. Any client can ask for any topic.
    pub fn check<T: Into<Cursor>>(self, check: impl Fn(&str) -> Option<T>) -> ExitCode {
        let check = |id: &str| check(id).map(Into::into);
        let variable = |name: &str| env::var_os(name).or_else(|| self.preset(name));
        process(variable, Some(&|| Box::new(CheckStore(&check)))).unwrap_or(SUCCESS).into()
    }

    fn preset(self, name: &str) -> Option<OsString> {
        match name {
            "NOVCOMET_TRIES" => self.tries.map(|tries| tries.to_string().into()),
            "NOVCOMET_SLEEP" => self.sleep.map(|sleep| sleep.to_string().into()),
            _ => None,
        }
    }
}

/// Serves the request of this process, with its environment and standard
/// streams, and gives its exit status; `None` when there is none. It needs
/// nothing of what std does before a `main` of its own.
#[must_use]
pub fn serve() -> Option<u8> {
    process::sandbox::open_standard_streams();
    process(|name| env::var_os(name), None)
}

/// A store of one's own, made when it is needed.
type Own<'s> = Option<&'s dyn Fn() -> Box<dyn Store + 's>>;

fn process(variable: impl Fn(&str) -> Option<OsString> + Copy, own: Own) -> Option<u8> {
    match run(variable, Stdin, Stdout, io::stderr(), own) {
        Served::NoRequest => None,
        // A web server takes an exit status for a crash; a shell script wants one.
        Served::Refused if !cgi::is_cgi(variable) => Some(FAILURE),
        Served::Answered | Served::Refused => Some(SUCCESS),
    }
}

/// The exit statuses of C (`EXIT_SUCCESS`, `EXIT_FAILURE`).
const SUCCESS: u8 = 0;
const FAILURE: u8 = 1;

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Served {
    /// There was none: neither a server nor a query called us.
    NoRequest,
    /// It was answered, or its client had gone.
    Answered,
    /// It was answered with an error.
    Refused,
}

/// Serves the request that the environment describes: reads `stdin`, answers on
/// `stdout`, reports faults of the installation on `log`, and closes the standard
/// streams of the process. `own` is the store of a program with its own check.
fn run(
    variable: impl Fn(&str) -> Option<OsString> + Copy,
    stdin: impl Read + AsFd,
    stdout: impl Write + AsFd,
    mut log: impl Write,
    own: Own,
) -> Served {
    process::sandbox::expect_signals();
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
    let reader = auth::rights::reader(origins, &caller).map(|origin| origin.field_value().clone());
    let (mut output, mut alarm) = (Output::new(stdout), None);
    let mut report = |error: &Error| {
        if let Some(line) = error.log_line() {
            // In one write(2): mod_cgi makes a line of each.
            let _ = log.write_all(format!("novcomet: {line}\n").as_bytes());
        }
    };
    let served = config.and_then(|config| {
        let request = request?;
        let source = Source::find(&config, own)?;
        let (reader, output, alarm) = (reader.as_ref(), &mut output, &mut alarm);
        let report = &mut report;
        Service { config, caller, reader, output, alarm, report, source }.serve(&request)
    });
    served.as_ref().err().into_iter().for_each(report);
    // The server waits for the end of these and of `output`, and may poll for
    // ours if that comes late: all that is left to do is to write and to close.
    process::sys::close_standard_streams(&[libc::STDIN_FILENO, libc::STDERR_FILENO]);
    let (response, served) = match served {
        Ok(response) => (response, Served::Answered),
        Err(error) => (Some(protocol::novcomet::refusal(&error)), Served::Refused),
    };
    if let Some(response) = response.filter(|_| !output.has_begun()) {
        // Who does not listen any more loses nothing: the events are in the store.
        let bytes = response.readable_by(reader.as_ref()).bytes();
        let _ = output.send(&bytes, Instant::now() + process::output::ANSWER);
    }
    drop(output);
    process::sys::close_standard_streams(&[libc::STDOUT_FILENO]);
    drop(alarm);
    served
}

/// Whether a request may wait, and for how long.
struct Place {
    patience: Patience,
    /// In how many seconds a client that may not is to ask again.
    retry_after: Option<u32>,
    /// Held while it waits, and no longer: a client that has its answer may
    /// come back before our process has ended.
    _slot: Option<Slot>,
}

/// What it takes to serve one request.
struct Service<'a, 's, W> {
    config: Config,
    caller: Caller,
    /// Whose page may read the answer, beside our own.
    reader: Option<&'a FieldValue>,
    output: &'a mut Output<W>,
    alarm: &'a mut Alarm,
    /// Writes a fault of ours to the log.
    report: &'a mut dyn FnMut(&Error),
    source: Source<'s>,
}

/// What the store will be, once it is opened.
enum Source<'s> {
    Own(&'s dyn Fn() -> Box<dyn Store + 's>),
    Named(store::open::Location),
}

impl<'s> Source<'s> {
    /// A server's name is looked up here, by a process, of which there are none
    /// when everything has been given up that the answer does not need.
    fn find(config: &Config, own: Own<'s>) -> Result<Self, Error> {
        match own {
            Some(own) => Ok(Self::Own(own)),
            None => store::open::locate(&config.store).map(Self::Named),
        }
    }
}

impl<'s, W: Write + AsFd> Service<'_, 's, W> {
    /// `None` when there is nobody left to answer: the client went away, or
    /// has had its stream.
    fn serve(mut self, request: &Request) -> Result<Option<Response>, Error> {
        // Who has a check of its own may have opened what it looks at.
        if let Source::Named(_) = self.source {
            self.give_up(process::sandbox::limit_resources)?;
        }
        let mut retry_after = None;
        let command = protocol::novcomet::parse(request, self.config.max_data)?;
        let pass = self.admit(request, &command)?;
        let outcome = match command {
            Command::Head(command) => return Ok(Some(protocol::novcomet::head(&command))),
            Command::Options => {
                return Ok(Some(protocol::novcomet::options(self.reader.is_some())));
            }
            Command::Publish(topics, data) => {
                let store = self.store()?;
                let _limit = self.give_up(|| FileSizeLimit::set(self.config.max_file()))?;
                self.give_up(|| process::sandbox::write_only_below(store.directory()))?;
                hub::publish(store.as_ref(), topics, data.as_deref())?
            }
            Command::Subscribe(subscriptions, wait) => {
                let mut clock = ProcessClock::start(self.caller.under_server);
                let patience = self.patience(wait, self.config.wait(), &pass);
                let place = self.place(&request.address, patience)?;
                retry_after = place.retry_after;
                let (store, patience) = (self.store()?, place.patience);
                self.give_up(|| process::sandbox::write_only_below(None))?;
                let budget = Budget::new(protocol::novcomet::ANSWER, &protocol::novcomet::size);
                let terms = Terms { patience, budget };
                let (store, alarm, report) = (store.as_ref(), &mut *self.alarm, &mut *self.report);
                hub::wait(store, &mut clock, alarm, subscriptions, terms, report)?
            }
            Command::Stream(subscriptions, wait, format) => {
                let mut clock = ProcessClock::start(self.caller.under_server);
                let patience = self.patience(wait, jittered(self.config.stream), &pass);
                let place = self.place(&request.address, patience)?;
                return self
                    .stream(&mut clock, subscriptions, &place, format, &pass)
                    .map(|()| None);
            }
        };
        pass.check(outcome.topics(), Cursor::now())?;
        Ok(protocol::novcomet::answer(request.method, &outcome, retry_after))
    }

    /// A slot for who is going to wait. Who gets none looks once, hears of what
    /// there is, and is told when to come back: so it polls at intervals. A
    /// shell's call holds no worker of a server and needs none. A foreign page
    /// gets none: it would use up those of its visitor's address.
    fn place(&self, address: &str, patience: Patience) -> Result<Place, Error> {
        let Config { max_waiters: most, max_waiters_per_address: most_per_address, .. } =
            self.config;
        if patience.total.is_zero() || !self.caller.under_server {
            return Ok(Place { patience, retry_after: None, _slot: None });
        }
        let slots = Slots { store: &self.config.store, most, most_per_address };
        let is_foreign = Rights::new(&self.config.access, &self.caller).is_foreign();
        let slot = if is_foreign { None } else { slots.take(address)? };
        Ok(match slot {
            Some(slot) => Place { patience, retry_after: None, _slot: Some(slot) },
            None => Place {
                patience: Patience { total: Duration::ZERO, ..patience },
                retry_after: Some(away()),
                _slot: None,
            },
        })
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
        clock: &mut dyn Clock,
        subscriptions: Vec<Subscription>,
        place: &Place,
        format: Format,
        pass: &Pass,
    ) -> Result<(), Error> {
        let store = self.store()?;
        self.give_up(|| process::sandbox::write_only_below(None))?;
        let mut writer = stream::Writer::new(format, place.retry_after);
        let mut head = Some(stream::head().retry_after(place.retry_after));
        let mut allowed = Ok(());
        let size = format.size(subscriptions.len());
        let budget = Budget::new(protocol::novcomet::ANSWER, &size);
        let patience = place.patience;
        // Its time is over then, and its reader has had a last chance.
        let until = Instant::now() + patience.total + process::output::READ_TIMEOUT;
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
            self.output.send(&bytes, until).is_ok() && !writer.is_spent()
        };
        let (store, alarm, report) = (store.as_ref(), &mut *self.alarm, &mut *self.report);
        let terms = Terms { patience, budget };
        hub::stream(store, clock, alarm, subscriptions, terms, &mut send, report)?;
        allowed
    }

    fn store(&self) -> Result<Box<dyn Store + 's>, Error> {
        let Config { keep: messages, keep_bytes: bytes, keep_age: age, .. } = self.config;
        let max_file_bytes = self.config.max_file();
        let Config { max_topics: topics, keep_free: free, stale, .. } = self.config;
        let (retention, limits) =
            (Retention { messages, bytes, age, max_file_bytes }, Limits { topics, free, stale });
        match &self.source {
            Source::Own(own) => Ok(own()),
            Source::Named(place) => place.open(retention, limits, self.config.poll),
        }
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
    time.saturating_sub(time / 10_000 * Random::new().below(1000))
}

/// How long who gets no slot stays away, in seconds: so short that a page is
/// told while its reader still looks at it, so long that a thousand of them are
/// a hundred requests a second, and never all at once.
fn away() -> u32 {
    const LEAST: u32 = 5;
    const MOST: u32 = 15;
    LEAST + Random::new().below(MOST - LEAST + 1)
}
