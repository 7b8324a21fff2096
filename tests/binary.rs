//! The real executable, with nothing but an environment.

mod support;

mod binary {
    mod about;
    mod answers;
    mod batch;
    mod cgi;
    mod command_line;
    mod crash;
    mod full;
    mod mercure;
    mod neighbours;
    mod own_check;
    mod patterns;
    mod process;
    mod readers;
    mod sandbox;
    mod settings_file;
    mod subscriptions;
    mod tokens;
    mod topics;
    mod waiting;
}
