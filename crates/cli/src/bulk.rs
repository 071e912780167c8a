//! Rotating many secrets: one canary, then the rest with bounded concurrency, and an end after too many failures.

use std::io::IsTerminal;

use clap::ArgMatches;
use serde_json::{Map, Value, json};
use tokio::task::JoinSet;

use crate::failure::{Failed, NOT_FOUND, ROTATION, UNREACHABLE};
use crate::session::Session;
use crate::{print, progress, table};

/// Most pages of names that are read.
const MOST_PAGES: usize = 1000;

/// How it went.
#[derive(Default)]
struct Outcome {
    rotated: Vec<String>,
    failed: Map<String, Value>,
    left: Vec<String>,
}

/// Rotates everything that `pattern` names.
pub async fn rotate(session: &Session, pattern: &str, leaf: &ArgMatches) -> Result<(), Failed> {
    let number = |name: &str| usize::from(leaf.get_one::<u16>(name).copied().unwrap_or(1));
    let (prefix, exact) = bounds(pattern)?;
    let found = names(session, &prefix, exact.as_deref()).await?;
    for name in &found.disabled {
        print::note(&format!("note: {name} is disabled and is left out"));
    }
    let mut left = found.enabled.into_iter();
    let Some(canary) = left.next() else {
        return Err(Failed::with(
            NOT_FOUND,
            format!("there is no rotated secret under {pattern}"),
            "`volvelle item list` shows what there is",
        ));
    };
    let all = left.len() + 1;
    print::note(&format!("{} under {pattern}; the canary is {canary}", counted(all)));
    if std::io::stdin().is_terminal() && !leaf.get_flag("yes") {
        let sure = inquire::Confirm::new(&format!("Rotate {}?", counted(all))).with_default(false).prompt();
        if !sure.unwrap_or(false) {
            return Err(Failed::new("nothing was rotated", "--yes does not ask"));
        }
    }
    let bar = progress::bar(all);
    bar.set_message(format!("canary {canary}"));
    if let Err(error) = one(session, &canary).await {
        bar.finish_and_clear();
        let code = if error.code == UNREACHABLE { UNREACHABLE } else { ROTATION };
        let mut outcome = Outcome { left: left.collect(), ..Outcome::default() };
        outcome.failed.insert(canary.clone(), Value::from(error.message.as_str()));
        report(&outcome, leaf)?;
        return Err(Failed::with(code, format!("the canary {canary} failed, so nothing else was touched"), error.hint));
    }
    bar.inc(1);
    let mut outcome = Outcome { rotated: vec![canary], ..Outcome::default() };
    let limits = (number("at-once"), number("max-failures"));
    the_rest(session, left, limits, &bar, &mut outcome).await;
    bar.finish_and_clear();
    report(&outcome, leaf)?;
    judged(&outcome)
}

async fn the_rest(
    session: &Session,
    mut left: std::vec::IntoIter<String>,
    (at_once, max_failures): (usize, usize),
    bar: &indicatif::ProgressBar,
    outcome: &mut Outcome,
) {
    let mut running = JoinSet::new();
    loop {
        while running.len() < at_once && outcome.failed.len() < max_failures {
            let Some(name) = left.next() else { break };
            bar.set_message(name.clone());
            let session = session.clone();
            running.spawn(async move { (one(&session, &name).await, name) });
        }
        let Some(ended) = running.join_next().await else { break };
        bar.inc(1);
        match ended {
            Ok((Ok(_), name)) => outcome.rotated.push(name),
            Ok((Err(error), name)) => {
                bar.suspend(|| print::note(&format!("failed: {name}: {}", error.message)));
                outcome.failed.insert(name, Value::from(error.message));
            }
            Err(_) => {}
        }
    }
    outcome.left = left.collect();
}

fn judged(outcome: &Outcome) -> Result<(), Failed> {
    if outcome.failed.is_empty() {
        return Ok(());
    }
    let stopped = if outcome.left.is_empty() {
        String::new()
    } else {
        format!("; stopped after too many failures, {} not tried", outcome.left.len())
    };
    Err(Failed::with(
        ROTATION,
        format!("{} of {} failed{stopped}", outcome.failed.len(), outcome.failed.len() + outcome.rotated.len()),
        "those that failed keep their value; `volvelle rotated-secret history` tells more",
    ))
}

fn report(outcome: &Outcome, leaf: &ArgMatches) -> Result<(), Failed> {
    let failed = Value::Object(outcome.failed.clone());
    if print::is_raw(leaf) {
        return print::raw(&json!({"rotated": outcome.rotated, "failed": failed, "not_tried": outcome.left}), leaf);
    }
    print::line(&format!(
        "{} rotated, {} failed, {} not tried",
        outcome.rotated.len(),
        outcome.failed.len(),
        outcome.left.len()
    ));
    if let Some(rows) = table::failures(&failed) {
        print::line(&rows.text());
    }
    Ok(())
}

fn counted(n: usize) -> String {
    if n == 1 { "1 rotated secret".to_owned() } else { format!("{n} rotated secrets") }
}

async fn one(session: &Session, name: &str) -> Result<Value, Failed> {
    session.call("gateway-rotate-secret", body(json!({ "name": name }))).await
}

fn body(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// What to list, and the one name that also counts: `/a/*` is everything below, `/a/b*` every name that begins so, `/a` is that
/// name and everything below it, but not `/ab`.
fn bounds(pattern: &str) -> Result<(String, Option<String>), Failed> {
    let start = if pattern.starts_with('/') { "" } else { "/" };
    let pattern = format!("{start}{pattern}");
    match pattern.split_once('*') {
        Some((prefix, "")) => Ok((prefix.to_owned(), None)),
        Some(_) => Err(Failed::usage("--path may have one * and only at its end", "an example: '/prod/*'")),
        None => {
            let name = pattern.trim_end_matches('/').to_owned();
            Ok((name.clone(), Some(name)))
        }
    }
}

#[derive(Default)]
struct Found {
    enabled: Vec<String>,
    disabled: Vec<String>,
}

async fn names(session: &Session, prefix: &str, exact: Option<&str>) -> Result<Found, Failed> {
    let (mut found, mut page) = (Found::default(), String::new());
    for _ in 0..MOST_PAGES {
        let asked = json!({"path": prefix, "type": ["rotated-secret"], "minimal-view": true, "pagination-token": page});
        let answer = session.call("list-items", body(asked)).await?;
        for item in answer["items"].as_array().into_iter().flatten() {
            let Some(name) = item["item_name"].as_str() else { continue };
            let inside = exact.is_none_or(|exact| {
                name.strip_prefix(exact).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            });
            let list = if item["is_enabled"] == false { &mut found.disabled } else { &mut found.enabled };
            if inside {
                list.push(name.to_owned());
            }
        }
        page = answer["next_page"].as_str().unwrap_or_default().to_owned();
        if page.is_empty() {
            break;
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::bounds;

    #[test]
    fn a_path_without_a_star_is_a_name_and_what_lies_below_it() {
        assert_eq!(bounds("/prod/*").expect("a pattern"), ("/prod/".to_owned(), None));
        assert_eq!(bounds("prod/web*").expect("a pattern"), ("/prod/web".to_owned(), None));
        assert_eq!(bounds("/prod/").expect("a pattern"), ("/prod".to_owned(), Some("/prod".to_owned())));
        assert!(bounds("/*/root").is_err());
    }
}
