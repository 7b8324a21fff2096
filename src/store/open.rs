//! Opens the store that a URL names. Only this file knows all stores.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Mode, OFlags, open};
use url::Url;

use super::{Limits, Retention, Store, file, memcached, redis};
use crate::error::Error;
use crate::net::address::Address;

/// The location of a store. The names of servers are looked up, and nothing is open.
#[derive(Debug, Clone)]
pub struct Location(Kind);

#[derive(Debug, Clone)]
enum Kind {
    Directory(PathBuf),
    Redis(redis::Server),
    Memcached(memcached::Servers),
}

impl Location {
    /// The URL of the directory of the events; `None` for a server, whose URL may have a
    /// password.
    #[must_use]
    pub fn directory(&self) -> Option<String> {
        Url::from_file_path(self.path()?).ok().map(String::from)
    }

    /// The path of the directory of the events.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match &self.0 {
            Kind::Directory(path) => Some(path),
            Kind::Redis(_) | Kind::Memcached(_) => None,
        }
    }

    /// Calls `act` with the directory of the events, if there is one.
    pub fn with_directory(&self, act: impl FnOnce(BorrowedFd<'_>)) {
        if let Kind::Directory(path) = &self.0 {
            let how = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            if let Ok(directory) = open(path, how, Mode::empty()) {
                act(directory.as_fd());
            }
        }
    }

    /// Opens the store. A store that cannot wake a process is polled every `poll`.
    ///
    /// # Errors
    /// 503 if it cannot be used.
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

/// The store that `url` names.
///
/// # Errors
/// 503 for a URL that names no store.
pub fn locate(url: &str) -> Result<Location, Error> {
    if let Some(servers) = url.strip_prefix("memcached://") {
        let mut servers = memcached::Servers::parse(servers).ok_or_else(|| refusal(url))?;
        servers.addresses.iter_mut().for_each(look_up);
        return Ok(Location(Kind::Memcached(servers)));
    }
    let parsed = Url::parse(url).map_err(|_| refusal(url))?;
    match parsed.scheme() {
        "file" => {
            let directory = parsed.to_file_path().map_err(|()| refusal(url))?;
            Ok(Location(Kind::Directory(directory)))
        }
        "rediss" if cfg!(not(feature = "tls")) => Err(refusal_as(url, NO_TLS)),
        "redis" | "rediss" | "unix" => {
            let mut server = redis::Server::parse(&parsed).ok_or_else(|| refusal(url))?;
            look_up(&mut server.address);
            Ok(Location(Kind::Redis(server)))
        }
        _ => Err(refusal(url)),
    }
}

fn refusal(url: &str) -> Error {
    refusal_as(url, URL)
}

fn refusal_as(url: &str, expected: &str) -> Error {
    Error::setting("NOVCOMET_STORE", &without_secrets(url), expected)
}

const URL: &str = "the URL of a store, such as file:///dev/shm, redis://host:6379/0, \
                   unix:///run/redis.sock?db=0 or memcached://host:11211 (what may be a secret \
                   is not shown; write / # ? @ % in a user or password as %2F %23 %3F %40 %25, \
                   and a prefix with one colon, at its end)";
const NO_TLS: &str = "a store of this executable, which was built without TLS; build one by \
                      `make FEATURES=tls`, or name a tunnel before it (stunnel) as redis://";

/// The process that looks up a name must start before the sandbox forbids it. A server without an
/// address cannot be used, as one that is down: the protocol of the request says so to its client.
fn look_up(address: &mut Address) {
    let _ = address.look_up();
}

/// The URL for the log: the scheme, and the host or path if it cannot contain a part of
/// a password. A password that is not encoded may have an `@`, `/`, `#` or `?`, so it
/// may end anywhere.
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
        locate(url).err().filter(|error| matches!(error, Error::Misconfigured { .. }))?.log_line()
    }

    #[test]
    fn refusal_shows_no_password() {
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

    /// Before a slash that should have been encoded, it looks like a port.
    #[test]
    fn password_of_digits_is_not_shown() {
        for rest in ["/x@h/0", "/@h", "/0?x@h", "/0#x@h", "?x@h", "#x@h"] {
            for scheme in ["redis", "rediss", "memcached"] {
                let url = format!("{scheme}://u:4711{rest}");
                let line = refused(&url).unwrap_or_else(|| panic!("{url} is not refused"));
                assert!(!line.contains("4711"), "{url}: {line}");
            }
        }
    }

    /// Logins with any characters before the host, and parameters of any name.
    #[test]
    fn no_spelling_of_a_password_is_shown() {
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
