//! Stands in for TLS in an executable without it. It is never used, because
//! `store::open` refuses the URLs that need TLS.

use std::io::{self, ErrorKind};

use super::TlsFiles;
use crate::net::stream::{DeadlineStream, Transport};

/// A type without values.
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
