//! A request as RFC 3875 §4 hands it over: meta-variables and a body.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;

use url::form_urlencoded;

use crate::error::Error;

/// Longest query string, in bytes. Apache takes no request line above 8190.
pub const MAX_QUERY: usize = 8192;

/// How much of a body that is refused is read all the same, in bytes.
const MAX_DISCARD: usize = 1 << 20;

/// The methods that are answered.
pub const METHODS: &str = "GET, HEAD, POST, OPTIONS";

/// Headers that a proxy adds (RFC 7239, RFC 9110 §7.6.3, GRIP, and older customs).
const FORWARDING: [&str; 7] = [
    "HTTP_GRIP_SIG",
    "HTTP_FORWARDED",
    "HTTP_VIA",
    "HTTP_X_FORWARDED_FOR",
    "HTTP_X_FORWARDED_HOST",
    "HTTP_X_FORWARDED_PROTO",
    "HTTP_X_REAL_IP",
];

/// The request's method (`REQUEST_METHOD`, RFC 3875 §4.1.12).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Answered with a body.
    Get,
    /// As GET, without the body; it changes nothing and waits for nothing.
    Head,
    /// As GET, with more parameters in the body.
    Post,
    /// Asks which methods there are.
    Options,
    /// As GET, with more parameters in the body; it is safe (RFC 10008).
    Query,
    /// Any other method; [`Request::receive`] refuses it.
    Other,
}

/// The way of a request to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// From the client.
    Direct,
    /// Through a proxy.
    Forwarded,
}

impl Route {
    /// Older releases of nginx speak HTTP/1.0 to a server, unless they are told otherwise.
    fn of(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let is_old = variable("SERVER_PROTOCOL").is_some_and(|protocol| protocol == "HTTP/1.0");
        match is_old || FORWARDING.iter().any(|name| variable(name).is_some()) {
            true => Self::Forwarded,
            false => Self::Direct,
        }
    }
}

/// A request: every meta-variable that `NovComet` reads (RFC 3875 §4.1), and the body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// A web server made the request, not a shell.
    pub is_cgi: bool,
    /// `REQUEST_METHOD`; GET when a shell sets a query only.
    pub method: Method,
    /// `SCRIPT_NAME` and `PATH_INFO`, decoded: the path of the URL (RFC 3875 §3.3).
    pub path: String,
    /// The path of the URL as the client wrote it, by `REQUEST_URI`, which most servers set;
    /// `path` without it. A slash in a segment is still `%2F`.
    pub written_path: String,
    /// `QUERY_STRING`, still encoded.
    pub query: Vec<u8>,
    /// Whether the client wants an event stream (`Accept`, as `EventSource` sends it).
    pub accepts_events: bool,
    /// `Last-Event-ID`, empty without the header.
    pub last_event_id: Vec<u8>,
    /// `REMOTE_ADDR`: the client's address, empty if the server does not say.
    pub address: String,
    /// `REMOTE_PORT`: the client's port, empty if the server does not say.
    pub port: String,
    /// `Host`: the host that the request was sent to.
    pub host: Vec<u8>,
    /// The scheme of the URL, by `HTTPS` or `REQUEST_SCHEME`: `http` or `https`.
    pub scheme: &'static str,
    /// Whether a proxy has passed it on, as far as it shows.
    pub route: Route,
    /// `Sec-Fetch-Site`: how the page that sent the request is related to that host.
    pub fetch_site: Option<Vec<u8>>,
    /// `Origin` of that page.
    pub origin: Option<Vec<u8>>,
    /// `Referer`: the URL of that page, empty without the header.
    pub referer: Vec<u8>,
    /// `Authorization`, empty without the header.
    pub authorization: Vec<u8>,
    /// `Cookie`, empty without the header.
    pub cookie: Vec<u8>,
    /// `Grip-Sig`: the signature of a proxy that holds connections, empty without the header.
    pub grip_sig: Vec<u8>,
    /// `Grip-Last`: what such a proxy knows of the request that it asks for again.
    pub grip_last: Vec<u8>,
    /// The body of a POST or a QUERY, once it has been received.
    pub body: Body,
    length: Vec<u8>,
    content_type: Vec<u8>,
    is_chunked: bool,
}

/// A request's body, in UTF-8.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// There is none.
    Empty,
    /// `application/x-www-form-urlencoded`, or of no type.
    Form(String),
    /// Any other type.
    Text(String),
}

/// Whether a web server has started this process: it sets both (RFC 3875 §4.1.4, §4.1.12).
pub fn is_from_server(variable: impl Fn(&str) -> Option<OsString>) -> bool {
    ["REQUEST_METHOD", "GATEWAY_INTERFACE"].into_iter().any(|name| variable(name).is_some())
}

const EVENTS: &[u8] = b"text/event-stream";
const FORM: &[u8] = b"application/x-www-form-urlencoded";

impl Request {
    /// Reads the meta-variables; a header is one too (RFC 3875 §4.1.18). `None`
    /// without a server and without a query: a person at a shell.
    ///
    /// A request that cannot be served is read as well: its origin decides which
    /// pages can read why.
    pub fn from_env(variable: impl Fn(&str) -> Option<OsString>) -> Option<Self> {
        let is_request = is_from_server(&variable) || variable("QUERY_STRING").is_some();
        is_request.then(|| Self::read(variable))
    }

    /// The request of a person at a shell, who gives a command in place of a query.
    #[must_use]
    pub fn of_shell() -> Self {
        Self::read(|_| None)
    }

    fn read(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let optional = |name: &str| variable(name).map(OsStringExt::into_vec);
        let bytes = |name: &str| optional(name).unwrap_or_default();
        let accept = bytes("HTTP_ACCEPT");
        let path = [bytes("SCRIPT_NAME"), bytes("PATH_INFO")].concat();
        let written = optional("REQUEST_URI").unwrap_or_else(|| path.clone());
        let written = written.split(|&byte| byte == b'?').next().unwrap_or_default();
        Self {
            is_cgi: is_from_server(&variable),
            method: Method::named(&bytes("REQUEST_METHOD")),
            path: String::from_utf8_lossy(&path).into_owned(),
            written_path: String::from_utf8_lossy(written).into_owned(),
            query: bytes("QUERY_STRING"),
            accepts_events: accept.windows(EVENTS.len()).any(|part| part == EVENTS),
            last_event_id: bytes("HTTP_LAST_EVENT_ID"),
            address: String::from_utf8_lossy(&bytes("REMOTE_ADDR")).into_owned(),
            port: String::from_utf8_lossy(&bytes("REMOTE_PORT")).into_owned(),
            host: bytes("HTTP_HOST"),
            scheme: match bytes("HTTPS") == b"on" || bytes("REQUEST_SCHEME") == b"https" {
                true => "https",
                false => "http",
            },
            route: Route::of(&variable),
            fetch_site: optional("HTTP_SEC_FETCH_SITE"),
            origin: optional("HTTP_ORIGIN"),
            referer: bytes("HTTP_REFERER"),
            authorization: bytes("HTTP_AUTHORIZATION"),
            cookie: bytes("HTTP_COOKIE"),
            grip_sig: bytes("HTTP_GRIP_SIG"),
            grip_last: bytes("HTTP_GRIP_LAST"),
            body: Body::Empty,
            length: bytes("CONTENT_LENGTH"),
            content_type: bytes("CONTENT_TYPE"),
            is_chunked: !bytes("HTTP_TRANSFER_ENCODING").is_empty(),
        }
    }

    /// Whether it may be to publish. In the query, `publish` is that of 2011.
    #[must_use]
    pub fn may_publish(&self) -> bool {
        let mut names = form_urlencoded::parse(&self.query).map(|(name, _)| name);
        self.method == Method::Post || names.any(|name| name == "publish")
    }

    /// Reads the body from `stdin`: `max_body` bytes at most, and never more in
    /// memory.
    ///
    /// # Errors
    /// The fault of the request as HTTP: 400, 405, 408, 413, 414, 415.
    pub fn receive(&mut self, stdin: impl Read, max_body: usize) -> Result<(), Error> {
        let declared = match self.has_length() {
            true => content_length(&self.length, max_body).unwrap_or(MAX_DISCARD),
            false => max_body + MAX_DISCARD,
        };
        let mut stdin = stdin.take(declared as u64);
        let body = self.checked_body(&mut stdin, max_body);
        // Under mod_cgid stdin and stdout are one socket: a part of the body that
        // is left in it would reset it, and the answer with it.
        let _ = io::copy(&mut stdin, &mut io::sink());
        self.body = body?;
        Ok(())
    }

    /// The parameters in the body. With a topic to publish to in the query, the body is the
    /// message, and has none.
    #[must_use]
    pub fn form(&self) -> Option<&str> {
        match &self.body {
            Body::Form(form) if !self.names_topic() => Some(form),
            _ => None,
        }
    }

    /// Whether the client has said that the body is a form. A body of no type may be one.
    #[must_use]
    pub fn declares_form(&self) -> bool {
        self.media_type() == FORM
    }

    fn names_topic(&self) -> bool {
        let mut parameters = form_urlencoded::parse(&self.query);
        parameters.any(|(name, id)| name == "publish" && !id.is_empty())
    }

    /// `Content-Type` without its parameters, in small letters.
    fn media_type(&self) -> Vec<u8> {
        let essence = self.content_type.split(|&byte| byte == b';').next().unwrap_or_default();
        essence.trim_ascii().to_ascii_lowercase()
    }

    fn checked_body(&self, stdin: impl Read, max_body: usize) -> Result<Body, Error> {
        match self.method {
            Method::Other => Err(Error::MethodNotAllowed),
            _ if self.query.len() > MAX_QUERY => Err(Error::QueryTooLong(MAX_QUERY)),
            Method::Post | Method::Query => self.read_body(stdin, max_body),
            _ => Ok(Body::Empty),
        }
    }

    /// Whether the server says how long the body is. Apache does not for one that came in
    /// chunks, and ends standard input after it.
    fn has_length(&self) -> bool {
        !self.is_chunked || !self.length.is_empty()
    }

    /// Reads as much as `CONTENT_LENGTH` promises (RFC 3875 §4.2), which is
    /// checked before anything is read.
    fn read_body(&self, stdin: impl Read, limit: usize) -> Result<Body, Error> {
        let length = content_length(&self.length, limit)?;
        if self.has_length() && length == 0 {
            return Ok(Body::Empty);
        }
        let media_type = self.media_type();
        if media_type.starts_with(b"multipart/") {
            return Err(Error::UnsupportedBody);
        }
        let body = match self.has_length() {
            true => read_exactly(stdin, length)?,
            false => read_to_end(stdin, limit)?,
        };
        if body.is_empty() {
            return Ok(Body::Empty);
        }
        let text = String::from_utf8(body).map_err(|_| Error::UnsupportedBody)?;
        Ok(match media_type.is_empty() || self.declares_form() {
            true => Body::Form(text),
            false => Body::Text(text),
        })
    }
}

impl Method {
    fn named(name: &[u8]) -> Self {
        match name {
            b"" | b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"POST" => Self::Post,
            b"OPTIONS" => Self::Options,
            b"QUERY" => Self::Query,
            _ => Self::Other,
        }
    }
}

fn read_exactly(mut stdin: impl Read, length: usize) -> Result<Vec<u8>, Error> {
    let mut body = Vec::with_capacity(length);
    match stdin.read_to_end(&mut body) {
        Ok(read) if read == length => Ok(body),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => Err(Error::BodyTooSlow),
        _ => Err(Error::BadRequest("the body ended before its Content-Length".into())),
    }
}

fn read_to_end(stdin: impl Read, limit: usize) -> Result<Vec<u8>, Error> {
    let mut body = Vec::new();
    match stdin.take(limit as u64 + 1).read_to_end(&mut body) {
        Ok(read) if read > limit => Err(Error::BodyTooLong(limit)),
        Ok(_) => Ok(body),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => Err(Error::BodyTooSlow),
        Err(_) => Err(Error::BadRequest("the body ended before its last chunk".into())),
    }
}

fn content_length(digits: &[u8], limit: usize) -> Result<usize, Error> {
    if !digits.iter().all(u8::is_ascii_digit) {
        return Err(Error::BadRequest("Content-Length is a number".into()));
    }
    let digits = std::str::from_utf8(digits).unwrap_or_default();
    match digits.parse() {
        _ if digits.is_empty() => Ok(0),
        Ok(length) if length <= limit => Ok(length),
        // Also what is too large for a usize.
        _ => Err(Error::BodyTooLong(limit)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Pair = (&'static str, &'static str);

    fn request(variables: &[Pair], stdin: &str) -> Result<Option<Request>, Error> {
        let find = |name: &str| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into())
        };
        let Some(mut request) = Request::from_env(find) else { return Ok(None) };
        request.receive(stdin.as_bytes(), 99)?;
        Ok(Some(request))
    }

    fn post(extra: &[Pair], stdin: &str) -> Result<Body, Error> {
        let variables = [&[("REQUEST_METHOD", "POST")], extra].concat();
        request(&variables, stdin).map(|request| request.unwrap().body)
    }

    fn form(text: &str) -> Body {
        Body::Form(text.into())
    }

    #[test]
    fn query_or_server_variable_makes_a_request() {
        assert_eq!(request(&[], "").unwrap(), None);
        let method = |variables: &[Pair]| request(variables, "").unwrap().unwrap().method;
        assert_eq!(method(&[("QUERY_STRING", "")]), Method::Get);
        assert_eq!(method(&[("GATEWAY_INTERFACE", "CGI/1.1")]), Method::Get);
        assert_eq!(method(&[("REQUEST_METHOD", "HEAD")]), Method::Head);
    }

    #[test]
    fn body_is_read_to_its_length() {
        assert_eq!(post(&[("CONTENT_LENGTH", "3")], "a=bcd").unwrap(), form("a=b"));
        assert_eq!(post(&[("CONTENT_LENGTH", "0")], "a=b").unwrap(), Body::Empty);
        assert_eq!(post(&[], "a=b").unwrap(), Body::Empty);
        let typed = [
            ("CONTENT_LENGTH", "3"),
            ("CONTENT_TYPE", "application/X-www-form-urlencoded ; charset=utf-8"),
        ];
        assert_eq!(post(&typed, "a=b").unwrap(), form("a=b"));
        let text = [("CONTENT_LENGTH", "3"), ("CONTENT_TYPE", "text/plain")];
        assert_eq!(post(&text, "a=b").unwrap(), Body::Text("a=b".into()));
    }

    #[test]
    fn accept_header_identifies_event_source() {
        let accept = |value| request(&[("HTTP_ACCEPT", value), ("QUERY_STRING", "")], "");
        assert!(accept("text/event-stream").unwrap().unwrap().accepts_events);
        assert!(accept("a/b, text/event-stream;q=1").unwrap().unwrap().accepts_events);
        assert!(!accept("text/html, */*").unwrap().unwrap().accepts_events);
    }

    #[test]
    fn path_has_script_and_what_follows() {
        let path = |variables: &[Pair]| {
            request(&[variables, &[("QUERY_STRING", "")]].concat(), "").unwrap().unwrap().path
        };
        assert_eq!(path(&[]), "");
        assert_eq!(path(&[("SCRIPT_NAME", "/comet.cgi")]), "/comet.cgi");
        assert_eq!(path(&[("SCRIPT_NAME", "/a"), ("PATH_INFO", "/b/é")]), "/a/b/é");
    }

    #[test]
    fn scheme_is_that_of_the_server() {
        let scheme = |variables: &[Pair]| {
            request(&[variables, &[("QUERY_STRING", "")]].concat(), "").unwrap().unwrap().scheme
        };
        assert_eq!(scheme(&[]), "http");
        assert_eq!(scheme(&[("REQUEST_SCHEME", "http"), ("HTTPS", "off")]), "http");
        assert_eq!(scheme(&[("REQUEST_SCHEME", "https")]), "https");
        assert_eq!(scheme(&[("HTTPS", "on")]), "https");
    }

    #[test]
    fn query_method_has_a_body() {
        let variables = [("REQUEST_METHOD", "QUERY"), ("CONTENT_LENGTH", "3")];
        assert_eq!(request(&variables, "a=b").unwrap().unwrap().body, form("a=b"));
    }

    #[test]
    fn invalid_body_is_refused() {
        for (extra, status) in [
            (&[("CONTENT_LENGTH", "4")][..], 400),
            (&[("CONTENT_LENGTH", "-1")], 400),
            (&[("CONTENT_LENGTH", "3 ")], 400),
            (&[("CONTENT_LENGTH", "100")], 413),
            (&[("CONTENT_LENGTH", "99999999999999999999999")], 413),
            (&[("CONTENT_LENGTH", "3"), ("CONTENT_TYPE", "Multipart/form-data; boundary=x")], 415),
        ] {
            assert_eq!(post(extra, "a=b").unwrap_err().status(), status, "{extra:?}");
        }
    }

    #[test]
    fn body_in_chunks_ends_with_the_input() {
        let chunked = [("HTTP_TRANSFER_ENCODING", "chunked")];
        assert_eq!(post(&chunked, "a=b").unwrap(), Body::Form("a=b".into()));
        assert_eq!(post(&chunked, "").unwrap(), Body::Empty);
        assert!(post(&chunked, &"x".repeat(99)).is_ok());
        assert_eq!(post(&chunked, &"x".repeat(100)).unwrap_err().status(), 413);
    }

    #[test]
    fn wrong_method_or_long_query_is_refused() {
        assert_eq!(request(&[("REQUEST_METHOD", "PUT")], "").unwrap_err().status(), 405);
        assert_eq!(request(&[("REQUEST_METHOD", "get")], "").unwrap_err().status(), 405);
        let long: &'static str = "x".repeat(MAX_QUERY + 1).leak();
        assert_eq!(request(&[("QUERY_STRING", long)], "").unwrap_err().status(), 414);
    }
}
