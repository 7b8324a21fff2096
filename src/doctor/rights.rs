//! The rights at the URL, and at others that lead to the program.

use super::finding::Findings;
use super::server::Server;
use super::visit::{ABOUT, About, served_as_a_file};
use crate::auth::access::Origin;
use crate::net::http::{ANSWER, Answer, Site};

/// The paths at which the program may be, too.
const PATHS: [&str; 5] = [
    "/cgi-bin/comet.cgi",
    "/comet.cgi",
    "/novcomet/comet.cgi",
    "/comet.php",
    "/novcomet/comet.php",
];

/// The part of the path that asks for the hub of Mercure, which tells whether there was a token.
pub const HUB: &str = "/.well-known/mercure";

/// The headers of a request that a page of another site causes.
pub const OTHER_SITE: [&str; 2] = ["Origin: http://doctor.invalid", "Sec-Fetch-Site: cross-site"];

/// A publish that is only asked for: nothing is published on HEAD.
const PUBLISH: &str = "publish=doctor";

/// Whether `Authorization` reaches the program: a token that is none is refused as invalid.
pub fn authorization(site: &Site, server: Server, findings: &mut Findings) {
    let target = format!("{}{HUB}?topic=doctor", site.path);
    let sent = site.send("GET", &target, &["Authorization: Bearer doctor"]);
    let Ok(answer) = sent.and_then(|mut exchange| exchange.head(ANSWER)) else {
        return findings.note("whether Authorization arrives is not known: no answer");
    };
    let is_seen = answer.header("WWW-Authenticate").contains("invalid_token");
    match answer.status {
        401 if is_seen => findings.ok("Authorization arrives"),
        200 | 401 => findings.fault(
            "Authorization does not arrive, so tokens in it do not count",
            &server.choose("CGIPassAuth On", "remove what unsets the header Authorization"),
        ),
        status => findings.note(&format!("whether Authorization arrives is not known: {status}")),
    }
}

/// Which pages may publish, and read answers.
pub fn origins(site: &Site, server: Server, configured: &[Origin], findings: &mut Findings) {
    let publish = |headers: &[&str]| site.ask("HEAD", PUBLISH, headers).ok().map(|it| it.status);
    let own = format!("Origin: {}://{}", site.scheme, site.host);
    match (publish(&[]), publish(&[&own]), publish(&OTHER_SITE)) {
        (Some(200), _, Some(200)) => findings.note(&format!(
            "pages of any site can publish; {}",
            server.setting("NOVCOMET_PUBLISH", "same-site")
        )),
        (Some(200), Some(200), _) => findings.ok("pages of this site can publish, others cannot"),
        (Some(200), Some(403), _) => findings.fault(
            "pages of this site cannot publish: the program does not see their Host",
            &server.setting("NOVCOMET_ORIGINS", &own["Origin: ".len()..]),
        ),
        (Some(401), ..) => findings.ok("a publisher needs a token"),
        (Some(403), ..) => findings.note("publishing by GET is forbidden here"),
        _ => findings.note("which pages can publish is not known"),
    }
    for origin in configured.iter().map(Origin::as_str) {
        cors(site, server, origin, findings);
    }
}

/// An origin of our settings must be one of the server's.
fn cors(site: &Site, server: Server, origin: &str, findings: &mut Findings) {
    let Ok(answer) = site.ask("HEAD", ABOUT, &[&format!("Origin: {origin}")]) else { return };
    match answer.header("Access-Control-Allow-Origin") == origin {
        true => findings.ok(&format!("pages of {origin} can read answers")),
        false => findings.fault(
            &format!("pages of {origin} cannot read answers, although this shell names them"),
            &server.setting("NOVCOMET_ORIGINS", origin),
        ),
    }
}

/// What the settings at a URL decide, as far as a stranger sees it.
#[derive(PartialEq, Eq)]
struct Rules {
    store: Option<String>,
    publish: Option<u16>,
    list: Option<u16>,
}

impl Rules {
    fn at(site: &Site, path: &str, about: About) -> Self {
        let status = |query: &str| {
            let answer = site.ask_at("HEAD", &format!("{path}?{query}"), &[]);
            answer.ok().map(|answer: Answer| answer.status)
        };
        Self { store: about.store, publish: status(PUBLISH), list: status("topics=doctor") }
    }

    /// Whether the server has answered in time.
    fn are_known(&self) -> bool {
        self.publish.is_some() && self.list.is_some()
    }
}

/// Whether other URLs lead to the program, and the same settings count there.
pub fn other_urls(site: &Site, server: Server, about: &About, findings: &mut Findings) {
    let rules = Rules::at(site, &site.path, about.clone());
    let mut same = Vec::new();
    for path in PATHS.into_iter().filter(|&path| path != site.path) {
        let Ok(answer) = site.ask_at("GET", &format!("{path}?{ABOUT}"), &[]) else { continue };
        if answer.body.starts_with(b"\x7fELF") {
            served_as_a_file(path, server, findings);
        }
        let Some(about) = About::of(&answer) else { continue };
        let others = Rules::at(site, path, about);
        if !rules.are_known() || !others.are_known() {
            continue;
        }
        match others == rules {
            true => same.push(path),
            false => findings.fault(
                &format!("other settings count at {path}, which leads to NovComet too"),
                &remedy(server, path),
            ),
        }
    }
    if !same.is_empty() {
        findings.ok(&format!("the same settings count at {}", same.join(", ")));
    }
}

fn remedy(server: Server, path: &str) -> String {
    match path.starts_with("/cgi-bin/") {
        true => "chmod 0 /usr/lib/cgi-bin/comet.cgi".into(),
        false => server.choose(
            "move the settings into <Directory \"/usr/lib/novcomet\">",
            "move setenv.add-environment out of the block of one URL",
        ),
    }
}
