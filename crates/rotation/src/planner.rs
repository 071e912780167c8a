//! Turns due dates into rotations. It takes no input but the time, and asks the database what is due and can be opened here.

use volvelle_domain::item::Item;
use volvelle_store::{accounts, breakers, items};

use crate::engine::Engine;
use crate::{EngineError, books, work};

/// Secrets planned in one round.
const ROUND: u32 = 200;

/// Plans what is due now.
pub(crate) async fn plan(engine: &Engine) -> Result<(), EngineError> {
    let now = engine.now();
    let mut tx = engine.parts().store.read().await?;
    let due = items::due(&mut tx, now, ROUND, &engine.parts().vault.quorum().customer().checks()).await?;
    drop(tx);
    for item in due {
        let work = work::of("plan", &item.account, item.id.0);
        // Boxed: the engine's loop stays small.
        if let Err(error) = Box::pin(work.scope(one(engine, &item))).await {
            tracing::warn!(%error, item = %item.name, "a secret that is due cannot be planned");
            postpone(engine, &item, &error.to_string()).await?;
        }
    }
    Ok(())
}

async fn one(engine: &Engine, item: &Item) -> Result<(), EngineError> {
    let now = engine.now();
    let rotator = item.rotator.as_ref().ok_or(EngineError::NotRotated)?;
    let mut tx = engine.parts().store.read().await?;
    let account = accounts::find(&mut tx, &item.account).await?;
    let account = account.ok_or(volvelle_store::StoreError::NotFound("the account"))?;
    let open_until = breakers::open_until(&mut tx, &item.account, rotator.target, now).await?;
    drop(tx);
    if let Some(until) = open_until {
        let mut tx = engine.parts().store.begin().await?;
        let mut item = items::lock(&mut tx, &item.account, item.id).await?;
        if let Some(rotator) = item.rotator.as_mut() {
            rotator.next_rotation_at = Some(until);
        }
        items::update(&mut tx, &item).await?;
        return Ok(tx.commit().await?);
    }
    // What is due may be the end of a grace only.
    let last = rotator.last_rotation_at.unwrap_or(item.created_at);
    let issue_due = books::next_issue(rotator, books::seed(&item.uid.0), last).is_some_and(|due| due <= now);
    if !issue_due && books::end_of_grace(rotator, last) <= now && engine.enqueue_endings(item).await? {
        return Ok(());
    }
    engine.enqueue(&account, item, ("schedule", "volvelle"), None).await.map(|_| ())
}

/// A secret that cannot even be planned is tried again later and shows why.
async fn postpone(engine: &Engine, item: &Item, why: &str) -> Result<(), EngineError> {
    let now = engine.now();
    let mut tx = engine.parts().store.begin().await?;
    let mut item = items::lock(&mut tx, &item.account, item.id).await?;
    let seed = books::seed(&item.uid.0);
    if let Some(rotator) = item.rotator.as_mut() {
        rotator.status = volvelle_domain::item::RotatorStatus::RotationFailed;
        why.clone_into(&mut rotator.last_error);
        books::plan_next(rotator, seed, now);
    }
    items::update(&mut tx, &item).await?;
    Ok(tx.commit().await?)
}
