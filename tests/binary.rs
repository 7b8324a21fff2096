//! The real executable, with nothing but an environment.

mod support;

mod binary {
    mod about;
    mod answers;
    mod batch;
    mod bayeux;
    mod bayeux_faults;
    mod bayeux_hostile;
    mod bayeux_rights;
    mod cgi;
    mod command_line;
    mod crash;
    mod doctor;
    mod figures;
    mod full;
    mod grip;
    mod health;
    mod inquiry;
    mod mercure;
    mod neighbours;
    mod own_check;
    mod patterns;
    mod process;
    mod readers;
    mod restored;
    mod rounded;
    mod sandbox;
    mod settings_file;
    mod subscriptions;
    mod tokens;
    mod topics;
    mod waiting;
    mod who;
}
