//! The settings of an administrator, with every default.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::auth::access::{
    Algorithm, Doctor, GripKeys, HubUrl, KeyFile, Mercure, Metrics, Names, Origin, Policy, Publish,
    Subscribe, TellStore, Topics,
};
use crate::cgi;
use crate::error::Error;
use crate::grip::Proxies;
use crate::hub::SessionTerms;
use crate::settings::Settings;

/// The store: the directory of the PHP version of 2011.
pub const STORE: &str = "file:///dev/shm";
/// How often a request reads the store.
pub const TRIES: u32 = 20;
/// The sleep between two reads, unless a change wakes the process.
pub const SLEEP: Duration = Duration::from_secs(2);

/// The time between two reads of a store that cannot wake a process.
pub const POLL: Duration = Duration::from_millis(250);

/// The longest message, in bytes.
pub const MAX_DATA: usize = 65_536;
/// How many messages a topic keeps.
pub const KEEP: usize = 1_000;
/// How many bytes of messages a topic keeps, counted as lines of its log.
pub const KEEP_BYTES: u64 = 262_144;
/// How long a topic keeps a message.
pub const KEEP_AGE: Duration = Duration::from_secs(86_400);
/// How long one event stream lasts.
pub const STREAM: Duration = Duration::from_secs(300);

/// How many requests may wait at once. Each holds a worker of the web server, and
/// a default Apache has 150. If all of them waited, the site would not answer any
/// other request. So 50 are left.
pub const MAX_WAITERS: u32 = 100;
/// How many requests from one address may wait at once. Otherwise one page in many
/// tabs, or one script, could take every slot.
pub const MAX_WAITERS_PER_ADDRESS: u32 = 25;
/// How many event files a directory has. Each takes a kilobyte of memory until it
/// is deleted, and a publisher can invent names.
pub const MAX_TOPICS: usize = 10_000;
/// The share of the file system that messages leave free, in percent. /dev/shm is
/// memory, and other programs such as `PostgreSQL` use it too.
pub const KEEP_FREE: u8 = 5;
/// How long a topic without a new event keeps its file. Otherwise names that were
/// used once would fill the directory.
pub const STALE: Duration = Duration::from_secs(30 * 86_400);

/// Whether subscribers wait in one process, if they can.
pub const TOGETHER: bool = true;

/// Whether subscribers are told who comes to a topic and goes. It costs a look at each of them.
pub const PRESENCE: bool = false;

/// Whether a subscriber of Mercure may be without a token. In other hubs it may not,
/// unless they are told so.
pub const MERCURE_ANONYMOUS: bool = false;
/// Whether a token of Mercure 0.x may be in the URL, which logs and histories keep.
pub const MERCURE_URL_TOKEN: bool = false;
/// Whether a token of Mercure 0.x may be without `exp`. It would be valid for ever.
pub const MERCURE_WITHOUT_EXP: bool = false;
/// Whether a hub tells who subscribes: by events, and at its URLs. It costs each subscriber
/// that comes or goes a look at all others.
pub const MERCURE_SUBSCRIPTIONS: bool = false;

/// How long a connect of Bayeux is held, as in `CometD`.
pub const BAYEUX_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a session of Bayeux lasts after the answer to its last connect, as in `CometD`.
pub const BAYEUX_MAX_INTERVAL: Duration = Duration::from_secs(10);
/// How many sessions of Bayeux there are. Each has a small file.
pub const BAYEUX_MAX_SESSIONS: usize = 10_000;
/// How many sessions of Bayeux there are of one address.
pub const BAYEUX_MAX_SESSIONS_PER_ADDRESS: usize = 100;

/// The highest limit of waiters. When all slots are taken, a request tries every
/// slot, and this number takes 0.1 s.
const MOST_WAITERS: u32 = 100_000;

/// The largest size that can be configured, in bytes. It must fit into memory
/// several times.
const MAX_SIZE: u64 = 1 << 30;

/// The longest wait that can be configured, in seconds: a day.
const MAX_SECONDS: f64 = 86_400.0;

/// The settings, from the environment's `NOVCOMET_*`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Config {
    /// `NOVCOMET_STORE`: the URL of the store.
    pub store: String,
    /// `NOVCOMET_TRIES`: reads of the store in one request, at least 1.
    pub tries: u32,
    /// `NOVCOMET_SLEEP`: seconds between two reads; a fraction is allowed.
    pub sleep: Duration,
    /// `NOVCOMET_POLL`: seconds between two reads of a store that cannot wake a
    /// process.
    pub poll: Duration,
    /// `NOVCOMET_MAX_DATA`: bytes of one message.
    pub max_data: usize,
    /// `NOVCOMET_KEEP`: messages that a topic keeps.
    pub keep: usize,
    /// `NOVCOMET_KEEP_BYTES`: bytes of messages that a topic keeps.
    pub keep_bytes: u64,
    /// `NOVCOMET_KEEP_AGE`: seconds that a topic keeps a message.
    pub keep_age: Duration,
    /// `NOVCOMET_STREAM`: seconds that a stream lasts.
    pub stream: Duration,
    /// `NOVCOMET_SANDBOX`: whether the process drops the rights that it does not need.
    pub sandbox: Sandbox,
    /// The rules for publishers and subscribers.
    pub access: Policy,
    /// `NOVCOMET_MAX_WAITERS`: requests that wait at once, 0 for any number.
    pub max_waiters: u32,
    /// `NOVCOMET_MAX_WAITERS_PER_ADDRESS`: requests from one address that wait at once,
    /// 0 for any number.
    pub max_waiters_per_address: u32,
    /// `NOVCOMET_MAX_TOPICS`: event files in the directory.
    pub max_topics: usize,
    /// `NOVCOMET_KEEP_FREE`: percent of the file system that stay free.
    pub keep_free: u8,
    /// `NOVCOMET_STALE`: seconds that a topic without an event keeps its file, 0 for
    /// ever.
    pub stale: Duration,
    /// `NOVCOMET_BAYEUX_…`: the sessions of Bayeux.
    pub bayeux: SessionTerms,
    /// `NOVCOMET_TOGETHER`: whether subscribers wait in one process.
    pub together: bool,
    /// `NOVCOMET_PRESENCE`: whether subscribers are told who comes to a topic and goes.
    pub presence: bool,
    /// `NOVCOMET_MERCURE_SUBSCRIPTIONS`: whether a hub tells who subscribes.
    pub mercure_subscriptions: bool,
    /// `NOVCOMET_GRIP`: the proxies that are told of events.
    pub proxies: Proxies,
}

/// Whether the process drops its rights before it acts on a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sandbox {
    /// It keeps all rights.
    Off,
    /// It drops the rights that this kernel lets it drop.
    On,
    /// It drops all of them. If that fails, it refuses the request.
    Require,
}

impl Config {
    /// Reads the settings of the environment, for those that it lacks of the settings file, and
    /// for the rest of `preset`.
    ///
    /// # Errors
    /// 503 with what is wrong in the file, or the first variable that has an invalid value.
    pub fn load(
        environment: impl Fn(&str) -> Option<OsString> + Copy,
        preset: impl Fn(&str) -> Option<OsString> + Copy,
    ) -> Result<Self, Error> {
        let set = |name: &str| environment(name).filter(|value| !value.is_empty());
        let path = set("NOVCOMET_CONF");
        let file = Settings::read(path.as_deref(), !cgi::is_from_server(environment))?;
        let config = Self::from_env(|name| file.get(name, set(name)).or_else(|| preset(name)));
        let config = config.map_err(|error| file.locate(error))?;
        file.check_names()?;
        Ok(config)
    }

    /// Reads the settings with `variable`. An empty variable counts as not set.
    ///
    /// # Errors
    /// 503 with the name of the first variable that has an invalid value.
    pub fn from_env(variable: impl Fn(&str) -> Option<OsString> + Copy) -> Result<Self, Error> {
        let env = Env { read: &|name| variable(name).filter(|value| !value.is_empty()) };
        Ok(Self {
            store: env.url("NOVCOMET_STORE", STORE)?,
            tries: env.tries("NOVCOMET_TRIES", TRIES)?,
            sleep: env.seconds("NOVCOMET_SLEEP", SLEEP)?,
            poll: env.seconds("NOVCOMET_POLL", POLL)?,
            max_data: env.bytes("NOVCOMET_MAX_DATA", MAX_DATA)?,
            keep: env.count("NOVCOMET_KEEP", KEEP)?,
            keep_bytes: env.bytes("NOVCOMET_KEEP_BYTES", KEEP_BYTES)?,
            keep_age: env.age("NOVCOMET_KEEP_AGE", KEEP_AGE)?,
            stream: env.seconds("NOVCOMET_STREAM", STREAM)?,
            sandbox: env.word("NOVCOMET_SANDBOX", SANDBOX, sandbox)?.unwrap_or(Sandbox::On),
            access: access(&env)?,
            max_waiters: env.waiters("NOVCOMET_MAX_WAITERS", MAX_WAITERS)?,
            max_waiters_per_address: env
                .waiters("NOVCOMET_MAX_WAITERS_PER_ADDRESS", MAX_WAITERS_PER_ADDRESS)?,
            max_topics: env.count("NOVCOMET_MAX_TOPICS", MAX_TOPICS)?,
            keep_free: env.percent("NOVCOMET_KEEP_FREE", KEEP_FREE)?,
            stale: env.age_or_never("NOVCOMET_STALE", STALE)?,
            bayeux: bayeux(&env)?,
            together: env.word("NOVCOMET_TOGETHER", AUTO, together)?.unwrap_or(TOGETHER),
            presence: env.switch("NOVCOMET_PRESENCE", PRESENCE)?,
            mercure_subscriptions: env
                .switch("NOVCOMET_MERCURE_SUBSCRIPTIONS", MERCURE_SUBSCRIPTIONS)?,
            proxies: env.hidden_word("NOVCOMET_GRIP", GRIP, Proxies::parse)?.unwrap_or_default(),
        })
    }

    /// The longest body, in bytes: a message with each byte encoded as three, and
    /// 8 KiB for the other fields of a form.
    #[must_use]
    pub fn max_body(&self) -> usize {
        self.max_data * 3 + 8_192
    }

    /// The most bytes of a topic's file: four times the kept bytes, because only
    /// its owner can compact it, then one message with each byte escaped as six in
    /// JSON, and the header.
    #[must_use]
    pub fn max_file(&self) -> u64 {
        self.keep_bytes * 4 + self.max_data as u64 * 6 + 4_096
    }

    /// The sessions of clients. None is held for longer than a request waits.
    #[must_use]
    pub fn sessions(&self) -> SessionTerms {
        SessionTerms { held: self.bayeux.held.min(self.wait()), ..self.bayeux }
    }

    /// The longest wait of a request.
    #[must_use]
    pub fn wait(&self) -> Duration {
        self.sleep.saturating_mul(self.tries).min(Duration::from_secs_f64(MAX_SECONDS))
    }
}

/// Reads one option a call, with a method for each type of option.
struct Env<'a> {
    read: &'a dyn Fn(&str) -> Option<OsString>,
}

impl Env<'_> {
    /// `None` when the option is not set.
    fn word<T>(
        &self,
        name: &str,
        expected: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let Some(value) = (self.read)(name) else { return Ok(None) };
        match value.to_str().and_then(parse) {
            Some(parsed) => Ok(Some(parsed)),
            None => Err(Error::setting(name, &value.to_string_lossy(), expected)),
        }
    }

    /// As [`word`](Self::word), but the log does not show the value: it may be
    /// the secret of another option.
    fn hidden_word<T>(
        &self,
        name: &str,
        expected: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        self.word(name, expected, parse).map_err(|_| Error::setting(name, HIDDEN, expected))
    }

    fn switch(&self, name: &str, default: bool) -> Result<bool, Error> {
        let is_on = self.word(name, "on or off", |text| match text {
            "on" => Some(true),
            "off" => Some(false),
            _ => None,
        })?;
        Ok(is_on.unwrap_or(default))
    }

    fn url(&self, name: &str, default: &str) -> Result<String, Error> {
        let url = self.word(name, "a URL", |url| Some(url.to_owned()))?;
        Ok(url.unwrap_or_else(|| default.to_owned()))
    }

    fn tries(&self, name: &str, default: u32) -> Result<u32, Error> {
        let tries = self.word(name, "a whole number from 1", |text| {
            text.parse().ok().filter(|&tries| tries > 0)
        })?;
        Ok(tries.unwrap_or(default))
    }

    /// More than 0, and at most [`MAX_SECONDS`].
    fn seconds(&self, name: &str, default: Duration) -> Result<Duration, Error> {
        let is_wait = |time: &Duration| time.as_secs_f64() <= MAX_SECONDS;
        let time = self.word(name, SECONDS, |text| duration(text).filter(is_wait))?;
        Ok(time.unwrap_or(default))
    }

    /// More than 0, without a largest value.
    fn age(&self, name: &str, default: Duration) -> Result<Duration, Error> {
        Ok(self.word(name, SECONDS, duration)?.unwrap_or(default))
    }

    /// 0 itself, but no age that is rounded to 0, means for ever.
    fn age_or_never(&self, name: &str, default: Duration) -> Result<Duration, Error> {
        let age = self.word(name, "a number of seconds, or 0 for never", |text| match text {
            "0" => Some(Duration::MAX),
            _ => duration(text),
        })?;
        Ok(age.unwrap_or(default))
    }

    fn bytes<T: TryFrom<u64>>(&self, name: &str, default: T) -> Result<T, Error> {
        let bytes = self.word(name, "a number of bytes from 1 to 1073741824", size)?;
        Ok(bytes.unwrap_or(default))
    }

    fn count(&self, name: &str, default: usize) -> Result<usize, Error> {
        Ok(self.word(name, "a number from 1 to 1073741824", size)?.unwrap_or(default))
    }

    fn percent(&self, name: &str, default: u8) -> Result<u8, Error> {
        let percent = self.word(name, "a percentage from 0 to 100", |text| {
            text.parse().ok().filter(|&percent| percent <= 100)
        })?;
        Ok(percent.unwrap_or(default))
    }

    fn waiters(&self, name: &str, default: u32) -> Result<u32, Error> {
        let waiters = self.word(name, WAITERS, |text| {
            text.parse().ok().filter(|&waiters| waiters <= MOST_WAITERS)
        })?;
        Ok(waiters.unwrap_or(default))
    }
}

fn duration(text: &str) -> Option<Duration> {
    let time = Duration::try_from_secs_f64(text.parse().ok()?).ok()?;
    (!time.is_zero()).then_some(time)
}

fn size<T: TryFrom<u64>>(text: &str) -> Option<T> {
    let size = text.parse().ok().filter(|size| (1..=MAX_SIZE).contains(size))?;
    T::try_from(size).ok()
}

fn sandbox(text: &str) -> Option<Sandbox> {
    match text {
        "off" => Some(Sandbox::Off),
        "on" => Some(Sandbox::On),
        "require" => Some(Sandbox::Require),
        _ => None,
    }
}

fn together(text: &str) -> Option<bool> {
    match text {
        "auto" => Some(true),
        "off" => Some(false),
        _ => None,
    }
}

fn access(env: &Env) -> Result<Policy, Error> {
    let publish = env.word("NOVCOMET_PUBLISH", PUBLISH, Publish::parse)?;
    let subscribe = env.word("NOVCOMET_SUBSCRIBE", SUBSCRIBE, Subscribe::parse)?;
    let subscribe = subscribe.unwrap_or(Subscribe::Any);
    let private = env.word("NOVCOMET_PRIVATE", TOPICS, Topics::parse)?.unwrap_or_default();
    let origins = env.word("NOVCOMET_ORIGINS", ORIGINS, Origin::parse_list)?;
    let tell_store = env.word("NOVCOMET_TELL_STORE", TELL_STORE, TellStore::parse)?;
    let metrics = env.word("NOVCOMET_METRICS", METRICS, Metrics::parse)?;
    let doctor = env.word("NOVCOMET_DOCTOR", DOCTOR, Doctor::parse)?;
    let names = env.word("NOVCOMET_NAMES", NAMES, Names::parse)?;
    let access = Policy {
        publish: publish.unwrap_or(Publish::SameSite),
        private: if subscribe == Subscribe::Token { Topics::all() } else { private },
        subscribe,
        origins: origins.unwrap_or_default(),
        token: key_file(env)?,
        tell_store: tell_store.unwrap_or(TellStore::Auto),
        metrics: metrics.unwrap_or(Metrics::Loopback),
        doctor: doctor.unwrap_or(Doctor::Loopback),
        names: names.unwrap_or(Names::Token),
        mercure: mercure(env)?,
        grip: grip(env)?,
    };
    let needs_key = access.publish == Publish::Token
        || access.metrics == Metrics::Token
        || access.doctor == Doctor::Token
        || !access.private.is_empty();
    match access.token {
        // Without a key no request could satisfy the rule.
        None if needs_key => Err(Error::setting(TOKEN_KEY, "", NEEDS_KEY)),
        _ => Ok(access),
    }
}

fn mercure(env: &Env) -> Result<Mercure, Error> {
    let text = |text: &str| Some(text.to_owned());
    let without_exp = env.word("NOVCOMET_MERCURE_EXP", EXP, without_exp)?;
    Ok(Mercure {
        url: env.word("NOVCOMET_MERCURE_URL", HUB_URL, HubUrl::parse)?,
        issuer: env.word("NOVCOMET_MERCURE_ISSUER", "text", text)?,
        anonymous: env.switch("NOVCOMET_MERCURE_ANONYMOUS", MERCURE_ANONYMOUS)?,
        url_token: env.switch("NOVCOMET_MERCURE_URL_TOKEN", MERCURE_URL_TOKEN)?,
        without_exp: without_exp.unwrap_or(MERCURE_WITHOUT_EXP),
    })
}

fn bayeux(env: &Env) -> Result<SessionTerms, Error> {
    Ok(SessionTerms {
        held: env.seconds("NOVCOMET_BAYEUX_TIMEOUT", BAYEUX_TIMEOUT)?,
        lasts: env.seconds("NOVCOMET_BAYEUX_MAX_INTERVAL", BAYEUX_MAX_INTERVAL)?,
        most: env.count("NOVCOMET_BAYEUX_MAX_SESSIONS", BAYEUX_MAX_SESSIONS)?,
        most_per_address: env
            .count("NOVCOMET_BAYEUX_MAX_SESSIONS_PER_ADDRESS", BAYEUX_MAX_SESSIONS_PER_ADDRESS)?,
    })
}

fn without_exp(text: &str) -> Option<bool> {
    match text {
        "required" => Some(false),
        "optional" => Some(true),
        _ => None,
    }
}

fn key_file(env: &Env) -> Result<Option<KeyFile>, Error> {
    let algorithm = algorithm(env, "NOVCOMET_TOKEN_ALGORITHM")?;
    let path = secret_path(env, TOKEN_KEY)?;
    Ok(path.map(|path| KeyFile { setting: TOKEN_KEY, path, algorithm }))
}

/// A proxy that signs with a key of its own shares no secret with us.
fn grip(env: &Env) -> Result<Option<GripKeys>, Error> {
    const KEY: &str = "NOVCOMET_GRIP_KEY";
    const SECRET: &str = "NOVCOMET_GRIP_SECRET";
    let algorithm = algorithm(env, "NOVCOMET_GRIP_ALGORITHM")?;
    let secret = secret_path(env, SECRET)?;
    let Some(path) = secret_path(env, KEY)? else { return Ok(None) };
    if algorithm != Algorithm::Hs256 && secret.is_none() {
        return Err(Error::setting(SECRET, "", NEEDS_SECRET));
    }
    Ok(Some(GripKeys { key: KeyFile { setting: KEY, path, algorithm }, secret }))
}

/// An administrator may confuse the two options of a key, or set one to the secret itself. So
/// the log shows neither value.
fn algorithm(env: &Env, name: &str) -> Result<Algorithm, Error> {
    let algorithm = env.hidden_word(name, ALGORITHM, Algorithm::parse)?;
    Ok(algorithm.unwrap_or(Algorithm::Hs256))
}

fn secret_path(env: &Env, name: &str) -> Result<Option<PathBuf>, Error> {
    match (env.read)(name).map(PathBuf::from) {
        Some(path) if path.is_absolute() => Ok(Some(path)),
        Some(_) => Err(Error::setting(name, HIDDEN, "the absolute path of a file")),
        None => Ok(None),
    }
}

const TOKEN_KEY: &str = "NOVCOMET_TOKEN_KEY";
const HIDDEN: &str = "(not shown)";

const SECONDS: &str = "a number of seconds above 0";
const WAITERS: &str = "a number from 1 to 100000, or 0 for any number of waiters";
const AUTO: &str = "auto or off";
const METRICS: &str = "loopback, token, all or off";
const DOCTOR: &str = "loopback, token or off";
const NAMES: &str = "token or parameter";
const TELL_STORE: &str = "auto, on or off";
const SANDBOX: &str = "off, on or require";
const PUBLISH: &str = "any, same-site, post, token or none";
const SUBSCRIBE: &str = "any, token or none";
const NEEDS_KEY: &str = "set, and NOVCOMET_PUBLISH=token, NOVCOMET_SUBSCRIBE=token, NOVCOMET_PRIVATE, \
     NOVCOMET_METRICS=token or NOVCOMET_DOCTOR=token needs it";
const TOPICS: &str = "a list of names that topics can have, or prefixes followed by *, \
                      with white space, commas, quotes and % written as in a URL (%20)";
const ORIGINS: &str = "a list of origins such as https://intranet.example:8443, \
                       in lower case and without the scheme's own port";
const EXP: &str = "required or optional";
const HUB_URL: &str = "a URL such as https://example.com/.well-known/mercure, \
                       as browsers write it, and without ? and #";
const GRIP: &str = "a list of control URLs such as http://127.0.0.1:5561 (https only with \
                    FEATURES=tls)";
const NEEDS_SECRET: &str =
    "set, and NOVCOMET_GRIP_KEY needs it unless NOVCOMET_GRIP_ALGORITHM is HS256";
const ALGORITHM: &str = "HS256, EdDSA, ES256 or RS256";

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &'static str, value: &'static str) -> Result<Config, Error> {
        Config::from_env(|asked| (asked == name).then(|| value.into()))
    }

    #[test]
    fn defaults_are_those_of_2011() {
        let config = with("NOVCOMET_TRIES", "").unwrap();
        assert_eq!(config.store, "file:///dev/shm");
        assert_eq!(config.wait(), Duration::from_secs(40));
    }

    #[test]
    fn limits_have_the_documented_defaults() {
        let config = with("NOVCOMET_TRIES", "").unwrap();
        assert_eq!((config.keep_free, config.max_topics), (5, 10_000));
        assert_eq!((config.max_waiters, config.max_waiters_per_address), (100, 25));
        assert_eq!((config.keep, config.keep_bytes, config.max_data), (1_000, 262_144, 65_536));
        let seconds = [config.keep_age, config.stale, config.stream].map(|time| time.as_secs());
        assert_eq!(seconds, [86_400, 2_592_000, 300]);
        assert_eq!((config.sandbox, config.access.publish), (Sandbox::On, Publish::SameSite));
        assert_eq!(config.access.subscribe, Subscribe::Any);
        assert_eq!(config.access.mercure, Mercure::default(), "the safe choice of each");
    }

    #[test]
    fn wait_is_tries_times_sleep() {
        assert_eq!(with("NOVCOMET_TRIES", "3").unwrap().wait(), Duration::from_secs(6));
        assert_eq!(with("NOVCOMET_SLEEP", "0.5").unwrap().wait(), Duration::from_secs(10));
        assert_eq!(with("NOVCOMET_TRIES", "4294967295").unwrap().wait().as_secs(), 86_400);
    }

    #[test]
    fn token_rule_without_key_is_refused() {
        for (name, value) in [
            ("NOVCOMET_PUBLISH", "token"),
            ("NOVCOMET_SUBSCRIBE", "token"),
            ("NOVCOMET_PRIVATE", "a"),
            ("NOVCOMET_METRICS", "token"),
        ] {
            let line = with(name, value).unwrap_err().log_line().unwrap();
            assert!(line.starts_with("NOVCOMET_TOKEN_KEY="), "{line}");
        }
        for name in ["NOVCOMET_TOKEN_KEY", "NOVCOMET_TOKEN_ALGORITHM"] {
            let line = with(name, "s3cret").unwrap_err().log_line().unwrap();
            assert!(!line.contains("s3cret"), "{line}");
        }
        assert_eq!(with("NOVCOMET_TRIES", "1").unwrap().access.publish, Publish::SameSite);
    }

    #[test]
    fn zero_switches_a_limit_off() {
        assert_eq!(with("NOVCOMET_MAX_WAITERS", "0").unwrap().max_waiters, 0);
        assert_eq!(with("NOVCOMET_STALE", "0").unwrap().stale, Duration::MAX);
        assert_eq!(with("NOVCOMET_STALE", "").unwrap().stale, STALE);
        assert_eq!(with("NOVCOMET_KEEP_FREE", "0").unwrap().keep_free, 0);
    }

    #[test]
    fn invalid_value_is_refused_by_name() {
        for (name, value) in [
            ("NOVCOMET_TRIES", "0"),
            ("NOVCOMET_TRIES", "-1"),
            ("NOVCOMET_TRIES", "many"),
            ("NOVCOMET_SLEEP", "0"),
            ("NOVCOMET_SLEEP", "1e-10"),
            ("NOVCOMET_SLEEP", "nan"),
            ("NOVCOMET_SLEEP", "inf"),
            ("NOVCOMET_SLEEP", "86401"),
            ("NOVCOMET_POLL", "0"),
            ("NOVCOMET_MAX_DATA", "0"),
            ("NOVCOMET_MAX_DATA", "64k"),
            ("NOVCOMET_KEEP", "0"),
            ("NOVCOMET_KEEP", "1073741825"),
            ("NOVCOMET_KEEP_BYTES", "-1"),
            ("NOVCOMET_KEEP_AGE", "0"),
            ("NOVCOMET_KEEP_AGE", "inf"),
            ("NOVCOMET_STREAM", "86401"),
            ("NOVCOMET_SANDBOX", "yes"),
            ("NOVCOMET_PUBLISH", "Any"),
            ("NOVCOMET_PUBLISH", "any "),
            ("NOVCOMET_PUBLISH", "all"),
            ("NOVCOMET_SUBSCRIBE", "all"),
            ("NOVCOMET_SUBSCRIBE", "same-site"),
            ("NOVCOMET_PRIVATE", "a*b"),
            ("NOVCOMET_PRIVATE", ","),
            ("NOVCOMET_ORIGINS", "*"),
            ("NOVCOMET_ORIGINS", "null"),
            ("NOVCOMET_TOKEN_KEY", "a/key"),
            ("NOVCOMET_TOKEN_ALGORITHM", "none"),
            ("NOVCOMET_GRIP", "127.0.0.1:5561"),
            ("NOVCOMET_GRIP_KEY", "key"),
            ("NOVCOMET_GRIP_SECRET", "key"),
            ("NOVCOMET_GRIP_ALGORITHM", "none"),
            ("NOVCOMET_TOKEN_ALGORITHM", "hs256"),
            ("NOVCOMET_TELL_STORE", "yes"),
            ("NOVCOMET_METRICS", "on"),
            ("NOVCOMET_DOCTOR", "all"),
            ("NOVCOMET_NAMES", "on"),
            ("NOVCOMET_MERCURE_URL", "/.well-known/mercure"),
            ("NOVCOMET_MERCURE_URL", "https://a.example"),
            ("NOVCOMET_MERCURE_URL", "https://A.example/"),
            ("NOVCOMET_MERCURE_URL", "https://a.example:443/"),
            ("NOVCOMET_MERCURE_URL", "https://a.example/?x"),
            ("NOVCOMET_MERCURE_URL", "https://a.example/#x"),
            ("NOVCOMET_MERCURE_URL", "https://u:p@a.example/"),
            ("NOVCOMET_MERCURE_URL", "file:///dev/shm"),
            ("NOVCOMET_MERCURE_ANONYMOUS", "yes"),
            ("NOVCOMET_MERCURE_URL_TOKEN", "1"),
            ("NOVCOMET_MERCURE_EXP", "off"),
            ("NOVCOMET_MERCURE_SUBSCRIPTIONS", "true"),
            ("NOVCOMET_MAX_WAITERS", "-1"),
            ("NOVCOMET_MAX_WAITERS", "100001"),
            ("NOVCOMET_MAX_WAITERS_PER_ADDRESS", "none"),
            ("NOVCOMET_MAX_TOPICS", "0"),
            ("NOVCOMET_KEEP_FREE", "101"),
            ("NOVCOMET_KEEP_FREE", "5%"),
            ("NOVCOMET_STALE", "-1"),
            ("NOVCOMET_STALE", "1e-10"),
            ("NOVCOMET_STALE", "never"),
        ] {
            let error = with(name, value).unwrap_err();
            assert!(error.log_line().unwrap().starts_with(name), "{value}");
        }
    }
}
