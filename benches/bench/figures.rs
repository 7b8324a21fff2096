//! Samples and their statistics.

use std::fmt;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

/// Durations, sorted.
pub struct Samples(Vec<Duration>);

impl Samples {
    pub fn new(mut samples: Vec<Duration>) -> Self {
        samples.sort();
        assert!(!samples.is_empty(), "nothing was measured");
        Self(samples)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The value below which this share of the samples lies.
    pub fn quantile(&self, share: f64) -> Duration {
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss
        )]
        let index = ((self.0.len() - 1) as f64 * share).round() as usize;
        self.0[index]
    }

    pub fn median(&self) -> Duration {
        self.quantile(0.5)
    }

    pub fn last(&self) -> Duration {
        self.quantile(1.0)
    }
}

/// The median, and the middle half.
impl fmt::Display for Samples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |share| Time(self.quantile(share));
        write!(f, "{} ({}–{})", of(0.5), of(0.25), of(0.75))
    }
}

/// A duration in a suitable unit.
pub struct Time(pub Duration);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_secs_f64() * 1e3 {
            ms if ms < 1.0 => write!(f, "{:.0} µs", ms * 1e3),
            ms if ms < 10.0 => write!(f, "{ms:.2} ms"),
            ms if ms < 1e4 => write!(f, "{ms:.0} ms"),
            ms => write!(f, "{:.1} s", ms / 1e3),
        }
    }
}

/// The ratio of `one` to `other`, by their medians.
pub fn ratio(one: &Samples, other: &Samples) -> f64 {
    one.median().as_secs_f64() / other.median().as_secs_f64()
}

/// A line of a table.
pub fn line(cells: &[&dyn fmt::Display]) {
    let cells: Vec<_> = cells.iter().map(ToString::to_string).collect();
    println!("| {} |", cells.join(" | "));
}

/// The head of a table.
pub fn head(cells: &[&str]) {
    println!("| {} |", cells.join(" | "));
    println!("|{}", "---|".repeat(cells.len()));
}

/// A point of a curve, in milliseconds, for benches/curves.gp. It is a line of `NAME.dat` in
/// the directory `COMET_CURVES`, if that is set.
pub fn point(name: &str, x: usize, values: &[Duration]) {
    let Some(directory) = std::env::var_os("COMET_CURVES") else { return };
    let path = Path::new(&directory).join(format!("{name}.dat"));
    let mut file = File::options().append(true).create(true).open(path).unwrap();
    let values: Vec<_> =
        values.iter().map(|value| format!("{:.4}", value.as_secs_f64() * 1e3)).collect();
    writeln!(file, "{x} {}", values.join(" ")).unwrap();
}
