//! Whether a request that reached a web hook came from a gateway: the hook asks, with the header that it was sent.
//!
//! What must stay true: the asker needs no token, so that nothing is told but yes or no, and guessing is slowed down.

use serde_json::json;
use volvelle_domain::ItemPath;
use volvelle_domain::ids::AccountId;
use volvelle_holder::asker;
use volvelle_rotation::work;
use volvelle_store::audit::Said;
use volvelle_store::{accounts, items};

use super::Answer;
use crate::app::App;
use crate::ctx::unwritten;
use crate::error::ApiError;
use crate::params::Params;
use crate::server::Origin;
use crate::trail::{Basis, Noted};

/// Longest header that is looked at.
const LONGEST: usize = 8 * 1024;

/// Says yes to a proof of this account for the item named, and refuses everything else in the same way.
///
/// # Errors
/// It is no proof, or not that one; or too few holders answer.
pub async fn validate(app: &App, from: &Origin, params: &Params) -> Answer {
    let now = app.now();
    // The hook has no token: it is a part of the rotation that called it.
    asker::identify(&work::own());
    app.throttle.check(CALLER, from.remote.address, now).map_err(ApiError::SlowDown)?;
    let expected = params.text("expected_access_id").unwrap_or_default();
    let wanted = params.text("expected_item_name").unwrap_or_default();
    match proved(app, params.text("creds").unwrap_or_default()).await? {
        Some((account, item)) if account == expected && (wanted.is_empty() || same(wanted, &item)) => {
            app.throttle.succeeded(CALLER, from.remote.address);
            let line = Said {
                at: now,
                actor: "web hook",
                action: "validate_producer_credentials",
                object: item.as_str(),
                outcome: "ok",
                remote: &from.remote.shown,
                detail: "",
                request: &asker::evaluated().unwrap_or_default(),
            }
            .line();
            let noted = Noted { account: AccountId(account.clone()), line, basis: Basis::Nothing };
            app.trail.commit(noted).await.map_err(unwritten)?;
            asker::note();
            Ok(json!({"access_id": account, "item_name": item.as_str()}))
        }
        _ => {
            app.throttle.failed(CALLER, from.remote.address, now);
            Err(ApiError::Unauthenticated)
        }
    }
}

const CALLER: &str = "validate-producer-credentials";

fn same(wanted: &str, item: &ItemPath) -> bool {
    ItemPath::parse(wanted).is_ok_and(|wanted| wanted.as_str() == item.as_str())
}

/// The account and the item that a proof is for, if it is one.
async fn proved(app: &App, creds: &str) -> Result<Option<(String, ItemPath)>, ApiError> {
    if creds.len() > LONGEST {
        return Ok(None);
    }
    let mut parts = creds.splitn(3, '.');
    let (Some(account), Some(name), Some(record)) = (parts.next(), parts.next(), parts.next()) else { return Ok(None) };
    let name = hex::decode(name).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let name = name.and_then(|name| ItemPath::parse(&name).ok());
    let (Some(name), Ok(record)) = (name, hex::decode(record)) else { return Ok(None) };
    let mut tx = app.store.read().await?;
    let Some(account) = accounts::find(&mut tx, &AccountId(account.to_owned())).await? else { return Ok(None) };
    let Some(item) = items::find(&mut tx, &account.id, &name).await? else { return Ok(None) };
    drop(tx);
    let good = app.vault.check_caller(&account, &item, &record, app.now()).await?;
    Ok(good.then_some((account.id.0, name)))
}
