//! A signed token grants exactly its claims. A token with any change grants nothing.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::sync::OnceLock;

use arbitrary::{Result, Unstructured};
use base64ct::{Base64UrlUnpadded, Encoding};
use hmac::{Hmac, Mac};
use novcomet::auth::access::{Algorithm, KeyFile};
use novcomet::auth::claims::Claims;
use novcomet::auth::token::Key;
use novcomet::event::{Cursor, Topic};
use sha2::Sha256;

use super::object::Object;
use super::scratch::Scratch;

/// Separates a header and its claims. No UTF-8 text contains this byte.
const BETWEEN: u8 = 0xFF;
const NOW: f64 = 1_800_000_000.0;
/// A time this close to now counts as either.
const CLOSE: f64 = 0.001;
const MAX_TOKEN: usize = 8192;
const TOPICS: [&str; 5] = ["a", "news/", "news/today", "new", "*"];

/// Keys for tests only. The private keys of all but the first no longer exist.
const KEYS: [(&str, &str, &str); 4] = [
    ("HS256", include_str!("keys/hs256"), include_str!("../../fuzz/seeds/token/signed-hs256")),
    ("EdDSA", include_str!("keys/eddsa.pem"), include_str!("../../fuzz/seeds/token/signed-eddsa")),
    ("ES256", include_str!("keys/es256.pem"), include_str!("../../fuzz/seeds/token/signed-es256")),
    ("RS256", include_str!("keys/rs256.pem"), include_str!("../../fuzz/seeds/token/signed-rs256")),
];

pub fn holds(input: &[u8]) {
    for (key, (_, _, signed)) in keys().iter().zip(KEYS) {
        assert_eq!(opened(key, input).is_some(), input == signed.as_bytes());
    }
    let mut parts = input.splitn(2, |&byte| byte == BETWEEN);
    if let (Some(header), Some(claims)) = (parts.next(), parts.next()) {
        says_what_was_signed(header, claims);
    }
}

pub fn case(u: &mut Unstructured) -> Result<Vec<u8>> {
    let headers = [
        r#"{"alg":"HS256"}"#,
        r#"{"alg":"HS256","typ":"JWT"}"#,
        r#"{"alg":"none"}"#,
        r#"{"alg":"HS256","alg":"HS256"}"#,
        r#"{"alg":"HS256","crit":[]}"#,
        r#"["HS256"]"#,
        "{}",
    ];
    let header = u.choose(&headers)?.as_bytes();
    let pieces = [
        r#""exp":1800000001"#,
        r#""exp":1799999999"#,
        r#""exp":4102444800.5"#,
        r#""exp":1e300"#,
        r#""exp":"4102444800""#,
        r#""nbf":0"#,
        r#""nbf":1800000001"#,
        r#""nbf":-1"#,
        r#""nbf":null"#,
        r#""sub":{"a":1,"a":1}"#,
        r#""mercure":{}"#,
        r#""mercure":{"publish":["a"]}"#,
        r#""mercure":{"publish":["news/*"],"subscribe":["*"]}"#,
        r#""mercure":{"publish":"a"}"#,
        r#""mercure":{"subscribe":["a",1]}"#,
        r#""mercure":{"publish":[],"publish":["*"]}"#,
        r#""mercure":[["a"],["a"]]"#,
        r#""\u0065xp":4102444800"#,
        "",
        " ",
    ];
    let mut claims = vec![r#""exp":4102444800"#];
    for _ in 0..u.int_in_range(0..=3)? {
        claims.push(u.choose(&pieces)?);
    }
    let claims = &claims[usize::from(u.ratio(1, 3)?)..];
    Ok([header, format!("{{{}}}", claims.join(",")).as_bytes()].join(&BETWEEN))
}

fn keys() -> &'static [Key] {
    static READ: OnceLock<Vec<Key>> = OnceLock::new();
    READ.get_or_init(|| {
        let scratch = Scratch::new();
        let read = |(name, key, _): (&str, &str, &str)| {
            let path = scratch.store().join(name);
            fs::write(&path, key).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
            Key::read(&KeyFile {
                setting: "NOVCOMET_TOKEN_KEY",
                path,
                algorithm: Algorithm::parse(name).unwrap(),
            })
            .unwrap()
        };
        KEYS.map(read).into()
    })
}

fn opened(key: &Key, token: &[u8]) -> Option<Claims> {
    key.verify(token, Cursor::at(1_800_000_000, 0))
}

/// A signed token is understood as an independent JSON parser understands it.
fn says_what_was_signed(header: &[u8], claims: &[u8]) {
    let encoded = [header, claims].map(Base64UrlUnpadded::encode_string).join(".");
    let mut mac = Hmac::<Sha256>::new_from_slice(KEYS[0].1.as_bytes()).unwrap();
    mac.update(encoded.as_bytes());
    let signature = Base64UrlUnpadded::encode_string(&mac.finalize().into_bytes());
    let token = format!("{encoded}.{signature}");
    let grants = opened(&keys()[0], token.as_bytes());
    let meant = is_header(header).then(|| Meant::of(claims)).flatten();
    match (grants, meant) {
        (grants, Some(meant)) if token.len() <= MAX_TOKEN => meant.assert(grants.as_ref()),
        (grants, _) => assert_eq!(grants, None),
    }
}

fn is_header(header: &[u8]) -> bool {
    let header = std::str::from_utf8(header).ok().and_then(Object::parse);
    header.is_some_and(|header| {
        let algorithm = header.only("alg").and_then(|alg| serde_json::from_str(alg).ok());
        algorithm == Some("HS256".to_owned()) && !header.has("crit") && !header.has_twins()
    })
}

/// The grant of claims while they are valid.
struct Meant {
    begins: f64,
    expires: f64,
    publish: Vec<String>,
    subscribe: Vec<String>,
}

impl Meant {
    fn of(claims: &[u8]) -> Option<Self> {
        let claims = object(std::str::from_utf8(claims).ok()?)?;
        let mercure = object(claims.only("mercure").unwrap_or("{}"))?;
        let patterns = |name| serde_json::from_str(mercure.only(name).unwrap_or("[]")).ok();
        Some(Self {
            begins: if claims.has("nbf") { moment(claims.only("nbf")?)? } else { 0.0 },
            expires: moment(claims.only("exp")?)?,
            publish: patterns("publish")?,
            subscribe: patterns("subscribe")?,
        })
    }

    fn assert(&self, grants: Option<&Claims>) {
        let is_close = |moment: f64| (moment - NOW).abs() < CLOSE;
        if !is_close(self.begins) && !is_close(self.expires) {
            assert_eq!(grants.is_some(), self.begins < NOW && NOW < self.expires);
        }
        let Some(grants) = grants else { return };
        for name in TOPICS {
            let topic = Topic::new(name).unwrap();
            assert_eq!(grants.may_publish(&topic), names(&self.publish, name));
            assert_eq!(grants.may_subscribe(&topic), names(&self.subscribe, name));
        }
    }
}

fn object(text: &str) -> Option<Object> {
    Object::parse(text).filter(|object| !object.has_twins())
}

/// A number of seconds within the range of a clock.
fn moment(json: &str) -> Option<f64> {
    let seconds = serde_json::from_str::<serde_json::Value>(json).ok()?.as_f64()?;
    (0.0..18_446_744_073_709_551_616.0).contains(&seconds).then_some(seconds)
}

fn names(patterns: &[String], name: &str) -> bool {
    patterns.iter().any(|pattern| match pattern.split_at_checked(pattern.len().wrapping_sub(1)) {
        Some((prefix, "*")) => name.starts_with(prefix),
        _ => name == pattern,
    })
}
