//! The rows of the table. Each has its own setup.

mod crowd;
mod grip;
mod growth;
mod held;
mod idle;
mod memory;
mod patterns;
mod redis;
mod size;
pub mod start;
mod stop;
mod throughput;
mod together;
pub mod wake;

/// The rows by name, in the order of docs/performance.md.
pub const ALL: [(&str, fn()); 14] = [
    ("start", start::row),
    ("wake", wake::row),
    ("crowd", crowd::row),
    ("together", together::row),
    ("grip", grip::row),
    ("redis", redis::row),
    ("patterns", patterns::row),
    ("idle", idle::row),
    ("memory", memory::row),
    ("throughput", throughput::row),
    ("held", held::row),
    ("stop", stop::row),
    ("size", size::row),
    ("growth", growth::row),
];
