//! Connections to servers, with deadlines.

pub mod address;
pub mod deadline;
pub mod http;
pub mod stream;
#[cfg_attr(not(feature = "tls"), path = "no_tls.rs")]
pub mod tls;

use std::path::PathBuf;

/// The PEM files that TLS reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The authorities that may sign the certificate of the server.
    pub ca: PathBuf,
    /// The certificate and the key of this client.
    pub own: Option<(PathBuf, PathBuf)>,
}
