//! The control URL of a proxy, as a publisher sees it.

use std::io::{Read, Write};
use std::net::TcpListener;

pub const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

/// The control URL of a proxy that listens here.
pub fn url(listener: &TcpListener) -> String {
    format!("http://{}", listener.local_addr().unwrap())
}

/// Reads one request, and answers it unless the answer is empty.
pub fn serve(listener: &TcpListener, answer: &str) -> String {
    let (mut stream, _) = listener.accept().unwrap();
    let mut bytes = Vec::new();
    loop {
        let mut part = [0; 4_096];
        let read = stream.read(&mut part).unwrap();
        bytes.extend_from_slice(&part[..read]);
        let text = String::from_utf8_lossy(&bytes);
        let length = text.split_once("Content-Length: ").and_then(|(_, rest)| rest.lines().next());
        let length: Option<usize> = length.and_then(|length| length.parse().ok());
        let body = text.split_once("\r\n\r\n").map_or(0, |(_, body)| body.len());
        if read == 0 || length.is_some_and(|length| body >= length) {
            stream.write_all(answer.as_bytes()).unwrap();
            return text.into_owned();
        }
    }
}
