//! What an administrator can set, and every default.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::auth::access::{Algorithm, KeyFile, Origin, Policy, Publish, Subscribe, Topics};
use crate::error::Error;

/// Where events are kept: the directory of the PHP of 2011.
pub const STORE: &str = "file:///dev/shm";
/// How many looks a request takes.
pub const TRIES: u32 = 20;
/// How long it sleeps between two of them, unless something wakes it.
pub const SLEEP: Duration = Duration::from_secs(2);

/// How often a store is read that can't wake anybody.
pub const POLL: Duration = Duration::from_millis(250);

/// Longest message, in bytes.
pub const MAX_DATA: usize = 65_536;
/// How many messages a topic keeps.
pub const KEEP: usize = 1_000;
/// How many bytes of messages a topic keeps, as its log has them.
pub const KEEP_BYTES: u64 = 262_144;
/// How long a topic keeps a message.
pub const KEEP_AGE: Duration = Duration::from_secs(86_400);
/// How long one event stream lives.
pub const STREAM: Duration = Duration::from_secs(300);

/// How many requests may wait at once. A waiter holds a worker of the web
/// server, and stock Apache has 150: when all of them wait, no page of the site
/// is answered any more. 50 are left for those.
pub const MAX_WAITERS: u32 = 100;
/// How many of them from one address: one page with many tabs, or one script,
/// would take all the slots from everybody else.
pub const MAX_WAITERS_PER_ADDRESS: u32 = 25;
/// How many event files a directory has. Each takes a kilobyte of memory that
/// nothing gives back, and whoever may publish may invent names.
pub const MAX_TOPICS: usize = 10_000;
/// The share of the file system that no message takes, in percent. /dev/shm is
/// memory and other programs' too (`PostgreSQL`'s, for one).
pub const KEEP_FREE: u8 = 5;
/// For how long a topic without any event keeps its file: names that were used
/// once would fill the directory in the end.
pub const STALE: Duration = Duration::from_secs(30 * 86_400);

/// Most waiters that can be configured: where all slots are taken, each is
/// looked at, and this many are 0.1 s.
const MOST_WAITERS: u32 = 100_000;

/// Largest size that can be configured, in bytes: it must fit into memory
/// several times over.
const MAX_SIZE: u64 = 1 << 30;

/// Longest wait that can be configured, in seconds: a day.
const MAX_SECONDS: f64 = 86_400.0;

/// The settings, from the environment's `NOVCOMET_*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `NOVCOMET_STORE`: the URL of the store.
    pub store: String,
    /// `NOVCOMET_TRIES`: looks a request, at least 1.
    pub tries: u32,
    /// `NOVCOMET_SLEEP`: seconds between two looks; a fraction is allowed.
    pub sleep: Duration,
    /// `NOVCOMET_POLL`: seconds between two looks at a store that can't wake anybody.
    pub poll: Duration,
    /// `NOVCOMET_MAX_DATA`: bytes a message.
    pub max_data: usize,
    /// `NOVCOMET_KEEP`: messages a topic.
    pub keep: usize,
    /// `NOVCOMET_KEEP_BYTES`: bytes of messages a topic.
    pub keep_bytes: u64,
    /// `NOVCOMET_KEEP_AGE`: seconds.
    pub keep_age: Duration,
    /// `NOVCOMET_STREAM`: seconds that a stream lives.
    pub stream: Duration,
    /// `NOVCOMET_SANDBOX`: whether the process gives up what it does not need.
    pub sandbox: Sandbox,
    /// Who may what.
    pub access: Policy,
    /// `NOVCOMET_MAX_WAITERS`: requests that wait at once, 0 for any number.
    pub max_waiters: u32,
    /// `NOVCOMET_MAX_WAITERS_PER_ADDRESS`: the same from one address.
    pub max_waiters_per_address: u32,
    /// `NOVCOMET_MAX_TOPICS`: event files.
    pub max_topics: usize,
    /// `NOVCOMET_KEEP_FREE`: percent of the file system.
    pub keep_free: u8,
    /// `NOVCOMET_STALE`: seconds; 0 is read as for ever.
    pub stale: Duration,
}

/// What the process gives up before it acts on a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sandbox {
    /// Nothing.
    Off,
    /// What this kernel lets it give up.
    On,
    /// All; where that is not possible no request is served.
    Require,
}

impl Config {
    /// Reads the settings by `variable`; an empty one counts as not set.
    ///
    /// # Errors
    /// [`Error::Config`] naming the first variable that holds nonsense.
    pub fn from_env(variable: impl Fn(&str) -> Option<OsString> + Copy) -> Result<Self, Error> {
        let read = |name: &str| variable(name).filter(|value| !value.is_empty());
        Ok(Self {
            store: setting(read, "NOVCOMET_STORE", "a URL", |url| Some(url.to_owned()))?
                .unwrap_or_else(|| STORE.to_owned()),
            tries: setting(read, "NOVCOMET_TRIES", "a whole number from 1", |text| {
                text.parse().ok().filter(|&tries| tries > 0)
            })?
            .unwrap_or(TRIES),
            sleep: setting(read, "NOVCOMET_SLEEP", "a number of seconds above 0", seconds)?
                .unwrap_or(SLEEP),
            poll: setting(read, "NOVCOMET_POLL", "a number of seconds above 0", seconds)?
                .unwrap_or(POLL),
            max_data: setting(read, "NOVCOMET_MAX_DATA", SIZE, size)?.unwrap_or(MAX_DATA),
            keep: setting(read, "NOVCOMET_KEEP", "a number from 1 to 1073741824", size)?
                .unwrap_or(KEEP),
            keep_bytes: setting(read, "NOVCOMET_KEEP_BYTES", SIZE, size)?
                .map_or(KEEP_BYTES, |bytes| bytes as u64),
            keep_age: setting(read, "NOVCOMET_KEEP_AGE", "a number of seconds above 0", age)?
                .unwrap_or(KEEP_AGE),
            stream: setting(read, "NOVCOMET_STREAM", "a number of seconds above 0", seconds)?
                .unwrap_or(STREAM),
            sandbox: setting(read, "NOVCOMET_SANDBOX", "off, on or require", sandbox)?
                .unwrap_or(Sandbox::On),
            access: access(read)?,
            max_waiters: setting(read, "NOVCOMET_MAX_WAITERS", WAITERS, waiters)?
                .unwrap_or(MAX_WAITERS),
            max_waiters_per_address: setting(
                read,
                "NOVCOMET_MAX_WAITERS_PER_ADDRESS",
                WAITERS,
                waiters,
            )?
            .unwrap_or(MAX_WAITERS_PER_ADDRESS),
            max_topics: setting(
                read,
                "NOVCOMET_MAX_TOPICS",
                "a number from 1 to 1073741824",
                size,
            )?
            .unwrap_or(MAX_TOPICS),
            keep_free: setting(read, "NOVCOMET_KEEP_FREE", "a percentage from 0 to 100", |text| {
                text.parse().ok().filter(|&percent| percent <= 100)
            })?
            .unwrap_or(KEEP_FREE),
            stale: setting(read, "NOVCOMET_STALE", "a number of seconds, or 0 for never", stale)?
                .unwrap_or(STALE),
        })
    }

    /// Longest body, in bytes: a message of which each byte is written as
    /// three, and what stands beside it in a form.
    #[must_use]
    pub fn max_body(&self) -> usize {
        self.max_data * 3 + 8_192
    }

    /// Most bytes of a topic's file: four times what is kept, where only its
    /// owner may shorten it, or one message of which JSON writes each byte as
    /// six; and the header.
    #[must_use]
    pub fn max_file(&self) -> u64 {
        self.keep_bytes * 4 + self.max_data as u64 * 6 + 4_096
    }

    /// How long a request may wait in all.
    #[must_use]
    pub fn wait(&self) -> Duration {
        self.sleep.saturating_mul(self.tries).min(Duration::from_secs_f64(MAX_SECONDS))
    }
}

fn setting<T>(
    read: impl Fn(&str) -> Option<OsString>,
    variable: &'static str,
    expected: &'static str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, Error> {
    let Some(value) = read(variable) else {
        return Ok(None);
    };
    match value.to_str().and_then(parse) {
        Some(parsed) => Ok(Some(parsed)),
        None => {
            Err(Error::Config { variable, value: value.to_string_lossy().into_owned(), expected })
        }
    }
}

fn access(read: impl Fn(&str) -> Option<OsString> + Copy) -> Result<Policy, Error> {
    let publish = setting(read, "NOVCOMET_PUBLISH", PUBLISH, Publish::parse)?;
    let subscribe =
        setting(read, "NOVCOMET_SUBSCRIBE", SUBSCRIBE, Subscribe::parse)?.unwrap_or(Subscribe::Any);
    let private = setting(read, "NOVCOMET_PRIVATE", TOPICS, Topics::parse)?.unwrap_or_default();
    let origins = setting(read, "NOVCOMET_ORIGINS", ORIGINS, Origin::parse_list)?;
    let access = Policy {
        publish: publish.unwrap_or(Publish::SameSite),
        private: if subscribe == Subscribe::Token { Topics::all() } else { private },
        subscribe,
        origins: origins.unwrap_or_default(),
        token: key_file(read)?,
    };
    let needs_key = access.publish == Publish::Token || !access.private.is_empty();
    match access.token {
        // A rule that nobody could be held to.
        None if needs_key => Err(no_key("", NEEDS_KEY)),
        _ => Ok(access),
    }
}

/// Who put the secret itself there shall not find it in the log.
fn key_file(read: impl Fn(&str) -> Option<OsString> + Copy) -> Result<Option<KeyFile>, Error> {
    let algorithm = setting(read, "NOVCOMET_TOKEN_ALGORITHM", ALGORITHM, Algorithm::parse);
    let algorithm = algorithm.map_err(hidden)?.unwrap_or(Algorithm::Hs256);
    match read("NOVCOMET_TOKEN_KEY").map(PathBuf::from) {
        Some(path) if path.is_absolute() => Ok(Some(KeyFile { path, algorithm })),
        Some(_) => Err(no_key(HIDDEN, "the absolute path of a file")),
        None => Ok(None),
    }
}

/// The two settings of the key may have been confused.
fn hidden(error: Error) -> Error {
    match error {
        Error::Config { variable, expected, .. } => {
            Error::Config { variable, value: HIDDEN.into(), expected }
        }
        other => other,
    }
}

const HIDDEN: &str = "(not shown)";

fn no_key(value: &str, expected: &'static str) -> Error {
    Error::Config { variable: "NOVCOMET_TOKEN_KEY", value: value.into(), expected }
}

const PUBLISH: &str = "any, same-site, post, token or none";
const SUBSCRIBE: &str = "any, token or none";
const NEEDS_KEY: &str =
    "set, and NOVCOMET_PUBLISH=token, NOVCOMET_SUBSCRIBE=token or NOVCOMET_PRIVATE needs it";
const TOPICS: &str = "a list of names that topics can have, or prefixes followed by *, \
                      with white space, commas, quotes and % written as in a URL (%20)";
const ORIGINS: &str = "a list of origins such as https://intranet.example:8443, \
                       in lower case and without the scheme's own port";
const ALGORITHM: &str = "HS256, EdDSA, ES256 or RS256";
const SIZE: &str = "a number of bytes from 1 to 1073741824";

fn size(text: &str) -> Option<usize> {
    let size: u64 = text.parse().ok()?;
    (1..=MAX_SIZE).contains(&size).then_some(usize::try_from(size).ok()?)
}

const WAITERS: &str = "a number from 1 to 100000, or 0 for any number of waiters";

fn waiters(text: &str) -> Option<u32> {
    text.parse().ok().filter(|&waiters| waiters <= MOST_WAITERS)
}

/// An age; 0 itself is for ever.
fn stale(text: &str) -> Option<Duration> {
    if text == "0" { Some(Duration::MAX) } else { age(text) }
}

/// As `seconds`, but for as long as anybody wants.
fn age(text: &str) -> Option<Duration> {
    let age = Duration::try_from_secs_f64(text.parse().ok()?).ok()?;
    (!age.is_zero()).then_some(age)
}

fn sandbox(text: &str) -> Option<Sandbox> {
    match text {
        "off" => Some(Sandbox::Off),
        "on" => Some(Sandbox::On),
        "require" => Some(Sandbox::Require),
        _ => None,
    }
}

fn seconds(text: &str) -> Option<Duration> {
    let seconds: f64 = text.parse().ok()?;
    let seconds = Duration::try_from_secs_f64(seconds).ok()?;
    (!seconds.is_zero() && seconds.as_secs_f64() <= MAX_SECONDS).then_some(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &'static str, value: &'static str) -> Result<Config, Error> {
        Config::from_env(|asked| (asked == name).then(|| value.into()))
    }

    #[test]
    fn the_defaults_are_those_of_2011() {
        let config = with("NOVCOMET_TRIES", "").unwrap();
        assert_eq!(config.store, "file:///dev/shm");
        assert_eq!(config.wait(), Duration::from_secs(40));
    }

    #[test]
    fn each_limit_has_the_documented_default() {
        let config = with("NOVCOMET_TRIES", "").unwrap();
        assert_eq!((config.keep_free, config.max_topics), (5, 10_000));
        assert_eq!((config.max_waiters, config.max_waiters_per_address), (100, 25));
        assert_eq!((config.keep, config.keep_bytes, config.max_data), (1_000, 262_144, 65_536));
        let seconds = [config.keep_age, config.stale, config.stream].map(|time| time.as_secs());
        assert_eq!(seconds, [86_400, 2_592_000, 300]);
        assert_eq!((config.sandbox, config.access.publish), (Sandbox::On, Publish::SameSite));
        assert_eq!(config.access.subscribe, Subscribe::Any);
    }

    #[test]
    fn a_wait_is_tries_times_sleep() {
        assert_eq!(with("NOVCOMET_TRIES", "3").unwrap().wait(), Duration::from_secs(6));
        assert_eq!(with("NOVCOMET_SLEEP", "0.5").unwrap().wait(), Duration::from_secs(10));
        assert_eq!(with("NOVCOMET_TRIES", "4294967295").unwrap().wait().as_secs(), 86_400);
    }

    #[test]
    fn a_rule_that_needs_a_key_needs_one() {
        for (name, value) in [
            ("NOVCOMET_PUBLISH", "token"),
            ("NOVCOMET_SUBSCRIBE", "token"),
            ("NOVCOMET_PRIVATE", "a"),
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
    fn a_zero_switches_a_limit_off() {
        assert_eq!(with("NOVCOMET_MAX_WAITERS", "0").unwrap().max_waiters, 0);
        assert_eq!(with("NOVCOMET_STALE", "0").unwrap().stale, Duration::MAX);
        assert_eq!(with("NOVCOMET_STALE", "").unwrap().stale, STALE);
        assert_eq!(with("NOVCOMET_KEEP_FREE", "0").unwrap().keep_free, 0);
    }

    #[test]
    fn nonsense_is_refused_by_its_name() {
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
            ("NOVCOMET_TOKEN_ALGORITHM", "hs256"),
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
