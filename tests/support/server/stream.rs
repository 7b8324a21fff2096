//! An event stream as it arrives: chunks (RFC 9112 §7.1) of events (WHATWG HTML §9.2).

use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::net::TcpStream;

use super::{Exchange, Reply};

/// An answer whose head has arrived.
pub struct Stream {
    pub head: Reply,
    body: BufReader<Chunked<BufReader<TcpStream>>>,
}

impl Stream {
    /// Waits for the head.
    pub fn of(exchange: Exchange) -> Self {
        let (head, wire) = exchange.head();
        assert_eq!(head.header("Transfer-Encoding"), Some("chunked"), "{head:?}");
        Self { head, body: BufReader::new(Chunked { wire, left: 0, begun: false, ended: false }) }
    }

    /// The next block as soon as it arrives; `None` when the stream has ended correctly, with
    /// the last chunk and without an incomplete block.
    pub fn next(&mut self) -> Option<Block> {
        next_block(&mut self.body).expect("a whole block, or the last chunk")
    }

    /// The next block that has data.
    pub fn event(&mut self) -> Option<Block> {
        std::iter::from_fn(|| self.next()).find(|block| block.field("data").is_some())
    }

    /// The next bytes of the body, or all remaining ones.
    pub fn bytes(&mut self, count: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.body.by_ref().take(count).read_to_end(&mut bytes).expect("a clean end");
        bytes
    }

    /// The complete blocks of a stream that was cut anywhere.
    pub fn whole_blocks(mut bytes: &[u8]) -> Vec<Block> {
        std::iter::from_fn(|| next_block(&mut bytes).ok().flatten()).collect()
    }

    /// All remaining data until the connection ends, correctly or not.
    pub fn cooldown(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let _ = self.body.read_to_end(&mut bytes);
        bytes
    }
}

/// The lines between two empty ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block(Vec<String>);

impl Block {
    /// The values of a field. Its lines are joined, as `EventSource` does.
    pub fn field(&self, name: &str) -> Option<String> {
        let value = |line: &String| {
            let value = line.strip_prefix(name)?.strip_prefix(':')?;
            Some(value.strip_prefix(' ').unwrap_or(value).to_owned())
        };
        let values: Vec<_> = self.0.iter().filter_map(value).collect();
        (!values.is_empty()).then(|| values.join("\n"))
    }

    /// The `id` of the event.
    pub fn id(&self) -> String {
        self.field("id").unwrap_or_else(|| panic!("no id in {self:?}"))
    }

    /// Whether this is a heartbeat: `:` alone.
    pub fn is_heartbeat(&self) -> bool {
        self.0 == [":"]
    }
}

/// `UnexpectedEof` if the stream ends within a block.
fn next_block(body: &mut impl BufRead) -> io::Result<Option<Block>> {
    let mut lines = Vec::new();
    loop {
        let mut line = Vec::new();
        let is_end = body.read_until(b'\n', &mut line)? == 0;
        let is_whole = line.pop() == Some(b'\n');
        match String::from_utf8(line).map_err(|_| ErrorKind::InvalidData)? {
            _ if is_end && lines.is_empty() => return Ok(None),
            _ if !is_whole => return Err(ErrorKind::UnexpectedEof.into()),
            line if line.is_empty() => return Ok(Some(Block(lines))),
            line => lines.push(line),
        }
    }
}

/// Removes the chunk headers. The stream ends only with the last chunk.
struct Chunked<R> {
    wire: R,
    left: usize,
    begun: bool,
    ended: bool,
}

impl<R: BufRead> Chunked<R> {
    fn next_chunk(&mut self) -> io::Result<()> {
        if self.begun {
            self.line()?;
        }
        self.begun = true;
        let size = self.line()?;
        self.left = usize::from_str_radix(&size, 16).map_err(|_| ErrorKind::InvalidData)?;
        self.ended = self.left == 0;
        Ok(())
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.wire.read_line(&mut line)?;
        let line = line.strip_suffix("\r\n").ok_or(ErrorKind::UnexpectedEof)?;
        Ok(line.to_owned())
    }
}

impl<R: BufRead> Read for Chunked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 && !self.ended {
            self.next_chunk()?;
        }
        if self.ended {
            return Ok(0);
        }
        let most = buffer.len().min(self.left);
        let read = self.wire.read(&mut buffer[..most])?;
        self.left -= read;
        match read {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            _ => Ok(read),
        }
    }
}
