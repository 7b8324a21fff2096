//! A stub: the generations of Mercure.

/// A generation of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Generation {
    /// 0.x.
    V0,
    /// 1.0.
    V1,
}
