//! Rotating many secrets: one canary, then the rest with bounded concurrency.

use indicatif::ProgressBar;
use serde_json::{Map, Value, json};
use tokio::task::JoinSet;
use volvelle_api::Client;

use crate::Failed;

const AT_ONCE: usize = 8;

fn body(value: Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap_or_default()
}

async fn names(client: &Client, pattern: &str) -> Result<Vec<String>, Failed> {
    let path = pattern.trim_end_matches('*');
    let (mut out, mut page) = (Vec::new(), String::new());
    loop {
        let answer = client
            .call("list-items", body(json!({"path": path, "type": ["rotated-secret"], "pagination-token": page})))
            .await?;
        out.extend(
            answer["items"].as_array().into_iter().flatten().filter_map(|i| i["item_name"].as_str()).map(str::to_owned),
        );
        page = answer["next_page"].as_str().unwrap_or_default().to_owned();
        if page.is_empty() {
            return Ok(out);
        }
    }
}

/// Rotates everything below `pattern`.
pub async fn rotate(client: &Client, pattern: &str) -> Result<(), Failed> {
    let mut left = names(client, pattern).await?.into_iter();
    let Some(canary) = left.next() else {
        return Err(Failed { code: 3, message: format!("no rotated secret under {pattern}"), hint: String::new() });
    };
    let bar = ProgressBar::new(left.len() as u64 + 1);
    if let Err(error) = client.call("gateway-rotate-secret", body(json!({"name": canary}))).await {
        bar.abandon();
        let why = Failed::from(error);
        let code = if why.code == 5 { 5 } else { 6 };
        return Err(Failed {
            code,
            message: format!("the canary {canary} failed, nothing else was touched: {}", why.message),
            hint: why.hint,
        });
    }
    bar.inc(1);
    let (mut running, mut failed, mut done) = (JoinSet::new(), 0_usize, 1_usize);
    loop {
        while running.len() < AT_ONCE {
            let Some(name) = left.next() else { break };
            let client = client.clone();
            running
                .spawn(async move { (client.call("gateway-rotate-secret", body(json!({"name": name}))).await, name) });
        }
        let Some(ended) = running.join_next().await else { break };
        bar.inc(1);
        match ended {
            Ok((Ok(_), _)) => done += 1,
            Ok((Err(error), name)) => {
                failed += 1;
                bar.suspend(|| eprintln!("failed: {name}: {error}"));
            }
            Err(_) => failed += 1,
        }
    }
    bar.finish_and_clear();
    println!("{done} rotated, {failed} failed");
    if failed > 0 {
        return Err(Failed { code: 6, message: format!("{failed} rotations failed"), hint: String::new() });
    }
    Ok(())
}
