//! The figures in Prometheus' text format, version 0.0.4.

use std::fmt::{Display, Write};

use crate::hub::Figures;
use crate::process::figures::{Counter, Sums, WAKE_MICROS};

/// The type of an exposition. Label values are fixed here, so none needs an escape.
pub const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The figures as text. What is not known is left out.
pub fn exposition(figures: &Figures, version: &str) -> String {
    let mut text = Exposition(String::new());
    text.family("novcomet_build_info", "gauge", "The program.");
    text.sample("novcomet_build_info", &format!("version=\"{version}\""), 1);
    if let Some(sums) = &figures.sums {
        text.counters(sums);
        text.refusals(sums);
        text.wakes(sums);
    } else if let Some(publishes) = figures.stock.publishes {
        text.one("novcomet_publishes_total", "counter", PUBLISHES, publishes);
    }
    text.gauges(figures);
    text.0
}

const PUBLISHES: &str = "Events that were published.";

struct Exposition(String);

impl Exposition {
    fn counters(&mut self, sums: &Sums) {
        for (counter, name, help) in [
            (Counter::Publishes, "novcomet_publishes_total", PUBLISHES),
            (
                Counter::Deliveries,
                "novcomet_deliveries_total",
                "Events that were sent, once for each subscriber.",
            ),
            (
                Counter::Gaps,
                "novcomet_gaps_total",
                "Times that a subscriber was told that messages may be missing.",
            ),
            (Counter::StoreErrors, "novcomet_store_errors_total", "Failures of the store."),
            (
                Counter::SlotsRefused,
                "novcomet_slots_refused_total",
                "Requests that could not wait, because they got no slot.",
            ),
            (
                Counter::Handovers,
                "novcomet_handovers_total",
                "Leaders that have left their subscribers to the standby.",
            ),
            (Counter::LostLeaders, "novcomet_lost_leaders_total", "Leaders that were killed."),
        ] {
            self.one(name, "counter", help, sums.get(counter));
        }
    }

    fn refusals(&mut self, sums: &Sums) {
        const NAME: &str = "novcomet_refusals_total";
        self.family(NAME, "counter", "Refused requests, by HTTP status.");
        for (status, count) in sums.refusals() {
            self.sample(NAME, &format!("status=\"{status}\""), count);
        }
    }

    /// The classes of a histogram contain one another.
    fn wakes(&mut self, sums: &Sums) {
        let help = "Time from an event to the answer of a request that waited for it.";
        self.family("novcomet_wake_seconds", "histogram", help);
        let bounds = WAKE_MICROS.map(seconds).into_iter().chain(["+Inf".into()]);
        let mut all = 0;
        for (bound, count) in bounds.zip(sums.wakes()) {
            all += count;
            self.sample("novcomet_wake_seconds_bucket", &format!("le=\"{bound}\""), all);
        }
        self.sample("novcomet_wake_seconds_sum", "", seconds(sums.get(Counter::WakeMicros)));
        self.sample("novcomet_wake_seconds_count", "", all);
    }

    fn gauges(&mut self, figures: &Figures) {
        if let Some(waiters) = figures.waiters {
            const NAME: &str = "novcomet_waiters";
            self.family(NAME, "gauge", "Requests that wait in one process.");
            self.sample(NAME, "transport=\"poll\"", waiters.poll);
            self.sample(NAME, "transport=\"stream\"", waiters.stream);
        }
        for (name, help, value) in [
            ("novcomet_topics", "Topics in the store.", figures.stock.topics),
            ("novcomet_store_bytes", "Bytes that the topics take.", figures.stock.bytes),
            ("novcomet_slots_used", "Slots that waiting requests hold.", figures.slots_used),
            ("novcomet_slots_max", "Slots that there are.", figures.slots_max),
        ] {
            if let Some(value) = value {
                self.one(name, "gauge", help, value);
            }
        }
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: u64) {
        self.family(name, kind, help);
        self.sample(name, "", value);
    }

    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, label: &str, value: impl Display) {
        let _ = match label {
            "" => writeln!(self.0, "{name} {value}"),
            label => writeln!(self.0, "{name}{{{label}}} {value}"),
        };
    }
}

/// In seconds, without zeros at the end.
fn seconds(micros: u64) -> String {
    let text = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_have_no_zeros_at_the_end() {
        for (micros, text) in
            [(0, "0"), (1, "0.000001"), (2_500, "0.0025"), (10_000_000, "10"), (1_500_000, "1.5")]
        {
            assert_eq!(seconds(micros), text);
        }
    }
}
