//! The proxy that a request has come through (GRIP), and what only this program can have given
//! it.

use std::hash::{DefaultHasher, Hash, Hasher};

use base64ct::{Base64UrlUnpadded, Encoding};
use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::access::{KeyFile, Policy};
use super::token::{Key, read_secret};
use crate::cgi::Request;
use crate::error::Error;
use crate::event::Cursor;

/// Marks a text, so that nobody else can make or change one.
#[derive(Clone)]
pub struct Seal(Hmac<Sha256>);

impl Seal {
    /// The text for a URL: the content and its mark, each in base64url.
    #[must_use]
    pub fn close(&self, content: &[u8]) -> String {
        let content = Base64UrlUnpadded::encode_string(content);
        let mark = self.mac(content.as_bytes()).finalize().into_bytes();
        format!("{content}.{}", Base64UrlUnpadded::encode_string(&mark))
    }

    /// The content of a text that was sealed by the same rules of access; `None` for any other.
    #[must_use]
    pub fn open(&self, text: &str) -> Option<Vec<u8>> {
        let (content, mark) = text.split_once('.')?;
        let mark = Base64UrlUnpadded::decode_vec(mark).ok()?;
        // In constant time.
        self.mac(content.as_bytes()).verify_slice(&mark).ok()?;
        Base64UrlUnpadded::decode_vec(content).ok()
    }

    fn mac(&self, content: &[u8]) -> Hmac<Sha256> {
        self.0.clone().chain_update(content)
    }

    /// It is of the rules and of the key of tokens, too: what others have allowed does not count.
    fn of(secret: &[u8], policy: &Policy, token_key: &[u8]) -> Option<Self> {
        let mut rules = DefaultHasher::new();
        (policy, token_key).hash(&mut rules);
        let mac = Hmac::new_from_slice(secret).ok()?;
        Some(Self(mac.chain_update(b"a held stream").chain_update(rules.finish().to_ne_bytes())))
    }
}

/// The seal for a request whose connection a proxy holds. `None` without such a proxy, and for
/// a signature that does not count: then the request is answered as any other.
///
/// # Errors
/// 503 for a key file that cannot be used.
pub fn proxy_seal(policy: &Policy, request: &Request, now: Cursor) -> Result<Option<Seal>, Error> {
    let Some(keys) = policy.grip.as_ref().filter(|_| !request.grip_sig.is_empty()) else {
        return Ok(None);
    };
    let key = Key::read(&keys.key)?;
    let claims = key.open(&request.grip_sig).map(|token| token.claims);
    let expires = claims.and_then(|claims| claims.number("exp"));
    #[allow(clippy::cast_precision_loss, reason = "seconds are exact for 10^8 years")]
    let is_valid = expires.is_some_and(|expires| expires > now.seconds() as f64);
    if !is_valid {
        return Ok(None);
    }
    let secret = match &keys.secret {
        Some(path) => read_secret("NOVCOMET_GRIP_SECRET", path)?,
        None => key.secret().unwrap_or_default().to_vec(),
    };
    let token_key = policy.token.as_ref().map(KeyFile::content).transpose()?;
    Ok(Seal::of(&secret, policy, &token_key.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::access::{
        Doctor, Mercure, Metrics, Names, Publish, Subscribe, TellStore, Topics,
    };

    #[test]
    fn seal_opens_its_own_text_only() {
        let policy = Policy {
            publish: Publish::Any,
            subscribe: Subscribe::Any,
            private: Topics::default(),
            origins: Vec::new(),
            token: None,
            tell_store: TellStore::Off,
            metrics: Metrics::Off,
            doctor: Doctor::Off,
            names: Names::Token,
            mercure: Mercure::default(),
            grip: None,
        };
        let seal = Seal::of(b"secret", &policy, b"key").unwrap();
        let text = seal.close(b"content");
        assert_eq!(seal.open(&text).as_deref(), Some(&b"content"[..]));
        assert_eq!(Seal::of(b"other", &policy, b"key").unwrap().open(&text), None);
        assert_eq!(Seal::of(b"secret", &policy, b"new key").unwrap().open(&text), None);
        let stricter = Policy { subscribe: Subscribe::None, ..policy };
        assert_eq!(Seal::of(b"secret", &stricter, b"key").unwrap().open(&text), None);
        let (content, mark) = text.split_once('.').unwrap();
        for other in [content, &format!("{content}."), &format!("{content}A.{mark}"), mark, ""] {
            assert_eq!(seal.open(other), None, "{other}");
        }
    }
}
