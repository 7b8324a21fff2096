//! Sessions as lists, which expire by themselves. A script keeps each operation atomic.

use std::os::fd::OwnedFd;
use std::time::Duration;

use redis_protocol::resp2::types::OwnedFrame;

use super::connection::Command;
use super::{RedisStore, array, cursor, text, unexpected_reply};
use crate::error::Error;
use crate::event::session::SessionId;
use crate::event::{Cursor, Topic};
use crate::store::{Allowance, NO_ORDER, Sessions};

const SCRIPT: &str = concat!(include_str!("common.lua"), include_str!("sessions.lua"));

/// What the script replies if the log is too long.
const TOO_LONG: OwnedFrame = OwnedFrame::Integer(-1);

impl RedisStore {
    /// The log, the stream of changes, and the sets of all sessions and of the address's. No
    /// topic has a control character.
    fn session_keys(&self, id: &SessionId) -> [Vec<u8>; 4] {
        let key = |name: String| [self.prefix.as_bytes(), name.as_bytes()].concat();
        [
            key(format!("\u{1}log/{}", id.as_str())),
            self.key(&Topic::of_session(id)),
            key("\u{1}sessions".to_owned()),
            key(format!("\u{1}sessions/{}", id.group())),
        ]
    }

    fn change<'v>(
        &self,
        what: &str,
        id: &SessionId,
        kept: Duration,
        values: impl IntoIterator<Item = &'v str>,
    ) -> Result<OwnedFrame, Error> {
        let keys = self.session_keys(id);
        let command = Command::new("EVAL").with(SCRIPT).with(keys.len().to_string());
        let command = keys.iter().fold(command, Command::with);
        let command = command.with(what).with(id.as_str()).with(kept.as_millis().to_string());
        let command = values.into_iter().fold(command, Command::with);
        self.ask_of_session(&keys[0], &command, false)
    }

    fn ask_of_session(
        &self,
        key: &[u8],
        command: &Command,
        again: bool,
    ) -> Result<OwnedFrame, Error> {
        let mut cluster = self.cluster.borrow_mut();
        cluster.begin();
        let found = cluster.ask(key, command, again);
        match cluster.is_sharded() {
            true => Err(Error::NotImplemented(NO_ORDER)),
            false => found.map_err(|error| self.failed_at(key, &error)),
        }
    }
}

impl Sessions for RedisStore {
    fn begin(&self, id: &SessionId, entry: &str, most: &Allowance) -> Result<bool, Error> {
        let (all, here) = (most.sessions.to_string(), most.of_address.to_string());
        let begun = self.change("begin", id, most.kept, [entry, &all, &here])?;
        Ok(begun != OwnedFrame::Integer(0))
    }

    fn read(&self, id: &SessionId) -> Result<Option<String>, Error> {
        let [key, ..] = self.session_keys(id);
        let command = Command::new("LRANGE").with(key.as_slice()).with("0").with("-1");
        let lines = array(self.ask_of_session(&key, &command, true)?).map_err(self.failed())?;
        let lines: Vec<_> = lines.into_iter().filter_map(text).collect();
        Ok((!lines.is_empty()).then(|| lines.join("\n")))
    }

    fn append(&self, id: &SessionId, entry: &str, kept: Duration) -> Result<Option<Cursor>, Error> {
        let reply = self.change("append", id, kept, [entry])?;
        match reply {
            OwnedFrame::Null => Ok(None),
            TOO_LONG => {
                Err(Error::TooLarge("a session has too many changes; connect first".into()))
            }
            reply => cursor(&reply).map(Some).ok_or_else(|| self.failed()(unexpected_reply())),
        }
    }

    fn shorten(
        &self,
        id: &SessionId,
        read: &str,
        entries: &str,
        kept: Duration,
    ) -> Result<(), Error> {
        let values = ["", read].into_iter().chain(entries.lines());
        self.change("shorten", id, kept, values).map(|_| ())
    }

    fn end(&self, id: &SessionId) -> Result<(), Error> {
        const KNOWN: Duration = Duration::from_secs(60);
        self.change("end", id, KNOWN, []).map(|_| ())
    }

    fn note(
        &self,
        id: &SessionId,
        _: Option<&OwnedFd>,
        entry: &str,
        kept: Duration,
    ) -> Result<(), Error> {
        self.change("note", id, kept, [entry]).map(|_| ())
    }
}
