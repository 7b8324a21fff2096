//! A form is an update that an `EventSource` receives as exactly one event, or it is refused as
//! the client's fault. As a query it is followed or refused, too.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use arbitrary::{Result, Unstructured};
use novcomet::auth::Generation;
use novcomet::cgi::Request;
use novcomet::error::Error;
use novcomet::event::position::Position;
use novcomet::event::{Cursor, Draft};
use novcomet::hub::{NewUpdate, Occurrence, Piece, Renderer};
use novcomet::protocol::mercure::{Mercure, UpdateStream, parse_update};
use novcomet::protocol::{Bounds, Protocol};
use url::Url;

use super::stream::EventSource;

const HUB: &str = "https://example.com/.well-known/mercure";
const MAX_DATA: usize = 1_000;

pub fn holds(input: &[u8]) {
    let hub = Url::parse(HUB).unwrap();
    if let Ok(form) = std::str::from_utf8(input) {
        match parse_update(form, &hub, MAX_DATA) {
            Ok(update) => is_one_event(&update),
            Err(error) => is_clients_fault(&error),
        }
    }
    let bounds = Bounds { max_data: MAX_DATA, hub_url: Some(HUB), subscriptions: true };
    if let Err(error) = Mercure.parse(&request(input), &bounds) {
        is_clients_fault(&error);
    }
}

pub fn case(u: &mut Unstructured) -> Result<Vec<u8>> {
    let pieces = [
        "topic=",
        "match=",
        "match_urlpattern=",
        "last_event_id=",
        "data=",
        "private",
        "id=",
        "type=",
        "retry=",
        "&",
        "&",
        "&",
        "&topic=a&data=",
        "*",
        "#",
        "%23",
        "1",
        "a",
        "mercure",
        "earliest",
        "/.well-known/",
        "https://b/",
        "../",
        "%2e%2E/",
        "%6D",
        "{id}",
        ":id",
        "%0A",
        "%0D",
        "%00",
        "%C2%AD",
        "%E2%80%AE",
        "%FF",
        "+",
        "é",
    ];
    super::joined(u, &pieces, 12)
}

fn request(query: &[u8]) -> Request {
    let variable = |name: &str| match name {
        "QUERY_STRING" => Some(OsString::from_vec(query.to_vec())),
        "SCRIPT_NAME" => Some("/.well-known/mercure".into()),
        _ => None,
    };
    Request::from_env(variable).unwrap()
}

fn is_one_event(update: &NewUpdate) {
    let position = Position::after(Cursor::SMALLEST);
    let Draft { data, extra } = update.message.clone();
    let message = update.message.clone().message(position.cursor);
    let topic = update.topics[0].clone();
    let mut stream = UpdateStream::new(Generation::V1, None);
    assert!(update.topics.iter().all(|topic| topic.as_str() != "*"));
    let size = stream.size(&topic, &message);
    let event = Occurrence {
        topic,
        cursor: position.cursor,
        position,
        message: Some(message),
        gap: false,
        until: None,
    };
    let bytes = stream.render(&Piece::Events { events: vec![event], position });
    assert!(size >= bytes.len());
    let heard = EventSource::hear(&[&bytes]);
    let own = format!("#{position}");
    let [event] = heard.events.as_slice() else { panic!("{update:?}") };
    assert_eq!(event.id, extra.client_id.as_deref().unwrap_or(&own));
    assert_eq!(event.kind, extra.kind.as_deref().unwrap_or("message"));
    assert_eq!(event.data, data.replace("\r\n", "\n").replace('\r', "\n"));
    assert_eq!(heard.retry, extra.retry);
}

fn is_clients_fault(error: &Error) {
    assert!([400, 413].contains(&error.status()), "{error:?}");
    let answer = String::from_utf8(Mercure.refuse(error).bytes()).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.lines().count() == 7 && !head.contains("WWW-Authenticate"), "{head}");
    assert!(serde_json::from_str::<serde_json::Value>(body).is_ok());
}
