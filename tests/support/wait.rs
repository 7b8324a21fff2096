//! Waiting for a condition.

use std::thread;
use std::time::{Duration, Instant};

/// A condition that is not true after this time counts as failed.
const LIMIT: Duration = Duration::from_secs(60);
const TICK: Duration = Duration::from_millis(1);

/// Waits until `condition` is true. Panics with `what` after a minute.
pub fn eventually(what: &str, condition: impl FnMut() -> bool) {
    assert!(comes_true(condition), "still not true: {what}");
}

/// Waits until `condition` is true, one minute at most.
pub fn comes_true(mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + LIMIT;
    loop {
        let begin = Instant::now();
        if condition() {
            return true;
        }
        if begin > deadline {
            return false;
        }
        // With thousands of processes, evaluating the condition takes a while.
        thread::sleep(TICK.max(2 * begin.elapsed()));
    }
}
