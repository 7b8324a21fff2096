//! The scripts around the executable: `make install` and tests/run.

mod support;

mod scripts {
    mod install;
    mod interrupted;
}
