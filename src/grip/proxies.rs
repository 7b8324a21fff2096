//! Telling proxies of events, by their control URLs.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use url::Url;

use super::channel::Channel;
use crate::error::Error;
use crate::event::Event;
use crate::net::TlsFiles;
use crate::net::address::Address;
use crate::net::stream::{DeadlineStream, Transport, invalid_reply, quoted, read_more};
use crate::net::tls::Tls;

/// The longest time that proxies take of a publish, all together.
pub const LIMIT: Duration = Duration::from_millis(250);

/// The most bytes of an answer that are read. Its first line counts.
const MAX_ANSWER: u64 = 65_536;

/// The authorities that Debian and others trust.
const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// The proxies that are told of events.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Proxies(Vec<Control>);

/// The control URL of a proxy.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Control {
    is_tls: bool,
    /// The host without the port, as its certificate has it.
    name: String,
    /// As it stands in `Host`.
    host: String,
    address: Address,
    path: String,
    /// What the proxy knows us by.
    key: Option<String>,
}

impl Proxies {
    /// None.
    #[cfg(test)]
    pub const NONE: Self = Self(Vec::new());

    /// Reads a list of control URLs with white space between them; `None` if one is wrong.
    #[must_use]
    pub fn parse(list: &str) -> Option<Self> {
        list.split_ascii_whitespace().map(Control::parse).collect::<Option<_>>().map(Self)
    }

    /// Looks up the names of hosts. That may take another process, so it comes before the limits
    /// of the sandbox. A proxy without an address is reported when it is to be told.
    pub fn look_up(&mut self) {
        for control in &mut self.0 {
            let _ = control.address.look_up();
        }
    }

    /// Each one whose address is known, by itself.
    pub fn reachable(&self) -> impl Iterator<Item = Self> + '_ {
        let known = self.0.iter().filter(|control| !control.address.is_unknown());
        known.map(|control| Self(vec![control.clone()]))
    }

    /// Tells them that these events have happened. The store has them already.
    ///
    /// # Errors
    /// The first proxy that does not take it within its share of [`LIMIT`].
    pub fn tell(&self, events: &[Event]) -> Result<(), Error> {
        self.tell_within(events, LIMIT)
    }

    /// The same with another limit of the time that they take together.
    ///
    /// # Errors
    /// The first proxy that does not take it within its share of the limit.
    pub fn tell_within(&self, events: &[Event], limit: Duration) -> Result<(), Error> {
        if self.0.is_empty() || events.is_empty() {
            return Ok(());
        }
        let body = hints(events).to_string();
        let end = Instant::now() + limit;
        let mut told = Ok(());
        for (number, control) in self.0.iter().enumerate() {
            let others = u32::try_from(self.0.len() - number).unwrap_or(u32::MAX);
            let now = Instant::now();
            let until = now + end.saturating_duration_since(now) / others;
            let posted = control.post(&body, until).map_err(|cause| control.failed(&cause));
            told = told.and(posted);
        }
        told
    }
}

/// A hint makes a proxy ask for each request that it holds. The channel of all events gets one.
fn hints(events: &[Event]) -> Value {
    let item = |channel: &Channel, event: &Event| {
        let hint = json!({"action": "hint"});
        json!({
            "channel": channel.name(),
            "id": event.cursor.to_string(),
            "formats": {"http-response": hint, "http-stream": hint},
        })
    };
    let of_topics = events.iter().map(|event| item(&Channel::of(&event.topic), event));
    let of_all = events.iter().max_by_key(|event| event.cursor);
    let of_all = of_all.map(|event| item(&Channel::of_all(), event));
    json!({"items": of_topics.chain(of_all).collect::<Vec<_>>()})
}

impl Control {
    fn parse(text: &str) -> Option<Self> {
        let url = Url::parse(text).ok()?;
        let is_tls = match url.scheme() {
            "http" => false,
            "https" => cfg!(feature = "tls"),
            _ => return None,
        };
        let is_whole = url.username().is_empty() && url.password().is_none() && !text.contains('#');
        if !is_whole || is_tls != (url.scheme() == "https") {
            return None;
        }
        let port = url.port_or_known_default()?;
        let name = url.host_str()?;
        let host = url.port().map_or(name.to_owned(), |port| format!("{name}:{port}"));
        let address = Address::parse(&format!("{name}:{port}"), port)?;
        let path = format!("{}/publish/", url.path().trim_end_matches('/'));
        let name = name.trim_matches(['[', ']']).to_owned();
        let key = url.query_pairs().find(|(name, _)| name == "key");
        let key = key.map(|(_, key)| key.into_owned());
        let is_visible = |key: &String| key.bytes().all(|byte| byte.is_ascii_graphic());
        let is_known = url.query().is_none() || key.as_ref().is_some_and(is_visible);
        is_known.then_some(Self { is_tls, name, host, address, path, key })
    }

    fn post(&self, body: &str, until: Instant) -> io::Result<()> {
        let socket = DeadlineStream::open_until(&self.address, MAX_ANSWER, until)?;
        let mut stream: Box<dyn Transport> = match self.is_tls {
            true => {
                let files = TlsFiles { ca: PathBuf::from(AUTHORITIES), own: None };
                Tls::read(&files)?.over(socket, &self.name)?
            }
            false => Box::new(socket),
        };
        stream.wait_until(until);
        stream.write_all(self.request(body).as_bytes())?;
        stream.flush()?;
        let mut answer = Vec::new();
        while !answer.contains(&b'\n') {
            read_more(&mut stream, &mut answer)?;
        }
        let line = String::from_utf8_lossy(&answer);
        let line = line.lines().next().unwrap_or_default();
        match line.split(' ').nth(1) {
            Some("200") => Ok(()),
            Some(_) => Err(io::Error::other(format!("it answers {:?}", quoted(line)))),
            None => Err(invalid_reply("it does not speak HTTP")),
        }
    }

    /// RFC 9112 §3.
    fn request(&self, body: &str) -> String {
        let key = self.key.as_ref();
        let key = key.map(|key| format!("Authorization: Bearer {key}\r\n")).unwrap_or_default();
        format!(
            "POST {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{key}\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.path,
            self.host,
            body.len()
        )
    }

    fn failed(&self, cause: &io::Error) -> Error {
        Error::unavailable(
            "a proxy was not told",
            &format!("NOVCOMET_GRIP: the proxy at {self} was not told of an event: {cause}"),
            "see that it runs; the subscribers that it holds get the event when the hold ends",
        )
    }
}

impl fmt::Display for Control {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.host, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Cursor, Topic};

    #[test]
    fn control_urls_are_a_list() {
        let all = Proxies::parse("http://127.0.0.1:5561 http://[::1]:8/a/?key=s%2Bcret").unwrap();
        assert_eq!(all.0[0].to_string(), "http://127.0.0.1:5561/publish/");
        assert_eq!(all.0[1].to_string(), "http://[::1]:8/a/publish/");
        assert_eq!(Proxies::parse("").unwrap(), Proxies::default());
        for wrong in
            ["127.0.0.1:5561", "ftp://a/", "http://u:p@a/", "http://a/?x=1", "http://a/#x", "x"]
        {
            assert_eq!(Proxies::parse(wrong), None, "{wrong}");
        }
        assert_eq!(Proxies::parse("https://a.example").is_some(), cfg!(feature = "tls"));
    }

    #[test]
    fn key_is_in_the_request_only() {
        let all = Proxies::parse("http://a.example/service/x?key=s3cret").unwrap();
        let request = all.0[0].request("{}");
        let head = "POST /service/x/publish/ HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\
                    Authorization: Bearer s3cret\r\nContent-Type: application/json\r\n\
                    Content-Length: 2\r\n\r\n{}";
        assert_eq!(request, head);
        assert!(!all.0[0].failed(&io::Error::other("x")).log_line().unwrap().contains("s3cret"));
    }

    #[test]
    fn hints_are_for_each_topic_and_for_all() {
        let event = |name, micros| Event {
            topic: Topic::new(name).unwrap(),
            cursor: Cursor::from_micros(micros),
        };
        let hint =
            r#""formats":{"http-response":{"action":"hint"},"http-stream":{"action":"hint"}}"#;
        assert_eq!(
            hints(&[event("a", 1_500_000), event("b", 1_500_001)]).to_string(),
            format!(
                "{{\"items\":[{{\"channel\":\"novcomet-a\",{hint},\"id\":\"1.500000\"}},\
                 {{\"channel\":\"novcomet-b\",{hint},\"id\":\"1.500001\"}},\
                 {{\"channel\":\"novcomet\",{hint},\"id\":\"1.500001\"}}]}}"
            )
        );
    }
}
