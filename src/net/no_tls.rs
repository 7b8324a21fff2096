//! What stands for TLS in an executable without it: nobody gets as far, for no
//! URL names such a store there.

use std::io::{self, ErrorKind};

use super::TlsFiles;
use crate::net::stream::{DeadlineStream, Transport};

/// There is none.
pub enum Tls {}

impl Tls {
    /// # Errors
    /// Always.
    pub fn read(_: &TlsFiles) -> io::Result<Self> {
        Err(ErrorKind::Unsupported.into())
    }

    pub fn over(&self, _: DeadlineStream, _: &str) -> io::Result<Box<dyn Transport>> {
        match *self {}
    }
}
