//! Load and faults. The tests of one module at a time have the machine (`turn::MACHINE`).

mod support;

mod load {
    mod crowd;
    mod exact;
    mod faults;
    mod order;
    mod soak;
    mod together;
}
