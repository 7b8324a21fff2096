//! The address of a server.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::io::{self, ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::deadline::wait_readable;

/// A server's address, as the administrator wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// Over TCP.
    Tcp {
        /// The name or IP address of the host.
        host: String,
        /// The port.
        port: u16,
        /// The IP addresses, empty until a name has been looked up.
        ips: Vec<IpAddr>,
    },
    /// A socket on this machine.
    Unix(PathBuf),
}

impl Address {
    /// Reads `host`, `host:port` or `[v6]:port`.
    pub fn parse(text: &str, default_port: u16) -> Option<Self> {
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, port.parse().ok()?),
            _ => (text, default_port),
        };
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let is_host = |host: &str| !host.is_empty() && host.bytes().all(is_host_byte);
        let named = bare.is_some_and(|host| host.parse::<Ipv6Addr>().is_ok()) || is_host(host);
        (named && port > 0).then(|| Self::tcp(bare.unwrap_or(host), port))
    }

    /// An IP address and `localhost` need no look-up.
    pub fn tcp(host: &str, port: u16) -> Self {
        let ips = match host.parse() {
            Ok(ip) => vec![ip],
            Err(_) if host == "localhost" => {
                vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)]
            }
            Err(_) => Vec::new(),
        };
        Self::Tcp { host: host.to_owned(), port, ips }
    }

    /// Whether it is a name that has not been looked up.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::Tcp { ips, .. } if ips.is_empty())
    }

    /// Looks up the name.
    ///
    /// # Errors
    /// `NotFound` for an unknown name, `TimedOut` after [`LOOKUP_TIMEOUT`].
    pub fn look_up(&mut self) -> io::Result<()> {
        self.look_up_until(Instant::now() + LOOKUP_TIMEOUT)
    }

    /// The same, with another deadline.
    ///
    /// # Errors
    /// `NotFound` for an unknown name, `TimedOut` at the deadline.
    pub fn look_up_until(&mut self, until: Instant) -> io::Result<()> {
        if let Self::Tcp { host, ips, .. } = self {
            if ips.is_empty() {
                *ips = resolve(host, until)?;
            }
        }
        Ok(())
    }
}

/// The longest time for the look-up of a name.
const LOOKUP_TIMEOUT: Duration = Duration::from_millis(250);

fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_')
}

/// Where it was looked up, the address is the same.
impl Hash for Address {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Self::Tcp { host, port, .. } => (host, port).hash(state),
            Self::Unix(path) => path.hash(state),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port, .. } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port, .. } => write!(f, "{host}:{port}"),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

/// Runs getent(1). In a static executable getaddrinfo(3) would load the libraries of
/// the system, add 176 kB, and have no deadline.
fn resolve(host: &str, until: Instant) -> io::Result<Vec<IpAddr>> {
    let mut getent = Command::new("getent");
    let started = getent.args(["ahosts", host]).stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut lookup = Lookup(started?);
    let mut text = String::new();
    if let Some(stdout) = &mut lookup.0.stdout {
        wait_readable(&stdout, until)?;
        stdout.read_to_string(&mut text)?;
    }
    let first = |line: &str| line.split_whitespace().next()?.parse().ok();
    let mut found: Vec<IpAddr> = text.lines().filter_map(first).collect();
    found.dedup();
    match found.is_empty() {
        true => Err(io::Error::new(ErrorKind::NotFound, format!("no address for {host}"))),
        false => Ok(found),
    }
}

/// A process that is killed and waited for when this is dropped.
struct Lookup(Child);

impl Drop for Lookup {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_has_host_and_port() {
        let tcp = |host: &str, port| Some(Address::tcp(host, port));
        for (text, address) in [
            ("a.example:1", tcp("a.example", 1)),
            ("127.0.0.1", tcp("127.0.0.1", 7)),
            ("[::1]:65535", tcp("::1", 65535)),
            ("[::1]", tcp("::1", 7)),
        ] {
            assert_eq!(Address::parse(text, 7), address, "{text}");
        }
        for text in ["", ":1", "a:", "a:0", "a:65536", "a b:1", "::1", "[x]:1", "a/b", "a@b:1"] {
            assert_eq!(Address::parse(text, 7), None, "{text}");
        }
        assert_eq!(tcp("::1", 6).unwrap().to_string(), "[::1]:6");
    }
}
