//! New keys for every account: beginning it, how far it is, and the end of the old keys. For administrators of the operator's
//! account, since holders serve every account.

use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::time::Instant;
use volvelle_domain::ids::AccountId;
use volvelle_fragments::Suite;
use volvelle_holder::quorum::Fate;
use volvelle_rotation::rekey::USUAL_RATE;
use volvelle_store::rekeys::{Rekey, Stage};
use volvelle_store::{accounts, rekeys};

use super::Answer;
use super::fragments::{require_operator, time};
use crate::ctx::Ctx;
use crate::error::ApiError;
use crate::params::{Params, bad};
use crate::shape;

/// Records in a second, at most.
const RATES: std::ops::RangeInclusive<u32> = 1..=100_000;
/// Keys of accounts shown in one answer, at most.
const KEYS_SHOWN: usize = 1000;
/// How long an answer waits for the new keys; they are made all the same.
const MAKING: Duration = Duration::from_secs(10);

/// Begins a change of keys, shows how far it is (`status`), or has the holders destroy the old keys (`retire`).
///
/// # Errors
/// The caller may not, a parameter is wrong, or a holder is away.
pub async fn rekey(ctx: &Ctx<'_>, params: &Params) -> Answer {
    require_operator(ctx)?;
    let rate: Option<u32> = params.number("rate")?.filter(|rate| *rate != 0);
    if rate.is_some_and(|rate| !RATES.contains(&rate)) {
        return Err(bad("rate", "must be between 1 and 100000 records in a second"));
    }
    let suite: Option<Suite> =
        params.text("suite").map(str::parse).transpose().map_err(|_| bad("suite", "must be ristretto255 or p256"))?;
    let (status, retire) = (params.is("status"), params.is("retire"));
    if suite.is_some() && (status || retire) {
        return Err(bad("suite", "is for a change that begins, not with status or retire"));
    }
    if status && retire {
        return Err(bad("status", "and retire cannot be given together"));
    }
    if let Some(rate) = rate {
        let mut tx = ctx.app.store.begin().await?;
        rekeys::set_rate(&mut tx, rate).await?;
        tx.commit().await?;
    }
    let (begun, failed) = match (status, retire) {
        (true, _) => (0, Map::new()),
        (_, true) => (0, retire_all(ctx).await?),
        _ => begin(ctx, rate.unwrap_or(USUAL_RATE), suite).await?,
    };
    Ok(json!({"begun": begun, "rekeys": under_way(ctx).await?, "failed": failed}))
}

async fn all(ctx: &Ctx<'_>) -> Result<Vec<Rekey>, ApiError> {
    let mut tx = ctx.app.store.read().await?;
    Ok(rekeys::list(&mut tx).await?)
}

/// Begins with every account, and waits until the holders have made the keys or say why not.
async fn begin(ctx: &Ctx<'_>, rate: u32, suite: Option<Suite>) -> Result<(usize, Map<String, Value>), ApiError> {
    let begun = ctx.app.rekeyer.begin(rate, suite).await?;
    let tx = ctx.app.store.begin().await?;
    ctx.commit(tx, "fragments", &format!("{begun} accounts get another key")).await?;
    let until = Instant::now() + MAKING;
    loop {
        let waiting: Vec<Rekey> = all(ctx).await?.into_iter().filter(|rekey| rekey.stage == Stage::Generate).collect();
        let mut failed = Map::new();
        for rekey in waiting.iter().filter(|rekey| !rekey.message.is_empty()) {
            failed.insert(label(ctx, &rekey.account).await?.0, json!(rekey.message));
        }
        if waiting.len() == failed.len() || Instant::now() > until {
            return Ok((begun, failed));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Retires the old keys of every account whose records are all under the new one.
async fn retire_all(ctx: &Ctx<'_>) -> Result<Map<String, Value>, ApiError> {
    let (retired, refused) = ctx.app.rekeyer.retire().await?;
    let tx = ctx.app.store.begin().await?;
    ctx.commit(tx, "fragments", &format!("the old keys of {retired} accounts are retired")).await?;
    let mut failed = Map::new();
    for (account, why) in refused {
        failed.insert(label(ctx, &account).await?.0, json!(why));
    }
    Ok(failed)
}

/// How an account is named to the operator, who is told no other tenant's id: as the holders know it. And its realm.
async fn label(ctx: &Ctx<'_>, account: &AccountId) -> Result<(String, [u8; 16]), ApiError> {
    let mut tx = ctx.app.store.read().await?;
    let realm = accounts::find(&mut tx, account).await?.map(|account| account.realm.0).unwrap_or_default();
    Ok((if account == ctx.id() { account.0.clone() } else { hex::encode(realm) }, realm))
}

/// The key of every account with its suite and threshold, as far as holders tell them.
pub(super) async fn keys(ctx: &Ctx<'_>) -> Result<Vec<Value>, ApiError> {
    let mut tx = ctx.app.store.read().await?;
    let accounts = accounts::list(&mut tx).await?;
    drop(tx);
    let quorum = ctx.app.vault.quorum();
    let mut shown = Vec::new();
    for account in accounts.into_iter().take(KEYS_SHOWN) {
        let key = (account.realm.0, account.key_id);
        // Whoever does not answer for one key does not for the next, and would be waited for each time.
        let Ok(suite) = quorum.suite_of(key).await else { break };
        let label = if &account.id == ctx.id() { account.id.0 } else { hex::encode(account.realm.0) };
        let threshold = quorum.threshold_of(key).await.ok();
        shown.push(json!({"account": label, "key": key.1, "suite": suite.name(), "threshold": threshold}));
    }
    Ok(shown)
}

/// Every change of keys, and how far it is.
pub(super) async fn under_way(ctx: &Ctx<'_>) -> Result<Vec<Value>, ApiError> {
    let mut shown = Vec::new();
    for rekey in all(ctx).await? {
        shown.push(show(ctx, &rekey).await?);
    }
    Ok(shown)
}

async fn show(ctx: &Ctx<'_>, rekey: &Rekey) -> Result<Value, ApiError> {
    let quorum = ctx.app.vault.quorum();
    let (account, realm) = label(ctx, &rekey.account).await?;
    let threshold = match rekey.stage {
        Stage::Generate => None,
        _ => quorum.threshold_of((realm, rekey.new_key)).await.ok(),
    };
    let fates = quorum.fates((realm, rekey.old_key)).await;
    let old: Map<String, Value> =
        fates.into_iter().map(|(index, fate)| (index.to_string(), json!(word(fate)))).collect();
    let ended = rekey.ended_at.filter(|_| rekey.stage != Stage::Wrap).unwrap_or(ctx.now);
    let took = rekey.switched_at.map(|since| (ended.0 - since.0).max(1) as f64 / 1e6);
    let per_second = took.map(|seconds| (rekey.done as f64 / seconds * 10.0).round() / 10.0);
    let left = (rekey.stage == Stage::Wrap).then(|| (rekey.total - rekey.done).max(0));
    Ok(json!({
        "account": account,
        "old_key": rekey.old_key,
        "new_key": rekey.new_key,
        "threshold": threshold,
        "suite": Suite::of_byte(rekey.suite).map(Suite::name),
        "stage": rekey.stage.as_str(),
        "total": rekey.total,
        "done": rekey.done,
        "left": left.unwrap_or(0),
        "not_wrapped": rekey.skipped,
        "rate": rekey.rate,
        "per_second": per_second,
        "started_at": shape::time(rekey.started_at),
        "switched_at": rekey.switched_at.map(shape::time),
        "ended_at": rekey.ended_at.map(shape::time),
        "message": rekey.message,
        "old_key_at_holders": old,
    }))
}

fn word(fate: Fate) -> String {
    match fate {
        Fate::InUse => "in use".to_owned(),
        Fate::Ends(at) => format!("destroyed at {}", time(at)),
        Fate::Gone => "gone".to_owned(),
        Fate::Unknown => "unknown".to_owned(),
    }
}
