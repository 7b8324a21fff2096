//! TLS: the server proves its identity, and the client does if the server asks.

use std::fmt::Display;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::TlsFiles;
use crate::net::stream::{DeadlineStream, Transport};

/// The trusted authorities, and the certificate of this client.
pub struct Tls(Arc<ClientConfig>);

impl Tls {
    /// # Errors
    /// `InvalidInput` for a file that is missing or has other content.
    pub fn read(files: &TlsFiles) -> io::Result<Self> {
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_root_certificates(authorities(&files.ca)?);
        let mut config = match &files.own {
            None => config.with_no_client_auth(),
            Some((cert, key)) => {
                let secret = PrivateKeyDer::from_pem_file(key).map_err(|why| bad(key, &why))?;
                let config = config.with_client_auth_cert(certificates(cert)?, secret);
                config.map_err(|why| unusable(key, why))?
            }
        };
        // A process connects to a server once.
        config.resumption = Resumption::disabled();
        Ok(Self(Arc::new(config)))
    }

    /// Encrypts a stream to `host`. The handshake happens with the first write,
    /// within the deadline of the stream.
    ///
    /// # Errors
    /// `InvalidInput` for an invalid name of a host.
    pub fn over(&self, stream: DeadlineStream, host: &str) -> io::Result<Box<dyn Transport>> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|why| io::Error::new(ErrorKind::InvalidInput, why))?;
        let client = ClientConnection::new(Arc::clone(&self.0), name).map_err(io::Error::other)?;
        Ok(Box::new(Session(StreamOwned::new(client, stream))))
    }
}

/// Reads a bundle of certificates, and skips those that cannot be parsed.
fn authorities(path: &Path) -> io::Result<RootCertStore> {
    let mut authorities = RootCertStore::empty();
    match authorities.add_parsable_certificates(certificates(path)?) {
        (0, _) => Err(unusable(path, "no certificate of an authority in it")),
        _ => Ok(authorities),
    }
}

fn certificates(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    match CertificateDer::pem_file_iter(path).and_then(Iterator::collect) {
        Ok(none) if Vec::is_empty(&none) => Err(bad(path, &PemError::NoItemsFound)),
        Ok(all) => Ok(all),
        Err(why) => Err(bad(path, &why)),
    }
}

fn bad(path: &Path, why: &PemError) -> io::Error {
    match why {
        PemError::Io(why) => unusable(path, why),
        PemError::NoItemsFound => unusable(path, "no such thing in it"),
        _ => unusable(path, "no PEM"),
    }
}

fn unusable(path: &Path, why: impl Display) -> io::Error {
    let path = path.to_string_lossy();
    io::Error::new(ErrorKind::InvalidInput, format!("{}: {why}", path.escape_debug()))
}

/// An encrypted connection. After a whole reply its buffers are empty, so a caller
/// can wait for the socket: a server sends its session tickets before its first
/// reply. A later change of keys only causes a false wake-up.
struct Session(StreamOwned<ClientConnection, DeadlineStream>);

impl Session {
    /// A server that closes the connection has sent an alert with the reason.
    /// After a failed write, only a read returns it.
    fn failed(&mut self, error: io::Error) -> io::Error {
        use ErrorKind::{BrokenPipe, ConnectionReset};
        let StreamOwned { conn, sock } = &mut self.0;
        let is_hung_up = matches!(error.kind(), BrokenPipe | ConnectionReset);
        if is_hung_up && conn.read_tls(sock).is_ok_and(|read| read > 0) {
            if let Err(why) = conn.process_new_packets() {
                return explained(io::Error::new(ErrorKind::InvalidData, why));
            }
        }
        explained(error)
    }
}

/// Gives the error the kind that the hint for the administrator depends on.
fn explained(error: io::Error) -> io::Error {
    use rustls::Error::{AlertReceived, InvalidCertificate, InvalidMessage};
    match error.get_ref().and_then(|why| why.downcast_ref::<rustls::Error>()) {
        Some(why @ (AlertReceived(_) | InvalidCertificate(_))) => {
            io::Error::new(ErrorKind::InvalidInput, why.clone())
        }
        Some(InvalidMessage(_)) => io::Error::new(ErrorKind::InvalidData, "it does not speak TLS"),
        _ if error.kind() == ErrorKind::UnexpectedEof => {
            io::Error::new(error.kind(), "the server closed the connection")
        }
        _ => error,
    }
}

impl Read for Session {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|error| self.failed(error))
    }
}

impl Write for Session {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(|error| self.failed(error))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(|error| self.failed(error))
    }
}

impl AsFd for Session {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.sock.as_fd()
    }
}

impl Transport for Session {
    fn wait_until(&mut self, until: Instant) {
        self.0.sock.wait_until(until);
    }
}
