//! Tokens: a JWT (RFC 7519) in the compact form of a JWS (RFC 7515 §3.1),
//! and the key that checks it. No answer says why a token is refused.

use std::path::{Path, PathBuf};

use base64ct::{Base64UrlUnpadded, Encoding};
use hmac::{Hmac, Mac};
use p256::ecdsa::signature::Verifier;
use p256::pkcs8::DecodePublicKey;
use rsa::traits::PublicKeyParts;
use rsa::{Pkcs1v15Sign, RsaPublicKey};
use sha2::{Digest, Sha256};

use super::access::{Algorithm, KeyFile};
use super::claims::Claims;
use super::object::Object;
use crate::error::Error;
use crate::event::Cursor;
use crate::process::private_file;

/// Longest token, in bytes.
const MAX_TOKEN: usize = 8192;
/// Longest key file, in bytes.
const MAX_KEY: u64 = 16_384;
/// Shortest secret, in bytes: as long as the hash (RFC 7518 §3.2).
const MIN_SECRET: usize = 32;
/// Shortest RSA modulus, in bytes (RFC 7518 §3.3).
const MIN_RSA: usize = 256;

/// The beginning of PEM, after any text that its readers skip (RFC 7468 §2).
const PEM: &[u8] = b"-----BEGIN";

/// A path is not shown if no file has it: it may be the secret itself.
fn unusable(setting: &str, path: &Path, why: &str) -> Error {
    if let Some(path) = existing(path) {
        return Error::Misconfigured { log: format!("{setting}: {} {why}", path.display()) };
    }
    let what = "its value, which is not shown because it may be a secret,";
    Error::misconfigured(&format!("{setting}: {what} {why}"), "name a key file")
}

/// What a key has signed. Its time is not checked.
pub(super) struct Token {
    pub header: Object,
    pub claims: Object,
}

/// The key that tokens are checked with, and its only algorithm.
pub struct Key(Verify);

enum Verify {
    Hs256(Vec<u8>),
    EdDsa(ed25519_dalek::VerifyingKey),
    Es256(p256::ecdsa::VerifyingKey),
    Rs256(RsaPublicKey),
}

impl Key {
    /// Reads the key from `file`.
    ///
    /// # Errors
    /// 503 for a file that others can read or could have put
    /// there, and for one that holds no such key.
    pub fn read(file: &KeyFile) -> Result<Self, Error> {
        let KeyFile { setting, path, algorithm } = file;
        let bytes = read_file(setting, path)?;
        Self::parse(*algorithm, bytes).map_err(|why| unusable(setting, path, &why))
    }

    /// What both sides share, if the key is a secret.
    pub(super) fn secret(&self) -> Option<&[u8]> {
        match &self.0 {
            Verify::Hs256(secret) => Some(secret),
            _ => None,
        }
    }

    fn parse(algorithm: Algorithm, bytes: Vec<u8>) -> Result<Self, String> {
        if algorithm == Algorithm::Hs256 {
            return secret(bytes).map(Verify::Hs256).map(Self);
        }
        let refuse = || format!("holds no public key for {} in PEM", algorithm.name());
        let pem = String::from_utf8(bytes).map_err(|_| refuse())?;
        let key = match algorithm {
            Algorithm::Es256 => DecodePublicKey::from_public_key_pem(&pem).map(Verify::Es256),
            Algorithm::Rs256 => DecodePublicKey::from_public_key_pem(&pem).map(Verify::Rs256),
            _ => DecodePublicKey::from_public_key_pem(&pem).map(Verify::EdDsa),
        };
        match key.map_err(|_| refuse())? {
            Verify::Rs256(key) if key.size() < MIN_RSA => {
                Err("holds an RSA key of less than 2048 bits".into())
            }
            key => Ok(Self(key)),
        }
    }

    fn algorithm(&self) -> Algorithm {
        match self.0 {
            Verify::Hs256(_) => Algorithm::Hs256,
            Verify::EdDsa(_) => Algorithm::EdDsa,
            Verify::Es256(_) => Algorithm::Es256,
            Verify::Rs256(_) => Algorithm::Rs256,
        }
    }

    /// The claims of `token` on our own wire, at `now`; `None` for an invalid token.
    #[must_use]
    pub fn verify(&self, token: &[u8], now: Cursor) -> Option<Claims> {
        Claims::of_own_wire(&self.open(token)?.claims, now)
    }

    /// What this key has signed; `None` for any other text.
    pub(super) fn open(&self, token: &[u8]) -> Option<Token> {
        let token = std::str::from_utf8(token).ok().filter(|token| token.len() <= MAX_TOKEN)?;
        let (signed, signature) = token.rsplit_once('.')?;
        // A third point, as in a JWE, is no base64.
        let (header, claims) = signed.split_once('.')?;
        let header = self.expected(&json(header)?)?;
        self.verify_signature(signed.as_bytes(), &decoded(signature)?)?;
        Some(Token { header, claims: Object::parse(&json(claims)?)? })
    }

    /// The header is checked before the key is used: the algorithm is the key's, not
    /// the token's choice or `none`. A `crit` is refused: a reader that does not
    /// understand its extensions must refuse the token (RFC 7515 §4.1.11).
    fn expected(&self, header: &str) -> Option<Object> {
        let header = Object::parse(header)?;
        let algorithm = header.text("alg")?;
        (algorithm == self.algorithm().name() && !header.has("crit")).then_some(header)
    }

    fn verify_signature(&self, signed: &[u8], signature: &[u8]) -> Option<()> {
        match &self.0 {
            Verify::Hs256(secret) => {
                let mut mac = Hmac::<Sha256>::new_from_slice(secret).ok()?;
                mac.update(signed);
                // In constant time.
                mac.verify_slice(signature).ok()
            }
            Verify::EdDsa(key) => {
                let signature = ed25519_dalek::Signature::from_slice(signature).ok()?;
                key.verify_strict(signed, &signature).ok()
            }
            Verify::Es256(key) => {
                let signature = p256::ecdsa::Signature::from_slice(signature).ok()?;
                key.verify(signed, &signature).ok()
            }
            Verify::Rs256(key) => {
                let hash = Sha256::digest(signed);
                key.verify(Pkcs1v15Sign::new::<Sha256>(), &hash, signature).ok()
            }
        }
    }
}

/// Reads the secret that a setting names.
///
/// # Errors
/// 503 for a file that others can read or could have put there, and for a short secret.
pub(super) fn read_secret(setting: &str, path: &Path) -> Result<Vec<u8>, Error> {
    secret(read_file(setting, path)?).map_err(|why| unusable(setting, path, &why))
}

impl KeyFile {
    /// The bytes of the file.
    ///
    /// # Errors
    /// 503 for a file that others can read or could have put there.
    pub(super) fn content(&self) -> Result<Vec<u8>, Error> {
        read_file(self.setting, &self.path)
    }
}

fn read_file(setting: &str, path: &Path) -> Result<Vec<u8>, Error> {
    let refuse = |why: String| unusable(setting, path, &why);
    let opened = private_file::open(path).map_err(|cause| refuse(cause.to_string()))?;
    private_file::read(opened, MAX_KEY).map_err(refuse)
}

/// The path of an existing file. Any other text may be the secret itself: base64
/// may begin with a slash.
fn existing(path: &Path) -> Option<PathBuf> {
    path.symlink_metadata().is_ok().then(|| path.to_owned())
}

fn secret(mut bytes: Vec<u8>) -> Result<Vec<u8>, String> {
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    match () {
        // With a public key as the secret every client could sign.
        () if bytes.windows(PEM.len()).any(|part| part == PEM) => {
            Err("holds PEM, and HS256 takes the bytes of a secret; set NOVCOMET_TOKEN_ALGORITHM"
                .into())
        }
        () if bytes.len() < MIN_SECRET => {
            Err(format!("holds less than {MIN_SECRET} bytes; make it by: openssl rand -hex 32"))
        }
        () => Ok(bytes),
    }
}

fn json(text: &str) -> Option<String> {
    String::from_utf8(decoded(text)?).ok()
}

/// base64url as RFC 7515 §2 has it: no padding, no second form of the same
/// bytes.
fn decoded(text: &str) -> Option<Vec<u8>> {
    Base64UrlUnpadded::decode_vec(text).ok()
}
