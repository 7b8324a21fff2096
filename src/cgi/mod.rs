//! The Common Gateway Interface (RFC 3875): a request in, a response out.

mod request;
mod response;

pub use request::{Body, Caller, MAX_QUERY, METHODS, Method, Request, is_cgi};
pub use response::{FieldValue, Head, Response, status_line};
