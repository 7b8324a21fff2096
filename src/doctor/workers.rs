//! The workers of Apache. Each waiting request holds one, and so does each page.

use super::finding::Findings;
use super::machine::MAX_WAITERS;
use super::server::Server;
use crate::config::Config;
use crate::net::http::Site;

/// The page of `mod_status` for programs. Debian enables it for clients on the machine.
const STATUS: &str = "/server-status?auto";

/// How many workers pages need beside those who wait, as in the settings that are shipped.
const FOR_PAGES: u64 = 50;

/// What `mod_status` tells.
#[derive(Debug, PartialEq, Eq)]
struct Workers {
    /// The name of the multi-processing module.
    mpm: String,
    /// `MaxRequestWorkers`, as far as `ServerLimit` lets it.
    number: u64,
}

impl Workers {
    /// The scoreboard has a character for each worker that there may be.
    fn parse(text: &str) -> Option<Self> {
        let value = |name| text.lines().find_map(|line: &str| line.strip_prefix(name));
        let mpm = value("ServerMPM: ")?.to_owned();
        let number = value("Scoreboard: ")?.chars().count().try_into().ok()?;
        Some(Self { mpm, number })
    }
}

/// Compares the number of workers with that of requests that may wait. With `config`, the server
/// is on this machine.
pub fn examine(site: &Site, server: Server, config: Option<&Config>, findings: &mut Findings) {
    if server != Server::Apache {
        return;
    }
    let status = site.ask_at("GET", STATUS, &[]).ok();
    let text = status.map(|answer| String::from_utf8_lossy(&answer.body).into_owned());
    let Some(workers) = text.and_then(|text| Workers::parse(&text)) else {
        return findings.note(
            "how many workers Apache has is not known: it does not show /server-status; \
             a2enmod status && systemctl restart apache2, and ask at http://localhost/",
        );
    };
    if workers.mpm == "prefork" {
        findings.note(
            "Apache runs the prefork MPM, in which each waiting request takes a process; \
             a2dismod mpm_prefork && a2enmod mpm_event cgid, unless mod_php needs it",
        );
    }
    let waiters = waiters(site).or(config.map(|config| config.max_waiters.into()));
    compare(&workers, waiters, server, findings);
}

/// The server's own process tells its setting on its page.
fn waiters(site: &Site) -> Option<u64> {
    let page = site.ask("GET", "doctor=1", &[]).ok().filter(|answer| answer.status == 200)?;
    let text = String::from_utf8_lossy(&page.body).into_owned();
    text.lines().find_map(|line| line.split_once(MAX_WAITERS)?.1.parse().ok())
}

fn compare(workers: &Workers, waiters: Option<u64>, server: Server, findings: &mut Findings) {
    let Workers { mpm, number } = workers;
    let what = format!("Apache has {number} workers ({mpm} MPM)");
    match waiters {
        None => findings.ok(&what),
        Some(waiters) if (1..*number).contains(&waiters) => findings.ok(&format!(
            "{what}, of which {} are left if {waiters} requests wait",
            number - waiters
        )),
        Some(waiters) => {
            let all = if waiters == 0 { "any number of".into() } else { waiters.to_string() };
            let fit = number.saturating_sub(FOR_PAGES).max(number / 2).max(1);
            findings.fault(
                &format!("{what}, and {all} requests may wait: then no page is answered"),
                &server.setting("NOVCOMET_MAX_WAITERS", &fit.to_string()),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scoreboard_is_counted() {
        let text = "localhost\nServerVersion: Apache/2.4.71 (Debian)\nServerMPM: event\n\
                    BusyWorkers: 1\nIdleWorkers: 3\nScoreboard: _W__..\n";
        let expected = Workers { mpm: "event".into(), number: 6 };
        assert_eq!(Workers::parse(text), Some(expected));
        assert_eq!(Workers::parse("<!doctype html>"), None);
    }
}
