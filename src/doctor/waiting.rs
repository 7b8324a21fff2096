//! Requests that wait: whether they are held, woken, and ended.

use std::fs;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::finding::{Findings, quoted};
use super::own::Own;
use super::server::Server;
use super::visit::problem;
use crate::config::Config;
use crate::error::Error;
use crate::event::Topic;
use crate::net::http::{ANSWER, Answer, Exchange, Site};
use crate::process::random::uuid;
use crate::process::slots::Slots;

/// How long a poll must stay open without an event.
const HELD: Duration = Duration::from_secs(1);

/// How long an event may take to a client.
const PROMPT: Duration = Duration::from_secs(3);

/// How long a client that has gone may hold its slot.
const GONE: Duration = Duration::from_secs(6);

/// Longer than the wait of a request as shipped, and than that of most others.
const LONG: Duration = Duration::from_secs(150);

/// A topic that nobody else has. Its file is removed when this is dropped.
pub struct Trial<'a> {
    topic: Topic,
    own: &'a Own,
}

impl<'a> Trial<'a> {
    pub fn new(own: &'a Own) -> Result<Self, Error> {
        Ok(Self { topic: Topic::new(format!("doctor-{}", uuid()))?, own })
    }

    /// An event without a message is seen by a server that may not read the file, too.
    fn publish(&self) -> Result<(), Error> {
        self.own.store.publish(&self.topic, None).map(|_| ())
    }

    fn target(&self, site: &Site, rest: &str) -> String {
        format!("{}?subscribed%5B{}%5D=0{rest}", site.path, self.topic.as_str())
    }

    /// A name without special characters is that of its file.
    fn file(&self) -> Option<PathBuf> {
        Some(self.own.location.path()?.join(format!("{}.comet", self.topic.as_str())))
    }
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        let _ = self.file().map(fs::remove_file);
    }
}

/// Holds a poll, and publishes to it from here.
pub fn poll(trial: &Trial, site: &Site, server: Server, findings: &mut Findings) -> Option<()> {
    let sent = site.send("GET", &trial.target(site, "&wait=5"), &[]);
    let mut exchange = sent.map_err(|cause| findings.note(&format!("a poll: {cause}"))).ok()?;
    if exchange.receives(HELD) {
        let answer = exchange.answer(ANSWER).ok()?;
        not_held(&answer, server, findings);
        return None;
    }
    findings.ok("a poll is held");
    if let Err(error) = trial.publish() {
        findings.note(&format!("this shell cannot publish: {error}"));
        return None;
    }
    let begin = Instant::now();
    let answer = exchange.answer(PROMPT);
    let heard = answer.is_ok_and(|it| String::from_utf8_lossy(&it.body).contains("\"s\":1"));
    match heard {
        false if !exchange.is_local() && trial.file().is_some() => findings.note(
            "a poll does not hear what this shell publishes; call the doctor on the server's machine",
        ),
        true => findings.ok(&format!(
            "a poll hears what this shell publishes, after {} ms",
            begin.elapsed().as_millis()
        )),
        false => findings.fault(
            "a poll does not hear what this shell publishes: the server's store is another one",
            &same_store(trial.own, server),
        ),
    }
    heard.then_some(())
}

/// The line that gives the store of this shell to the server.
fn same_store(own: &Own, server: Server) -> String {
    match own.location.directory() {
        Some(url) => server.setting("NOVCOMET_STORE", &url),
        None => "give the server the NOVCOMET_STORE of this shell".into(),
    }
}

/// The server's store, if it tells it, must be that of this shell.
pub fn stores(told: Option<&str>, own: &Own, findings: &mut Findings) -> bool {
    match (told, own.location.directory()) {
        (Some(theirs), ours) if ours.as_deref() != Some(theirs) => {
            let ours = ours.unwrap_or("a server".into());
            findings.fault(
                &format!("the store of the server is {theirs}, that of this shell {ours}"),
                &format!("NOVCOMET_STORE={} comet.cgi doctor URL", quoted(theirs)),
            );
            false
        }
        (Some(theirs), _) => {
            findings.ok(&format!("the server and this shell have the same store, {theirs}"));
            true
        }
        (None, _) => true,
    }
}

fn not_held(answer: &Answer, server: Server, findings: &mut Findings) {
    match (answer.status, answer.header("Retry-After")) {
        (401 | 403, _) => {
            let why = problem(answer).unwrap_or_default();
            findings.note(&format!("waiting cannot be tried: {} {why}", answer.status));
        }
        (_, "") => findings.fault("a poll is not held, but answered at once", &server.log()),
        _ => findings.fault(
            "a poll is not held: all slots of waiting requests are taken",
            &server.setting("NOVCOMET_MAX_WAITERS", "2000"),
        ),
    }
}

/// Opens a stream, publishes to it, and returns it while it is open.
pub fn stream(
    trial: &Trial,
    site: &Site,
    server: Server,
    findings: &mut Findings,
) -> Option<Exchange> {
    let begin = Instant::now();
    let compressed = flow(trial, site, COMPRESSED);
    let elapsed = begin.elapsed().as_millis();
    if let Some((exchange, encoding)) = compressed {
        match encoding.as_str() {
            "" | "identity" => findings
                .ok(&format!("a stream comes without delay: two events within {elapsed} ms")),
            _ => findings.fault(&format!("streams are compressed ({encoding})"), &plain(server)),
        }
        return Some(exchange);
    }
    let found = flow(trial, site, "Accept-Encoding: identity");
    match found.is_some() {
        true => findings.fault("a stream is held back by compression", &plain(server)),
        false => findings.fault("a stream is held back by a buffer", &unbuffered(server)),
    }
    found.map(|(exchange, _)| exchange)
}

const COMPRESSED: &str = "Accept-Encoding: gzip, deflate, br, zstd";

/// A stream through which one event has come, and then another as soon as it was published;
/// and how it is encoded. `None` if they come late.
fn flow(trial: &Trial, site: &Site, accept: &str) -> Option<(Exchange, String)> {
    let mut exchange = site.send("GET", &trial.target(site, "&stream=1"), &[accept]).ok()?;
    let encoding = exchange.head(PROMPT).ok()?.header("Content-Encoding").to_owned();
    let begins = exchange.has_body() || exchange.receives(PROMPT);
    let flows = begins && trial.publish().is_ok() && exchange.receives(PROMPT);
    flows.then_some((exchange, encoding))
}

fn plain(server: Server) -> String {
    match server {
        Server::Other => "gzip off".into(),
        server => server.choose("SetEnv no-gzip 1", "deflate.mimetypes = ( \"text/html\" )"),
    }
}

fn unbuffered(server: Server) -> String {
    match server {
        Server::Other => "proxy_buffering off".into(),
        server => server.choose("RemoveOutputFilter .cgi", "server.stream-response-body = 2"),
    }
}

/// Leaves the stream, and sees whether its slot is free again. Only on the server's machine.
pub fn departure(
    trial: &Trial,
    config: &Config,
    (stream, end): (Exchange, Instant),
    findings: &mut Findings,
) {
    // The server may have another limit than this shell.
    let slots = Slots { store: &config.store, most: u32::MAX, most_per_address: 0 };
    let Some(before) = slots.used().filter(|&used| used > 0) else { return };
    drop(stream);
    let begin = Instant::now();
    while begin.elapsed() < GONE && Instant::now() < end {
        if slots.used().is_some_and(|used| used < before) {
            let elapsed = begin.elapsed().as_millis();
            let rest = before - 1;
            return findings.ok(&format!(
                "a client that goes away frees its slot, after {elapsed} ms; {rest} wait now"
            ));
        }
        // A server notices it when something is written.
        let _ = trial.publish();
        sleep(Duration::from_millis(200));
    }
    findings.note("a client that goes away holds its slot for some time");
}

/// Waits without an event for as long as the server lets it.
pub fn silence(trial: &Trial, site: &Site, server: Server, findings: &mut Findings) {
    let begin = Instant::now();
    let sent = site.send("GET", &trial.target(site, ""), &[]);
    let answer = sent.and_then(|mut exchange| exchange.answer(LONG));
    let seconds = begin.elapsed().as_secs();
    match answer {
        Ok(answer) if answer.status == 200 && !answer.body.is_empty() => {
            findings.ok(&format!("a request may be silent for {seconds} s, as long as it waits"));
        }
        Ok(Answer { status, .. }) => {
            cut(&format!("with status {status} after {seconds} s"), server, findings);
        }
        Err(cause) => cut(&format!("after {seconds} s: {cause}"), server, findings),
    }
}

fn cut(how: &str, server: Server, findings: &mut Findings) {
    let fix = match server {
        Server::Other => "proxy_read_timeout 60s".into(),
        server => server.choose("CGIDScriptTimeout 60", "server.max-write-idle = 360"),
    };
    findings.fault(&format!("a silent request is ended {how}"), &fix);
}
