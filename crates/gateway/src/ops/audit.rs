//! Reading and checking the audit log.

use serde_json::{Value, json};
use volvelle_store::audit::{self, Verdict};

use super::Answer;
use crate::ctx::{AUDIT, Ctx};
use crate::params::Params;
use crate::shape;

/// Entries of one page.
const PAGE: u32 = 1000;

/// Lists entries, newest first.
///
/// # Errors
/// The caller may not read the log.
pub async fn list(ctx: &Ctx<'_>, params: &Params) -> Answer {
    let all = ctx.may(AUDIT, "/", "read");
    if !all {
        ctx.require(AUDIT, "/self", "read")?;
    }
    let limit = params.number::<u32>("limit")?.unwrap_or(100).clamp(1, PAGE);
    let own = ctx.who().to_owned();
    let text = |name: &str| params.text(name).unwrap_or_default().to_owned();
    let filter = audit::Filter {
        actor: if all { text("actor") } else { own },
        action: text("action"),
        object: text("object"),
        order: audit::Order::NewestFirst,
        after: params.text("pagination-token").and_then(|token| token.parse().ok()).unwrap_or(0),
        limit,
    };
    let mut tx = ctx.app.store.read().await?;
    let page = audit::list(&mut tx, ctx.id(), &filter).await?;
    drop(tx);
    let next = page.next.map(|seq| seq.to_string()).unwrap_or_default();
    let entries: Vec<Value> = page
        .entries
        .iter()
        .map(|chained| {
            let e = &chained.entry;
            json!({"seq": chained.seq, "at": shape::time(e.at), "actor": e.actor, "action": e.action, "object": e.object,
                "outcome": e.outcome, "remote": e.remote, "detail": e.detail, "request": e.request, "hash": hex::encode(chained.hash)})
        })
        .collect();
    Ok(json!({"entries": entries, "next_page": next}))
}

/// Checks the hash chain.
///
/// # Errors
/// The caller may not read the log.
pub async fn verify(ctx: &Ctx<'_>) -> Answer {
    ctx.require(AUDIT, "/", "read")?;
    let mut tx = ctx.app.store.read().await?;
    Ok(match audit::verify(&mut tx, ctx.id()).await? {
        Verdict::Whole(entries) => json!({"valid": true, "entries": entries}),
        Verdict::BrokenAt(seq) => json!({"valid": false, "broken_at": seq}),
    })
}
