//! The sizes of the programs.

use std::fs;
use std::process::Command;

use crate::figures::{head, line};
use crate::support::SOURCE;
use crate::worlds::COMET;

pub fn row() {
    head(&["size", ""]);
    let executable = fs::metadata(COMET).unwrap().len();
    #[allow(clippy::cast_precision_loss)]
    line(&[&"the executable, static", &format!("{:.2} MB", executable as f64 / 1e6)]);
    let gzip = format!("gzip -9c {SOURCE}/htdocs/NovComet.min.js | wc -c");
    line(&[&"NovComet.min.js, gzip -9", &format!("{} bytes", output("sh", &["-c", &gzip]))]);
    let tree = ["tree", "--edges", "normal", "--prefix", "none", "--no-dedupe"];
    let tree = output(env!("CARGO"), &tree);
    let mut crates: Vec<_> = tree.lines().filter(|line| !line.starts_with("novcomet ")).collect();
    crates.sort_unstable();
    crates.dedup();
    line(&[&"crates in it", &crates.len()]);
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).current_dir(SOURCE).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
