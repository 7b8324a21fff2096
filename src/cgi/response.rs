//! An answer (RFC 3875 §6): a [`Head`] first and only then a body.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// The head of an answer (a document response, RFC 3875 §6.2.1). Names and values
/// are fixed, numbers, or a [`FieldValue`]: no other text gets into a header.
pub struct Head {
    status: u16,
    headers: Vec<(&'static str, FieldValue)>,
    retry_after: Option<u32>,
    is_written: bool,
}

/// The value of a header (RFC 9110 §5.5): a fixed text, or one that was checked.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FieldValue(Cow<'static, str>);

impl TryFrom<String> for FieldValue {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::new(text).ok_or("not the value of a header")
    }
}

impl From<FieldValue> for String {
    fn from(value: FieldValue) -> Self {
        value.0.into_owned()
    }
}

impl FieldValue {
    /// Visible ASCII characters, with spaces and tabs between them; `None` for any
    /// other text. So no line end gets into a header.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Option<Self> {
        let text = text.into();
        let is_visible = |byte: u8| byte.is_ascii_graphic() || byte == b' ' || byte == b'\t';
        let is_trimmed = text.trim_ascii() == text;
        (is_trimmed && text.bytes().all(is_visible)).then_some(Self(text.into()))
    }

    /// The text as it stands in the header.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&'static str> for FieldValue {
    fn from(text: &'static str) -> Self {
        Self(text.into())
    }
}

impl Head {
    /// A head that no cache keeps and no browser reads as another type.
    /// `Status` is always sent: without it a server may turn a 200 into a 304.
    #[must_use]
    pub fn new(status: u16, content_type: &'static str) -> Self {
        let headers = [
            ("Content-Type", content_type),
            ("Cache-Control", "no-store, no-cache, must-revalidate, no-transform"),
            ("Pragma", "no-cache"),
            ("Expires", "0"),
            ("X-Content-Type-Options", "nosniff"),
        ];
        let headers = headers.map(|(name, value)| (name, value.into())).into();
        Self { status, headers, retry_after: None, is_written: true }
    }

    /// The head for a person at a shell, to whom only the body is written.
    #[must_use]
    pub fn unwritten() -> Self {
        Self { status: 200, headers: Vec::new(), retry_after: None, is_written: false }
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<FieldValue>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Sets after how many seconds the client asks again (RFC 9110 §10.2.3).
    #[must_use]
    pub fn retry_after(mut self, seconds: Option<u32>) -> Self {
        self.retry_after = seconds;
        self
    }

    /// The head is complete; what follows is the body.
    #[must_use]
    pub fn body(self, body: impl Into<Vec<u8>>) -> Response {
        Response { head: self, body: body.into(), has_length: true }
    }

    /// As `body`, but more of the body follows.
    #[must_use]
    pub fn start_stream(self, body: impl Into<Vec<u8>>) -> Response {
        Response { has_length: false, ..self.body(body) }
    }
}

/// A complete answer.
pub struct Response {
    head: Head,
    body: Vec<u8>,
    has_length: bool,
}

/// The end of the names of the headers that say where an event stream begins.
const LAST_EVENT_ID: &str = "Last-Event-ID";

impl Response {
    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.head.status
    }

    /// Lets the pages of `origin` read the answer, with their user's credentials
    /// (CORS, WHATWG Fetch §3.3).
    #[must_use]
    pub fn with_cors(mut self, origin: Option<&FieldValue>) -> Self {
        if let Some(origin) = origin.cloned() {
            let headers = &mut self.head.headers;
            let has = |end: &str| headers.iter().any(|(name, _)| name.ends_with(end));
            let exposed = match () {
                () if has(LAST_EVENT_ID) => "Retry-After, Last-Event-ID, Mercure-Last-Event-ID",
                () if has("Link") => "Retry-After, Link, ETag",
                () => "Retry-After",
            };
            headers.push(("Access-Control-Allow-Origin", origin));
            headers.push(("Access-Control-Allow-Credentials", "true".into()));
            headers.push(("Access-Control-Expose-Headers", exposed.into()));
            headers.push(("Vary", "Origin".into()));
        }
        self
    }

    /// Its head only (RFC 3875 §4.3.2).
    #[must_use]
    pub fn without_body(self) -> Self {
        Self { body: Vec::new(), ..self }
    }

    /// The whole answer in one piece, so that the server sends it in one. With its
    /// length the client need not wait until the server sees the end of this process
    /// (`mod_cgid` may check that only every 10 ms).
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        if !self.head.is_written {
            return self.body.clone();
        }
        let mut out = format!("Status: {}\r\n", status_line(self.head.status)).into_bytes();
        for (name, value) in &self.head.headers {
            for part in [name, ": ", value.as_str(), "\r\n"] {
                out.extend_from_slice(part.as_bytes());
            }
        }
        if let Some(seconds) = self.head.retry_after {
            out.extend_from_slice(format!("Retry-After: {seconds}\r\n").as_bytes());
        }
        if !self.body.is_empty() && self.has_length {
            out.extend_from_slice(format!("Content-Length: {}\r\n", self.body.len()).as_bytes());
        }
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(&self.body);
        out
    }
}

/// The code and its reason phrase (RFC 9110 §15).
#[must_use]
pub fn status_line(status: u16) -> &'static str {
    match status {
        200 => "200 OK",
        204 => "204 No Content",
        400 => "400 Bad Request",
        401 => "401 Unauthorized",
        403 => "403 Forbidden",
        404 => "404 Not Found",
        405 => "405 Method Not Allowed",
        408 => "408 Request Timeout",
        413 => "413 Content Too Large",
        414 => "414 URI Too Long",
        415 => "415 Unsupported Media Type",
        501 => "501 Not Implemented",
        503 => "503 Service Unavailable",
        507 => "507 Insufficient Storage",
        _ => "500 Internal Server Error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_may_read_where_a_stream_begins() {
        let origin = FieldValue::from("https://pages.example");
        let exposed = |head: Head| {
            let text = String::from_utf8(head.body("").with_cors(Some(&origin)).bytes()).unwrap();
            let (_, rest) = text.split_once("Access-Control-Expose-Headers: ").unwrap();
            rest.lines().next().unwrap().to_owned()
        };
        let head = || Head::new(200, "text/event-stream");
        let all = "Retry-After, Last-Event-ID, Mercure-Last-Event-ID";
        assert_eq!(exposed(head()), "Retry-After");
        for name in ["Last-Event-ID", "Mercure-Last-Event-ID"] {
            assert_eq!(exposed(head().header(name, "earliest")), all);
        }
    }

    #[test]
    fn header_value_has_no_line_end() {
        for text in ["", "a", "a b", "https://a.example:8443", "<x>; rel=\"next\""] {
            assert_eq!(FieldValue::new(text).unwrap().as_str(), text);
        }
        for text in ["a\r\nX: y", "a\nb", "a\0", " a", "a ", "\u{e9}", "a\x7f"] {
            assert_eq!(FieldValue::new(text), None, "{text:?}");
        }
    }
}
