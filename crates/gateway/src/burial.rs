//! Deleted versions on their way to the holders, which never evaluate them again: so a stolen backup of the database is not read through
//! a live gateway.
//!
//! What must stay true: what is to be buried is written in the transaction of the deletion, so that nothing is buried that was not
//! deleted, and nothing deleted is forgotten; every holder is told until it has it. Versions that only leave the history (`max-versions`)
//! are not buried: whoever restores a database together with its targets needs them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use volvelle_domain::ids::Micros;
use volvelle_domain::item::{Item, ItemVersion};
use volvelle_domain::target::Target;
use volvelle_holder::quorum::{Grave, LARGEST_BURIAL};
use volvelle_store::tombstones::{self, Tombstone};
use volvelle_store::{StoreError, Tx, targets};

use crate::app::App;
use crate::ctx::Ctx;
use crate::error::ApiError;

/// How often it is looked for what is left.
const BEAT: Duration = Duration::from_secs(15);
/// A day.
const DAY: Micros = Micros(24 * 3_600_000_000);
/// Messages to each holder in one round, at most.
const MESSAGES: usize = 64;

/// Leaves versions of an item, which this transaction deletes, for the holders. A record that is damaged opens nowhere anyway.
///
/// # Errors
/// The store failed.
pub async fn of_versions(ctx: &Ctx<'_>, tx: &mut Tx, item: &Item, versions: &[ItemVersion]) -> Result<(), StoreError> {
    let bind = |version| ctx.app.vault.bind_version(ctx.account(), item, version);
    let inputs: Vec<Vec<u8>> = versions.iter().filter_map(|version| Some(bind(version).ok()?.x().to_vec())).collect();
    tombstones::add(tx, ctx.id(), &inputs, ctx.now).await
}

/// The same for every version of a target.
///
/// # Errors
/// The store failed.
pub async fn of_target(ctx: &Ctx<'_>, tx: &mut Tx, target: &Target) -> Result<(), ApiError> {
    let kept = targets::list_versions(tx, ctx.id(), target.id).await?;
    let bind = |version| ctx.app.vault.bind_target(ctx.account(), target, version);
    let inputs: Vec<Vec<u8>> = kept.iter().filter_map(|version| Some(bind(version).ok()?.x().to_vec())).collect();
    Ok(tombstones::add(tx, ctx.id(), &inputs, ctx.now).await?)
}

/// What is wrong with burials, as `fragments-doctor` tells it.
///
/// # Errors
/// The store failed.
pub async fn findings(app: &App) -> Result<Vec<Value>, StoreError> {
    let mut tx = app.store.read().await?;
    let waiting = tombstones::count(&mut tx).await?;
    drop(tx);
    let warning = |code: &str, message: String, hint: &str| json!({"severity": "warning", "code": code, "message": message, "hint": hint});
    let mut findings = Vec::new();
    if waiting.oldest.is_some_and(|oldest| app.now().0 - oldest.0 > DAY.0) {
        let message =
            format!("{} deleted versions are not buried by every holder, some for more than a day", waiting.count);
        let hint = "look with `volvelle fragments status` which holder lacks them; its policy must allow `bury`";
        findings.push(warning("tombstones-pending", message, hint));
    }
    let statuses = app.vault.quorum().status().await;
    let counts: BTreeSet<u64> = statuses.iter().filter_map(|status| status.tombstones).collect();
    if counts.len() > 1 && waiting.count == 0 {
        let hint = "one that lacks some takes them over within ten minutes; if it does not, compare the holders' logs";
        findings.push(warning(
            "tombstones-differ",
            "the holders have buried different numbers of versions".to_owned(),
            hint,
        ));
    }
    Ok(findings)
}

/// Tells the holders until the gateway ends.
pub async fn follow(app: Arc<App>, shutdown: CancellationToken) {
    let mut place = (String::new(), 0);
    loop {
        if let Err(error) = round(&app, &mut place).await {
            tracing::warn!(%error, "deleted versions cannot be told to the holders");
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = app.burials.notified() => {}
            () = tokio::time::sleep(BEAT) => {}
        }
    }
}

/// Goes on where the last round ended, and begins anew after the last one. What a holder did not take is left for a later round.
async fn round(app: &App, place: &mut (String, i64)) -> Result<(), StoreError> {
    let mut asked = app.vault.quorum().all_holders();
    for _ in 0..MESSAGES {
        let mut tx = app.store.read().await?;
        let limit = u32::try_from(LARGEST_BURIAL).unwrap_or(u32::MAX);
        let mut some = tombstones::waiting(&mut tx, app.now(), (&place.0, place.1), limit).await?;
        drop(tx);
        // A message is about one tenant.
        let same = some.first().map(|first| first.account.clone());
        some.retain(|tombstone| Some(&tombstone.account) == same.as_ref());
        let Some(last) = some.last() else {
            *place = (String::new(), 0);
            return Ok(());
        };
        *place = (last.account.0.clone(), last.id);
        tell(app, some, &mut asked).await?;
    }
    Ok(())
}

/// One that fails or refuses is not asked again in this round.
async fn tell(app: &App, some: Vec<Tombstone>, asked: &mut u16) -> Result<(), StoreError> {
    let quorum = app.vault.quorum();
    let mut graves: Vec<Grave> =
        some.iter().map(|tombstone| Grave { x: tombstone.input.clone(), holders: tombstone.holders }).collect();
    for (holder, why) in quorum.bury(&mut graves, *asked).await {
        *asked &= !(1 << (holder & 15));
        tracing::debug!(holder, why, "a holder has not buried deleted versions");
    }
    let all = quorum.all_holders();
    let mut tx = app.store.begin().await?;
    for (mut tombstone, grave) in some.into_iter().zip(graves) {
        if grave.holders != tombstone.holders {
            tombstone.holders = grave.holders;
            tombstones::note(&mut tx, &tombstone, all).await?;
        }
    }
    tx.commit().await
}
