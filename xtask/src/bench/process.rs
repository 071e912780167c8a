//! What the kernel says of processes.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

/// Length of the kernel's tick in microseconds: `/proc` counts in hundredths of a second on every architecture.
pub const TICK_US: f64 = 10_000.0;

/// Processor time of a process and all its threads so far, in ticks.
pub fn ticks(pid: u32) -> Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).context("the process has ended")?;
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    Ok(after_name.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum())
}

/// Processor time of several processes.
pub fn ticks_of_all(pids: &[u32]) -> Result<u64> {
    pids.iter().map(|pid| ticks(*pid)).sum()
}

/// Resident memory in megabytes (10^6 bytes).
pub fn resident_mb(pid: u32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).context("the process has ended")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no resident memory")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().context("resident memory is a number")?;
    Ok(kib * 1024.0 / 1e6)
}

/// Ticks that all processors have been busy and idle so far.
pub fn machine_ticks() -> (u64, u64) {
    let stat = std::fs::read_to_string(PathBuf::from("/proc/stat")).unwrap_or_default();
    let first = stat.lines().next().unwrap_or_default();
    let fields: Vec<u64> = first.split_whitespace().skip(1).take(8).filter_map(|field| field.parse().ok()).collect();
    let idle = fields.get(3).copied().unwrap_or_default() + fields.get(4).copied().unwrap_or_default();
    (fields.iter().sum::<u64>() - idle, idle)
}
