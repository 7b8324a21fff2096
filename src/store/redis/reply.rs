//! Finds the end of a reply before it is decoded. The decoder is recursive and would
//! overflow the stack at some 30,000 nested arrays.

use std::io;

use crate::net::stream::invalid_reply;

/// How deep arrays may be nested. The scripts use three levels: topics, fields, entries.
const DEEPEST: usize = 8;

/// How long a line may be: an error, a number or a size.
const LONGEST_LINE: usize = 65_536;

/// How far the first reply (RESP2) of some bytes has been followed. With more bytes it
/// continues there.
#[derive(Debug)]
pub struct Scan {
    at: usize,
    /// The replies that are still to come: one at the top, and those of each open array.
    open: Vec<usize>,
}

impl Default for Scan {
    fn default() -> Self {
        Self { at: 0, open: vec![1] }
    }
}

impl Scan {
    /// The length of the first reply; `None` while its end is missing.
    ///
    /// # Errors
    /// `InvalidData` for an invalid reply, or one with too many levels.
    pub fn length(&mut self, bytes: &[u8]) -> io::Result<Option<usize>> {
        while let Some(&left) = self.open.last() {
            if left == 0 {
                self.open.pop();
                continue;
            }
            let Some(line) = line(bytes.get(self.at..).unwrap_or_default())? else {
                return Ok(None);
            };
            self.at += line.len() + 2;
            self.take(line)?;
        }
        Ok((self.at <= bytes.len()).then_some(self.at))
    }

    fn take(&mut self, line: &[u8]) -> io::Result<()> {
        if let Some(left) = self.open.last_mut() {
            *left -= 1;
        }
        match line.split_first() {
            Some((b'+' | b'-' | b':', _)) => {}
            Some((b'$', size)) => {
                self.at = number(size)?
                    .map_or(Some(self.at), |size| self.at.checked_add(size)?.checked_add(2))
                    .ok_or_else(|| invalid_reply("the reply has no end"))?;
            }
            Some((b'*', _)) if self.open.len() > DEEPEST => {
                return Err(invalid_reply("the reply has too many nested arrays"));
            }
            Some((b'*', count)) => self.open.push(number(count)?.unwrap_or(0)),
            _ => return Err(invalid_reply("it is not a reply of Redis")),
        }
        Ok(())
    }
}

/// The bytes before CR and LF; `None` while these are missing.
fn line(bytes: &[u8]) -> io::Result<Option<&[u8]>> {
    let within = &bytes[..bytes.len().min(LONGEST_LINE)];
    match within.windows(2).position(|two| two == b"\r\n") {
        Some(end) => Ok(Some(&bytes[..end])),
        None if within.len() == LONGEST_LINE => {
            Err(invalid_reply("the reply has a line without end"))
        }
        None => Ok(None),
    }
}

/// A size or a count; `None` for -1, which means null.
fn number(digits: &[u8]) -> io::Result<Option<usize>> {
    let text = std::str::from_utf8(digits).ok();
    match text.map(|text| (text, text.parse())) {
        Some(("-1", _)) => Ok(None),
        Some((_, Ok(number))) => Ok(Some(number)),
        _ => Err(invalid_reply("the reply has an invalid number")),
    }
}

#[cfg(test)]
mod tests {
    use redis_protocol::resp2::decode::decode;

    use super::*;

    const REPLIES: [&[u8]; 9] = [
        b"+OK\r\n",
        b"-ERR no\r\n",
        b":-17\r\n",
        b"$0\r\n\r\n",
        b"$-1\r\n",
        b"$5\r\n*1\r\n$\r\n",
        b"*0\r\n",
        b"*-1\r\n",
        b"*3\r\n*2\r\n:1\r\n$1\r\nx\r\n*0\r\n+OK\r\n",
    ];

    /// Byte by byte, at once, and before another reply.
    #[test]
    fn scan_and_decoder_agree_on_length() {
        for reply in REPLIES {
            let two = [reply, b":1\r\n"].concat();
            assert_eq!(Scan::default().length(&two).unwrap(), Some(reply.len()));
            assert_eq!(decode(&two).unwrap().unwrap().1, reply.len());
            let mut scan = Scan::default();
            for end in 0..reply.len() {
                assert_eq!(scan.length(&reply[..end]).unwrap(), None, "{reply:?} {end}");
            }
            assert_eq!(scan.length(reply).unwrap(), Some(reply.len()));
        }
    }

    #[test]
    fn endless_reply_is_refused() {
        for text in [
            "*1\r\n".repeat(DEEPEST + 1),
            "*1\r\n".repeat(40_000),
            "$18446744073709551615\r\n".into(),
            "$18446744073709551614\r\nx".into(),
            "*-2\r\n".into(),
            "$x\r\n".into(),
            "x".repeat(LONGEST_LINE),
            "\r\n".into(),
            "%1\r\n".into(),
        ] {
            let error = Scan::default().length(text.as_bytes()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
        assert_eq!(Scan::default().length("*1\r\n".repeat(DEEPEST).as_bytes()).unwrap(), None);
    }

    /// Parts of replies in any order: no panic, and no length beyond the bytes.
    #[test]
    fn random_replies_do_not_panic() {
        let mut seed = 1_u64;
        let mut random = |below: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            usize::try_from(seed >> 33).unwrap() % below
        };
        let parts: [&[u8]; 12] =
            [b"*", b"$", b"+", b"-", b":", b"\r\n", b"\r\n", b"1", b"2", b"-1", b"999999999", b"x"];
        for _ in 0..100_000 {
            let count = random(24);
            let text: Vec<u8> = (0..count).flat_map(|_| parts[random(12)].to_vec()).collect();
            if let Ok(Some(length)) = Scan::default().length(&text) {
                assert!(length <= text.len());
                let _ = decode(&text[..length]);
            }
        }
    }
}
