//! What a person sees while a rotation runs. Nothing is shown, and nothing more is asked, when nobody looks.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Map, Value, json};

use crate::failure::{Failed, ROTATION};
use crate::session::Session;
use crate::{print, table};

/// How often the stages are asked for.
const EVERY: Duration = Duration::from_millis(250);

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

fn shown(bar: ProgressBar, template: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    bar.set_style(style(template));
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

/// A bar for so many rotations.
pub fn bar(all: usize) -> ProgressBar {
    shown(ProgressBar::new(all as u64), "{spinner} {pos}/{len} {wide_bar} {elapsed} {msg}")
}

/// Rotates one secret and shows its stages meanwhile; after a failure on several hosts, how each of them stands.
pub async fn rotate(session: &Session, params: Map<String, Value>, raw: bool) -> Result<Value, Failed> {
    let name = params.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    let rotation = session.call("gateway-rotate-secret", params);
    let outcome = if std::io::stderr().is_terminal() {
        let bar = shown(ProgressBar::new_spinner(), "{spinner} {elapsed} {msg}");
        bar.set_message(format!("rotating {name}"));
        let outcome = tokio::select! {
            outcome = rotation => outcome,
            () = watch(session, &name, &bar) => Err(Failed::new("the rotation is no longer watched", "")),
        };
        bar.finish_and_clear();
        outcome
    } else {
        rotation.await
    };
    let mut outcome = outcome;
    if let Err(failed) = &mut outcome
        && failed.code == ROTATION
        && !raw
    {
        let rows = history(session, &name, 1000).await;
        if rows.iter().any(|row| row["host"].as_str().is_some_and(|host| !host.is_empty())) {
            print::line(&table::by_host(&rows).text());
            // The table says of every host what the sentence would repeat.
            failed.message.truncate(failed.message.find("; ").unwrap_or(failed.message.len()));
        }
    }
    outcome
}

async fn history(session: &Session, name: &str, limit: u32) -> Vec<Value> {
    let asked = json!({"name": name, "limit": limit}).as_object().cloned().unwrap_or_default();
    match session.call("rotation-list", asked).await {
        Ok(answer) => answer["rotations"].as_array().cloned().unwrap_or_default(),
        Err(_) => Vec::new(),
    }
}

/// Never ends; whoever waits for the rotation drops it.
async fn watch(session: &Session, name: &str, bar: &ProgressBar) {
    let mut trail: Vec<String> = Vec::new();
    loop {
        tokio::time::sleep(EVERY).await;
        let rows = history(session, name, 1000).await;
        let open: Vec<&str> =
            rows.iter().filter(|row| row["ended_at"].is_null()).filter_map(|row| row["stage"].as_str()).collect();
        let text = match open.as_slice() {
            [] => continue,
            [one] => {
                if trail.last().map(String::as_str) != Some(one) {
                    trail.push((*one).to_owned());
                }
                trail.join(" → ")
            }
            many => {
                let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
                many.iter().for_each(|stage| *counts.entry(stage).or_default() += 1);
                let parts: Vec<String> = counts.iter().map(|(stage, n)| format!("{n} {stage}")).collect();
                format!("{} hosts to go: {}", many.len(), parts.join(", "))
            }
        };
        bar.set_message(format!("rotating {name}: {}", text.replace('_', " ")));
    }
}
