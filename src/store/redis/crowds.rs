//! What servers with the same Redis tell each other about their subscribers: one hash.

use redis_protocol::resp2::types::OwnedFrame;

use super::connection::Command;
use super::{RedisStore, array, text};
use crate::error::Error;

const SCRIPT: &str = include_str!("crowds.lua");

impl RedisStore {
    pub(super) fn share_crowd(&self, crowd: &str, told: &str) -> Result<(), Error> {
        self.ask_crowds(&[crowd, told]).map(|_| ())
    }

    pub(super) fn shared_crowds(&self) -> Result<Vec<(String, String)>, Error> {
        let fields = array(self.ask_crowds(&[])?).map_err(self.failed())?;
        let fields: Vec<_> = fields.into_iter().filter_map(text).collect();
        let pair = |pair: &[String]| (pair[0].clone(), pair[1].clone());
        Ok(fields.chunks_exact(2).map(pair).collect())
    }

    fn ask_crowds(&self, arguments: &[&str]) -> Result<OwnedFrame, Error> {
        // No topic has a control character.
        let key = [self.prefix.as_bytes(), b"\x01crowds"].concat();
        let command = Command::new("EVAL").with(SCRIPT).with("1").with(key.as_slice());
        let command = arguments.iter().fold(command, |command, one| command.with(*one));
        let mut cluster = self.cluster.borrow_mut();
        cluster.begin();
        cluster.ask(&key, &command, false).map_err(self.failed())
    }
}
