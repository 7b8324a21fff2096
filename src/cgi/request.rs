//! A request as RFC 3875 §4 hands it over: meta-variables and a body.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;

use crate::error::Error;

/// Longest query string, in bytes. Apache takes no request line above 8190.
pub const MAX_QUERY: usize = 8192;

/// How much of a body that is refused is read all the same, in bytes.
const MAX_DISCARD: usize = 1 << 20;

/// The methods that are answered.
pub const METHODS: &str = "GET, HEAD, POST, OPTIONS";

/// The request's method (`REQUEST_METHOD`, RFC 3875 §4.1.12).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Answered with a body.
    Get,
    /// As GET, without the body; it changes nothing and waits for nothing.
    Head,
    /// As GET, with more parameters in the body.
    Post,
    /// Which methods there are.
    Options,
}

/// What the server says of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// `REQUEST_METHOD`; GET when a shell calls us with a query only.
    pub method: Method,
    /// `QUERY_STRING`, still encoded.
    pub query: Vec<u8>,
    /// What a POST brought.
    pub body: Body,
    /// Whether the client wants an event stream (`Accept`, as `EventSource` sends it).
    pub accepts_events: bool,
    /// `Last-Event-ID`, empty if there is none.
    pub last_event_id: Vec<u8>,
    /// `REMOTE_ADDR`: whose request it is, empty if the server does not say.
    pub address: String,
}

/// A request's body, in UTF-8.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// There is none.
    Empty,
    /// `application/x-www-form-urlencoded`, or of no type.
    Form(String),
    /// Anything else.
    Text(String),
}

impl Request {
    /// `None` when neither a server nor a query is there: a person at a shell.
    /// A body has at most `max_body` bytes, and never more in memory.
    ///
    /// # Errors
    /// What is wrong with the request as HTTP: 400, 405, 408, 411, 413, 414, 415.
    pub fn from_env(
        variable: impl Fn(&str) -> Option<OsString>,
        stdin: impl Read,
        max_body: usize,
    ) -> Result<Option<Self>, Error> {
        if !is_cgi(&variable) && variable("QUERY_STRING").is_none() {
            return Ok(None);
        }
        let bytes = |name: &str| variable(name).unwrap_or_default().into_vec();
        let declared = content_length(&bytes("CONTENT_LENGTH"), max_body).unwrap_or(MAX_DISCARD);
        let mut stdin = stdin.take(declared as u64);
        let request = Self::read(bytes, &mut stdin, max_body);
        // Under mod_cgid stdin and stdout are one socket: to leave a part of
        // the body in it would reset it, and our answer with it.
        let _ = io::copy(&mut stdin, &mut io::sink());
        request.map(Some)
    }

    fn read(
        bytes: impl Fn(&str) -> Vec<u8>,
        stdin: impl Read,
        max_body: usize,
    ) -> Result<Self, Error> {
        let method = method(&bytes("REQUEST_METHOD"))?;
        let query = bytes("QUERY_STRING");
        if query.len() > MAX_QUERY {
            return Err(Error::QueryTooLong(MAX_QUERY));
        }
        let accept = bytes("HTTP_ACCEPT");
        Ok(Self {
            method,
            query,
            accepts_events: accept.windows(EVENTS.len()).any(|part| part == EVENTS),
            last_event_id: bytes("HTTP_LAST_EVENT_ID"),
            address: String::from_utf8_lossy(&bytes("REMOTE_ADDR")).into_owned(),
            body: match method {
                Method::Post => body(bytes, stdin, max_body)?,
                _ => Body::Empty,
            },
        })
    }
}

/// Who calls, as the server and the browser say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Caller {
    /// A web server called us, not a shell.
    pub under_server: bool,
    /// `Host`: where the request was sent to.
    pub host: Vec<u8>,
    /// `Sec-Fetch-Site`: how the page that asks is related to it.
    pub fetch_site: Option<Vec<u8>>,
    /// `Origin`: where that page is from.
    pub origin: Option<Vec<u8>>,
    /// `Referer`: that page; empty if there is none.
    pub referer: Vec<u8>,
    /// `Authorization`
    pub authorization: Vec<u8>,
    /// `Cookie`
    pub cookie: Vec<u8>,
}

impl Caller {
    /// Reads the headers, each a meta-variable (RFC 3875 §4.1.18).
    pub fn from_env(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let header = |name: &str| variable(name).map(OsStringExt::into_vec);
        Self {
            under_server: is_cgi(&variable),
            host: header("HTTP_HOST").unwrap_or_default(),
            fetch_site: header("HTTP_SEC_FETCH_SITE"),
            origin: header("HTTP_ORIGIN"),
            referer: header("HTTP_REFERER").unwrap_or_default(),
            authorization: header("HTTP_AUTHORIZATION").unwrap_or_default(),
            cookie: header("HTTP_COOKIE").unwrap_or_default(),
        }
    }
}

const EVENTS: &[u8] = b"text/event-stream";

/// Whether a web server called us (RFC 3875 §4.1.4, §4.1.12). Then our
/// arguments come from the query string (§4.4) and mean nothing.
pub fn is_cgi(variable: impl Fn(&str) -> Option<OsString>) -> bool {
    variable("GATEWAY_INTERFACE").is_some() || variable("REQUEST_METHOD").is_some()
}

fn method(name: &[u8]) -> Result<Method, Error> {
    match name {
        b"" | b"GET" => Ok(Method::Get),
        b"HEAD" => Ok(Method::Head),
        b"POST" => Ok(Method::Post),
        b"OPTIONS" => Ok(Method::Options),
        _ => Err(Error::MethodNotAllowed),
    }
}

/// Reads as much as `CONTENT_LENGTH` promises (RFC 3875 §4.2), which is
/// judged before anything is read.
fn body(bytes: impl Fn(&str) -> Vec<u8>, stdin: impl Read, limit: usize) -> Result<Body, Error> {
    let length = match bytes("CONTENT_LENGTH").as_slice() {
        b"" if !bytes("HTTP_TRANSFER_ENCODING").is_empty() => return Err(Error::LengthRequired),
        digits => content_length(digits, limit)?,
    };
    if length == 0 {
        return Ok(Body::Empty);
    }
    let content_type = bytes("CONTENT_TYPE");
    let essence = content_type.split(|&byte| byte == b';').next().unwrap_or_default();
    let essence = essence.trim_ascii().to_ascii_lowercase();
    if essence.starts_with(b"multipart/") {
        return Err(Error::UnsupportedBody);
    }
    let text = String::from_utf8(read_exactly(stdin, length)?);
    let text = text.map_err(|_| Error::UnsupportedBody)?;
    Ok(match essence.as_slice() {
        b"" | b"application/x-www-form-urlencoded" => Body::Form(text),
        _ => Body::Text(text),
    })
}

fn read_exactly(mut stdin: impl Read, length: usize) -> Result<Vec<u8>, Error> {
    let mut body = Vec::with_capacity(length);
    match stdin.read_to_end(&mut body) {
        Ok(read) if read == length => Ok(body),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => Err(Error::BodyTooSlow),
        _ => Err(Error::BadRequest("the body ended before its Content-Length".into())),
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
        Request::from_env(find, stdin.as_bytes(), 99)
    }

    fn post(extra: &[Pair], stdin: &str) -> Result<Body, Error> {
        let variables = [&[("REQUEST_METHOD", "POST")], extra].concat();
        request(&variables, stdin).map(|request| request.unwrap().body)
    }

    fn form(text: &str) -> Body {
        Body::Form(text.into())
    }

    #[test]
    fn a_query_or_a_server_makes_a_request() {
        assert_eq!(request(&[], "").unwrap(), None);
        let method = |variables: &[Pair]| request(variables, "").unwrap().unwrap().method;
        assert_eq!(method(&[("QUERY_STRING", "")]), Method::Get);
        assert_eq!(method(&[("GATEWAY_INTERFACE", "CGI/1.1")]), Method::Get);
        assert_eq!(method(&[("REQUEST_METHOD", "HEAD")]), Method::Head);
    }

    #[test]
    fn a_body_is_read_to_its_length() {
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
    fn an_event_source_is_known_by_what_it_accepts() {
        let accept = |value| request(&[("HTTP_ACCEPT", value), ("QUERY_STRING", "")], "");
        assert!(accept("text/event-stream").unwrap().unwrap().accepts_events);
        assert!(accept("a/b, text/event-stream;q=1").unwrap().unwrap().accepts_events);
        assert!(!accept("text/html, */*").unwrap().unwrap().accepts_events);
    }

    #[test]
    fn a_body_that_cannot_be_read() {
        for (extra, status) in [
            (&[("CONTENT_LENGTH", "4")][..], 400),
            (&[("CONTENT_LENGTH", "-1")], 400),
            (&[("CONTENT_LENGTH", "3 ")], 400),
            (&[("CONTENT_LENGTH", "100")], 413),
            (&[("CONTENT_LENGTH", "99999999999999999999999")], 413),
            (&[("HTTP_TRANSFER_ENCODING", "chunked")], 411),
            (&[("CONTENT_LENGTH", "3"), ("CONTENT_TYPE", "Multipart/form-data; boundary=x")], 415),
        ] {
            assert_eq!(post(extra, "a=b").unwrap_err().status(), status, "{extra:?}");
        }
    }

    #[test]
    fn a_wrong_method_or_too_long_a_query() {
        assert_eq!(request(&[("REQUEST_METHOD", "PUT")], "").unwrap_err().status(), 405);
        assert_eq!(request(&[("REQUEST_METHOD", "get")], "").unwrap_err().status(), 405);
        let long: &'static str = "x".repeat(MAX_QUERY + 1).leak();
        assert_eq!(request(&[("QUERY_STRING", long)], "").unwrap_err().status(), 414);
    }
}
