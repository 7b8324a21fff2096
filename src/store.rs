//! Where events are kept: the contract, and which store a URL names.

mod address;
mod budget;
mod check;
mod file;
mod link;
mod memcached;
mod redis;
mod watch;

use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use address::Address;
pub use budget::{Budget, Size};
pub use check::CheckStore;

use crate::error::Error;
use crate::event::{Cursor, Message, Since, Topic};

/// How much a topic keeps for those who come later. The newest message is
/// kept whatever its size and age.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// How many messages.
    pub messages: usize,
    /// How many bytes of them.
    pub bytes: u64,
    /// For how long.
    pub age: Duration,
    /// How many bytes a topic may take at most; of a file that has more, the
    /// rest is none of ours.
    pub most: u64,
}

/// What a message takes besides its text where it is kept, in bytes: about that
/// of a line of the log.
const OVERHEAD: usize = 42;

/// What keeps a store from taking what is everybody's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How many topics it has.
    pub topics: usize,
    /// The share of its file system that stays free, in percent.
    pub free: u8,
    /// For how long a topic without an event is kept.
    pub stale: Duration,
}

impl Limits {
    /// Whatever there is room for.
    pub const NONE: Self = Self { topics: usize::MAX, free: 0, stale: Duration::MAX };
}

/// What a topic holds for a subscriber.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// The messages that are news to the subscriber, oldest first: as many as
    /// there was room for. Without any of several a topic has no reading.
    pub messages: Vec<Message>,
    /// Where the subscriber stands who has these.
    pub standing: Cursor,
    /// A later event, at a time that may be replaced by an earlier one while a
    /// publisher is at work: no client may be told of that time.
    pub pending: Option<Cursor>,
    /// The subscriber may have missed something: its cursor is older than what
    /// is kept, or of another life of the topic.
    pub gap: bool,
}

impl Reading {
    /// Nothing is new.
    #[must_use]
    pub fn quiet(standing: Cursor) -> Self {
        Self { messages: Vec::new(), standing, pending: None, gap: false }
    }

    /// What `budget` has room for; `None` for none of several messages.
    fn within(mut self, topic: &Topic, budget: &mut Budget) -> Option<Self> {
        if budget.cut(topic, &mut self.messages) {
            self.standing = self.messages.last()?.id;
        }
        Some(self)
    }
}

/// What was read of several topics, one by one: `None` for a topic that was not
/// reached within the budget, an error for one that cannot be read.
pub type Readings = Vec<Option<Result<Reading, Error>>>;

/// What every store promises.
pub trait Store {
    /// Makes an event happen, with a message or without; its cursor is later
    /// than any that the topic has had. Waits for other publishers, never for
    /// a reader. A message is in the store whole, or not at all.
    ///
    /// # Errors
    /// 503 when the store cannot be used, 507 when it is full or a limit says so.
    fn publish(&self, topic: &Topic, data: Option<&str>) -> Result<Cursor, Error>;

    /// What is news in these topics, as far as `budget` goes; `None` for a topic
    /// that it did not reach, of which nothing is known. Those who come first are
    /// served first, so the order is the caller's fairness. Never writes, never
    /// waits; its work and its memory are bounded for all topics together. A
    /// store that is far away answers for all of them in one go.
    ///
    /// # Errors
    /// 503 when the store cannot be used.
    fn look(&self, wanted: &[(&Topic, Since)], budget: &mut Budget) -> Result<Readings, Error>;

    /// [`look`](Store::look) at one topic, for about `limit` bytes of messages.
    ///
    /// # Errors
    /// 503 when the topic or the store cannot be used.
    fn read(&self, topic: &Topic, since: Since, limit: usize) -> Result<Reading, Error> {
        let mut budget = Budget::new(limit, &|_, message| message.data.len() + OVERHEAD);
        let reading = self.look(&[(topic, since)], &mut budget)?.pop().flatten().transpose()?;
        Ok(reading.unwrap_or_else(|| Reading::quiet(since.cursor().unwrap_or(Cursor::SMALLEST))))
    }

    /// A watch on these topics, not armed yet.
    ///
    /// # Errors
    /// 503 when the store cannot be used.
    fn watch(&self, topics: &[Topic]) -> Result<Box<dyn Watch>, Error>;

    /// The only directory that a publish writes to, if the store is one.
    fn directory(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// Tells when it is worth to read again. It may be wrong in both directions.
pub trait Watch {
    /// Forgets the changes up to now and tells of those from now on.
    fn arm(&mut self);

    /// Becomes readable at a change since `arm`, or since the look that came
    /// after it, if its reader sleeps `within` that time; `None` when the store
    /// has no such means.
    fn fd(&mut self, within: Duration) -> Option<BorrowedFd<'_>>;

    /// How long to sleep at most: a store that can't wake anybody is polled.
    fn pause(&self) -> Duration {
        Duration::MAX
    }

    /// After [`fd`](Self::fd) has become readable: whether that may concern these
    /// topics. If not, the store needs no look, and the sleep goes on.
    fn concerns_us(&mut self) -> bool {
        true
    }

    /// What it has told of last was no news of these topics.
    fn in_vain(&mut self) {}

    /// How long not to listen to it: it has told of too much in vain.
    fn rest(&self) -> Duration {
        Duration::ZERO
    }
}

/// Nothing wakes it; it is to be looked at again after this time.
struct Polled(Duration);

impl Watch for Polled {
    fn arm(&mut self) {}

    fn fd(&mut self, _: Duration) -> Option<BorrowedFd<'_>> {
        None
    }

    fn pause(&self) -> Duration {
        self.0
    }
}

/// Where a store is. Names of servers have been looked up, nothing is open yet.
#[derive(Debug, Clone)]
pub struct Place(Kind);

#[derive(Debug, Clone)]
enum Kind {
    Directory(PathBuf),
    Redis(redis::Server),
    Memcached(memcached::Servers),
}

impl Place {
    /// Opens the store; one that can't wake anybody is polled every `poll`.
    ///
    /// # Errors
    /// 503 when it cannot be used.
    pub fn open(
        &self,
        retention: Retention,
        limits: Limits,
        poll: Duration,
    ) -> Result<Box<dyn Store>, Error> {
        Ok(match self.0.clone() {
            Kind::Directory(path) => Box::new(file::FileStore::open(path, retention, limits)?),
            Kind::Redis(server) => Box::new(redis::RedisStore::open(server, retention, poll)?),
            Kind::Memcached(servers) => {
                Box::new(memcached::MemcachedStore::new(servers, retention, poll))
            }
        })
    }
}

/// [`find`], and then [`open`](Place::open), polled four times a second.
///
/// # Errors
/// Those of both.
pub fn open(url: &str, retention: Retention, limits: Limits) -> Result<Box<dyn Store>, Error> {
    find(url)?.open(retention, limits, Duration::from_millis(250))
}

/// The store that `url` names.
///
/// # Errors
/// [`Error::Config`] for a URL that names none; 503 for a server that nobody knows.
pub fn find(url: &str) -> Result<Place, Error> {
    if let Some(servers) = url.strip_prefix("memcached://") {
        let mut servers = memcached::Servers::parse(servers).ok_or_else(|| refusal(url))?;
        servers.addresses.iter_mut().try_for_each(Address::look_up)?;
        return Ok(Place(Kind::Memcached(servers)));
    }
    let parsed = Url::parse(url).map_err(|_| refusal(url))?;
    match parsed.scheme() {
        "file" => {
            let directory = parsed.to_file_path().map_err(|()| refusal(url))?;
            Ok(Place(Kind::Directory(directory)))
        }
        "rediss" if cfg!(not(feature = "tls")) => Err(Error::Config {
            variable: "NOVCOMET_STORE",
            value: without_secrets(url),
            expected: "a store of this executable, which was built without TLS; build one by \
                       `make FEATURES=tls`, or name a tunnel before it (stunnel) as redis://",
        }),
        "redis" | "rediss" | "unix" => {
            let mut server = redis::Server::parse(&parsed).ok_or_else(|| refusal(url))?;
            server.address.look_up()?;
            Ok(Place(Kind::Redis(server)))
        }
        _ => Err(refusal(url)),
    }
}

fn refusal(url: &str) -> Error {
    Error::Config {
        variable: "NOVCOMET_STORE",
        value: without_secrets(url),
        expected: "the URL of a store, such as file:///dev/shm, redis://host:6379/0, \
                   unix:///run/redis.sock?db=0 or memcached://host:11211 (what may be a secret \
                   is not shown; write / # ? @ % in a user or password as %2F %23 %3F %40 %25, \
                   and a prefix with one colon, at its end)",
    }
}

/// What keys begin with: a name and a colon, the only one. So no prefix begins
/// another, and no topic of one site is a topic of another.
fn is_prefix(text: &str) -> bool {
    text.split_once(':').is_some_and(|(name, rest)| !name.is_empty() && rest.is_empty())
}

/// For the log: the scheme, and the host or path if nothing of a password can
/// have got there. A password that was not encoded may have an `@`, `/`, `#` or
/// `?`, and so may end anywhere.
fn without_secrets(url: &str) -> String {
    const SCHEMES: [&str; 5] = ["file", "redis", "rediss", "unix", "memcached"];
    let Some((scheme, rest)) = url.split_once("://").filter(|(scheme, _)| SCHEMES.contains(scheme))
    else {
        return "…".to_owned();
    };
    let place = rest.split(['?', '#']).next().unwrap_or_default();
    let authority = place.split('/').next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let is_path = authority.is_empty() && !rest.contains('@') && !place.contains(['&', '=']);
    let is_host = !rest[authority.len()..].contains('@') && Address::parse(host, 1).is_some();
    match (is_path, is_host) {
        (true, _) => format!("{scheme}://{place}…"),
        (_, true) => format!("{scheme}://{host}…"),
        _ => format!("{scheme}://…"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(url: &str) -> Option<String> {
        let Err(Error::Config { variable, value, expected }) = find(url) else { return None };
        Error::Config { variable, value, expected }.log_line()
    }

    #[test]
    fn a_refusal_tells_no_password() {
        for url in [
            "redis://u:s3cr3t@h:x/0",
            "rediss://:s3cr3t@h/x",
            "redis://h/0?password=s3cr3t",
            "redis://h/0?auth=s3cr3t",
            "redis://h/0?pwd=s3cr3t",
            "redis://h/0#s3cr3t",
            "redis://:s3cr3t",
            "redis://u:s3cr3t",
            "redis://u:s3cr3t/x@h/0",
            "redis://u:12/s3cr3t@h/0",
            "redis://u:a#s3cr3t@h/0",
            "redis://u:a?s3cr3t@h/0",
            "redis://u:a@s3cr3t@h/x",
            "redis://u:a/@s3cr3t@h/0",
            "redis://s3cr3t%40h/x",
            "redis:s3cr3t@h",
            "reddis://u:s3cr3t@h",
            "s3cr3t",
            "unix://x/y?pass=s3cr3t",
            "unix:///s?pa%73s=p&s3cr3t=",
            "unix:///s?PASS=s3cr3t",
            "unix:///s&pass=s3cr3t",
            "unix:///s#s3cr3t",
            "unix://u:s3cr3t@/s",
            "unix:///u:s3cr3t@/s?x",
            "memcached://u:s3cr3t@h",
            "memcached://h?pass=s3cr3t",
            "memcached:///s?pass=s3cr3t",
            "file://u:s3cr3t@h/x",
        ] {
            let line = refused(url).unwrap_or_else(|| panic!("{url} is not refused"));
            assert!(!line.contains("s3cr3t") && line.contains("NOVCOMET_STORE"), "{url}: {line}");
        }
        assert!(refused("redis://u:p@h:7/x").unwrap().contains("\"redis://h:7…\""));
    }

    /// Before a slash that should have been encoded it looks like a port.
    #[test]
    fn a_password_of_digits_is_not_told() {
        for rest in ["/x@h/0", "/@h", "/0?x@h", "/0#x@h", "?x@h", "#x@h"] {
            for scheme in ["redis", "rediss", "memcached"] {
                let url = format!("{scheme}://u:4711{rest}");
                let line = refused(&url).unwrap_or_else(|| panic!("{url} is not refused"));
                assert!(!line.contains("4711"), "{url}: {line}");
            }
        }
    }

    /// A login of any characters before the host, or a parameter of any name.
    #[test]
    fn no_spelling_of_a_password_is_told() {
        let mut seed = 1_u64;
        let mut random = |below: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            usize::try_from(seed >> 33).unwrap() % below
        };
        let parts =
            ["/", "#", "?", "@", ":", "%", "&", "=", "a", "1", "%40", ";", " ", "\\", "[", ","];
        let schemes = ["redis", "rediss", "unix", "memcached", "file", "REDIS", "http"];
        let mut refusals = 0;
        for _ in 0..50_000 {
            let (scheme, count) = (schemes[random(7)], random(4));
            let noise: String = (0..count).map(|_| parts[random(16)]).collect();
            let url = match random(4) {
                0 => format!("{scheme}://u:{noise}s3cr3t@localhost:1/x"),
                1 => format!("{scheme}://u:s3cr3t{noise}@localhost:1/0"),
                2 => format!("{scheme}://localhost:1/0?{noise}pass{noise}=s3cr3t"),
                _ => format!("{scheme}:///run/s?{noise}=s3cr3t{noise}"),
            };
            if let Some(line) = refused(&url) {
                refusals += 1;
                assert!(!line.contains("s3cr3t"), "{url}: {line}");
            }
        }
        assert!(refusals > 20_000, "{refusals}");
    }
}
