//! What stands for TLS in an executable without it: nobody gets as far, for no
//! URL names such a store there.

use std::io::{self, ErrorKind};

use super::Files;
use crate::net::link::{Link, Wire};

/// There is none.
pub enum Tls {}

impl Tls {
    /// # Errors
    /// Always.
    pub fn read(_: &Files) -> io::Result<Self> {
        Err(ErrorKind::Unsupported.into())
    }

    pub fn over(&self, _: Link, _: &str) -> io::Result<Box<dyn Wire>> {
        match *self {}
    }
}
