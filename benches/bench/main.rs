//! Compares NovComet with its peers: `make bench`. Each row runs the two in turn (A B A B …)
//! and prints medians, their spread, and the ratio of the medians.
//!
//! `cargo bench -- start wake` runs those rows only. `COMET_PEERS` is the directory of the
//! peers, and `benches/peers/fetch` fills it.

#[path = "../../tests/support/mod.rs"]
mod support;

mod arrivals;
mod figures;
mod peers;
mod rows;
mod waiters;
mod worlds;

fn main() {
    let wanted: Vec<_> = std::env::args().skip(1).filter(|name| !name.starts_with('-')).collect();
    println!("{}\n", worlds::machine());
    for (name, row) in rows::ALL {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            println!("## {name}\n");
            row();
            println!();
        }
    }
}
