//! Any body is answered by one reply of Bayeux for each message, or refused as the client's
//! fault. Of the request, an answer repeats the `id`, the channel and the subscriptions only.

use std::ffi::OsString;

use arbitrary::{Result, Unstructured};
use novcomet::auth::authorize;
use novcomet::cgi::Request;
use novcomet::config::Config;
use novcomet::error::Error;
use novcomet::event::Cursor;
use novcomet::hub::{About, Hub, Terms};
use novcomet::protocol::bayeux::{Bayeux, MAX_MESSAGES};
use novcomet::protocol::{Bounds, Protocol, Step};
use novcomet::store::Store;
use serde_json::Value;

use super::scratch::{KEEP_ALL, Scratch};

/// What stands in the fields that are not repeated.
const MARK: &str = "MARK";

/// What stands for the client's session.
const CLIENT: &str = "CLIENT";

const FIELDS: [&str; 10] = [
    "channel",
    "successful",
    "id",
    "error",
    "clientId",
    "version",
    "supportedConnectionTypes",
    "subscription",
    "advice",
    "ext",
];

const HANDSHAKE: &str =
    r#"{"channel":"/meta/handshake","supportedConnectionTypes":["long-polling"]}"#;

pub fn holds(input: &[u8]) {
    let scratch = Scratch::new();
    let handshake = say(&scratch, HANDSHAKE.as_bytes()).unwrap().unwrap();
    let client = handshake[0]["clientId"].as_str().unwrap().to_owned();
    let body = match std::str::from_utf8(input) {
        Ok(text) => text.replace(CLIENT, &client).into_bytes(),
        Err(_) => input.to_vec(),
    };
    match say(&scratch, &body) {
        Ok(Some(replies)) => {
            assert!((1..=MAX_MESSAGES).contains(&replies.len()));
            replies.into_iter().for_each(repeats_little);
        }
        // It waits for an event.
        Ok(None) => {}
        Err(error) => is_clients_fault(&error),
    }
}

pub fn case(u: &mut Unstructured) -> Result<Vec<u8>> {
    let mut messages = Vec::new();
    for _ in 0..u.int_in_range(0..=4)? {
        if u.ratio(1, 20)? {
            messages.push(format!("{MARK:?}"));
            continue;
        }
        let mut fields = Vec::new();
        for _ in 0..u.int_in_range(0..=6)? {
            fields.push(field(u)?);
        }
        messages.push(format!("{{{}}}", fields.join(",")));
    }
    let array = format!("[{}]", messages.join(","));
    Ok(match u.int_in_range(0..=9)? {
        0 => format!("message={array}&a=MARK"),
        1 => messages.pop().unwrap_or_default(),
        2 => array[..u.int_in_range(0..=array.len())?].to_owned(),
        _ => array,
    }
    .into())
}

fn field(u: &mut Unstructured) -> Result<String> {
    let odd = [
        "null",
        "true",
        "-0",
        "1e999",
        "[]",
        "{}",
        "[[[]]]",
        r#""""#,
        r#""\ud800""#,
        r#""\u0000""#,
        r#"{"a":1,"a":2}"#,
        r#"{"__proto__":{}}"#,
    ];
    let (name, usual): (&str, &[&str]) = *u.choose(&[
        (
            "channel",
            &[
                r#""/meta/handshake""#,
                r#""/meta/connect""#,
                r#""/meta/subscribe""#,
                r#""/meta/unsubscribe""#,
                r#""/meta/disconnect""#,
                r#""/meta/MARK""#,
                r#""/service/a""#,
                r#""/a""#,
                r#""/a/*""#,
                r#""/\u0061""#,
                r#""a""#,
            ][..],
        ),
        ("clientId", &[r#""CLIENT""#, r#""CLIENT""#, r#""MARK""#]),
        ("id", &["1", r#""MARK""#, "1.50"]),
        (
            "subscription",
            &[r#""/a/*""#, r#"["/a","/b/**"]"#, r#"["/MARK","/meta/MARK"]"#, r#"["/MARK/*/a"]"#],
        ),
        ("supportedConnectionTypes", &[r#"["long-polling"]"#, r#"["MARK"]"#]),
        ("data", &["1", r#"{"a":"MARK"}"#]),
        ("ext", &[r#"{"ack":1}"#, r#"{"ack":{"enabled":true}}"#, r#"{"MARK":"MARK"}"#]),
        ("advice", &[r#"{"timeout":0}"#, r#"{"timeout":-1}"#]),
        ("MARK", &[r#""MARK""#]),
        ("__proto__", &[r#"{"channel":"MARK"}"#]),
    ])?;
    let value = if u.ratio(1, 4)? { u.choose(&odd)? } else { u.choose(usual)? };
    Ok(format!("{name:?}:{value}"))
}

/// The replies to a body; `None` if there are none yet.
fn say(scratch: &Scratch, body: &[u8]) -> std::result::Result<Option<Vec<Value>>, Error> {
    let variable = |name: &str| match name {
        "REQUEST_METHOD" => Some(OsString::from("POST")),
        "SCRIPT_NAME" => Some("/bayeux".into()),
        "REMOTE_ADDR" => Some("192.0.2.1".into()),
        "CONTENT_LENGTH" => Some(body.len().to_string().into()),
        "CONTENT_TYPE" if body.starts_with(b"message=") => {
            Some("application/x-www-form-urlencoded".into())
        }
        "CONTENT_TYPE" => Some("application/json".into()),
        _ => None,
    };
    let config = Config::from_env(|_| None).unwrap();
    let mut request = Request::from_env(variable).unwrap();
    request.receive(body, config.max_body())?;
    let bounds = Bounds { max_data: config.max_data, hub_url: None, subscriptions: false };
    let action = Bayeux.parse(&request, &bounds)?;
    let grant = authorize(&config.access, &request, &action.access(), Cursor::now())?;
    let terms = Terms {
        poll: config.wait(),
        stream: config.stream,
        interval: config.sleep,
        slots: None,
        address: &request.address,
        port: &request.port,
        together: &|_: &dyn Store| None,
        leaders: &|_: &dyn Store| None,
        sessions: config.sessions(),
        proxies: &config.proxies,
        holder: None,
        restore: |_| None,
        report: &|_| (),
    };
    let about = || About { version: "", protocols: Vec::new(), store: None };
    let open = || Ok(scratch.open(KEEP_ALL));
    let hub = Hub::new(&grant, &open, terms, &about);
    match action.perform(&hub)? {
        Step::Answer(response) => {
            let answer = String::from_utf8(response.bytes()).unwrap();
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(!head.contains(MARK), "{head}");
            Ok(Some(serde_json::from_str(body).unwrap()))
        }
        Step::Partial(_, fault) => panic!("{fault:?}"),
        Step::Wait(_) => Ok(None),
    }
}

fn repeats_little(mut reply: Value) {
    let fields = reply.as_object_mut().unwrap();
    assert!(fields["successful"].is_boolean(), "{fields:?}");
    assert!(fields.keys().all(|name| FIELDS.contains(&name.as_str())), "{fields:?}");
    let repeated = ["id", "channel", "subscription"].map(|name| fields.remove(name));
    assert!(matches!(repeated[0], None | Some(Value::String(_) | Value::Number(_))));
    if let Some(Value::String(error)) = fields.get("error") {
        let about = error.split(':').nth(1).unwrap();
        let names = [&repeated[1], &repeated[2]].map(|name| format!("{name:?}"));
        if names.iter().any(|name| name.contains(about)) {
            let error = error.replacen(about, "", 1);
            fields.insert("error".into(), Value::String(error));
        }
    }
    let rest = reply.to_string();
    assert!(!rest.contains(MARK), "{rest}");
}

fn is_clients_fault(error: &Error) {
    assert!([400, 413, 415].contains(&error.status()), "{error:?}");
    let answer = String::from_utf8(Bayeux.refuse(error).bytes()).unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(serde_json::from_str::<Value>(body).is_ok() && !answer.contains(MARK), "{answer}");
}
