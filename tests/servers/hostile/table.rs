//! Requests that no usual client sends.

/// A mark in every request. No header of an answer may repeat it.
pub const MARK: &str = "ZqMark";

/// The bytes of one request.
pub struct Case {
    pub what: String,
    pub request: Vec<u8>,
    /// The status of NovComet's answer; `None` if the server may answer.
    pub status: Option<u16>,
    /// The client sends no more, although the server may wait for more.
    pub is_cut: bool,
}

fn case(what: &str, request: Vec<u8>, status: impl Into<Option<u16>>) -> Case {
    Case { what: what.to_owned(), request, status: status.into(), is_cut: false }
}

/// HTTP/1.0, so the server sends no chunks.
fn request(line: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("{line} HTTP/1.0\r\nHost: localhost\r\n{headers}\r\n");
    [head.as_bytes(), body].concat()
}

fn get(query: impl AsRef<[u8]>) -> Vec<u8> {
    let parts: [&[u8]; 3] =
        [b"GET /comet.cgi?", query.as_ref(), b" HTTP/1.0\r\nHost: localhost\r\n\r\n"];
    parts.concat()
}

fn post(query: &str, kind: &str, body: &[u8]) -> Vec<u8> {
    let headers = format!("Content-Type: {kind}\r\nContent-Length: {}\r\n", body.len());
    request(&format!("POST /comet.cgi?{query}"), &headers, body)
}

const FORM: &str = "application/x-www-form-urlencoded";

/// All cases.
pub fn cases() -> Vec<Case> {
    let parts = [
        each_byte(),
        not_utf8(),
        traversal(),
        header_injection(),
        odd_headers(),
        arguments(),
        too_much(),
        methods(),
        lengths(),
        lines(),
    ];
    parts.into_iter().flatten().collect()
}

/// Each byte in an id, plain and encoded, to publish and to subscribe.
fn each_byte() -> Vec<Case> {
    let mut cases = Vec::new();
    for byte in 0..=u8::MAX {
        let status = if (0x20..0x7F).contains(&byte) { 200 } else { 400 };
        let encoded = format!("{MARK}%{byte:02X}");
        let raw = [MARK.as_bytes(), &[byte], MARK.as_bytes()].concat();
        let subscribed = |id: &[u8]| [b"subscribed[", id, b"]=0&wait=0"].concat();
        cases.extend([
            case(&format!("publish %{byte:02X}"), get(format!("publish={encoded}")), status),
            case(&format!("subscribe %{byte:02X}"), get(subscribed(encoded.as_bytes())), status),
            case(&format!("publish {byte:#x}"), get([b"publish=", raw.as_slice()].concat()), None),
            case(&format!("subscribe {byte:#x}"), get(subscribed(&raw)), None),
        ]);
    }
    cases
}

/// Overlong forms of `/` and `.`, surrogates, code points above U+10FFFF, and incomplete
/// sequences.
fn not_utf8() -> Vec<Case> {
    let texts = [
        "%C0%AF",
        "%E0%80%AF",
        "%F0%80%80%AF",
        "%F8%80%80%80%AF",
        "%C0%AE%C0%AE%C0%AF",
        "%C1%9C",
        "%ED%A0%80",
        "%ED%A0%80%ED%B0%80",
        "%F4%90%80%80",
        "%80",
        "%C3",
        "%C3%28",
        "%FE%FF",
    ];
    texts.iter().flat_map(|text| everywhere(text, 400)).collect()
}

/// Each is a usual id, or invalid.
fn traversal() -> Vec<Case> {
    let ids = [
        "..",
        ".",
        "../",
        "../../../../../../etc/passwd",
        "..%2F..%2Fetc%2Fpasswd",
        "%2e%2e%2f%2e%2e%2f",
        "%2E%2E/",
        "..%5C..%5C",
        "%252e%252e%252f",
        "%25252e%25252e%25252f",
        "....//....//",
        "..;/..;/",
        "/etc/passwd",
        "//etc//passwd",
        "/dev/shm/x",
        "%2Fdev%2Fshm%2Fx",
        "/proc/self/environ",
        "file:///etc/passwd",
        "~root/",
        "$HOME",
        "C:%5Cx",
        "a/../../b",
        ".comet",
        "x.comet/..",
        "%EF%BC%8F..",
        "%E2%88%95etc",
        "%E2%80%A5/",
        ".novcomet-1-1.5",
        "-rf",
        "*",
    ];
    let mut cases: Vec<_> = ids.iter().flat_map(|id| everywhere(id, 200)).collect();
    cases.extend(["..%00", "%00/etc/passwd", "..%0A/"].iter().flat_map(|id| everywhere(id, 400)));
    for path in ["/", "/..", "/../../etc/passwd", "/%2e%2e/%2e%2e/", "/%00", "//", "/%2F..%2F.."] {
        let target = format!("GET /comet.cgi{path}?publish={MARK}");
        cases.push(case(&target, request(&target, "", b""), None));
    }
    cases
}

/// The id in a query and in a form, to publish and to subscribe.
fn everywhere(id: &str, status: u16) -> [Case; 4] {
    let publish = format!("publish={id}{MARK}");
    let subscribe = format!("subscribed[{id}{MARK}]=0&wait=0");
    [
        case(&publish, get(&publish), status),
        case(&subscribe, get(&subscribe), status),
        case(&format!("form {publish}"), post("", FORM, publish.as_bytes()), status),
        case(&format!("form {subscribe}"), post("", FORM, subscribe.as_bytes()), status),
    ]
}

/// Lines that would be headers if the answer repeated them.
fn header_injection() -> Vec<Case> {
    let lines =
        ["%0D%0A", "%0A", "%0D", "%E5%98%8A%E5%98%8D", "%C2%85", "%E2%80%A8", "%0D%0A%0D%0A"];
    let mut cases = Vec::new();
    for line in lines {
        let header = format!("{line}Set-Cookie:%20{MARK}%3D1");
        let status = if line.starts_with("%E") { 200 } else { 400 };
        cases.extend(everywhere(&header, status));
        for (query, status) in [
            (format!("publish={MARK}&data={header}"), 200),
            (format!("subscribed[{MARK}]={header}"), 400),
            (format!("subscribed[{MARK}]=0&wait={header}"), 400),
            (format!("subscribed[{MARK}]=0&stream={header}"), 400),
            (format!("subscribed[{MARK}]=0&stream=1&wait=0&Last-Event-ID={header}"), 400),
            (format!("{header}={MARK}"), 400),
        ] {
            cases.push(case(&query, get(&query), status));
        }
    }
    cases
}

/// Headers that NovComet reads, and headers that another program might read.
fn odd_headers() -> Vec<Case> {
    let names = [
        "Host",
        "Origin",
        "Referer",
        "User-Agent",
        "Cookie",
        "Proxy",
        "Range",
        "If-None-Match",
        "If-Modified-Since",
        "Expect",
        "Upgrade",
        "X-Forwarded-For",
        "X-Forwarded-Host",
        "Authorization",
        "Content-Type",
        "Accept",
        "Accept-Encoding",
        "Last-Event-ID",
        "Status",
        "Location",
        "Content-Location",
        "QUERY_STRING",
        "NOVCOMET_STORE",
        "Script-Name",
    ];
    let line = format!("GET /comet.cgi?subscribed[{MARK}]=0&wait=0");
    let mut cases = Vec::new();
    for name in names {
        for value in
            [MARK.to_owned(), format!("{MARK}\0"), format!("\u{e9}{MARK}"), MARK.repeat(900)]
        {
            let header = format!("{name}: {value}\r\n");
            cases.push(case(
                &format!("{name} {}", value.len()),
                request(&line, &header, b""),
                None,
            ));
        }
    }
    let stream = "Accept: text/event-stream\r\n";
    for id in ["ZqMark!", "-", "zzzzzzzzzzzzzzzzzzzzzzz", "255s-255s", "\u{e9}", "+1", "%0A"] {
        let headers = format!("{stream}Last-Event-ID: {id}\r\n");
        cases.push(case(&format!("id {id}"), request(&line, &headers, b""), 400));
    }
    cases
}

/// RFC 3875 §4.4: a query without `=` becomes arguments.
fn arguments() -> Vec<Case> {
    let queries = [
        "--help",
        "--version",
        "-h+--version",
        "-",
        "--",
        "%2D%2Dversion",
        ";id",
        "|id",
        "$(id)",
        "`id`",
        "%26%26id",
        "%3Bid",
        "%00",
        "+",
        "++",
        "--publish+x",
        "'",
        "\\",
        "*",
        "~",
    ];
    let cases = queries.iter().map(|query| (*query, get(format!("{query}+{MARK}"))));
    cases.map(|(query, request)| case(&format!("argument {query}"), request, 400)).collect()
}

/// Long values and many values.
fn too_much() -> Vec<Case> {
    let many = |part: &str, count: usize| part.repeat(count);
    let id = |number: usize| format!("subscribed[{MARK}{number}]=0&wait=0&");
    let subscribe = |count| (0..count).map(id).collect::<Vec<_>>().concat();
    let long = many("x", 100_000);
    let form = format!("publish={MARK}&{}", many("a=b&", 40_000));
    let data = format!("publish={MARK}&data={}", many("%41", 65_537));
    let lines =
        (0..90).map(|number| format!("X-{number}: {MARK}\r\n")).collect::<Vec<_>>().concat();
    let line = format!("GET /comet.cgi?publish={MARK}");
    vec![
        case("many &", get(format!("{}publish={MARK}", many("&", 7_000))), 200),
        case("many =", get(format!("publish={}{MARK}", many("=", 190))), 200),
        case("many publish", get(many(&format!("publish={MARK}&"), 500)), 200),
        case("many subscribed", get(subscribe(64)), 200),
        case("too many subscribed", get(subscribe(120)), 400),
        case("many brackets", get(format!("subscribed{}{MARK}=0", many("[", 2_000))), 400),
        case("many %", get(format!("publish={MARK}{}", many("%", 2_000))), 400),
        case("long id", get(format!("publish={MARK}{}", many("x", 1_019))), 400),
        case("id that gets long", get(format!("publish={MARK}{}", many("/", 100))), 200),
        case("long cursor", get(format!("subscribed[{MARK}]=0.{}", many("1", 7_000))), None),
        case("long name", get(format!("{}={MARK}", many("n", 8_000))), 400),
        case("long data", get(format!("publish={MARK}&data={}", many("x", 8_000))), 200),
        case("long query", get(format!("publish={MARK}&x={}", many("x", 8_200))), None),
        case("long target", get(&long), None),
        case("long header", request(&line, &format!("X: {}\r\n", many(MARK, 3_000)), b""), None),
        case("many headers", request(&line, &lines, b""), 200),
        case("many in a form", post("", FORM, form.as_bytes()), 200),
        case("message too long", post("", FORM, data.as_bytes()), 413),
        case(
            "body too long",
            post(&format!("publish={MARK}"), "text/plain", long.repeat(3).as_bytes()),
            413,
        ),
        case("zero bytes", post(&format!("publish={MARK}"), "text/plain", &[0; 9_000]), 200),
        case("not UTF-8", post(&format!("publish={MARK}"), "text/plain", &[0xFF; 9_000]), 415),
        case("multipart", post(&format!("publish={MARK}"), "multipart/form-data", b"--x"), 415),
        case("a form's type", post("", &format!("{FORM};{MARK}"), b"publish=x"), 200),
    ]
}

/// Methods that NovComet does not support.
fn methods() -> Vec<Case> {
    let methods = [
        "PUT",
        "DELETE",
        "PATCH",
        "TRACE",
        "CONNECT",
        "PROPFIND",
        "MKCOL",
        "MOVE",
        "LOCK",
        "QUERY",
        "get",
        "Get",
        "GETX",
        "G",
        MARK,
        "-",
        "HEAD;",
        "POST\t",
        "0",
        "__proto__",
    ];
    let line = |method: &&str| format!("{method} /comet.cgi?publish={MARK}&method");
    let cases = methods.iter().map(line).map(|line| case(&line, request(&line, "", b""), None));
    cases.chain([case("PUT with a body", put(), 405)]).collect()
}

fn put() -> Vec<u8> {
    let line = format!("PUT /comet.cgi?publish={MARK}");
    request(&line, "Content-Length: 6\r\n", MARK.as_bytes())
}

/// Bodies whose length is not as stated.
fn lengths() -> Vec<Case> {
    let wrong = [
        "-1",
        "+3",
        "3 ",
        " 3",
        "0x3",
        "3.0",
        "abc",
        "",
        "3, 3",
        "1e3",
        "\u{663}",
        "1",
        "0",
        "3\r\nContent-Length: 2",
    ];
    let too_long = [
        "30",
        "4294967299",
        "18446744073709551619",
        "99999999999999999999",
        "3\r\nTransfer-Encoding: chunked",
    ];
    let length = |value: &str| format!("Content-Length: {value}\r\n");
    let coding = |value: &str| format!("Transfer-Encoding: {value}\r\n");
    let whole = wrong.map(length).into_iter().chain(["identity", MARK, ""].map(coding));
    let cut = too_long.map(length).into_iter().chain(["chunked", "chunked, chunked"].map(coding));
    // lighttpd would end the CGI process of a client that can send no more. So this is done
    // only where the server itself waits for the rest.
    let whole = whole.map(|headers| of_length(&headers, false));
    whole.chain(cut.map(|headers| of_length(&headers, true))).collect()
}

fn of_length(headers: &str, is_cut: bool) -> Case {
    let line = format!("POST /comet.cgi?publish={MARK}&lengths");
    Case { is_cut, ..case(headers, request(&line, headers, b"abc"), None) }
}

/// Requests that are not valid HTTP.
fn lines() -> Vec<Case> {
    let query = format!("/comet.cgi?publish={MARK}&lines");
    let lines = [
        format!("GET {query} HTTP/9.9\r\n\r\n"),
        format!("GET {query} HTTP/1.1\r\n\r\n"),
        format!("GET {query} HTTP/1.1\r\nHost: {MARK}/\\@:x\r\nConnection: close\r\n\r\n"),
        format!("GET {query} HTTP/1.1\nHost: localhost\nConnection: close\n\n"),
        format!("GET  {query}  HTTP/1.0\r\n\r\n"),
        format!("GET\t{query}\tHTTP/1.0\r\n\r\n"),
        format!("GET http://{MARK}{query} HTTP/1.0\r\n\r\n"),
        format!("GET {query}#{MARK} HTTP/1.0\r\n\r\n"),
        format!("GET {query} HTTP/1.0\r\nX : {MARK}\r\n\r\n"),
        format!("GET {query} HTTP/1.0\r\n X: {MARK}\r\n\r\n"),
        format!("GET {query} HTTP/1.0\r\nX: a\r\n {MARK}\r\n\r\n"),
        format!("GET {query} HTTP/1.0\r\nX: a\rSet-Cookie: {MARK}\r\n\r\n"),
        format!("GET {query} HTTP/1.0\r\nX: a\nSet-Cookie: {MARK}\r\n\r\n"),
        format!("GET {query} HTTP/1.0\r\n: {MARK}\r\n\r\n"),
        format!("GET {query} HTTP/1.0\r\n{MARK}\r\n\r\n"),
        format!("GET {query} {MARK}/1.0\r\n\r\n"),
        format!("{MARK}\r\n\r\n"),
    ];
    lines.into_iter().map(|line| case(&line, line.clone().into_bytes(), None)).collect()
}
