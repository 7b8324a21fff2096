//! The time at which each subscriber receives the event.

use std::io::{ErrorKind, Read};
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};

/// The texts that show an event: the published message, and the beginning of the PHP's
/// answer, because the PHP has no messages.
pub const NEWS: [&str; 2] = ["hello", r#"{"s":1"#];

const PATIENCE: Duration = Duration::from_secs(10);

/// The times from the beginning of `publish` to the event at each of `waiting`. Subscribers
/// that do not receive it in time are left out.
pub fn of<T: AsFd + Read>(waiting: Vec<T>, publish: impl FnOnce() + Send) -> Vec<Duration> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
    let mut waiting: Vec<_> = waiting.into_iter().map(|one| (one, String::new())).collect();
    for (number, (one, text)) in waiting.iter_mut().enumerate() {
        rustix::io::ioctl_fionbio(&one, true).unwrap();
        take(one, text);
        assert!(!has_news(text), "it knows too early: {text}");
        let data = epoll::EventData::new_u64(number as u64);
        epoll::add(&epoll, &one, data, epoll::EventFlags::IN).unwrap();
    }
    let begin = Instant::now();
    thread::scope(|scope| {
        scope.spawn(publish);
        let mut times = Vec::new();
        let mut events = Vec::with_capacity(1024);
        while times.len() < waiting.len() {
            let second = Timespec { tv_sec: 1, tv_nsec: 0 };
            epoll::wait(&epoll, spare_capacity(&mut events), Some(&second)).unwrap();
            let now = begin.elapsed();
            if now > PATIENCE {
                break;
            }
            for event in events.drain(..) {
                let (one, text) = &mut waiting[usize::try_from(event.data.u64()).unwrap()];
                take(one, text);
                if has_news(text) {
                    times.push(now);
                    epoll::delete(&epoll, &one).unwrap();
                }
            }
        }
        times
    })
}

fn has_news(text: &str) -> bool {
    NEWS.iter().any(|news| text.contains(news))
}

/// The data that has arrived so far.
fn take(one: &mut impl Read, text: &mut String) {
    let mut bytes = [0; 4096];
    loop {
        match one.read(&mut bytes) {
            Ok(0) => return,
            Ok(read) => text.push_str(&String::from_utf8_lossy(&bytes[..read])),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            Err(error) => panic!("{error}"),
        }
    }
}
