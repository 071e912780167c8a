//! Figures: what was measured, how often, and how far it spreads.

use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

/// One measured quantity.
struct Figure {
    name: String,
    unit: &'static str,
    observed: Vec<f64>,
    goal: &'static str,
}

/// Everything that was measured.
pub struct Report {
    figures: Vec<Figure>,
    notes: Vec<String>,
    machine: Value,
}

impl Report {
    /// A report that knows the machine only.
    pub fn new() -> Self {
        Self { figures: Vec::new(), notes: Vec::new(), machine: machine() }
    }

    /// Adds a figure from its observations, and shows it at once.
    pub fn add(&mut self, name: impl Into<String>, unit: &'static str, observed: Vec<f64>, goal: &'static str) {
        let mut observed = observed;
        observed.sort_by(f64::total_cmp);
        let figure = Figure { name: name.into(), unit, observed, goal };
        if !figure.observed.is_empty() {
            eprintln!("  {}: {} {unit}", figure.name, number(figure.median()));
            self.figures.push(figure);
        }
    }

    /// Says something that belongs to the figures.
    pub fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    /// Prints the table.
    pub fn print(&self) {
        let rows: Vec<[String; 6]> = self.figures.iter().map(Figure::row).collect();
        let heads = ["what", "median", "unit", "spread", "n", "goal"].map(str::to_owned);
        let width = |column: usize| {
            rows.iter().chain([&heads]).map(|row| row[column].chars().count()).max().unwrap_or_default()
        };
        let widths = [0, 1, 2, 3, 4, 5].map(width);
        let line = |row: &[String; 6]| {
            let [what, median, unit, spread, n, goal] = row;
            let [a, b, c, d, e, f] = widths;
            println!("| {what:<a$} | {median:>b$} | {unit:<c$} | {spread:<d$} | {n:>e$} | {goal:<f$} |");
        };
        println!();
        line(&heads);
        println!("|{}|", widths.map(|width| "-".repeat(width + 2)).join("|"));
        rows.iter().for_each(line);
        println!("\nmachine: {} x {}, {}", self.machine["cores"], self.machine["cpu"], self.machine["kernel"]);
        self.notes.iter().for_each(|note| println!("note: {note}"));
    }

    /// Writes the same as JSON.
    pub fn write(&self, file: &Path) -> Result<()> {
        let figures: Vec<Value> = self.figures.iter().map(Figure::json).collect();
        let text = json!({"machine": self.machine, "figures": figures, "notes": self.notes});
        if let Some(folder) = file.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(file, format!("{text:#}\n"))?;
        println!("written to {}", file.display());
        Ok(())
    }
}

impl Figure {
    fn median(&self) -> f64 {
        median(&self.observed)
    }

    fn ends(&self) -> (f64, f64) {
        (self.observed.first().copied().unwrap_or_default(), self.observed.last().copied().unwrap_or_default())
    }

    fn row(&self) -> [String; 6] {
        let (least, most) = self.ends();
        let spread = format!("{} to {}", number(least), number(most));
        let n = self.observed.len().to_string();
        [self.name.clone(), number(self.median()), self.unit.to_owned(), spread, n, self.goal.to_owned()]
    }

    fn json(&self) -> Value {
        let (least, most) = self.ends();
        json!({"name": self.name, "unit": self.unit, "n": self.observed.len(), "median": self.median(),
            "least": least, "most": most, "goal": self.goal, "observed": self.observed})
    }
}

/// The middle of sorted values.
pub fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    match sorted {
        [] => 0.0,
        _ if sorted.len() % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

fn number(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn machine() -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|(_, name)| name);
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    let load = read("/proc/loadavg").split(' ').next().and_then(|word| word.parse::<f64>().ok());
    json!({"cores": cores, "cpu": model.unwrap_or("unknown"), "kernel": format!("Linux {}", read("/proc/sys/kernel/osrelease").trim()),
        "load_before": load})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(&[1.0, 2.0, 9.0]).to_bits(), 2.0_f64.to_bits());
        assert_eq!(median(&[1.0, 2.0, 4.0, 9.0]).to_bits(), 3.0_f64.to_bits());
        assert_eq!(number(25_000.4), "25000");
        assert_eq!(number(39.96), "40.0");
    }
}
