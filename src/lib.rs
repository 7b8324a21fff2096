//! Real-time notifications for the web server you already have: one process
//! reads a CGI environment, publishes an event or waits for one, answers, exits.
//!
//! The data flows one way: `cgi` → `protocol` → `hub` → `store` and back.
//!
//! The public interface is small on purpose: [`NovComet`], the builder of a program that checks for
//! events, and [`run`], the executable itself. `tests/surface.txt` lists all of it.

// They are public for the tests, the benches and the fuzz targets only.
#[doc(hidden)]
pub mod auth;
#[doc(hidden)]
pub mod cgi;
#[doc(hidden)]
pub mod config;
mod doctor;
#[doc(hidden)]
pub mod error;
#[doc(hidden)]
pub mod event;
mod grip;
#[doc(hidden)]
pub mod hub;
mod net;
#[doc(hidden)]
pub mod process;
#[doc(hidden)]
pub mod protocol;
mod settings;
#[doc(hidden)]
pub mod store;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::env;
use std::ffi::OsString;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use auth::Access;
use auth::access::{HubUrl, Metrics};
use cgi::{Request, Response};
use config::{Config, Sandbox};
use error::Error;
use event::Cursor;
use hub::{About, Holder, Hub, Shared, Terms, Together, Waiter, Wanted};
use process::clock::{Clock, ProcessClock};
use process::figures;
use process::identity;
use process::output::Output;
use process::sandbox::{self, FileSizeLimit};
use process::slots::Slots;
use process::streams::Streams;
use protocol::shell::{self, Asked, Command, Question, Shell, USAGE, Wrong};
use protocol::{Action, Bounds, Protocol, Step};
use store::check::CheckStore;
use store::{Limits, Retention, Store};

/// A CGI program with its own check for events, such as a file's time of change.
/// It speaks every protocol and needs no event file.
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
    /// A program with the settings of the environment and of the settings file, `NOVCOMET_*`.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how many times a request checks, unless the environment or the settings file does.
    #[must_use]
    pub fn tries(mut self, tries: u32) -> Self {
        self.tries = Some(tries);
        self
    }

    /// Sets the seconds between two checks, unless the environment or the settings file does.
    #[must_use]
    pub fn sleep(mut self, seconds: impl Into<f64>) -> Self {
        self.sleep = Some(seconds.into());
        self
    }

    /// Serves the request of this process. A topic has an event when `check`
    /// returns a later time for it than before; it returns `None` for a topic
    /// without events. Any client can ask for any topic. `check` is asked for topics of
    /// other requests too, because subscribers wait in one process; it must not depend on
    /// the environment of its own.
    pub fn check(self, check: impl Fn(&str) -> Option<SystemTime>) -> ExitCode {
        let check = |id: &str| check(id).map(Cursor::from);
        let open = || -> Box<dyn Store + '_> { Box::new(CheckStore(&check)) };
        serve(|name| self.preset(name), Some(&open)).unwrap_or(SUCCESS).into()
    }

    fn preset(self, name: &str) -> Option<OsString> {
        match name {
            "NOVCOMET_TRIES" => self.tries.map(|tries| tries.to_string().into()),
            "NOVCOMET_SLEEP" => self.sleep.map(|sleep| sleep.to_string().into()),
            _ => None,
        }
    }
}

/// The executable: serves the request of this process, with its environment and standard
/// streams. Without a request it obeys its arguments, as at a shell. Returns the exit status.
/// It needs nothing that std does before `main`.
///
/// ```no_run
/// fn main() -> std::process::ExitCode {
///     novcomet::run().into()
/// }
/// ```
#[must_use]
pub fn run() -> u8 {
    sandbox::open_standard_streams();
    serve(|_| None, None).unwrap_or_else(shell)
}

/// Obeys the arguments of this process. A person at a shell has the rights of an administrator.
fn shell() -> u8 {
    match shell::parse(env::args_os().skip(1)) {
        Ok(Asked::Help) => print!("{USAGE}"),
        Ok(Asked::Version) => println!("comet.cgi {}", env!("CARGO_PKG_VERSION")),
        Ok(Asked::Command(command)) => return obey(command),
        Ok(Asked::Remote(question)) => return ask(&question),
        Ok(Asked::Doctor { url, is_long }) => {
            let is_sound = doctor::examine(variable, url.as_deref(), is_long);
            return if is_sound { SUCCESS } else { FAILURE };
        }
        Err(Wrong::Refused(error)) => {
            Streams::of_person().log.report(&error);
            return FAILURE;
        }
        Err(Wrong::Usage(why)) => {
            eprint!("comet.cgi: {why}\n{USAGE}");
            return WRONG_USAGE;
        }
    }
    SUCCESS
}

/// A subscriber at a shell waits until it is interrupted.
fn obey(command: Command) -> u8 {
    sandbox::expect_signals();
    let config = Config::load(variable, |_| None);
    let config = config.map(|config| Config { stream: Duration::MAX, ..config });
    let (request, streams) = (Request::of_shell(), Streams::of_person());
    answer(config, request, &Shell(command), streams, None)
}

/// Prints the answer of another server.
fn ask(question: &Question) -> u8 {
    sandbox::expect_signals();
    let mut streams = Streams::of_person();
    let told = question.ask().map_err(|error| streams.log.report(&error));
    let is_done = told.is_ok_and(|text| streams.finish(text.as_bytes()));
    if is_done { SUCCESS } else { FAILURE }
}

/// Makes the store of a program with its own check.
type Own<'s> = Option<&'s dyn Fn() -> Box<dyn Store + 's>>;

/// The exit statuses of C (`EXIT_SUCCESS`, `EXIT_FAILURE`).
const SUCCESS: u8 = 0;
const FAILURE: u8 = 1;
/// As many commands have it.
const WRONG_USAGE: u8 = 2;

/// A variable of the environment.
fn variable(name: &str) -> Option<OsString> {
    env::var_os(name)
}

/// Serves the request that the environment describes, if there is one. `preset` has settings of
/// lower rank.
fn serve(preset: impl Fn(&str) -> Option<OsString> + Copy, own: Own) -> Option<u8> {
    sandbox::expect_signals();
    let request = Request::from_env(variable)?;
    let config = Config::load(variable, preset);
    let protocol = protocol::all::of(&request);
    if own.is_none() && doctor::is_asked(&request) {
        if let Some(shown) = doctors_page(config.as_ref().ok(), &request) {
            return Some(show(shown, protocol));
        }
    }
    Some(answer(config, request, protocol, Streams::new(), own))
}

/// The page of the doctor, or why the client does not see it. Without valid settings there is no
/// rule but that it is on the server's own machine; `None` for another client then.
fn doctors_page(config: Option<&Config>, request: &Request) -> Option<Result<Response, Error>> {
    match config {
        Some(config) => {
            let may = auth::authorize(&config.access, request, &Access::Doctor, Cursor::now());
            Some(may.map(|_| doctor::page(variable)))
        }
        None => auth::is_from_here(request).then(|| Ok(doctor::page(variable))),
    }
}

/// Answers, and ends the streams. Returns the exit status.
fn show(response: Result<Response, Error>, protocol: &dyn Protocol) -> u8 {
    let mut streams = Streams::new();
    let response = response.unwrap_or_else(|error| {
        streams.log.report(&error);
        protocol.refuse(&error)
    });
    streams.finish(&response.bytes());
    SUCCESS
}

/// Answers a request, and ends the streams. Returns the exit status.
fn answer(
    config: Result<Config, Error>,
    mut request: Request,
    protocol: &dyn Protocol,
    mut streams: Streams,
    own: Own,
) -> u8 {
    let max_body = config.as_ref().map_or(0, Config::max_body);
    let received = request.receive(process::streams::input(), max_body);
    let origins = config.as_ref().map_or(&[][..], |config| &config.access.origins);
    let origin = auth::allowed_origin(origins, &request).cloned();
    let answered = config.and_then(|mut config| {
        let source = Source::find(&config, own)?;
        if request.may_publish() || !request.is_cgi {
            config.proxies.look_up();
        }
        let service = Service { config, request: &request, protocol, source };
        let answered = received.and_then(|()| service.answer(&mut streams));
        answered.inspect_err(|error| service.count_refusal(error))
    });
    let answer = answered.unwrap_or_else(|error| {
        streams.log.report(&error);
        let answer = protocol.refuse(&error).with_cors(origin.as_ref());
        Answer { bytes: answer.bytes(), is_refused: true }
    });
    figures::flush();
    let is_done = streams.finish(&answer.bytes) && !answer.is_refused;
    // A web server takes an exit status for a crash; a shell script needs one.
    if is_done || request.is_cgi { SUCCESS } else { FAILURE }
}

/// The answer to a request.
struct Answer {
    /// The bytes that are still to be written. There are none after a stream, and for a client that
    /// has gone.
    bytes: Vec<u8>,
    /// Whether it is an error.
    is_refused: bool,
}

/// The location of the store, before it is opened.
enum Source<'s> {
    Own(&'s dyn Fn() -> Box<dyn Store + 's>),
    Named(store::open::Location),
}

impl<'s> Source<'s> {
    /// Looks up a server's name. That may take another process, so it comes before
    /// the limits of the sandbox.
    fn find(config: &Config, own: Own<'s>) -> Result<Self, Error> {
        match own {
            Some(own) => Ok(Self::Own(own)),
            None => store::open::locate(&config.store).map(Self::Named),
        }
    }
}

/// The objects that one request needs.
struct Service<'a, 's> {
    config: Config,
    request: &'a Request,
    protocol: &'a dyn Protocol,
    source: Source<'s>,
}

impl<'s> Service<'_, 's> {
    fn answer(&self, streams: &mut Streams) -> Result<Answer, Error> {
        // A program with its own check may have opened what it checks.
        if let Source::Named(_) = self.source {
            self.confine(|| sandbox::limit_resources(self.may_wait_together()))?;
        }
        let hub_url = self.config.access.mercure.url.as_ref().map(HubUrl::as_str);
        let subscriptions = self.config.mercure_subscriptions;
        let bounds = Bounds { max_data: self.config.max_data, hub_url, subscriptions };
        let action = self.protocol.parse(self.request, &bounds)?;
        let policy = &self.config.access;
        let granted = auth::authorize(policy, self.request, &action.access(), Cursor::now());
        let grant = match granted {
            Ok(grant) => grant,
            Err(error) => return self.forbid(action.as_ref(), error),
        };
        let writes = action.writes();
        let open = || self.open(writes);
        let _limit = match writes {
            true => {
                self.confine(|| FileSizeLimit::set(self.config.max_file().max(figures::BYTES)))?
            }
            false => None,
        };
        let about = || self.about();
        let together = |store: &dyn Store| self.together(store);
        let leaders = |store: &dyn Store| identity::names(&self.config.store, store.directory());
        let log = RefCell::new(&mut streams.log);
        let report = |fault: Error| log.borrow_mut().report(&fault);
        let hub = Hub::new(&grant, &open, self.terms(&together, &leaders, &report)?, &about);
        let response = match action.perform(&hub)? {
            Step::Answer(response) => response,
            Step::Partial(response, fault) => {
                streams.log.report(&fault);
                figures::refused(response.status());
                response
            }
            Step::Wait(wanted) => return Ok(self.wait(*wanted, streams)),
        };
        let bytes = response.with_cors(grant.allowed_origin()).bytes();
        Ok(Answer { bytes, is_refused: false })
    }

    /// A protocol may have its own answer to a client without the rights.
    fn forbid(&self, action: &dyn Action, error: Error) -> Result<Answer, Error> {
        let Some(response) = action.forbid(&error) else { return Err(error) };
        let origin = auth::allowed_origin(&self.config.access.origins, self.request);
        Ok(Answer { bytes: response.with_cors(origin).bytes(), is_refused: true })
    }

    fn count_refusal(&self, error: &Error) {
        if let (Source::Named(place), true) = (&self.source, self.counts()) {
            place.with_directory(figures::count_in);
        }
        figures::refused(error.status());
    }

    fn counts(&self) -> bool {
        self.config.access.metrics != Metrics::Off
    }

    fn wait(&self, wanted: Wanted, streams: &mut Streams) -> Answer {
        let mut clock = ProcessClock::start(self.request.is_cgi);
        let store = match self.open(false) {
            Ok(store) => store,
            Err(error) => {
                self.count_refusal(&error);
                streams.log.report(&error);
                return Answer { bytes: wanted.refuse(&error), is_refused: true };
            }
        };
        let Streams { output, log, last } = streams;
        let own = std::mem::replace(output, Output::new(rustix::stdio::stdout()));
        let waiter = Waiter::new(wanted, own, clock.now(), clock.wall());
        let report = &mut |error: &Error| log.report(error);
        let has_time = waiter.deadline > clock.now();
        let together = has_time.then(|| self.together(store.as_ref())).flatten();
        let ended = Shared::new(store.as_ref(), &mut clock, report, together).wait(waiter);
        *last = ended.watch.map(|watch| Box::new(watch) as _);
        Answer { bytes: ended.answer, is_refused: ended.is_refused }
    }

    /// A shell's call waits by itself.
    fn may_wait_together(&self) -> bool {
        self.request.is_cgi && self.config.together
    }

    /// With whom this request may wait.
    fn together(&self, store: &dyn Store) -> Option<Together> {
        let name = || identity::name(&self.config, &self.config.store, store.directory());
        let name = self.may_wait_together().then(name).flatten()?;
        Some(Together {
            name,
            restore: protocol::all::restore,
            stays: identity::must_stay(),
            tells_presence: self.config.presence,
            proxies: self.config.proxies.clone(),
        })
    }

    fn terms<'t>(
        &'t self,
        together: &'t dyn Fn(&dyn Store) -> Option<Together>,
        leaders: &'t dyn Fn(&dyn Store) -> Option<BTreeSet<String>>,
        report: &'t dyn Fn(Error),
    ) -> Result<Terms<'t>, Error> {
        let Config { max_waiters: most, max_waiters_per_address: most_per_address, .. } =
            self.config;
        let slots = Slots { store: &self.config.store, most, most_per_address };
        Ok(Terms {
            poll: self.config.wait(),
            stream: self.config.stream,
            interval: self.config.sleep,
            slots: self.request.is_cgi.then_some(slots),
            address: &self.request.address,
            port: &self.request.port,
            together,
            leaders,
            sessions: self.config.sessions(),
            proxies: &self.config.proxies,
            holder: self.holder()?,
            restore: protocol::all::restore,
            report,
        })
    }

    /// The proxy that holds the client's connection, if it has signed the request.
    fn holder(&self) -> Result<Option<Holder>, Error> {
        let seal = auth::proxy_seal(&self.config.access, self.request, Cursor::now())?;
        Ok(seal.map(|seal| Holder {
            seal,
            last: String::from_utf8_lossy(&self.request.grip_last).into_owned(),
            segment: self.request.written_path.rsplit('/').next().unwrap_or_default().to_owned(),
        }))
    }

    fn about(&self) -> About {
        let may_know = auth::may_know_store(&self.config.access, self.request);
        let store = match &self.source {
            Source::Named(place) if may_know => place.directory(),
            _ => None,
        };
        About { version: env!("CARGO_PKG_VERSION"), protocols: protocol::all::names(), store }
    }

    /// Opens the store; only its directory can be written to then, if at all.
    fn open(&self, writes: bool) -> Result<Box<dyn Store + 's>, Error> {
        let Config { keep: messages, keep_bytes: bytes, keep_age: age, .. } = self.config;
        let Config { max_topics: topics, keep_free: free, stale, poll, .. } = self.config;
        let retention = Retention { messages, bytes, age, max_file_bytes: self.config.max_file() };
        let store = match &self.source {
            Source::Own(own) => own(),
            Source::Named(place) => place.open(retention, Limits { topics, free, stale }, poll)?,
        };
        if let Some(directory) = store.directory().filter(|_| self.counts()) {
            figures::count_in(directory);
        }
        let directory = if writes { store.directory() } else { None };
        self.confine(|| sandbox::write_only_below(directory))?;
        Ok(store)
    }

    /// Takes a step of the sandbox: best effort, unless it is required.
    fn confine<T>(&self, step: impl FnOnce() -> Result<T, Error>) -> Result<Option<T>, Error> {
        match self.config.sandbox {
            Sandbox::Off => Ok(None),
            Sandbox::On => Ok(step().ok()),
            Sandbox::Require => step().map(Some),
        }
    }
}
