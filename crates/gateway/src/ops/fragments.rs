//! The fragment holders: how they are, refreshing and repairing their fragments. For administrators of the operator's account,
//! since holders serve every account.

use serde_json::{Value, json};
use volvelle_domain::ids::Micros;
use volvelle_fragments::Suite;
use volvelle_holder::quorum::{Finding, HolderStatus, KeyName, Severity};
use volvelle_store::tombstones;

use super::Answer;
use crate::ctx::Ctx;
use crate::error::ApiError;
use crate::params::{Params, bad};

pub(super) fn require_operator(ctx: &Ctx<'_>) -> Result<(), ApiError> {
    ctx.require_admin()?;
    if ctx.account().operator { Ok(()) } else { Err(ctx.unauthorized()) }
}

/// Shows each holder, and the epoch of the key that was used last.
///
/// # Errors
/// The caller may not.
pub async fn status(ctx: &Ctx<'_>) -> Answer {
    require_operator(ctx)?;
    let quorum = ctx.app.vault.quorum();
    let statuses = quorum.status().await;
    let epoch = statuses.iter().filter_map(|status| status.epoch).max();
    let mut holders: Vec<Value> = statuses.iter().map(holder).collect();
    let refreshed = statuses.iter().filter_map(|status| status.refreshed_at).min();
    let mut tx = ctx.app.store.read().await?;
    let unburied = tombstones::count(&mut tx).await?;
    for (shown, status) in holders.iter_mut().zip(&statuses) {
        shown["tombstones_pending"] = json!(tombstones::lacking(&mut tx, status.index).await?);
    }
    Ok(json!({
        "threshold": quorum.threshold(),
        "epoch": epoch,
        "refreshed_at": refreshed.map(time),
        "holders": holders,
        "keys": super::rekey::keys(ctx).await?,
        "rekeys": super::rekey::under_way(ctx).await?,
        "tombstones_pending": unburied.count,
        "tombstones_pending_since": unburied.oldest.map(crate::shape::time),
    }))
}

fn holder(status: &HolderStatus) -> Value {
    json!({
        "index": status.index,
        "state": status.state,
        "epoch": status.epoch,
        "epochs_held": status.epochs_held,
        "refreshed_at": status.refreshed_at.map(time),
        "round_trip_us": status.round_trip.and_then(|time| u64::try_from(time.as_micros()).ok()),
        "software": status.software,
        "suites": status.suites.iter().filter_map(|byte| Suite::of_byte(*byte)).map(Suite::name).collect::<Vec<_>>(),
        "tombstones": status.tombstones,
        "detail": status.detail,
    })
}

pub(super) fn time(seconds: u64) -> String {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    crate::shape::time(Micros(0).plus_seconds(seconds))
}

/// Replaces every fragment of every key.
///
/// # Errors
/// The caller may not, or a holder is away.
pub async fn refresh(ctx: &Ctx<'_>) -> Answer {
    require_operator(ctx)?;
    let done = ctx.app.vault.quorum().refresh().await?;
    let detail = format!("{} keys refreshed, {} not", done.keys, done.failed.len());
    let tx = ctx.app.store.begin().await?;
    ctx.commit(tx, "fragments", &detail).await?;
    Ok(json!({"keys": done.keys, "epoch": done.epoch, "failed": failures(&done.failed)}))
}

/// Restores the fragments of one holder with the help of the others.
///
/// # Errors
/// The caller may not, there is no such holder, or too few others answer.
pub async fn repair(ctx: &Ctx<'_>, params: &Params) -> Answer {
    require_operator(ctx)?;
    let index: u8 = params.number("holder")?.ok_or_else(|| bad("holder", "is required"))?;
    let done = ctx.app.vault.quorum().repair(index).await?;
    let detail = format!(
        "holder {index}: {} fragments restored, {} sound, {} not restored",
        done.restored,
        done.sound,
        done.failed.len()
    );
    let tx = ctx.app.store.begin().await?;
    ctx.commit(tx, "fragments", &detail).await?;
    Ok(json!({
        "holder": index,
        "restored": done.restored,
        "sound": done.sound,
        "failed": failures(&done.failed),
    }))
}

/// Gives a holder that is new in the roster its fragments, and refreshes all of them.
///
/// # Errors
/// As [`repair`] and [`refresh`].
pub async fn add_holder(ctx: &Ctx<'_>, params: &Params) -> Answer {
    require_operator(ctx)?;
    let index: u8 = params.number("holder")?.ok_or_else(|| bad("holder", "is required"))?;
    let quorum = ctx.app.vault.quorum();
    let done = quorum.repair(index).await?;
    if !done.failed.is_empty() {
        let failed = failures(&done.failed);
        return Ok(json!({"holder": index, "restored": done.restored, "failed": failed}));
    }
    let refreshed = quorum.refresh().await?;
    let tx = ctx.app.store.begin().await?;
    ctx.commit(tx, "fragments", &format!("holder {index} added: {} fragments", done.restored)).await?;
    let failed = failures(&refreshed.failed);
    Ok(json!({"holder": index, "restored": done.restored, "epoch": refreshed.epoch, "failed": failed}))
}

/// Makes the fragments of a holder that was taken out of the roster worthless.
///
/// # Errors
/// It is still in the roster; as [`refresh`].
pub async fn drop_holder(ctx: &Ctx<'_>, params: &Params) -> Answer {
    require_operator(ctx)?;
    let index: u8 = params.number("holder")?.ok_or_else(|| bad("holder", "is required"))?;
    let quorum = ctx.app.vault.quorum();
    if quorum.has_holder(index) {
        return Err(ApiError::Conflict(format!(
            "holder {index} is in the roster; take it out with `volvelle-holder change-roster`, on every machine, and restart"
        )));
    }
    let refreshed = quorum.refresh().await?;
    let tx = ctx.app.store.begin().await?;
    ctx.commit(tx, "fragments", &format!("holder {index} dropped")).await?;
    Ok(
        json!({"holder": index, "keys": refreshed.keys, "epoch": refreshed.epoch, "failed": failures(&refreshed.failed)}),
    )
}

/// By realm and key, why it failed.
fn failures(failed: &[(KeyName, String)]) -> Value {
    failed.iter().map(|((realm, key_id), why)| (format!("{}/{key_id}", hex::encode(realm)), json!(why))).collect()
}

/// Looks for what is wrong or could be better.
///
/// # Errors
/// The caller may not.
pub async fn doctor(ctx: &Ctx<'_>) -> Answer {
    require_operator(ctx)?;
    let mut findings: Vec<Value> = ctx.app.vault.quorum().examine_all().await.iter().map(finding).collect();
    findings.extend(crate::burial::findings(ctx.app).await?);
    Ok(json!({"findings": findings}))
}

fn finding(finding: &Finding) -> Value {
    let severity = match finding.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    json!({"severity": severity, "code": finding.code, "message": finding.message, "hint": finding.hint})
}
