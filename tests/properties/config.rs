//! Each setting of an administrator is usable, or one line of the log names it.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use arbitrary::{Result, Unstructured};
use novcomet::config::{Config, POLL};
use novcomet::error::Error;
use novcomet::store::{self, Limits, Retention};

const DAY: Duration = Duration::from_secs(86_400);
const LARGEST: usize = 1 << 30;
const NAMES: [&str; 29] = [
    "NOVCOMET_STORE",
    "NOVCOMET_TRIES",
    "NOVCOMET_SLEEP",
    "NOVCOMET_MAX_DATA",
    "NOVCOMET_KEEP",
    "NOVCOMET_KEEP_BYTES",
    "NOVCOMET_KEEP_AGE",
    "NOVCOMET_STREAM",
    "NOVCOMET_MAX_WAITERS",
    "NOVCOMET_MAX_WAITERS_PER_ADDRESS",
    "NOVCOMET_MAX_TOPICS",
    "NOVCOMET_KEEP_FREE",
    "NOVCOMET_STALE",
    "NOVCOMET_POLL",
    "NOVCOMET_SANDBOX",
    "NOVCOMET_PUBLISH",
    "NOVCOMET_SUBSCRIBE",
    "NOVCOMET_PRIVATE",
    "NOVCOMET_ORIGINS",
    KEY,
    "NOVCOMET_TOKEN_ALGORITHM",
    "NOVCOMET_TELL_STORE",
    "NOVCOMET_METRICS",
    "NOVCOMET_MERCURE_URL",
    "NOVCOMET_MERCURE_ISSUER",
    "NOVCOMET_MERCURE_ANONYMOUS",
    "NOVCOMET_MERCURE_URL_TOKEN",
    "NOVCOMET_MERCURE_EXP",
    "NOVCOMET_MERCURE_SUBSCRIPTIONS",
];
/// Other settings make it necessary.
const KEY: &str = "NOVCOMET_TOKEN_KEY";

/// An environment as in environ(7): `NAME=value`, each ended by a zero byte.
struct Environment<'a>(Vec<(&'a [u8], &'a [u8])>);

pub fn holds(input: &[u8]) {
    let environment = Environment::of(input);
    match environment.config() {
        Ok(config) => {
            is_usable(&config);
            opens_or_says_why(&config);
        }
        Err(error) => is_to_blame(&environment, &named(&error)),
    }
}

/// The setting that is named is set, and it is invalid for every value of the others.
fn is_to_blame(environment: &Environment, name: &str) {
    if environment.find(name).is_empty() {
        assert_eq!(name, KEY);
        let rules =
            ["NOVCOMET_PUBLISH", "NOVCOMET_SUBSCRIBE", "NOVCOMET_PRIVATE", "NOVCOMET_METRICS"];
        assert!(rules.iter().any(|it| environment.has(it)));
        return;
    }
    let alone = Environment(vec![(name.as_bytes(), environment.find(name))]);
    assert_eq!(named(&alone.config().unwrap_err()), name);
    let others = environment.without(name).config();
    assert!(name == KEY || others.map_or_else(|other| named(&other) != name, |_| true));
}

pub fn case(u: &mut Unstructured) -> Result<Vec<u8>> {
    let values = [
        "0",
        "1",
        "-1",
        "+1",
        "1e3",
        "0.5",
        ".5",
        "inf",
        "NaN",
        "86400",
        "86401",
        "1073741824",
        "1073741825",
        "1e-10",
        "4294967295",
        "file:///dev/shm",
        "file:///nowhere/%0Ax",
        "file://",
        "bogus:x",
        "\n",
        "\r",
        "\u{1b}",
        "\u{85}",
        "\u{2028}",
        "é",
        "%",
        " ",
        "\\",
        "\"",
        "token",
        "any",
        "require",
        "HS256",
        "/etc/key",
        "a, b/*",
        "*",
        "http://a",
    ];
    let mut bytes = Vec::new();
    for _ in 0..u.int_in_range(1..=4)? {
        bytes.extend_from_slice(u.choose(&NAMES)?.as_bytes());
        bytes.push(b'=');
        bytes.extend(match u.ratio(1, 5)? {
            true => u.bytes(8)?.to_vec(),
            false => super::joined(u, &values, 2)?,
        });
        bytes.push(0);
    }
    Ok(bytes)
}

impl<'a> Environment<'a> {
    fn of(input: &'a [u8]) -> Self {
        let pairs = input.split(|&byte| byte == 0).filter_map(|pair| {
            let equals = pair.iter().position(|&byte| byte == b'=')?;
            Some((&pair[..equals], &pair[equals + 1..]))
        });
        Self(pairs.collect())
    }

    fn get(&self, name: &str) -> Option<OsString> {
        let found = self.0.iter().find(|(known, _)| *known == name.as_bytes());
        found.map(|(_, value)| OsString::from_vec(value.to_vec()))
    }

    fn find(&self, name: &str) -> &'a [u8] {
        self.0.iter().find(|(known, _)| *known == name.as_bytes()).map_or(b"", |(_, value)| value)
    }

    fn has(&self, name: &str) -> bool {
        !self.find(name).is_empty()
    }

    fn without(&self, name: &str) -> Self {
        let others = self.0.iter().filter(|(known, _)| *known != name.as_bytes());
        Self(others.copied().collect())
    }

    fn config(&self) -> std::result::Result<Config, Error> {
        Config::from_env(|name| self.get(name))
    }
}

fn is_usable(config: &Config) {
    let is_wait = |time: Duration| !time.is_zero() && time <= DAY;
    assert!(config.tries > 0 && is_wait(config.wait()));
    assert!(is_wait(config.sleep) && is_wait(config.stream) && !config.keep_age.is_zero());
    assert!((1..=LARGEST).contains(&config.max_data) && (1..=LARGEST).contains(&config.keep));
    assert!(config.max_waiters.max(config.max_waiters_per_address) <= 100_000);
    assert!(config.max_topics > 0 && config.keep_free <= 100 && !config.stale.is_zero());
    assert!((1..=LARGEST as u64).contains(&config.keep_bytes));
    assert!(config.max_body() > 3 * config.max_data);
}

/// Only a directory is opened. Other stores would be contacted over the network.
fn opens_or_says_why(config: &Config) {
    if !config.store.starts_with("file:///") {
        return;
    }
    let retention = Retention {
        messages: config.keep,
        bytes: config.keep_bytes,
        age: config.keep_age,
        max_file_bytes: config.max_file(),
    };
    if let Err(error) = store::open::locate(&config.store)
        .and_then(|store| store.open(retention, Limits::NONE, POLL))
    {
        is_one_line(&error);
    }
}

/// The name of the variable with the invalid value.
fn named(error: &Error) -> String {
    is_one_line(error);
    let line = error.log_line().unwrap();
    line.split_once('=').unwrap_or_else(|| panic!("{line}")).0.to_owned()
}

/// The administrator reads one line, and the client reads no part of it.
fn is_one_line(error: &Error) {
    let line = error.log_line().unwrap();
    let ends_a_line = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
    assert!(!line.contains(ends_a_line), "{line:?}");
    assert!(error.status() == 503 && !error.to_string().contains("NOVCOMET"));
}
