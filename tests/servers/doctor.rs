//! The doctor leads from a broken server to its repair: `comet.cgi doctor URL` beside real servers
//! that are configured wrongly.

use std::fs::{self, Permissions};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::binary::{Call, Store, Waiter};
use crate::support::dir::{TempDir, copy_program};
use crate::support::host::{found, free_port, is_root, not_run};
use crate::support::server::{Kind, Server, stories};
use crate::support::tokens::Keys;
use crate::support::wait::eventually;

/// What the doctor prints about `path` of a server, called with this store.
fn examine_with(store: &Path, server: &Server, path: &str) -> Vec<String> {
    let url = format!("http://127.0.0.1:{}{path}", server.port());
    let call = Call::new().variable("NOVCOMET_STORE", &format!("file://{}", store.display()));
    findings(call.argument("doctor").argument(&url))
}

/// The lines, each of them a finding.
fn findings(call: Call) -> Vec<String> {
    let output = call.output();
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<_> = text.lines().map(ToOwned::to_owned).collect();
    let is_faulty = lines.iter().any(|line| line.starts_with("fault "));
    assert_eq!(output.status.code(), Some(i32::from(is_faulty)), "{text}");
    assert!(output.stderr.is_empty(), "{:?}", String::from_utf8_lossy(&output.stderr));
    let is_finding = |line: &String| ["ok    ", "note  ", "fault "].contains(&&line[..6]);
    assert!(lines.iter().all(is_finding), "{text}");
    lines
}

fn examine(server: &Server) -> Vec<String> {
    examine_with(server.store(), server, "/comet.cgi")
}

fn examine_long(server: &Server) -> Vec<String> {
    let url = format!("http://127.0.0.1:{}/comet.cgi", server.port());
    let store = format!("file://{}", server.store().display());
    let call = Call::new().variable("NOVCOMET_STORE", &store);
    findings(call.argument("doctor").argument("--long").argument(&url))
}

fn faults(lines: &[String]) -> Vec<&String> {
    lines.iter().filter(|line| line.starts_with("fault ")).collect()
}

/// There is one fault, and it has its fix.
fn assert_fault(lines: &[String], what: &str, fix: &str) {
    let faults = faults(lines);
    assert_eq!(faults.len(), 1, "{lines:#?}");
    let (found, remedy) = faults[0].split_once("; fix: ").unwrap();
    assert!(found.contains(what) && remedy.contains(fix), "{faults:#?}");
}

fn assert_has(lines: &[String], line: &str) {
    assert!(lines.iter().any(|it| it.contains(line)), "{line} is not in {lines:#?}");
}

/// The line for this kind of server.
fn of<'a>(kind: Kind, apache: &'a str, lighttpd: &'a str) -> &'a str {
    if kind == Kind::Lighttpd { lighttpd } else { apache }
}

stories!(
    page_has_the_view_of_the_server
    sound_server_has_no_fault
    program_that_is_sent_is_found
    program_that_cannot_be_executed_is_found
    wrong_url_is_found
    missing_directory_is_found
    directory_that_the_server_cannot_write_is_found
    other_store_is_found
    invalid_setting_is_found
    settings_of_one_url_are_found
    old_place_without_settings_is_found
    too_few_workers_are_found
    stripped_authorization_is_found
    stripped_cookie_is_found
    changed_site_is_found
    page_is_for_the_holder_of_a_token
    compressed_stream_is_found
    taken_slots_are_found
    password_is_told
    page_of_any_site_is_told
    ended_silence_is_found_if_there_is_time
    changed_host_is_found
    origin_that_only_the_shell_has_is_found
);

fn sound_server_has_no_fault(kind: Kind) {
    let server = Server::start(kind);
    let lines = examine(&server);
    assert_eq!(faults(&lines), [""; 0], "{lines:#?}");
    for line in [
        "ok    NovComet ",
        "ok    the answer is HTTP/1.1",
        "ok    the clock",
        "ok    the server's user can publish",
        "ok    Authorization arrives",
        "ok    Cookie arrives",
        "ok    pages of other sites are recognised, so cookies from them do not count",
        "ok    NOVCOMET_MAX_WAITERS is 100",
        "ok    pages of this site can publish, others cannot",
        "ok    the same settings count at /novcomet/comet.cgi, /comet.php, /novcomet/comet.php",
        "ok    the server and this shell have the same store",
        "ok    a poll is held",
        "ok    a poll hears",
        "ok    a stream comes without delay",
        "ok    a client that goes away frees its slot",
    ] {
        assert_has(&lines, line);
    }
    let names = Store::names_in(server.store());
    assert!(!names.iter().any(|name| name.contains("doctor")), "{names:?}");
}

fn program_that_is_sent_is_found(kind: Kind) {
    let setup = Server::setup(kind);
    let server = match kind {
        Kind::Lighttpd => setup.without("/lighttpd-conf/novcomet.conf").lines(
            "server.modules += ( \"mod_alias\" )\n\
             alias.url = ( \"/comet.cgi\" => env.ROOT + \"/usr/lib/novcomet/comet.cgi\" )",
        ),
        _ => setup
            .without("LoadModule cgi")
            .without("ScriptSock")
            .lines("<Directory \"${NOVCOMET_CGI_DIR}\">\nRequire all granted\n</Directory>"),
    };
    let server = match kind {
        Kind::Lighttpd => server.without("setenv").start(),
        _ => server.start(),
    };
    let fix = of(kind, "a2enmod cgid", "lighty-enable-mod novcomet");
    assert_fault(&examine(&server), "sends the program as a file", fix);
}

/// Without the module, the shipped configuration forbids the program.
#[test]
fn missing_module_of_apache_is_found() {
    for kind in [Kind::ApacheEvent, Kind::ApachePrefork] {
        let server = Server::setup(kind).without("LoadModule cgi").without("ScriptSock").start();
        assert_fault(&examine(&server), "the server itself answers 403", "a2enmod cgid");
    }
}

fn program_that_cannot_be_executed_is_found(kind: Kind) {
    let server = Server::start(kind);
    fs::set_permissions(server.program(), Permissions::from_mode(0o644)).unwrap();
    assert_fault(&examine(&server), "the server itself answers", "chmod 755 /usr/lib/novcomet/");
}

fn wrong_url_is_found(kind: Kind) {
    let server = Server::start(kind);
    let lines = examine_with(server.store(), &server, "/nothing.cgi");
    assert_fault(
        &lines,
        "answers 404",
        of(kind, "a2enconf novcomet", "lighty-enable-mod novcomet"),
    );
    let lines = examine_with(server.store(), &server, "/novcomet/index.html");
    assert_fault(&lines, "another program or page", "novcomet");
}

fn missing_directory_is_found(kind: Kind) {
    let (server, shell) = (Server::start(kind), Store::new());
    fs::remove_dir_all(server.store()).unwrap();
    let lines = examine_with(&shell.0, &server, "/comet.cgi");
    let faults = faults(&lines);
    let fix = format!("; fix: install -d -m 2770 -g www-data {}", server.store().display());
    assert!(faults[0].contains(&fix), "{faults:#?}");
}

fn directory_that_the_server_cannot_write_is_found(kind: Kind) {
    if !is_root() {
        return not_run("a directory of root", "root");
    }
    let server = Server::start(kind);
    fs::set_permissions(server.store(), Permissions::from_mode(0o755)).unwrap();
    let path = server.store().display().to_string();
    assert_fault(&examine(&server), "Permission denied", &format!("chmod 2770 {path}"));
}

fn other_store_is_found(kind: Kind) {
    let (server, shell) = (Server::start(kind), Store::new());
    let fix = format!("NOVCOMET_STORE=file://{} comet.cgi doctor URL", server.store().display());
    assert_fault(&examine_with(&shell.0, &server, "/comet.cgi"), "the store of the server", &fix);
    // A server that does not tell its store is found out by an event.
    let server = Server::setup(kind).option("NOVCOMET_TELL_STORE", "off").start();
    let lines = examine_with(&shell.0, &server, "/comet.cgi");
    let fix = shell.0.display().to_string();
    assert_fault(&lines, "a poll does not hear what this shell publishes", &fix);
}

fn invalid_setting_is_found(kind: Kind) {
    let server = Server::setup(kind).option("NOVCOMET_TRIES", "many").start();
    assert_fault(&examine(&server), "NovComet answers 503", "grep novcomet: /var/log/");
}

fn settings_of_one_url_are_found(kind: Kind) {
    let lines = match kind {
        Kind::Lighttpd => {
            "$HTTP[\"url\"] =~ \"^/comet.cgi\" {\n\
             setenv.set-environment += ( \"NOVCOMET_SUBSCRIBE\" => \"none\" )\n}"
        }
        _ => "<Location \"/comet.cgi\">\nSetEnv NOVCOMET_SUBSCRIBE none\n</Location>",
    };
    let server = Server::setup(kind).lines(lines).start();
    let lines = examine(&server);
    let faults = faults(&lines);
    let fix = of(kind, "<Directory \"/usr/lib/novcomet\">", "setenv.add-environment");
    assert!(faults.iter().all(|line| line.contains("other settings count") && line.contains(fix)));
    assert_eq!(faults.len(), 3, "{lines:#?}");
}

fn old_place_without_settings_is_found(kind: Kind) {
    let lines = match kind {
        Kind::Lighttpd => {
            "$HTTP[\"url\"] =~ \"^/comet.cgi\" {\n\
             setenv.set-environment += ( \"NOVCOMET_PUBLISH\" => \"none\" )\n}\n\
             $HTTP[\"url\"] =~ \"^/cgi-bin/\" {\n\
             alias.url += ( \"/cgi-bin/\" => env.ROOT + \"/usr/lib/cgi-bin/\" )\n\
             cgi.assign = ( \"/comet.cgi\" => \"\" )\n}"
        }
        _ => {
            "ScriptAlias /cgi-bin/ \"${ROOT}/usr/lib/cgi-bin/\"\n\
             <Directory \"${ROOT}/usr/lib/cgi-bin\">\nRequire all granted\n</Directory>\n\
             <Directory \"${NOVCOMET_CGI_DIR}\">\nSetEnv NOVCOMET_PUBLISH none\n</Directory>"
        }
    };
    let server = Server::setup(kind).lines(lines).start();
    copy_program(&server.program(), &server.root().join("usr/lib/cgi-bin/comet.cgi"));
    let lines = examine(&server);
    let is_led = |line: &&String| {
        line.contains("at /cgi-bin/comet.cgi,")
            && line.ends_with("chmod 0 /usr/lib/cgi-bin/comet.cgi")
    };
    assert!(faults(&lines).iter().any(is_led), "{lines:#?}");
}

fn stripped_authorization_is_found(kind: Kind) {
    let setup = Server::setup(kind);
    let server = match kind {
        Kind::Lighttpd => setup.lines("setenv.set-request-header = ( \"Authorization\" => \"\" )"),
        _ => setup.lines("<Directory \"${NOVCOMET_CGI_DIR}\">\nCGIPassAuth Off\n</Directory>"),
    };
    let fix = of(kind, "CGIPassAuth On", "Authorization");
    assert_fault(&examine(&server.start()), "Authorization does not arrive", fix);
}

fn stripped_cookie_is_found(kind: Kind) {
    let lines = match kind {
        Kind::Lighttpd => "setenv.set-request-header = ( \"Cookie\" => \"\" )",
        _ => {
            "LoadModule headers_module ${MODULES}/mod_headers.so\n\
             RequestHeader unset Cookie early"
        }
    };
    let server = Server::setup(kind).lines(lines).start();
    assert_fault(&examine(&server), "Cookie does not arrive", "unsets the header Cookie");
}

/// As behind a proxy that hides from which site a request comes.
fn changed_site_is_found(kind: Kind) {
    let lines = match kind {
        Kind::Lighttpd => {
            "setenv.set-request-header = ( \"Origin\" => \"\", \"Sec-Fetch-Site\" => \"\" )"
        }
        _ => {
            "LoadModule headers_module ${MODULES}/mod_headers.so\n\
             RequestHeader unset Origin early\nRequestHeader unset Sec-Fetch-Site early"
        }
    };
    let server = Server::setup(kind).lines(lines).start();
    let fix = "remove what changes the headers Origin and Sec-Fetch-Site";
    assert_fault(&examine(&server), "pages of other sites are not recognised", fix);
    let closed = Server::setup(kind).option("NOVCOMET_SUBSCRIBE", "none").start();
    assert_has(&examine(&closed), "note  whether cookies from other sites count is not known");
}

/// The server has the setting, and not the shell. Apache's own numbers are 400 and 256.
fn too_few_workers_are_found(kind: Kind) {
    let status = "LoadModule status_module ${MODULES}/mod_status.so\n\
                  <Location \"/server-status\">\nSetHandler server-status\n</Location>";
    let (what, fix) = match kind {
        Kind::ApacheEvent => ("Apache has 400 workers (event MPM)", 350),
        Kind::ApachePrefork => ("Apache has 256 workers (prefork MPM)", 206),
        Kind::Lighttpd => return,
    };
    let start = |waiters: &str| {
        let setup = Server::setup(kind).lines(status).option("NOVCOMET_MAX_WAITERS", waiters);
        setup.option("NOVCOMET_MAX_WAITERS_PER_ADDRESS", "0").start()
    };
    for waiters in ["400", "0"] {
        let lines = examine(&start(waiters));
        assert_fault(&lines, what, &format!("SetEnv NOVCOMET_MAX_WAITERS \"{fix}\""));
    }
    let lines = examine(&start(&fix.to_string()));
    let left = format!("ok    {what}, of which 50 are left if {fix} requests wait");
    assert_has(&lines, &left);
    assert_eq!(faults(&lines), [""; 0], "{lines:#?}");
    let is_told = lines.iter().any(|line| line.starts_with("note  Apache runs the prefork MPM"));
    assert_eq!(is_told, kind == Kind::ApachePrefork);
    let lines = examine(&Server::start(kind));
    assert_has(&lines, "note  how many workers Apache has is not known");
}

/// From anywhere, and no more on the server's machine without one.
fn page_is_for_the_holder_of_a_token(kind: Kind) {
    let keys = Keys::new();
    keys.give_to_the_server("hs");
    let setup = Server::setup(kind).option("NOVCOMET_DOCTOR", "token");
    let server = setup.option("NOVCOMET_TOKEN_KEY", &keys.path("hs")).start();
    let page = |grant: &str| {
        let bearer = format!("Authorization: Bearer {}", keys.token(grant));
        let headers = [bearer.as_str(), "X-Forwarded-For: 192.0.2.1"];
        server.send_with("GET /comet.cgi?doctor=1", &headers).reply()
    };
    let granted = page(r#"{"subscribe":["novcomet/doctor"]}"#);
    assert_eq!(granted.status, 200);
    assert!(granted.body.contains("ok    the store can be written"), "{granted:?}");
    assert_eq!(page(r#"{"subscribe":["news"]}"#).status, 403);
    assert_eq!(server.get("/comet.cgi?doctor=1").status, 401);
    let none = Server::setup(kind).option("NOVCOMET_DOCTOR", "off").start();
    assert_eq!(none.get("/comet.cgi?doctor=1").status, 403);
}

fn compressed_stream_is_found(kind: Kind) {
    if kind == Kind::Lighttpd {
        return stream_that_lighttpd_holds_back_is_found();
    }
    let lines = "LoadModule deflate_module ${MODULES}/mod_deflate.so\n\
                 LoadModule filter_module ${MODULES}/mod_filter.so\n\
                 <Directory \"${NOVCOMET_CGI_DIR}\">\nUnsetEnv no-gzip\nSetOutputFilter DEFLATE\n\
                 </Directory>";
    let server = Server::setup(kind).lines(lines).start();
    assert_fault(&examine(&server), "a stream is held back by compression", "SetEnv no-gzip 1");
}

fn stream_that_lighttpd_holds_back_is_found() {
    let lines = "$HTTP[\"url\"] =~ \"^/comet.cgi\" {\nserver.stream-response-body = 0\n}";
    let server = Server::setup(Kind::Lighttpd).lines(lines).start();
    let fix = "server.stream-response-body = 2";
    assert_fault(&examine(&server), "a stream is held back by a buffer", fix);
}

fn taken_slots_are_found(kind: Kind) {
    let server = Server::setup(kind).option("NOVCOMET_MAX_WAITERS", "1").start();
    let _waiter = server.subscriber("subscribed[a]=0");
    let lines = examine(&server);
    for fault in faults(&lines) {
        assert!(fault.contains("NOVCOMET_MAX_WAITERS"), "{lines:#?}");
    }
    assert_eq!(faults(&lines).len(), 2, "{lines:#?}");
}

/// Something before the program asks for a password, so no more can be known.
fn password_is_told(kind: Kind) {
    let lines = match kind {
        Kind::Lighttpd => {
            "server.modules += ( \"mod_auth\", \"mod_authn_file\" )\n\
             auth.backend = \"htpasswd\"\n\
             auth.backend.htpasswd.userfile = \"/dev/null\"\n\
             $HTTP[\"url\"] =~ \"^/comet.cgi\" {\n\
             auth.require = ( \"\" => ( \"method\" => \"basic\", \"realm\" => \"x\", \
             \"require\" => \"valid-user\" ) )\n}"
        }
        _ => {
            "LoadModule auth_basic_module ${MODULES}/mod_auth_basic.so\n\
             LoadModule authn_core_module ${MODULES}/mod_authn_core.so\n\
             LoadModule authn_file_module ${MODULES}/mod_authn_file.so\n\
             LoadModule authz_user_module ${MODULES}/mod_authz_user.so\n\
             <Location \"/comet.cgi\">\nAuthType Basic\nAuthName x\nAuthUserFile /dev/null\n\
             Require valid-user\n</Location>"
        }
    };
    let server = Server::setup(kind).lines(lines).start();
    let lines = examine(&server);
    assert_has(&lines, "note  the server itself answers 401");
    assert_eq!(faults(&lines), [""; 0]);
}

fn page_of_any_site_is_told(kind: Kind) {
    let server = Server::setup(kind).option("NOVCOMET_PUBLISH", "any").start();
    let lines = examine(&server);
    assert_has(&lines, "note  pages of any site can publish");
    assert_eq!(faults(&lines), [""; 0]);
}

/// How long a server lets a request be silent takes time to find out.
fn ended_silence_is_found_if_there_is_time(kind: Kind) {
    let setup = Server::setup(kind).option("NOVCOMET_TRIES", "1");
    let server = setup.option("NOVCOMET_SLEEP", "3").start();
    let lines = examine_long(&server);
    assert_has(&lines, "ok    a request may be silent for 3 s");
    let lines = match kind {
        Kind::ApacheEvent => "CGIDScriptTimeout 2",
        Kind::ApachePrefork => "CGIScriptTimeout 2",
        Kind::Lighttpd => return,
    };
    let lines = format!("<Directory \"${{NOVCOMET_CGI_DIR}}\">\n{lines}\n</Directory>");
    let server = Server::setup(kind).lines(&lines).start();
    assert_has(&examine_long(&server), "fault a silent request is ended with status 504 after 2 s");
}

/// As behind a proxy that asks for another host.
fn changed_host_is_found(kind: Kind) {
    let lines = match kind {
        Kind::Lighttpd => "setenv.set-request-header = ( \"Host\" => \"inner.example\" )",
        _ => {
            "LoadModule headers_module ${MODULES}/mod_headers.so\n\
             RequestHeader set Host inner.example early"
        }
    };
    let server = Server::setup(kind).lines(lines).start();
    let origin = format!("http://127.0.0.1:{}", server.port());
    let lines = examine(&server);
    assert_fault(&lines, "pages of this site cannot publish", "NOVCOMET_ORIGINS");
    assert!(faults(&lines)[0].contains(&origin), "{lines:#?}");
}

fn origin_that_only_the_shell_has_is_found(kind: Kind) {
    let origin = "https://pages.example";
    let call = |server: &Server| {
        let url = format!("http://127.0.0.1:{}/comet.cgi", server.port());
        let call = Call::new().variable("NOVCOMET_ORIGINS", origin).argument("doctor");
        let store = format!("file://{}", server.store().display());
        findings(call.argument(&url).variable("NOVCOMET_STORE", &store))
    };
    let lines = call(&Server::start(kind));
    assert_fault(&lines, "pages of https://pages.example cannot read answers", origin);
    let lines = call(&Server::setup(kind).option("NOVCOMET_ORIGINS", origin).start());
    assert_has(&lines, "ok    pages of https://pages.example can read answers");
}

/// A proxy that does not obey `X-Accel-Buffering`, and asks for another host.
#[test]
fn proxy_that_holds_back_is_found() {
    let Some(program) = found("nginx") else { return not_run("a proxy", "nginx") };
    let (server, root, port) = (Server::start(Kind::Lighttpd), TempDir::new(), free_port());
    let configuration = format!(
        "daemon off; pid {root}/pid; error_log stderr; events {{ }}\nhttp {{ access_log off;\n\
         client_body_temp_path {root}/a; proxy_temp_path {root}/b; fastcgi_temp_path {root}/c;\n\
         proxy_ignore_headers X-Accel-Buffering;\n\
         uwsgi_temp_path {root}/d; scgi_temp_path {root}/e;\n\
         server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://127.0.0.1:{}; }} }} }}",
        server.port(),
        root = root.display(),
    );
    fs::write(root.join("nginx.conf"), configuration).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM"]).arg(program).arg("-c").arg(root.join("nginx.conf"));
    let _nginx = Waiter(command.stderr(Stdio::null()).spawn().unwrap());
    eventually("nginx answers", || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok());
    let store = format!("file://{}", server.store().display());
    let url = format!("http://127.0.0.1:{port}/comet.cgi");
    let call = Call::new().variable("NOVCOMET_STORE", &store).argument("doctor").argument(&url);
    let lines = findings(call);
    assert_has(&lines, "fault a stream is held back by a buffer; fix: proxy_buffering off");
    assert_has(&lines, "fault pages of this site cannot publish");
    assert_eq!(faults(&lines).len(), 2, "{lines:#?}");
}

/// The page is found by the server's user, whose store another one may not be.
fn page_has_the_view_of_the_server(kind: Kind) {
    let server = Server::start(kind);
    let page = server.get("/comet.cgi?doctor=1");
    assert_eq!(
        (page.status, page.header("Content-Type")),
        (200, Some("text/plain; charset=utf-8"))
    );
    let lines: Vec<_> = page.body.lines().collect();
    assert!(
        lines.iter().any(|line| line.starts_with("ok    the store can be written")),
        "{page:?}"
    );
    assert!(!page.body.contains("fault "), "{page:?}");
    let proxied = server.send_with("GET /comet.cgi?doctor=1", &["X-Forwarded-For: 192.0.2.1"]);
    assert_eq!(proxied.reply().status, 403, "a client elsewhere");
    let missing = Server::setup(kind).store("file:///nowhere/at/all").start();
    let page = missing.get("/comet.cgi?doctor=1").body;
    assert!(page.contains("fault the store /nowhere/at/all cannot be used"), "{page}");
    let invalid = Server::setup(kind).option("NOVCOMET_TRIES", "many").start();
    let page = invalid.get("/comet.cgi?doctor=1").body;
    assert!(page.contains("fault NOVCOMET_TRIES"), "{page}");
    let silent = Server::setup(kind).option("NOVCOMET_TELL_STORE", "off").start();
    assert_eq!(silent.get("/comet.cgi?doctor=1").status, 403);
}
