//! The rows of the table, each a world of its own.

mod crowd;
mod growth;
mod idle;
mod size;
mod start;
mod throughput;
mod wake;

/// By name, in the order of docs/performance.md.
pub const ALL: [(&str, fn()); 8] = [
    ("start", start::row),
    ("wake", wake::row),
    ("crowd", crowd::row),
    ("idle", idle::busy_neighbour),
    ("memory", idle::memory),
    ("throughput", throughput::row),
    ("size", size::row),
    ("growth", growth::row),
];
