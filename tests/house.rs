//! The project itself: its layers, its documents, and the properties that hold for
//! any input.
//!
//! No test here may start a program. Between fork and exec the child has the locks
//! of the stores that the properties read, which then read as busy.

mod properties;
mod support;

mod house {
    mod layers;
    mod properties;
    mod security;
    mod versions;
}
