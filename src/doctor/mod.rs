//! The doctor: finds what is wrong with an installation, and says what to do. It is called at
//! a shell, or by a request that asks for its page.

mod cookies;
mod date;
mod finding;
mod machine;
mod own;
mod rights;
mod server;
mod visit;
mod waiting;
mod workers;

use std::ffi::OsString;
use std::time::{Duration, Instant};

use crate::cgi::{Head, Method, Request, Response};
use crate::config::Config;
use crate::net::http::Site;
use finding::Findings;
use own::Own;
use server::Server;
use waiting::Trial;

/// The longest time of all requests together.
const TIME: Duration = Duration::from_secs(30);

/// The same, if there is time to wait for silence.
const LONG_TIME: Duration = Duration::from_secs(200);

/// Prints what is found on this machine and, if there is a URL, through it. Returns whether
/// nothing is wrong.
pub fn examine(
    environment: impl Fn(&str) -> Option<OsString> + Copy,
    url: Option<&str>,
    is_long: bool,
) -> bool {
    let mut findings = Findings::of_shell();
    let own = examine_machine(environment, &mut findings);
    match url {
        Some(url) => through(url, own, is_long, &mut findings),
        None => findings.note("the server was not asked: comet.cgi doctor URL"),
    }
    findings.is_sound()
}

/// Whether a request asks for the page of the doctor.
#[must_use]
pub fn is_asked(request: &Request) -> bool {
    let asks = request.query.split(|&byte| byte == b'&').any(|pair| pair == b"doctor=1");
    asks && request.is_cgi && request.method == Method::Get
}

/// What the web server's own process finds on this machine.
#[must_use]
pub fn page(environment: impl Fn(&str) -> Option<OsString> + Copy) -> Response {
    let mut findings = Findings::of_page();
    examine_machine(environment, &mut findings);
    Head::new(200, "text/plain; charset=utf-8").body(findings.page())
}

fn examine_machine(
    environment: impl Fn(&str) -> Option<OsString> + Copy,
    findings: &mut Findings,
) -> Option<(Config, Own)> {
    let config = own::settings(environment, findings)?;
    own::key(&config, findings);
    machine::examine(&config, findings);
    let own = own::store(&config, findings)?;
    Some((config, own))
}

fn through(url: &str, own: Option<(Config, Own)>, is_long: bool, findings: &mut Findings) {
    let end = Instant::now() + if is_long { LONG_TIME } else { TIME };
    let site = match Site::parse(url, end) {
        Ok(site) => site,
        Err((what, fix)) => return findings.fault(&what, &fix),
    };
    let Some((server, about)) = visit::examine(&site, findings) else { return };
    let store = about.store.as_deref();
    visit::health(&site, server, store, findings);
    let config = own.as_ref().map(|(config, _)| config);
    // Only a client on the server's machine is told its store.
    workers::examine(&site, server, config.filter(|_| store.is_some()), findings);
    rights::authorization(&site, server, findings);
    cookies::arrival(&site, server, findings);
    cookies::origin(&site, server, findings);
    let origins = config.map_or(&[][..], |config| &config.access.origins);
    rights::origins(&site, server, origins, findings);
    rights::other_urls(&site, server, &about, findings);
    if let Some((config, own)) = own {
        let is_same = waiting::stores(store, &own, findings);
        if let (true, Ok(trial)) = (is_same, Trial::new(&own)) {
            wait(&trial, &site, server, store.map(|_| &config), findings);
        }
        if is_same && is_long {
            silence(&own, &site, server, findings);
        }
    }
}

/// Whether requests wait as they should. With `config`, the server is on this machine.
fn wait(
    trial: &Trial,
    site: &Site,
    server: Server,
    config: Option<&Config>,
    findings: &mut Findings,
) {
    let heard = waiting::poll(trial, site, server, findings);
    let stream = heard.and_then(|()| waiting::stream(trial, site, server, findings));
    if let (Some(stream), Some(config)) = (stream, config) {
        waiting::departure(trial, config, (stream, site.end), findings);
    }
}

/// The topic of another trial has no event yet.
fn silence(own: &Own, site: &Site, server: Server, findings: &mut Findings) {
    if let Ok(trial) = Trial::new(own) {
        waiting::silence(&trial, site, server, findings);
    }
}
