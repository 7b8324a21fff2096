//! The tokens of Mercure, of both generations.

use super::access::{HubUrl, Mercure, Topics};
use super::claims::{Claims, Detail, Generation, expiry, object, optional_expiry, subject, texts};
use super::object::Object;
use super::token::Token;
use crate::error::Error;
use crate::event::pattern::Pattern;
use crate::event::{Cursor, Topic};

/// Most selectors of a token, for publishing and subscribing together.
const MAX_SELECTORS: usize = 256;
/// Longest selector, in bytes.
const MAX_SELECTOR: usize = 4096;

/// The name of the claim of 0.x, and the one for issuers that need a namespace.
const CLAIM: &str = "mercure";
const NAMESPACED: &str = "https://mercure.rocks/";
/// The claim of 1.0 (RFC 9396 §2), and the type of its entries.
const DETAILS: &str = "authorization_details";
const DETAIL: &str = "https://mercure.rocks/authorization-detail";

impl Generation {
    /// The generation whose rules a token must keep. A token of 1.0 cannot pass as one of
    /// 0.x, which has fewer rules.
    pub(super) fn of(token: &Token) -> Self {
        match is_access_token(&token.header) || token.claims.has(DETAILS) {
            true => Self::V1,
            false => Self::V0,
        }
    }
}

/// The claims of a token of this generation, at `now`.
///
/// # Errors
/// 401 for a token that does not count, 503 if 1.0 needs a setting for it.
pub(super) fn claims(
    token: &Token,
    generation: Generation,
    rules: &Mercure,
    now: Cursor,
) -> Result<Claims, Error> {
    let claims = match (generation, &rules.url) {
        (Generation::V0, _) => first_claims(&token.claims, rules, now),
        (Generation::V1, Some(url)) => {
            let is_ours = is_access_token(&token.header) && is_for_us(&token.claims, url, rules);
            is_ours.then(|| detailed_claims(&token.claims, url, now)).flatten()
        }
        // The key has signed it, so nobody else can fill the log.
        (Generation::V1, None) => {
            return Err(Error::setting("NOVCOMET_MERCURE_URL", "", "set, and a token needs it"));
        }
    };
    claims.ok_or(Error::InvalidToken)
}

/// The claims of 0.x.
fn first_claims(claims: &Object, rules: &Mercure, now: Cursor) -> Option<Claims> {
    let expires = match rules.without_exp {
        true => optional_expiry(claims, now)?,
        false => expiry(claims, now)?,
    };
    let name = if claims.has(NAMESPACED) { NAMESPACED } else { CLAIM };
    let mercure = object(claims, name)?;
    let (publish, subscribe) = (texts(&mercure, "publish")?, texts(&mercure, "subscribe")?);
    let is_short = publish.len() + subscribe.len() <= MAX_SELECTORS;
    let (publish, subscribe) =
        is_short.then_some((templates(&publish)?, templates(&subscribe)?))?;
    let payload = mercure.json("payload").filter(|json| *json != "null").map(ToOwned::to_owned);
    let (subscribe, generation) = (vec![Detail::of(subscribe)], Generation::V0);
    let subject = subject(claims);
    Some(Claims { publish, subscribe, payload, expires, generation, subject })
}

fn templates(texts: &[String]) -> Option<Topics> {
    let patterns = texts.iter().map(|text| selector(text, Pattern::template));
    patterns.collect::<Option<_>>().map(Topics::matching)
}

/// The claims of 1.0 ("Authorization Details"). One invalid entry makes the token invalid.
fn detailed_claims(claims: &Object, base: &HubUrl, now: Cursor) -> Option<Claims> {
    let expires = expiry(claims, now)?;
    let grants = grants(claims, base)?;
    let publishers = grants.iter().filter(|it| it.has("publish"));
    let publish = publishers.flat_map(|it| it.patterns.clone()).collect();
    let subscribers = grants.iter().filter(|it| it.has("subscribe"));
    let subscribe = subscribers.map(Grants::detail).collect();
    let (publish, generation) = (Topics::matching(publish), Generation::V1);
    let subject = subject(claims);
    Some(Claims { publish, subscribe, payload: None, expires, generation, subject })
}

/// What one entry grants.
struct Grants {
    actions: Vec<String>,
    patterns: Vec<Pattern>,
    payload: Option<String>,
}

impl Grants {
    fn parse(detail: &Object, base: &HubUrl) -> Option<Self> {
        let actions = detail.texts("actions")?;
        let topics = detail.objects("topics")?;
        let payload = match detail.has("payload") {
            true => Some(payload(detail)?),
            false => None,
        };
        let patterns = topics.iter().map(|it| matcher(it, base)).collect::<Option<Vec<_>>>()?;
        (!actions.is_empty() && !patterns.is_empty()).then_some(Self { actions, patterns, payload })
    }

    fn has(&self, action: &str) -> bool {
        self.actions.iter().any(|known| known == action)
    }

    fn detail(&self) -> Detail {
        let topics = Topics::matching(self.patterns.clone());
        Detail { topics, payload: self.payload.clone() }
    }
}

/// It must be an object here.
fn payload(detail: &Object) -> Option<String> {
    let json = detail.json("payload")?;
    Object::parse(json).map(|_| json.to_owned())
}

/// The grants of Mercure. Entries of other types are for other servers.
fn grants(claims: &Object, base: &HubUrl) -> Option<Vec<Grants>> {
    let details = match claims.has(DETAILS) {
        true => claims.objects(DETAILS)?,
        false => Vec::new(),
    };
    let mut grants = Vec::new();
    for detail in details {
        if detail.text("type")? == DETAIL {
            grants.push(Grants::parse(&detail, base)?);
        }
    }
    let selectors: usize = grants.iter().map(|it| it.patterns.len()).sum();
    (selectors <= MAX_SELECTORS).then_some(grants)
}

/// A topic matcher object ("Topic Matcher List").
fn matcher(object: &Object, base: &HubUrl) -> Option<Pattern> {
    let text = object.text("match")?;
    let kind = match object.has("match_type") {
        true => object.text("match_type")?,
        false => "exact".to_owned(),
    };
    match kind.as_str() {
        "exact" => selector(&text, |text| Topic::new(text).map(Pattern::exact)),
        "urlpattern" => selector(&text, |text| Pattern::url(text, base.as_str())),
        _ => None,
    }
}

/// `*` selects every topic, whatever the type of a selector.
fn selector(text: &str, parse: impl Fn(&str) -> Result<Pattern, Error>) -> Option<Pattern> {
    match text {
        "*" => Some(Pattern::every()),
        _ if text.len() > MAX_SELECTOR => None,
        _ => parse(text).ok(),
    }
}

/// Whether a token has the type of an access token (RFC 9068 §4, RFC 7515 §4.1.9).
fn is_access_token(header: &Object) -> bool {
    let typ = header.text("typ").unwrap_or_default().to_ascii_lowercase();
    typ.strip_prefix("application/").unwrap_or(&typ) == "at+jwt"
}

/// Whether a token is for this hub, and by its issuer (RFC 9068 §4).
fn is_for_us(claims: &Object, url: &HubUrl, rules: &Mercure) -> bool {
    let audience = claims.text("aud").map(|one| vec![one]).or_else(|| claims.texts("aud"));
    let is_ours = audience.unwrap_or_default().iter().any(|it| it == url.as_str());
    is_ours && (rules.issuer.is_none() || rules.issuer == claims.text("iss"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;
    const HUB: &str = "https://hub.example/.well-known/mercure";
    const ACCESS_TOKEN: &str = r#"{"alg":"HS256","typ":"at+jwt"}"#;

    fn rules() -> Mercure {
        Mercure { url: HubUrl::parse(HUB), ..Mercure::default() }
    }

    fn token(header: &str, claims: &str) -> Token {
        let parse = |json: &str| Object::parse(json).unwrap_or_default();
        Token { header: parse(header), claims: parse(claims) }
    }

    fn read_by(rules: &Mercure, header: &str, claims: &str) -> Result<Claims, Error> {
        let token = token(header, claims);
        let now = Cursor::from_micros(NOW * 1_000_000);
        super::claims(&token, Generation::of(&token), rules, now)
    }

    /// The claims of a token of 0.x with this claim, for another second.
    fn first(mercure: &str) -> Result<Claims, Error> {
        let claims = format!(r#"{{"exp":{},"mercure":{mercure}}}"#, NOW + 1);
        read_by(&rules(), r#"{"alg":"HS256","typ":"JWT"}"#, &claims)
    }

    /// The claims of a token of 1.0 with these details, for another second.
    fn detailed(details: &str) -> Result<Claims, Error> {
        let exp = NOW + 1;
        let claims = format!(r#"{{"exp":{exp},"aud":"{HUB}","authorization_details":{details}}}"#);
        read_by(&rules(), ACCESS_TOKEN, &claims)
    }

    /// A detail of Mercure.
    fn detail(actions: &str, topics: &str) -> String {
        format!(r#"{{"type":"{DETAIL}","actions":{actions},"topics":{topics}}}"#)
    }

    /// What the claims grant of the topic `a`: publishing and subscribing.
    fn rights(claims: &Claims) -> (bool, bool) {
        let topic = Topic::new("a").unwrap();
        (claims.may_publish(&topic), claims.may_subscribe(&topic))
    }

    #[test]
    fn token_says_its_generation() {
        for (header, claims, generation) in [
            (r#"{"typ":"JWT"}"#, "{}", Generation::V0),
            ("{}", r#"{"mercure":{}}"#, Generation::V0),
            (r#"{"typ":["at+jwt"]}"#, "{}", Generation::V0),
            (r#"{"typ":"at+jwt"}"#, "{}", Generation::V1),
            (r#"{"typ":"AT+JWT"}"#, r#"{"mercure":{}}"#, Generation::V1),
            (r#"{"typ":"Application/at+jwt"}"#, "{}", Generation::V1),
            (r#"{"typ":"JWT"}"#, r#"{"authorization_details":null,"mercure":{}}"#, Generation::V1),
        ] {
            assert_eq!(Generation::of(&token(header, claims)), generation, "{header} {claims}");
        }
    }

    #[test]
    fn claim_of_0_x_grants_its_selectors() {
        for (mercure, granted) in [
            (r#"{"publish":["a"]}"#, (true, false)),
            (r#"{"subscribe":["b","a"]}"#, (false, true)),
            (r#"{"publish":["*"],"subscribe":["*"],"payload":1}"#, (true, true)),
            (r#"{"publish":[],"subscribe":null,"payload":null}"#, (false, false)),
            // A prefix of our own wire is a text here.
            (r#"{"publish":["a*"],"subscribe":["**"]}"#, (false, false)),
            ("{}", (false, false)),
        ] {
            assert_eq!(rights(&first(mercure).unwrap()), granted, "{mercure}");
        }
        let spaced = format!(r#"{{"exp":{},"{NAMESPACED}":{{"publish":["a"]}}}}"#, NOW + 1);
        let claims = read_by(&rules(), "{}", &spaced).unwrap();
        assert_eq!(rights(&claims), (true, false), "{spaced}");
    }

    #[test]
    fn invalid_claim_of_0_x_is_refused() {
        for mercure in [
            "null",
            "1",
            r#"["*"]"#,
            r#"{"publish":"*"}"#,
            r#"{"publish":{"a":1}}"#,
            r#"{"publish":["*",1]}"#,
            r#"{"publish":["*",["a"]]}"#,
            r#"{"publish":["*",null]}"#,
            r#"{"publish":["*",""]}"#,
            r#"{"publish":["*"],"subscribe":[{}]}"#,
            r#"{"publish":[],"publish":["*"]}"#,
        ] {
            assert_eq!(first(mercure), Err(Error::InvalidToken), "{mercure}");
        }
    }

    #[test]
    fn exp_may_be_absent_by_setting_and_in_0_x_only() {
        let lenient = Mercure { without_exp: true, ..rules() };
        let now = NOW;
        for (claims, is_valid) in [
            ("{}".to_owned(), true),
            (format!(r#"{{"nbf":{now}}}"#), true),
            (format!(r#"{{"nbf":{}}}"#, now + 1), false),
            (format!(r#"{{"exp":{now}}}"#), false),
            (r#"{"exp":null}"#.into(), false),
            (r#"{"nbf":"0"}"#.into(), false),
        ] {
            assert_eq!(read_by(&lenient, "{}", &claims).is_ok(), is_valid, "{claims}");
            assert!(read_by(&rules(), "{}", &claims).is_err(), "{claims}");
        }
        let never = read_by(&lenient, "{}", "{}").unwrap().expires();
        assert_eq!(never, Cursor::LARGEST);
        let claims = format!(r#"{{"aud":"{HUB}"}}"#);
        assert_eq!(read_by(&lenient, ACCESS_TOKEN, &claims), Err(Error::InvalidToken));
    }

    #[test]
    fn access_token_needs_type_audience_and_time() {
        let (past, later) = (NOW, NOW + 1);
        let with = |more: &str| format!(r#"{{"exp":{later},{more}}}"#);
        for (header, claims, is_valid) in [
            (ACCESS_TOKEN, with(&format!(r#""aud":"{HUB}""#)), true),
            (ACCESS_TOKEN, with(&format!(r#""aud":["x","{HUB}"],"nbf":{past}"#)), true),
            (ACCESS_TOKEN, with(&format!(r#""aud":"{HUB}","nbf":{later}"#)), false),
            (ACCESS_TOKEN, format!(r#"{{"exp":{past},"aud":"{HUB}"}}"#), false),
            (ACCESS_TOKEN, format!(r#"{{"aud":"{HUB}"}}"#), false),
            (ACCESS_TOKEN, with(&format!(r#""aud":"{HUB}/""#)), false),
            (ACCESS_TOKEN, with(&format!(r#""aud":[["{HUB}"]]"#)), false),
            (ACCESS_TOKEN, with(&format!(r#""aud":["{HUB}",1]"#)), false),
            (ACCESS_TOKEN, with(r#""aud":[]"#), false),
            (ACCESS_TOKEN, with(r#""sub":"x""#), false),
            ("{}", with(&format!(r#""aud":"{HUB}","{DETAILS}":[]"#)), false),
        ] {
            assert_eq!(read_by(&rules(), header, &claims).is_ok(), is_valid, "{header} {claims}");
        }
    }

    #[test]
    fn issuer_counts_if_it_is_set() {
        let strict = Mercure { issuer: Some("https://a.example".into()), ..rules() };
        for (issuer, is_valid) in [
            (r#","iss":"https://a.example""#, true),
            (r#","iss":"https://a.example/""#, false),
            (r#","iss":["https://a.example"]"#, false),
            ("", false),
        ] {
            let claims = format!(r#"{{"exp":{},"aud":"{HUB}"{issuer}}}"#, NOW + 1);
            assert_eq!(read_by(&strict, ACCESS_TOKEN, &claims).is_ok(), is_valid, "{issuer}");
            assert!(read_by(&rules(), ACCESS_TOKEN, &claims).is_ok(), "{issuer}");
        }
    }

    #[test]
    fn access_token_needs_the_url_of_the_hub() {
        let error = read_by(&Mercure::default(), ACCESS_TOKEN, "{}").unwrap_err();
        assert!(error.log_line().unwrap().starts_with("NOVCOMET_MERCURE_URL="), "{error:?}");
    }

    #[test]
    fn details_grant_their_actions() {
        let (both, all) = (r#"["publish","subscribe"]"#, r#"[{"match":"*"}]"#);
        let exact = r#"[{"match":"b"},{"match":"a","match_type":"exact"}]"#;
        for (details, granted) in [
            (format!("[{}]", detail(both, all)), (true, true)),
            (format!("[{}]", detail(r#"["publish","x"]"#, exact)), (true, false)),
            (format!("[{}]", detail(r#"["subscribe"]"#, exact)), (false, true)),
            (format!("[{}]", detail(r#"["Publish"]"#, all)), (false, false)),
            (format!("[{}]", detail(both, r#"[{"match":"a*"}]"#)), (false, false)),
            (format!(r#"[{{"type":"x","actions":1}},{}]"#, detail(both, all)), (true, true)),
            (
                r#"[{"type":"x","actions":["publish"],"topics":[{"match":"*"}]}]"#.into(),
                (false, false),
            ),
            ("[]".into(), (false, false)),
        ] {
            assert_eq!(rights(&detailed(&details).unwrap()), granted, "{details}");
        }
        let url = r#"[{"match":"https://a.example/b","match_type":"urlpattern"}]"#;
        let claims = detailed(&format!("[{}]", detail(both, url))).unwrap();
        assert!(claims.may_publish(&Topic::new("https://a.example/b").unwrap()));
        assert!(!claims.may_publish(&Topic::new("https://a.example/c").unwrap()));
    }

    /// A valid detail beside the invalid one grants nothing either.
    #[test]
    fn one_invalid_detail_makes_the_token_invalid() {
        let (both, all) = (r#"["publish","subscribe"]"#, r#"[{"match":"*"}]"#);
        let good = detail(both, all);
        for bad in [
            "1".to_owned(),
            "null".into(),
            "[]".into(),
            "{}".into(),
            r#"{"type":1}"#.into(),
            format!(r#"{{"type":"{DETAIL}"}}"#),
            format!(r#"{{"type":"{DETAIL}","topics":{all}}}"#),
            format!(r#"{{"type":"{DETAIL}","actions":{both}}}"#),
            format!(r#"{{"type":"x","type":"{DETAIL}","actions":{both},"topics":{all}}}"#),
            detail("[]", all),
            detail(r#""publish""#, all),
            detail(r#"["publish",1]"#, all),
            detail("null", all),
            detail(both, "[]"),
            detail(both, r#"{"match":"*"}"#),
            detail(both, r#"["*"]"#),
            detail(both, r#"[[{"match":"*"}]]"#),
            detail(both, r#"[{"match":"*"},{}]"#),
            detail(both, r#"[{"match":1}]"#),
            detail(both, r#"[{"match":""}]"#),
            detail(both, r#"[{"match":"a\nb"}]"#),
            detail(both, r#"[{"match":"a","match":"*"}]"#),
            detail(both, r#"[{"match":"*","match_type":null}]"#),
            detail(both, r#"[{"match":"a","match_type":"URLPattern"}]"#),
            detail(both, r#"[{"match":"a","match_type":"regexp"}]"#),
            detail(both, &format!(r#"{all},"payload":null"#)),
            detail(both, &format!(r#"{all},"payload":[1]"#)),
            detail(both, &format!(r#"{all},"payload":{{"a":1,"a":2}}"#)),
        ] {
            for details in [format!("[{good},{bad}]"), format!("[{bad},{good}]")] {
                assert_eq!(detailed(&details), Err(Error::InvalidToken), "{details}");
            }
        }
        for details in ["null", "{}", "1", r#""*""#, &good] {
            assert_eq!(detailed(details), Err(Error::InvalidToken), "{details}");
        }
    }

    #[test]
    fn number_and_length_of_selectors_are_bounded() {
        let list = |item: &str, count: usize| format!("[{}]", vec![item; count].join(","));
        let (half, rest) = (MAX_SELECTORS / 2, MAX_SELECTORS - MAX_SELECTORS / 2);
        for (more, is_valid) in [(0, true), (1, false)] {
            let (some, others) = (list(r#""a""#, half), list(r#""a""#, rest + more));
            let mercure = format!(r#"{{"publish":{some},"subscribe":{others}}}"#);
            assert_eq!(first(&mercure).is_ok(), is_valid, "{more}");
            let topic = r#"{"match":"a"}"#;
            let one = detail(r#"["publish"]"#, &list(topic, half));
            let two = detail(r#"["subscribe"]"#, &list(topic, rest + more));
            assert_eq!(detailed(&format!("[{one},{two}]")).is_ok(), is_valid, "{more}");
        }
        let every = |_: &str| Ok(Pattern::every());
        assert!(selector(&"x".repeat(MAX_SELECTOR), every).is_some());
        assert_eq!(selector(&"x".repeat(MAX_SELECTOR + 1), every), None);
    }

    /// The nested JSON is as deep as the longest token allows.
    #[test]
    fn nested_claims_end_no_process() {
        let nested = format!("{}{}", "[".repeat(4_000), "]".repeat(4_000));
        assert_eq!(first(&nested), Err(Error::InvalidToken));
        assert_eq!(first(&format!(r#"{{"publish":{nested}}}"#)), Err(Error::InvalidToken));
        assert_eq!(detailed(&nested), Err(Error::InvalidToken));
        assert_eq!(detailed(&format!("[{}]", detail(&nested, "[]"))), Err(Error::InvalidToken));
    }

    #[test]
    fn payload_is_that_of_first_matching_detail() {
        let subscribe = |topic: &str, payload: &str| {
            detail(r#"["subscribe"]"#, &format!(r#"[{{"match":"{topic}"}}]{payload}"#))
        };
        let details = [
            detail(r#"["publish"]"#, r#"[{"match":"*"}],"payload":{"x":0}"#),
            subscribe("a", r#","payload":{"x":1}"#),
            subscribe("b", ""),
            subscribe("*", r#","payload":{ "x":2 }"#),
        ];
        let claims = detailed(&format!("[{}]", details.join(","))).unwrap();
        assert_eq!(claims.payload("a"), Some(r#"{"x":1}"#));
        assert_eq!(claims.payload("b"), None, "the first one has none");
        assert_eq!(claims.payload("c"), Some(r#"{ "x":2 }"#));
        let claims = first(r#"{"payload":["any","JSON"]}"#).unwrap();
        assert_eq!(claims.payload("c"), Some(r#"["any","JSON"]"#));
        assert_eq!(first(r#"{"payload":null}"#).unwrap().payload("c"), None);
    }
}
