//! The Common Gateway Interface (RFC 3875): a request in, a response out.

mod request;
mod response;

pub use request::{Body, MAX_QUERY, METHODS, Method, Request, Route, is_from_server};
pub use response::{FieldValue, Head, Response, status_line};
