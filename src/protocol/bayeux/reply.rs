//! The replies to messages.

use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::message::{LONG_POLLING, Message};
use crate::error::Error;

/// The pause before a client tries again what the server could not do.
pub const PAUSE: Duration = Duration::from_secs(2);

/// The reply to one message.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Reply {
    channel: String,
    successful: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    supported_connection_types: Option<[&'static str; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subscription: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<Advice>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ext: Option<Value>,
}

/// What a client is to do next.
#[derive(Serialize)]
struct Advice {
    reconnect: &'static str,
    /// In milliseconds.
    interval: u128,
    /// How long a connect is held, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout: Option<u128>,
    #[serde(rename = "multiple-clients", skip_serializing_if = "std::ops::Not::not")]
    multiple_clients: bool,
}

impl Advice {
    fn new(reconnect: &'static str, interval: Duration) -> Self {
        let interval = interval.as_millis();
        Self { reconnect, interval, timeout: None, multiple_clients: false }
    }
}

impl Reply {
    /// That it is done.
    #[must_use]
    pub fn to(message: &Message) -> Self {
        let channel = message.channel();
        Self { channel, successful: true, id: message.id(), ..Self::default() }
    }

    /// That it is not, with a code, its argument, and the reason.
    #[must_use]
    pub fn failed(message: &Message, code: u16, about: &str, why: &str) -> Self {
        let error = Some(format!("{code}:{about}:{why}"));
        Self { successful: false, error, ..Self::to(message) }
    }

    /// The same for a fault of ours, or of the request.
    #[must_use]
    pub fn refused(message: &Message, error: &Error) -> Self {
        Self::failed(message, error.status(), "", &error.to_string())
    }

    /// The same for what the server could not do. A connect is tried again after a pause. A
    /// handshake has no advice: the clients try it again by themselves, and Faye would do so twice
    /// for each advice.
    #[must_use]
    pub fn failed_by(message: &Message, error: &Error) -> Self {
        let reply = Self::refused(message, error);
        match message.channel().as_str() {
            "/meta/connect" => Self { advice: Some(Advice::new("retry", PAUSE)), ..reply },
            _ => reply,
        }
    }

    /// That its session is not known: the client begins another.
    #[must_use]
    pub fn unknown(message: &Message) -> Self {
        Self::failed(message, 402, "", "session_unknown").begin_again()
    }

    /// Asks the client to begin another session.
    #[must_use]
    pub fn begin_again(mut self) -> Self {
        self.advice = Some(Advice::new("handshake", Duration::ZERO));
        self
    }

    /// Asks the client to try no more.
    #[must_use]
    pub fn for_good(mut self) -> Self {
        self.advice = Some(Advice::new("none", Duration::ZERO));
        self
    }

    /// Asks the client to come again, at once or after a pause. It is held for `held` then.
    #[must_use]
    pub fn again(mut self, pause: Duration, held: Duration) -> Self {
        let advice = Advice::new("retry", pause);
        self.advice = Some(Advice { timeout: Some(held.as_millis()), ..advice });
        self
    }

    /// Tells a page that another one of its browser waits.
    #[must_use]
    pub fn beside_another(mut self) -> Self {
        self.advice.iter_mut().for_each(|advice| advice.multiple_clients = true);
        self
    }

    /// Names the new session.
    #[must_use]
    pub fn with_session(mut self, name: &str, acks: bool) -> Self {
        self.client_id = Some(name.to_owned());
        self.version = Some("1.0");
        self.supported_connection_types = Some([LONG_POLLING]);
        self.ext = acks.then(|| json!({"ack": true}));
        self
    }

    /// Names the number of the batch.
    #[must_use]
    pub fn with_batch(mut self, number: Option<u64>) -> Self {
        self.ext = number.map(|number| json!({"ack": number}));
        self
    }

    /// Names the channels, as the client has.
    #[must_use]
    pub fn with_subscription(mut self, channels: Option<Box<RawValue>>) -> Self {
        self.subscription = channels;
        self
    }

    /// Itself as JSON.
    #[must_use]
    pub fn json(&self) -> String {
        // It has no map with keys that JSON cannot name, the only error.
        serde_json::to_string(self).unwrap_or_default()
    }
}
