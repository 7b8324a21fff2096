//! Connections to the servers that keep a store.

pub mod address;
pub mod deadline;
pub mod stream;
#[cfg_attr(not(feature = "tls"), path = "no_tls.rs")]
pub mod tls;

use std::path::PathBuf;

/// The PEM files that TLS reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates of those who may vouch for the server.
    pub ca: PathBuf,
    /// Our certificate, and its key.
    pub own: Option<(PathBuf, PathBuf)>,
}
