//! The rules for publishers and for pages that read answers. The tests use the real binary, and
//! then the three servers with the shipped configurations and those of docs/access.md.

use std::fs;
use std::process::Command;

use crate::support::SOURCE;
use crate::support::binary::{Answer, Call, Store};
use crate::support::server::{Exchange, Kind, Reply, Server, Setup, stories};
use crate::support::tokens::Keys;

const FORM: &str = "Content-Type: application/x-www-form-urlencoded";
const HOST: &str = "intranet.example:8080";

fn publish(store: &Store) -> Call {
    store.query("publish=a").method("GET").variable("HTTP_HOST", HOST)
}

fn by_post(store: &Store) -> Call {
    store.query("").form("publish=a").variable("HTTP_HOST", HOST)
}

/// The headers by which a browser describes a page.
type Marks = &'static [(&'static str, &'static str)];

/// Each page: its name, the headers of its browser, and whether it belongs to the own site.
const PAGES: [(&str, Marks, bool); 33] = [
    ("a script that says nothing", &[], true),
    ("same-origin", &[("SEC_FETCH_SITE", "same-origin")], true),
    ("a sibling host", &[("SEC_FETCH_SITE", "same-site")], false),
    (
        "a sibling host by its name",
        &[("SEC_FETCH_SITE", "same-site"), ("ORIGIN", "http://other.example:8080")],
        false,
    ),
    ("a sibling host without TLS", &[("ORIGIN", "http://pages.intranet.example:8080")], false),
    ("typed by a person", &[("SEC_FETCH_SITE", "none")], true),
    ("cross-site", &[("SEC_FETCH_SITE", "cross-site")], false),
    ("an unknown relation", &[("SEC_FETCH_SITE", "same-planet")], false),
    ("an empty relation", &[("SEC_FETCH_SITE", "")], false),
    ("two relations", &[("SEC_FETCH_SITE", "same-origin, cross-site")], false),
    ("our origin", &[("ORIGIN", "http://intranet.example:8080")], true),
    ("our origin, TLS ends before us", &[("ORIGIN", "https://intranet.example:8080")], true),
    ("our origin in another case", &[("ORIGIN", "http://Intranet.Example:8080")], true),
    ("another host", &[("ORIGIN", "http://evil.example:8080")], false),
    ("another port", &[("ORIGIN", "http://intranet.example")], false),
    (
        "our host as the beginning of another",
        &[("ORIGIN", "http://intranet.example:8080.evil")],
        false,
    ),
    ("our host as the end of another", &[("ORIGIN", "http://xintranet.example:8080")], false),
    ("our host as a user", &[("ORIGIN", "http://intranet.example:8080@evil.example")], false),
    ("an opaque origin", &[("ORIGIN", "null")], false),
    ("an empty origin", &[("ORIGIN", "")], false),
    ("another scheme", &[("ORIGIN", "ftp://intranet.example:8080")], false),
    ("no host", &[("ORIGIN", "http://")], false),
    ("two origins", &[("ORIGIN", "http://intranet.example:8080, http://evil.example")], false),
    ("our page", &[("REFERER", "http://intranet.example:8080/page?x#y")], true),
    ("our front page", &[("REFERER", "http://intranet.example:8080")], true),
    ("a foreign page", &[("REFERER", "http://evil.example/")], false),
    (
        "a foreign page that names us",
        &[("REFERER", "http://evil.example/http://intranet.example:8080/")],
        false,
    ),
    (
        "a foreign page that begins as we do",
        &[("REFERER", "http://intranet.example:8080@evil.example/")],
        false,
    ),
    ("no page at all", &[("REFERER", "about:blank")], false),
    ("an empty Referer", &[("REFERER", "")], true),
    (
        "our origin, and a foreign Referer",
        &[("ORIGIN", "http://intranet.example:8080"), ("REFERER", "http://evil.example/")],
        true,
    ),
    (
        "a foreign origin, and our Referer",
        &[("ORIGIN", "http://evil.example"), ("REFERER", "http://intranet.example:8080/")],
        false,
    ),
    (
        "our origin by its name, but cross-site",
        &[("ORIGIN", "http://intranet.example:8080"), ("SEC_FETCH_SITE", "cross-site")],
        false,
    ),
];

fn from_page(call: Call, page: Marks) -> Call {
    page.iter().fold(call, |call, (name, value)| call.variable(&format!("HTTP_{name}"), value))
}

#[test]
fn publish_rules_apply_to_methods_and_pages() {
    for (rule, get, post, foreign) in [
        ("any", 200, 200, 200),
        ("same-site", 200, 200, 403),
        ("", 200, 200, 403),
        ("post", 403, 200, 403),
        ("none", 403, 403, 403),
    ] {
        let store = Store::new();
        for (page, marks, is_ours) in PAGES {
            for (method, call, allowed) in
                [("GET", publish(&store), get), ("POST", by_post(&store), post)]
            {
                let status = if is_ours { allowed } else { allowed.max(foreign) };
                let answer = from_page(call, marks).variable("NOVCOMET_PUBLISH", rule).answer();
                assert_eq!(answer.status(), status, "NOVCOMET_PUBLISH={rule:?}, {method}, {page}");
                if status == 403 {
                    answer.assert_problem(403);
                }
            }
        }
        assert_eq!(store.names().is_empty(), rule == "none", "NOVCOMET_PUBLISH={rule:?}");
    }
}

#[test]
fn default_port_can_be_omitted() {
    let store = Store::new();
    for (origin, host, status) in [
        ("http://a.example", "a.example", 200),
        ("http://a.example", "a.example:80", 200),
        ("https://a.example", "a.example:443", 200),
        ("https://a.example", "A.EXAMPLE", 200),
        ("http://a.example", "a.example:443", 403),
        ("http://[::1]:8080", "[::1]:8080", 200),
        ("http://a.example", "", 403),
    ] {
        let call = publish(&store).variable("HTTP_ORIGIN", origin).variable("HTTP_HOST", host);
        assert_eq!(call.answer().status(), status, "{origin} to {host}");
    }
}

#[test]
fn shell_can_always_publish() {
    for rule in ["any", "same-site", "post", "token", "none"] {
        let store = Store::new();
        let call = store.query("publish=a").variable("NOVCOMET_PUBLISH", rule);
        let answer = call.variable("NOVCOMET_TOKEN_KEY", "/nowhere/key").answer();
        assert_eq!((answer.body.as_str(), store.names().len()), ("true", 1), "{rule}");
        let gateway = publish(&store).variable("NOVCOMET_PUBLISH", "none");
        let gateway = gateway.variable("GATEWAY_INTERFACE", "CGI/1.1").answer();
        assert_eq!(gateway.status(), 403, "a server that sets both");
        let mut gateway = store.query("publish=a").variable("GATEWAY_INTERFACE", "CGI/1.1");
        gateway.command.env_remove("REQUEST_METHOD");
        gateway.variable("NOVCOMET_PUBLISH", "none").answer().assert_problem(403);
    }
}

#[test]
fn subscribe_none_refuses_every_subscriber() {
    let store = Store::new();
    let ask = |query: &str| store.query(query).variable("NOVCOMET_SUBSCRIBE", "none");
    for more in ["", "&stream=1", "&stream=json", "&named=0"] {
        let query = format!("subscribed[a]=earliest&wait=0{more}");
        ask(&query).method("GET").answer().assert_problem(403);
        assert_eq!(ask(&query).method("HEAD").answer().status(), 403, "HEAD {query}");
        ask(&query).method("POST").answer().assert_problem(403);
        ask("").form(&query).answer().assert_problem(403);
        ask("wait=0").form("subscribed%5Ba%5D=0").answer().assert_problem(403);
        let events = ask(&query).method("GET").variable("HTTP_ACCEPT", "text/event-stream");
        events.answer().assert_problem(403);
    }
    assert_eq!(ask("publish=a").method("GET").answer().body, "true", "publishing goes on");
    assert_eq!(ask("").method("OPTIONS").answer().status(), 204);
    assert!(ask("subscribed[a]=0&wait=0").answer().body.starts_with("{\"s\":0"), "so does a shell");
}

/// A foreign page cannot read the answer, because the browser prevents it.
#[test]
fn publish_rule_does_not_restrict_subscribers() {
    let store = Store::new();
    for rule in ["any", "same-site", "post", "none"] {
        for (page, marks, _) in PAGES {
            let call = store.query("subscribed[a]=0&wait=0").method("GET");
            let answer = from_page(call, marks).variable("NOVCOMET_PUBLISH", rule).answer();
            assert_eq!(answer.status(), 200, "{rule}, {page}");
        }
    }
}

#[test]
fn head_publishes_nothing() {
    let store = Store::new();
    for (rule, status) in [("any", 200), ("post", 403), ("none", 403)] {
        let answer = publish(&store).method("HEAD").variable("NOVCOMET_PUBLISH", rule).answer();
        assert_eq!(answer.status(), status, "{rule}");
    }
    assert_eq!(store.names(), [""; 0], "HEAD publishes nothing");
}

#[test]
fn invalid_setting_refuses_every_request() {
    let store = Store::new();
    for (name, value) in [
        ("NOVCOMET_PUBLISH", "all"),
        ("NOVCOMET_PUBLISH", "None"),
        ("NOVCOMET_PUBLISH", "any,token"),
        ("NOVCOMET_SUBSCRIBE", "all"),
        ("NOVCOMET_SUBSCRIBE", "None"),
        ("NOVCOMET_PRIVATE", "a*b"),
        ("NOVCOMET_PRIVATE", " "),
        ("NOVCOMET_ORIGINS", "*"),
        ("NOVCOMET_ORIGINS", "https://a.example/"),
        ("NOVCOMET_TOKEN_ALGORITHM", "none"),
        ("NOVCOMET_TOKEN_ALGORITHM", "HS384"),
        ("NOVCOMET_TOKEN_KEY", "relative"),
    ] {
        for query in ["publish=a", "subscribed[a]=0&wait=0"] {
            let answer = store.query(query).method("GET").variable(name, value).answer();
            answer.assert_problem(503);
            assert!(answer.log.starts_with(&format!("novcomet: {name}=")), "{answer:?}");
        }
    }
    for (name, value) in
        [("NOVCOMET_PUBLISH", "token"), ("NOVCOMET_SUBSCRIBE", "token"), ("NOVCOMET_PRIVATE", "a")]
    {
        let answer = store.query("subscribed[b]=0&wait=0").variable(name, value).answer();
        answer.assert_problem(503);
        assert!(answer.log.starts_with("novcomet: NOVCOMET_TOKEN_KEY="), "{answer:?}");
    }
    assert_eq!(store.names(), [""; 0]);
}

// CORS.

const OTHER: &str = "https://pages.example";

fn with_origins(call: Call) -> Call {
    call.variable("NOVCOMET_ORIGINS", "http://b.example:81, https://pages.example")
}

fn cors(answer: &Answer) -> Vec<&str> {
    let is_cors = |line: &&str| line.starts_with("Access-Control-") || line.starts_with("Vary");
    answer.head.lines().filter(is_cors).collect()
}

const READABLE: [&str; 4] = [
    "Access-Control-Allow-Origin: https://pages.example",
    "Access-Control-Allow-Credentials: true",
    "Access-Control-Expose-Headers: Retry-After",
    "Vary: Origin",
];

#[test]
fn configured_origin_can_read_every_answer() {
    let store = Store::new();
    let get = |query: &str| store.query(query).method("GET");
    let locked = |call: Call| {
        call.variable("NOVCOMET_PRIVATE", "a").variable("NOVCOMET_TOKEN_KEY", "/no/key")
    };
    for (status, call) in [
        (200, get("publish=a")),
        (200, store.query("").form("publish=a")),
        (200, get("subscribed[a]=0&wait=0")),
        (200, get("subscribed[a]=0&wait=0&stream=1")),
        (200, get("subscribed[a]=0&wait=0&stream=json")),
        (200, get("about=1")),
        (200, get("subscribed[a]=0").method("HEAD")),
        (400, get("")),
        (403, get("publish=a").variable("NOVCOMET_PUBLISH", "none")),
        (405, get("publish=a").method("PUT")),
        (413, store.query("").form("x").variable("CONTENT_LENGTH", "99999999")),
        (414, get(&"x".repeat(8193))),
        (503, get("publish=a").variable("NOVCOMET_STORE", "file:///nowhere")),
        (503, locked(get("subscribed[a]=0"))),
    ] {
        // The same with Sec-Fetch-Site: a configured origin is accepted.
        let call =
            call.variable("HTTP_ORIGIN", OTHER).variable("HTTP_SEC_FETCH_SITE", "cross-site");
        let answer = with_origins(call).answer();
        assert_eq!((answer.status(), cors(&answer)), (status, READABLE.to_vec()));
    }
}

#[test]
fn other_origin_can_read_no_answer() {
    let store = Store::new();
    for origin in [
        "https://evil.example",
        "http://pages.example",
        "https://pages.example.evil.example",
        "https://pages.example:444",
        "https://Pages.example",
        "https://pages.example/",
        "https://pages.example, https://evil.example",
        "null",
        "*",
        "",
    ] {
        for method in ["GET", "OPTIONS"] {
            let call = store.query("subscribed[a]=0&wait=0").method(method);
            let answer = with_origins(call).variable("HTTP_ORIGIN", origin).answer();
            assert_eq!(cors(&answer), [""; 0], "{method} by {origin:?}");
        }
        let answer = with_origins(publish(&store)).variable("HTTP_ORIGIN", origin).answer();
        assert_eq!(answer.status(), 403, "{origin:?} is not ours");
    }
    let answer = with_origins(store.query("subscribed[a]=0&wait=0").method("GET")).answer();
    assert_eq!(cors(&answer), [""; 0], "without Origin");
    let call = store.query("subscribed[a]=0&wait=0").method("GET").variable("HTTP_ORIGIN", OTHER);
    assert_eq!(cors(&call.answer()), [""; 0], "without NOVCOMET_ORIGINS");
}

#[test]
fn preflight_needs_no_token() {
    let store = Store::new();
    let call =
        with_origins(store.query("publish=a").method("OPTIONS")).variable("HTTP_ORIGIN", OTHER);
    let call = call.variable("NOVCOMET_PUBLISH", "token").variable("NOVCOMET_TOKEN_KEY", "/no/key");
    let answer = call.answer();
    assert_eq!((answer.status(), answer.body.as_str()), (204, ""));
    let expected = [
        "Access-Control-Allow-Methods: GET, HEAD, POST, OPTIONS",
        "Access-Control-Allow-Headers: Authorization, Cache-Control, Content-Type, Last-Event-ID, X-Requested-With",
        "Access-Control-Max-Age: 600",
    ];
    assert_eq!(cors(&answer), [&expected[..], &READABLE].concat());
    assert_eq!(store.names(), [""; 0]);
}

#[test]
fn referer_of_configured_origin_is_accepted() {
    let store = Store::new();
    let call = with_origins(publish(&store)).variable("HTTP_REFERER", "https://pages.example/x");
    assert_eq!(call.answer().status(), 200);
}

#[test]
fn sibling_host_counts_only_if_configured() {
    let store = Store::new();
    for relation in [Some("same-site"), None] {
        let sibling = |origin: &str| {
            let call = with_origins(by_post(&store)).variable("HTTP_ORIGIN", origin);
            let call = match relation {
                Some(relation) => call.variable("HTTP_SEC_FETCH_SITE", relation),
                None => call,
            };
            call.answer().status()
        };
        assert_eq!(sibling("http://b.example:81"), 200, "{relation:?}");
        assert_eq!(sibling("http://c.example:81"), 403, "{relation:?}");
    }
}

// Through the servers.

stories! {
    old_page_publishes_foreign_page_does_not
    server_passes_token_header_and_cookie
    documented_token_command_works
    htaccess_passes_the_token
    server_passes_a_preflight
    documented_rules_separate_publishers_from_subscribers
    documented_password_rule_admits_publishers
}

fn send(server: &Server, request: &str, headers: &[&str], body: &str) -> Reply {
    Exchange::send(server.port(), request, headers, body.as_bytes()).reply()
}

/// `Exchange` sends "Host: localhost".
fn old_page_publishes_foreign_page_does_not(kind: Kind) {
    let server = Server::start(kind);
    let get = "GET /comet.cgi?publish=a";
    for (header, status) in [
        ("Referer: http://localhost/page.html", 200),
        ("Origin: http://localhost", 200),
        ("Sec-Fetch-Site: same-origin", 200),
        ("X-Nothing: said", 200),
        ("Referer: http://evil.example/page.html", 403),
        ("Origin: http://evil.example", 403),
        ("Origin: null", 403),
        ("Sec-Fetch-Site: cross-site", 403),
    ] {
        assert_eq!(send(&server, get, &[header], "").status, status, "GET, {header}");
        let post = send(&server, "POST /comet.cgi", &[header, FORM], "publish=a");
        assert_eq!(post.status, status, "POST, {header}");
    }
    assert_eq!(server.complaints(), [""; 0]);
}

fn locked(kind: Kind, keys: &Keys) -> Setup {
    keys.give_to_the_server("hs");
    let setup = Server::setup(kind).option("NOVCOMET_PUBLISH", "token");
    setup.option("NOVCOMET_PRIVATE", "secret").option("NOVCOMET_TOKEN_KEY", &keys.path("hs"))
}

fn assert_locked(server: &Server, address: &str, token: &str) {
    let header = format!("Authorization: Bearer {token}");
    let cookie = format!("Cookie: mercureAuthorization={token}");
    for (request, body) in [
        (format!("GET {address}?publish=a"), ""),
        (format!("POST {address}"), "publish=a"),
        (format!("GET {address}?subscribed[secret]=0&wait=0"), ""),
        (format!("GET {address}?subscribed[secret]=0&wait=0&stream=1"), ""),
    ] {
        let ask = |headers: &[&str]| send(server, &request, headers, body);
        let ours = "Sec-Fetch-Site: same-origin";
        let refused = ask(&[FORM]);
        assert_eq!((refused.status, refused.header("WWW-Authenticate")), (401, Some("Bearer")));
        assert!(refused.body.starts_with(r#"{"detail":"this needs a valid token""#), "{refused:?}");
        assert_eq!(ask(&[FORM, &header]).status, 200, "{request} with the header");
        assert_eq!(ask(&[FORM, &cookie, ours]).status, 200, "{request} with the cookie");
        assert_eq!(ask(&[FORM, &cookie]).status, 403, "{request} from nowhere");
    }
    assert_eq!(server.complaints(), [""; 0]);
}

/// Apache passes Authorization to a CGI only with `CGIPassAuth On`.
fn server_passes_token_header_and_cookie(kind: Kind) {
    let keys = Keys::new();
    let server = locked(kind, &keys).start();
    let token = keys.token(r#"{"publish":["a"],"subscribe":["secret"]}"#);
    assert_locked(&server, "/comet.cgi", &token);
}

/// The commands of docs/access.md, with another key and another address.
fn documented_token_command_works(kind: Kind) {
    let keys = Keys::new();
    let server = locked(kind, &keys).start();
    let url = format!("http://127.0.0.1:{}/", server.port());
    let script = readme("# a token, in a shell of root")
        .replace("/etc/novcomet/key", &keys.path("hs"))
        .replace("http://localhost/", &url);
    for (script, is_good) in [(script.clone(), true), (script.replace("HS256", "none"), false)] {
        let output = Command::new("bash").args(["-euc", &script]).output().unwrap();
        let answer = String::from_utf8(output.stdout).unwrap();
        assert_eq!(answer.starts_with(r#"{"s":1,"k":{"news":"#), is_good, "{answer}");
    }
}

fn htaccess_passes_the_token(kind: Kind) {
    if kind == Kind::Lighttpd {
        return;
    }
    let keys = Keys::new();
    let allowed = "Alias /drop ${ROOT}/drop\n<Directory ${ROOT}/drop>\nRequire all granted\n\
                   AllowOverride Options FileInfo AuthConfig Limit\n</Directory>";
    let server = locked(kind, &keys).lines(allowed).start();
    server.drop_in("drop");
    let token = keys.token(r#"{"publish":["a"],"subscribe":["secret"]}"#);
    assert_locked(&server, "/drop/comet.cgi", &token);
}

fn server_passes_a_preflight(kind: Kind) {
    let server = Server::setup(kind).option("NOVCOMET_ORIGINS", OTHER).start();
    let origin = format!("Origin: {OTHER}");
    let asked =
        ["Access-Control-Request-Method: POST", "Access-Control-Request-Headers: authorization"];
    let preflight = send(&server, "OPTIONS /comet.cgi", &[&origin, asked[0], asked[1]], "");
    assert_eq!(preflight.status, 204);
    assert_eq!(preflight.header("Access-Control-Allow-Origin"), Some(OTHER));
    assert!(preflight.header("Access-Control-Allow-Headers").unwrap().contains("Authorization"));
    let post = send(&server, "POST /comet.cgi", &[&origin, FORM], "publish=a");
    assert_eq!((post.status, post.header("Access-Control-Allow-Origin")), (200, Some(OTHER)));
    let foreign = send(&server, "OPTIONS /comet.cgi", &["Origin: https://evil.example"], "");
    assert_eq!((foreign.status, foreign.header("Access-Control-Allow-Origin")), (204, None));
}

/// The block of docs/access.md that begins with this line.
fn readme(first_line: &str) -> String {
    let text = fs::read_to_string(format!("{SOURCE}/docs/access.md")).unwrap();
    let lines = text.lines().skip_while(|line| line.trim() != first_line);
    let block = lines.take_while(|line| line.starts_with("    ") || line.is_empty());
    let block: Vec<_> = block.map(str::trim_start).collect();
    assert!(block.len() > 3, "docs/access.md shows {first_line}");
    block.join("\n")
}

/// The lines of docs/access.md, with the paths of this machine and some replaced parts.
fn parted(kind: Kind, order: Order, changes: &[(&str, &str)]) -> Server {
    let modules = ["auth_basic", "authn_core", "authn_file", "authz_user", "authz_host"];
    let load = |name| format!("LoadModule {name}_module ${{MODULES}}/mod_{name}.so\n");
    let mut lines = match kind {
        Kind::Lighttpd => readme("# lighttpd: who publishes, who subscribes")
            .replace("\"/etc/novcomet/users\"", "env.ROOT + \"/users\"")
            .replace("\"/usr/lib/novcomet", "env.ROOT + \"/usr/lib/novcomet"),
        _ => {
            modules.map(load).concat()
                + &readme("# Apache: who publishes, who subscribes")
                    .replace("/etc/novcomet/users", "${ROOT}/users")
                    .replace("\"/usr/lib/novcomet", "\"${ROOT}/usr/lib/novcomet")
        }
    };
    for (from, to) in changes {
        assert!(lines.contains(from), "{from} in {lines}");
        lines = lines.replace(from, to);
    }
    let setup = Server::setup(kind).lines(&lines);
    let server = match order {
        Order::RulesFirst => setup.options_first().start(),
        Order::RulesLast => setup.start(),
    };
    // Her password is "s3cret".
    let users = server.root().join("users");
    fs::write(users, "alice:{SHA}/vNB+F2HQ559kaLUZbmHHvZrXpg=\n").unwrap();
    server
}

/// Whether the server reads the documented block before or after the shipped file.
#[derive(Clone, Copy)]
enum Order {
    RulesFirst,
    RulesLast,
}

const ORDERS: [Order; 2] = [Order::RulesFirst, Order::RulesLast];
const ALICE: &str = "Authorization: Basic YWxpY2U6czNjcmV0";
const INSIDE: (&str, &str) = ("10.0.0.0/8", "127.0.0.0/8");

/// Password and address are exchanged, as docs/access.md describes.
fn exchanged(kind: Kind) -> [(&'static str, &'static str); 3] {
    match kind {
        Kind::Lighttpd => [(AUTH_REQUIRE, "@"), (BY_ADDRESS, AUTH_REQUIRE), ("@", BY_ADDRESS)],
        _ => [
            ("Require valid-user", "@"),
            ("Require ip 10.0.0.0/8", "Require valid-user"),
            ("@", "Require ip 10.0.0.0/8"),
        ],
    }
}

const AUTH_REQUIRE: &str = "auth.require = ( \"\" => ( \"method\" => \"basic\", \
                            \"realm\" => \"NovComet\",\n\"require\" => \"valid-user\" ) )";
const BY_ADDRESS: &str = "$HTTP[\"remoteip\"] != \"10.0.0.0/8\" {\nurl.access-deny = ( \"\" )\n}";

/// Each way to subscribe at a URL: request and body.
fn subscriptions(address: &str) -> [(String, &'static str); 4] {
    [
        (format!("GET {address}?subscribed[a]=earliest&wait=0"), ""),
        (format!("GET {address}?subscribed[a]=earliest&wait=0&stream=1"), ""),
        (format!("POST {address}?subscribed[a]=earliest&wait=0"), "x=y"),
        (format!("POST {address}"), "subscribed[a]=earliest&wait=0"),
    ]
}

fn documented_password_rule_admits_publishers(kind: Kind) {
    for order in ORDERS {
        let server = parted(kind, order, &[&exchanged(kind)[..], &[INSIDE]].concat());
        let post = |headers: &[&str]| {
            send(&server, "POST /publish.cgi", &[&[FORM], headers].concat(), "publish=a").status
        };
        assert_eq!((post(&[]), post(&[ALICE])), (401, 200));
        for (request, body) in subscriptions("/publish.cgi") {
            assert_eq!(send(&server, &request, &[FORM], body).status, 401, "{request}");
            assert_eq!(send(&server, &request, &[FORM, ALICE], body).status, 403, "{request}");
        }
        for (request, body) in subscriptions("/comet.cgi") {
            assert_eq!(send(&server, &request, &[FORM], body).status, 200, "{request}");
        }
        assert_eq!(send(&server, "GET /comet.cgi?publish=a", &[ALICE], "").status, 403);
    }
}

/// No request can read a topic at /publish.cgi.
fn documented_rules_separate_publishers_from_subscribers(kind: Kind) {
    for order in ORDERS {
        let server = parted(kind, order, &[INSIDE]);
        assert_parted(&server, 200);
        for (request, body) in subscriptions("/publish.cgi") {
            let reply = send(&server, &request, &[FORM], body);
            assert_eq!(reply.status, 403, "{request}: {reply:?}");
        }
        assert_parted(&parted(kind, order, &[]), 403);
        if matches!((kind, order), (Kind::Lighttpd, Order::RulesFirst)) {
            assert_eq!(server.complaints(), [""; 0], "no warning of an order of modules");
        }
    }
}

fn assert_parted(server: &Server, allowed: u16) {
    let post = send(server, "POST /publish.cgi", &[FORM], "publish=a");
    assert_eq!(post.status, allowed, "publishing is by address: {post:?}");
    assert_eq!(server.event_file("a").is_file(), allowed == 200, "in the same store");
    let get = send(server, "GET /publish.cgi?publish=a", &[], "");
    assert_eq!(get.status, 403, "and by POST: {get:?}");
    for address in ["/comet.cgi", "/novcomet/comet.cgi", "/comet.php", "/comet.cgi/x"] {
        let query = format!("GET {address}?subscribed[a]=0&wait=0");
        assert_eq!(send(server, &query, &[], "").status, 401, "{address} is for users");
        assert_eq!(send(server, &query, &[ALICE], "").status, 200, "{address}, alice");
        for (request, body) in [
            (format!("GET {address}?publish=a"), ""),
            (format!("POST {address}?publish=a"), ""),
            (format!("POST {address}"), "publish=a"),
            (format!("GET {address}?subscribed[a]=0&%70ublish=a"), ""),
        ] {
            let reply = send(server, &request, &[ALICE, FORM], body);
            assert_eq!(reply.status, 403, "publishing is refused at {request}: {reply:?}");
        }
    }
}
