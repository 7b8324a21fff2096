//! What answers at the URL.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use url::Url;

use super::date;
use super::finding::{Findings, quoted};
use super::own;
use super::server::Server;
use crate::net::http::{Answer, Site};
use crate::protocol::problem;

/// The URL at which NovComet says what it is.
pub const ABOUT: &str = "about=1";

/// How far two clocks may differ, in seconds.
const MAX_SKEW: u64 = 5;

/// The answer of NovComet about itself.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct About {
    pub version: String,
    /// Told to clients on the server's own machine only.
    pub store: Option<String>,
}

impl About {
    /// `None` if another program has answered.
    pub fn of(answer: &Answer) -> Option<Self> {
        serde_json::from_slice(&answer.body).ok().filter(|_| answer.status == 200)
    }
}

/// The text of a refusal by NovComet; `None` if another program has answered.
pub fn problem(answer: &Answer) -> Option<String> {
    problem::detail(answer.header("Content-Type"), &answer.body)
}

/// Asks what answers. `None` if it is not NovComet.
pub fn examine(site: &Site, findings: &mut Findings) -> Option<(Server, About)> {
    let answer = match site.ask("GET", ABOUT, &[]) {
        Ok(answer) => answer,
        Err(cause) => {
            silence(site, &cause, findings);
            return None;
        }
    };
    let server = Server::of(answer.header("Server"));
    let Some(about) = About::of(&answer) else {
        stranger(&answer, server, findings);
        return None;
    };
    program(&about, answer.header("Server"), findings);
    version(&answer, findings);
    clock(&answer, findings);
    Some((server, about))
}

fn silence(site: &Site, cause: &io::Error, findings: &mut Findings) {
    let fix = match cause.kind() {
        ErrorKind::TimedOut => "systemctl restart apache2 (or lighttpd)",
        // Those of a certificate (net::tls).
        ErrorKind::InvalidInput => {
            "certbot renew, or update-ca-certificates with the authority of the certificate"
        }
        ErrorKind::InvalidData => "correct http or https, and the port, in the URL",
        _ => "systemctl start apache2 (or lighttpd), or correct the URL",
    };
    findings.fault(&format!("no web server answers at {}: {cause}", site.host), fix);
}

fn program(about: &About, server: &str, findings: &mut Findings) {
    let own = env!("CARGO_PKG_VERSION");
    let server = if server.is_empty() { "a server that does not say its name" } else { server };
    match about.version == own {
        true => findings.ok(&format!("NovComet {own} runs behind {server}")),
        false => findings.note(&format!(
            "NovComet {} runs behind {server}, and this is {own}; make install",
            about.version
        )),
    }
}

fn version(answer: &Answer, findings: &mut Findings) {
    match answer.version.as_str() {
        "HTTP/1.0" => findings.note("the answer is HTTP/1.0: a proxy before the server is old"),
        other => findings.ok(&format!("the answer is {other}")),
    }
}

fn clock(answer: &Answer, findings: &mut Findings) {
    let own = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let Some(theirs) = date::seconds(answer.header("Date")) else { return };
    match own.abs_diff(theirs) {
        0..=MAX_SKEW => findings.ok("the clock of the server is ours"),
        skew => findings.fault(
            &format!("the clock of the server and ours differ by {skew} s"),
            "timedatectl set-ntp true",
        ),
    }
}

/// Something else than NovComet's description.
fn stranger(answer: &Answer, server: Server, findings: &mut Findings) {
    if answer.body.starts_with(b"\x7fELF") {
        return served_as_a_file("this URL", server, findings);
    }
    if let Some(detail) = problem(answer) {
        let what = format!("NovComet answers {}: {detail}", answer.status);
        return findings.fault(&what, &server.log());
    }
    let what = format!("the server itself answers {}, not NovComet", answer.status);
    match answer.status {
        300..=399 => {
            let to = answer.header("Location");
            let is_url = Url::parse(to).is_ok_and(|to| matches!(to.scheme(), "http" | "https"));
            match is_url {
                true => findings.fault(&what, &format!("comet.cgi doctor {}", quoted(to))),
                false => findings.fault(&what, "give the URL to which pages are redirected"),
            }
        }
        401 => findings.note(&format!("{what}: it asks for a password, and the doctor has none")),
        403 => findings.fault(&what, &server.choose(FORBIDDEN_BY_APACHE, EXECUTABLE)),
        404 => findings.fault(&what, &server.choose(ENABLE_IN_APACHE, ENABLE_IN_LIGHTTPD)),
        500 => findings.fault(&format!("{what}: it cannot start the program"), EXECUTABLE),
        503 => findings.fault(
            &format!("{what}: it has no process that starts programs"),
            &server.choose("systemctl restart apache2", "systemctl restart lighttpd"),
        ),
        _ => findings.fault(
            &format!("{what}: another program or page is at this URL"),
            &server.choose(ENABLE_IN_APACHE, ENABLE_IN_LIGHTTPD),
        ),
    }
}

/// At `place` anybody can read the program, and nobody can use it.
pub fn served_as_a_file(place: &str, server: Server, findings: &mut Findings) {
    findings.fault(
        &format!("the server sends the program as a file at {place}, and does not run it"),
        &server.choose(
            "a2enmod cgid && systemctl restart apache2",
            "lighty-enable-mod novcomet && systemctl restart lighttpd",
        ),
    );
}

const EXECUTABLE: &str = "chmod 755 /usr/lib/novcomet/comet.cgi";
const FORBIDDEN_BY_APACHE: &str = "a2enmod cgid && systemctl restart apache2; if that module is \
                                   there, chmod 755 /usr/lib/novcomet/comet.cgi";
const ENABLE_IN_APACHE: &str = "a2enconf novcomet && systemctl restart apache2";
const ENABLE_IN_LIGHTTPD: &str = "lighty-enable-mod novcomet && systemctl restart lighttpd";

/// Asks the program whether a publish and a wake-up would work.
pub fn health(site: &Site, server: Server, store: Option<&str>, findings: &mut Findings) {
    let answer = match site.ask("GET", "health=1", &[]) {
        Ok(answer) => answer,
        Err(cause) => return findings.fault(&format!("health=1: {cause}"), &server.log()),
    };
    match problem(&answer) {
        None if answer.status == 200 => {
            findings.ok("the server's user can publish, and events wake subscribers");
        }
        None => findings.fault(&format!("health=1 answers {}", answer.status), &server.log()),
        // An error's line has its remedy. Clients of other machines are told less.
        Some(reason) => {
            let remedy = remedy(&reason, store).unwrap_or_else(|| server.log());
            findings.fault(&reason, &remedy);
        }
    }
}

/// One command, where there is one. The server's own words are never part of it.
fn remedy(reason: &str, store: Option<&str>) -> Option<String> {
    let path = store.and_then(|store| store.strip_prefix("file://"))?;
    match () {
        () if reason.contains("No such file") => Some(own::creation(path.as_ref())),
        () if reason.contains("Permission denied") && !is_shared(path) => {
            let path = quoted(path);
            Some(format!("chgrp www-data {path} && chmod 2770 {path}"))
        }
        () if reason.contains("inotify") => {
            Some("sysctl -w fs.inotify.max_user_instances=1024".into())
        }
        () => None,
    }
}

/// Whether other programs use the directory too.
fn is_shared(path: &str) -> bool {
    const STICKY: u32 = 0o1000;
    fs::metadata(path).map_or(true, |found| found.mode() & STICKY != 0)
}
