//! Hostile requests through the real servers. Every answer is well-formed, and none is a 500.
//! No header repeats a part of the request, and only the files of topics are opened.

mod table;
mod trace;
mod wire;

use std::fs;
use std::io::Write;
use std::thread;

use crate::support::server::{Kind, Server, stories};
use novcomet::store::file::topic_of;
use table::{Case, MARK};
use trace::{Trace, is_change};
use wire::Answer;

stories! {
    hostile_request_only_gets_an_answer
    slow_body_delays_no_other_request
}

fn hostile_request_only_gets_an_answer(kind: Kind) {
    let server = Server::start(kind);
    let trace = Trace::of(&server);
    for query in
        ["publish=b&data=x", "publish=b", "subscribed[b]=earliest", "subscribed[c]=0&wait=0"]
    {
        assert_eq!(server.get(&format!("/comet.cgi?{query}")).status, 200);
    }
    let harmless = trace.lines();
    assert!(harmless.len() > 5, "{harmless:?}");
    let faults = faults(&server, &table::cases());
    let some = faults.iter().take(9).map(String::as_str).collect::<Vec<_>>();
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), some.join("\n"));
    assert_eq!(server.get("/comet.cgi?publish=b").body, "true");
    touches_topics_only(&server, &trace, &harmless);
    let complaints = server.complaints();
    assert!(!complaints.iter().any(|line| is_ours(line)), "{complaints:#?}");
}

/// The bodies of some requests arrive slowly, and other requests come meanwhile.
fn slow_body_delays_no_other_request(kind: Kind) {
    let server = Server::start(kind);
    let body = b"publish=slow&data=bit%20by%20bit";
    let head = format!("POST /comet.cgi HTTP/1.0\r\nContent-Length: {}\r\n\r\n", body.len());
    let mut slow: Vec<_> = (0..8).map(|_| wire::connect(server.port())).collect();
    for stream in &mut slow {
        stream.write_all(head.as_bytes()).unwrap();
    }
    for part in body.chunks(6) {
        assert_eq!(server.get("/comet.cgi?publish=b").body, "true");
        for stream in &mut slow {
            stream.write_all(part).unwrap();
        }
    }
    for stream in slow {
        assert_eq!(wire::answer(stream).unwrap().expect("an answer").status, 200);
    }
    let reply = server.get("/comet.cgi?subscribed[slow]=earliest");
    assert_eq!(reply.body.matches("bit by bit").count(), 8, "{}", reply.body);
    assert_eq!(server.complaints(), [""; 0]);
}

/// The faults in the answers. Some requests are sent concurrently.
fn faults(server: &Server, cases: &[Case]) -> Vec<String> {
    let fault = |case: &Case| {
        let answer = wire::ask(server.port(), &case.request, case.is_cut);
        let is_good = match &answer {
            Ok(Some(answer)) => is_harmless(answer) && is_expected(answer, case, server.kind()),
            Ok(None) => case.is_cut,
            Err(_) => false,
        };
        (!is_good).then(|| format!("{}: {answer:?}", case.what))
    };
    thread::scope(|scope| {
        let parts = cases.chunks(cases.len().div_ceil(4));
        let parts = parts.map(|part| scope.spawn(|| part.iter().filter_map(fault).collect()));
        let parts: Vec<thread::ScopedJoinHandle<Vec<String>>> = parts.collect();
        parts.into_iter().flat_map(|part| part.join().unwrap()).collect()
    })
}

/// Neither a crash nor an echo of the request.
fn is_harmless(answer: &Answer) -> bool {
    let is_known = matches!(answer.status, 200 | 204 | 400..=499 | 501 | 505);
    is_known && !answer.head.to_lowercase().contains(&MARK.to_lowercase())
}

/// The answer is NovComet's and as documented, or the server refuses the request before it
/// starts NovComet.
fn is_expected(answer: &Answer, case: &Case, kind: Kind) -> bool {
    let json = serde_json::from_slice::<serde_json::Value>(&answer.body).ok();
    let is_ours = match answer.header("Content-Type").unwrap_or_default() {
        "application/json; charset=utf-8" => answer.status == 200 && json.is_some(),
        "application/problem+json" => json.is_some_and(|json| json["status"] == answer.status),
        "text/event-stream; charset=utf-8" => answer.status == 200,
        _ => false,
    };
    match case.status {
        Some(status) if is_ours => answer.status == status,
        // lighttpd accepts no control character in a query.
        Some(200) => kind == Kind::Lighttpd && answer.status == 400 && has_control(case),
        _ => is_ours || answer.status >= 400 || case.what.starts_with("TRACE"),
    }
}

fn has_control(case: &Case) -> bool {
    ["%0", "%1", "%7F"].iter().any(|code| case.what.contains(code))
}

/// The store has only topics. The program opens no paths except those of harmless requests.
fn touches_topics_only(
    server: &Server,
    trace: &Trace,
    harmless: &std::collections::BTreeSet<String>,
) {
    for entry in fs::read_dir(server.store()).unwrap().flatten() {
        let name = entry.file_name().into_string().expect("UTF-8");
        assert!(topic_of(name.as_bytes()).is_some(), "{name}");
        assert!(entry.metadata().unwrap().is_file(), "{name}");
    }
    let lines = trace.lines();
    assert!(lines.len() > harmless.len());
    let (asked, known) = (trace.outside(&lines), trace.outside(harmless));
    assert_eq!(asked.difference(&known).collect::<Vec<_>>(), [""; 0]);
    let changes = lines.into_iter().filter(|line| is_change(line)).collect();
    assert_eq!(trace.outside(&changes), [].into());
}

/// Lines of NovComet in the log, or lines that report its failure.
fn is_ours(line: &str) -> bool {
    ["novcomet: ", "AH01215", "script headers", "panicked"].iter().any(|word| line.contains(word))
}
