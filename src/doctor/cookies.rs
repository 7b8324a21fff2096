//! Cookies: whether they reach the program, and whether it can tell from which site they come.

use std::time::Duration;

use super::finding::Findings;
use super::rights::{HUB, OTHER_SITE};
use super::server::Server;
use crate::net::http::{ANSWER, Site};

/// A poll of a page that may wait is open for so long. One of another site is answered at once.
const HELD: Duration = Duration::from_millis(500);

/// Whether `Cookie` reaches the program: a token that is none is refused as invalid.
pub fn arrival(site: &Site, server: Server, findings: &mut Findings) {
    let target = format!("{}{HUB}?topic=doctor", site.path);
    let sent = site.send("GET", &target, &["Cookie: mercureAuthorization=doctor"]);
    let Ok(answer) = sent.and_then(|mut exchange| exchange.head(ANSWER)) else {
        return findings.note("whether Cookie arrives is not known: no answer");
    };
    let is_seen = answer.header("WWW-Authenticate").contains("invalid_token");
    match answer.status {
        401 if is_seen => findings.ok("Cookie arrives"),
        200 | 401 => {
            let fix = "remove what unsets the header Cookie";
            findings.fault(
                "Cookie does not arrive, so tokens in it do not count",
                &server.choose(fix, fix),
            );
        }
        status => findings.note(&format!("whether Cookie arrives is not known: {status}")),
    }
}

/// Whether the program can tell pages of other sites from those of this one. A cookie from them
/// does not count.
pub fn origin(site: &Site, server: Server, findings: &mut Findings) {
    let own = format!("Origin: {}://{}", site.scheme, site.host);
    match (is_held(site, &[&own]), is_held(site, &OTHER_SITE)) {
        (Some(true), Some(false)) => {
            findings.ok("pages of other sites are recognised, so cookies from them do not count");
        }
        (Some(true), Some(true)) => {
            let fix = "remove what changes the headers Origin and Sec-Fetch-Site";
            findings.fault(
                "pages of other sites are not recognised, so cookies count from every site or none",
                &server.choose(fix, fix),
            );
        }
        _ => findings.note("whether cookies from other sites count is not known"),
    }
}

/// Whether a poll with these headers may wait; `None` if it is refused.
fn is_held(site: &Site, headers: &[&str]) -> Option<bool> {
    let target = format!("{}?subscribed%5Bdoctor%5D=0&wait=1", site.path);
    let mut exchange = site.send("GET", &target, headers).ok()?;
    if !exchange.receives(HELD) {
        return Some(true);
    }
    let answer = exchange.answer(ANSWER).ok()?;
    let is_sent_away = answer.status == 200 && !answer.header("Retry-After").is_empty();
    is_sent_away.then_some(false)
}
