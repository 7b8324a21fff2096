//! A process asks the leader who waits here.

use std::io;
use std::time::Duration;

use rustix::io::Errno;

use super::askers::{ASK, END, ONE, Present, Question};
use super::joining::{READY, READY_WITHIN, Together};
use super::numbers::Waiters;
use crate::error::Error;
use crate::event::Topic;
use crate::process::clock::monotonic;
use crate::process::peer::{Peer, Received};

/// How long the whole answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// The longest answer, in bytes. The rest is left out.
const MAX_ANSWER: usize = 16 << 20;

/// What came of a question.
pub enum Heard<T> {
    /// The answer.
    Answer(T),
    /// Nobody leads.
    Nobody,
    /// The leader is another user's, whom it does not answer.
    Refused,
}

/// The messages of the notices in topics that begin with `prefix`, about those who wait
/// together.
///
/// # Errors
/// 503 if their leader is stopped or busy, or ends three times.
pub fn ask(together: &Together, prefix: &str) -> Result<Vec<String>, Error> {
    let all = ask_own(together, &Question::Notices(prefix.to_owned()))?;
    Ok(all.unwrap_or_default())
}

/// How many wait together; `None` if there is no leader.
///
/// # Errors
/// As for [`ask`].
pub fn ask_for_numbers(together: &Together) -> Result<Option<Waiters>, Error> {
    let all = ask_own(together, &Question::Numbers)?;
    Ok(all.and_then(|all| serde_json::from_str(all.first()?).ok()))
}

/// Those who wait together for some of these topics.
///
/// # Errors
/// As for [`ask`].
pub fn ask_for_topics(together: &Together, topics: &[Topic]) -> Result<Vec<Present>, Error> {
    let all = ask_own(together, &Question::Topics(topics.to_vec()))?;
    Ok(present(&all.unwrap_or_default()))
}

/// Those who wait in the leader of this name for some of these topics. Root may ask the leader of
/// any user.
///
/// # Errors
/// As for [`ask`].
pub fn ask_as_administrator(name: &str, topics: &[Topic]) -> Result<Heard<Vec<Present>>, Error> {
    let connect = || Peer::connect_as_its_user(name);
    Ok(match ask_leader(connect, &Question::Topics(topics.to_vec()))? {
        Heard::Answer(all) => Heard::Answer(present(&all)),
        Heard::Nobody => Heard::Nobody,
        Heard::Refused => Heard::Refused,
    })
}

fn present(all: &[String]) -> Vec<Present> {
    all.iter().filter_map(|one| serde_json::from_str(one).ok()).collect()
}

/// The answer of the leader with whom this process would wait; `None` if there is none.
fn ask_own(together: &Together, question: &Question) -> Result<Option<Vec<String>>, Error> {
    match ask_leader(|| Peer::connect(&together.name), question)? {
        Heard::Answer(all) => Ok(Some(all)),
        Heard::Nobody => Ok(None),
        Heard::Refused => Err(busy()),
    }
}

fn ask_leader(
    connect: impl Fn() -> Result<Peer, Errno>,
    question: &Question,
) -> Result<Heard<Vec<String>>, Error> {
    let question =
        [&[ASK], serde_json::to_string(question).unwrap_or_default().as_bytes()].concat();
    // The leader may end, and another follow it.
    for _ in 0..3 {
        let peer = match connect() {
            Ok(peer) => peer,
            Err(Errno::CONNREFUSED) => return Ok(Heard::Nobody),
            Err(Errno::ACCESS) => return Ok(Heard::Refused),
            Err(_) => break,
        };
        match hear_all(&peer, &question) {
            Ok(all) => return Ok(Heard::Answer(all)),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            Err(_) => break,
        }
    }
    Err(busy())
}

fn hear_all(peer: &Peer, question: &[u8]) -> io::Result<Vec<String>> {
    let until = monotonic() + ANSWER_WITHIN;
    let mut buffer = Vec::new();
    peer.hear_word(&mut buffer, READY, &[], READY_WITHIN)?;
    peer.send(question, &[])?;
    let (mut all, mut size) = (Vec::new(), 0);
    while size < MAX_ANSWER {
        let left = until.saturating_sub(monotonic());
        match peer.receive_within(&mut buffer, left) {
            Received::Message(message, _) => match message.as_slice() {
                [ONE, text @ ..] => {
                    size += text.len();
                    all.push(String::from_utf8_lossy(text).into_owned());
                }
                [END] => break,
                _ => return Err(io::ErrorKind::InvalidData.into()),
            },
            Received::Nothing if left.is_zero() => return Err(io::ErrorKind::TimedOut.into()),
            Received::Nothing => {}
            Received::End => return Err(io::ErrorKind::BrokenPipe.into()),
        }
    }
    Ok(all)
}

fn busy() -> Error {
    Error::unavailable(
        "those who wait here cannot be asked now",
        "the process in which subscribers wait together did not answer",
        "it is stopped or very busy; the client may ask again",
    )
}
