//! What is wrong, or could be better, with the holders as they are set up and as they answer.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use futures_util::future::join_all;

use volvelle_fragments::Suite;

use super::{HolderStatus, Quorum};
use crate::state::now;

/// Clocks may differ by so many seconds.
const SKEW: u64 = 30;

/// Seconds after a refresh by which a backup should be made.
const BACKUP_AFTER: u64 = 24 * 3600;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Values cannot be opened, or soon cannot.
    Error,
    /// It protects less than it could.
    Warning,
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// A word for programs.
    pub code: &'static str,
    /// What it is.
    pub message: String,
    /// What to do.
    pub hint: &'static str,
}

impl Finding {
    fn new(severity: Severity, code: &'static str, message: String, hint: &'static str) -> Self {
        Self { severity, code, message, hint }
    }
}

impl Quorum {
    /// Looks at the roster and asks every holder.
    pub async fn examine_all(&self) -> Vec<Finding> {
        let statuses = self.status().await;
        let mut findings = self.of_roster().await;
        findings.extend(statuses.iter().filter_map(of_state));
        findings.extend(statuses.iter().filter_map(of_backup));
        findings.extend(statuses.iter().filter_map(|status| of_suite(status, self.suite())));
        findings.extend(self.of_epochs(&statuses));
        for status in &statuses {
            if let Some(skew) = status.clock_skew.filter(|skew| *skew > SKEW) {
                let message = format!("the clock of holder {} differs from this one's by {skew} s", status.index);
                findings.push(Finding::new(Severity::Warning, "clock", message, "run a time service on both machines"));
            }
        }
        findings
    }

    async fn of_roster(&self) -> Vec<Finding> {
        let (n, t) = (self.0.roster.holders.len(), usize::from(self.0.roster.threshold));
        let mut findings = Vec::new();
        if n + 1 < 2 * t {
            let message = format!("{t} of {n} holders are needed: {} that lie or are away stop every read", n + 1 - t);
            let hint = "take more holders or a lower threshold: n should be at least 2t-1";
            findings.push(Finding::new(Severity::Warning, "threshold", message, hint));
        }
        if !self.0.roster.former_thresholds.is_empty() {
            let former: Vec<String> = self.0.roster.former_thresholds.iter().map(u8::to_string).collect();
            let message = format!("keys of which {} holders are needed, and not {t}, are allowed", former.join(" or "));
            let hint =
                "`volvelle fragments rekey`, then --retire; when they are gone, `change-roster --forget-threshold`";
            findings.push(Finding::new(Severity::Warning, "former-threshold", message, hint));
        }
        findings.extend(self.of_administrators());
        let resolved = self.0.roster.holders.iter().map(|member| async move {
            let addresses = tokio::net::lookup_host(&member.address).await;
            (member.index, addresses.map(|list| list.map(|address| address.ip()).collect()).unwrap_or_default())
        });
        let mut by_address: BTreeMap<IpAddr, BTreeSet<u8>> = BTreeMap::new();
        for (index, addresses) in join_all(resolved).await {
            let addresses: BTreeSet<IpAddr> = addresses;
            for address in addresses {
                by_address.entry(address).or_default().insert(index);
            }
        }
        for (address, holders) in by_address.iter().filter(|(_, holders)| holders.len() > 1) {
            let names: Vec<String> = holders.iter().map(u8::to_string).collect();
            let message = format!("holders {} are on one host, {address}, or behind one", names.join(", "));
            let hint = "whoever takes that host has their fragments: give each holder a machine and an administrator";
            findings.push(Finding::new(Severity::Warning, "one-host", message, hint));
        }
        findings
    }

    /// Who may change the roster, and whose holders are whose.
    fn of_administrators(&self) -> Vec<Finding> {
        let roster = &self.0.roster;
        if !roster.is_signed() {
            let message =
                "the roster is not signed: whoever writes it on enough machines decides who takes part".to_owned();
            let hint = "give each holder an administrator: docs/operate/holders.md";
            return vec![Finding::new(Severity::Warning, "unsigned-roster", message, hint)];
        }
        let mut by_key: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for member in &roster.holders {
            let key = member.administrator.as_deref().unwrap_or_default();
            by_key.entry(key).or_default().push(member.index.to_string());
        }
        let shared = by_key.into_values().filter(|holders| holders.len() > 1);
        shared
            .map(|holders| {
                let message = format!("holders {} have one administrator", holders.join(", "));
                let hint = "he can read and stop all of them: give each holder an administrator of its own";
                Finding::new(Severity::Warning, "one-administrator", message, hint)
            })
            .collect()
    }

    fn of_epochs(&self, statuses: &[HolderStatus]) -> Vec<Finding> {
        let mut findings = Vec::new();
        let held: BTreeSet<u32> = statuses.iter().flat_map(|status| status.epochs_held.iter().copied()).collect();
        if held.len() > 1 {
            let names: Vec<String> = held.iter().map(u32::to_string).collect();
            let message = format!("epochs {} live together: a refresh broke off", names.join(", "));
            let hint =
                "run `volvelle fragments refresh` when every holder is up; until then old fragments are not erased";
            findings.push(Finding::new(Severity::Warning, "two-epochs", message, hint));
        }
        let oldest = statuses.iter().filter_map(|status| status.refreshed_at).min();
        let hours = oldest.map(|since| now().saturating_sub(since) / 3600);
        let (days, limit) = (hours.unwrap_or(0) / 24, self.0.refresh_hours);
        if limit == 0 {
            let message = "fragments are refreshed only when somebody asks for it".to_owned();
            let hint = "leave refresh_hours out of the quorum's configuration to refresh weekly";
            findings.push(Finding::new(Severity::Warning, "no-refresh", message, hint));
        } else if hours.is_some_and(|hours| hours > 2 * limit) {
            let message = format!("fragments were last refreshed {days} days ago");
            findings.push(Finding::new(
                Severity::Warning,
                "refresh-overdue",
                message,
                "run `volvelle fragments refresh`",
            ));
        }
        findings
    }
}

/// A backup from before the last refresh helps only together with another one of the same age.
fn of_backup(status: &HolderStatus) -> Option<Finding> {
    status.round_trip?;
    let message = match (status.backup_at, status.refreshed_at) {
        (None, _) => format!("of holder {} no backup is known", status.index),
        (Some(made), Some(refreshed)) if refreshed > made + BACKUP_AFTER => {
            format!("the backup of holder {} is from before its last refresh", status.index)
        }
        _ => return None,
    };
    let hint = "make one on its machine and touch backup.made there: docs/operate/holders.md";
    Some(Finding::new(Severity::Warning, "backup", message, hint))
}

/// A holder without the suite of new accounts stops the making of their keys.
fn of_suite(status: &HolderStatus, suite: Suite) -> Option<Finding> {
    if status.round_trip.is_none() || status.suites.contains(&suite.byte()) {
        return None;
    }
    let message = format!("holder {} makes no keys of suite {suite}, which new accounts are to have", status.index);
    let hint = "upgrade it, or allow the suite with `suites` in its holder.toml";
    Some(Finding::new(Severity::Error, "suite", message, hint))
}

fn of_state(status: &HolderStatus) -> Option<Finding> {
    let hint = match status.state {
        "up" => return None,
        "lost" | "stale" => "run `volvelle fragments repair` for it",
        "quarantined" => "find out who changed it; then run `volvelle fragments repair` for it",
        _ => "start it, and look at its log",
    };
    let why = status.detail.as_deref().unwrap_or("it does not answer");
    let message = format!("holder {} is {}: {why}", status.index, status.state);
    Some(Finding::new(Severity::Error, "holder", message, hint))
}
