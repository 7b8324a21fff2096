//! Through real web servers: Apache with two of its MPMs, and lighttpd.

mod support;

mod servers {
    mod bayeux;
    mod doctor;
    mod figures;
    mod grip;
    mod hostile;
    mod limits;
    mod mercure;
    mod requests;
    mod rights;
    mod streams;
    mod together;
}
