//! The stores: by their trait, and by the executable with a real Redis and memcached.

mod support;

mod stores {
    mod store;
    mod store_file;
    mod stores_faults;
    mod stores_hostile;
    mod stores_inquiry;
    mod stores_order;
    mod stores_proxies;
    mod stores_servers;
    mod stores_sessions;
    mod stores_tls;
    mod stores_who;
    mod stores_wire;
}
