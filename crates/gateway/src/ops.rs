//! The operations, one file per family. Each takes the call and its parameters and gives the body of the answer.

pub mod access;
pub mod account;
pub mod audit;
pub mod auth;
pub mod callers;
pub mod fleet;
pub mod fragments;
mod grants;
pub mod items;
pub mod keys;
pub mod locks;
pub mod methods;
mod parents;
pub mod rekey;
pub mod roles;
pub mod rotated;
pub mod rotated_update;
pub mod settings;
pub mod statics;
pub mod targets;

use serde_json::Value;

use crate::ctx::Ctx;
use crate::error::ApiError;
use crate::params::Params;

/// What an operation gives.
pub type Answer = Result<Value, ApiError>;

/// Does the operation of that name.
///
/// # Errors
/// Whatever the operation refuses.
pub async fn run(ctx: &Ctx<'_>, name: &str, params: &Params) -> Answer {
    if let Some(kind) = name.strip_prefix("target-create-") {
        return targets::create(ctx, kind, params).await;
    }
    if let Some(kind) = name.strip_prefix("target-update-") {
        return targets::update(ctx, kind, params).await;
    }
    if let Some(kind) = name.strip_prefix("rotated-secret-create-") {
        return rotated::create(ctx, Some(kind), params).await;
    }
    if let Some(kind) = name.strip_prefix("rotated-secret-update-") {
        return rotated_update::update(ctx, Some(kind), params).await;
    }
    match name {
        "create-rotated-secret" => rotated::create(ctx, None, params).await,
        "update-rotated-secret" | "gateway-update-item" => rotated_update::update(ctx, None, params).await,
        "target-get" => targets::get(ctx, params).await,
        "target-get-details" => targets::details(ctx, params).await,
        "target-list" => targets::list(ctx, params).await,
        "target-delete" => targets::delete(ctx, params).await,
        "target-trust-host-key" => targets::trust(ctx, params).await,
        "rotated-secret-list" => rotated::producers(ctx).await,
        "gateway-rotate-secret" => rotated::rotate(ctx, params).await,
        "rotated-secret-verify" => rotated::verify(ctx, params).await,
        "rotated-secret-repair" => Box::pin(rotated::repair(ctx, params)).await,
        "rotation-list" => rotated::history(ctx, params).await,
        "rotated-secret-delete" | "delete-item" => items::delete(ctx, params).await,
        "delete-items" => items::delete_many(ctx, params).await,
        "describe-item" => items::describe(ctx, params).await,
        "list-items" | "gateway-list-rotated-secrets" => items::list(ctx, name, params).await,
        "update-item" => items::update(ctx, params).await,
        "get-tags" => items::tags(ctx, params).await,
        "set-item-state" => items::set_state(ctx, params).await,
        "lock-item" => locks::lock(ctx, params).await,
        "unlock-item" => locks::unlock(ctx, params).await,
        "create-dfc-key" => keys::create(ctx, params).await,
        "gateway-list-customer-fragments" => keys::list_fragments(ctx).await,
        "create-secret" => statics::create(ctx, params).await,
        "get-secret-value" => statics::value(ctx, params).await,
        "update-secret-val" => statics::update(ctx, params).await,
        "rollback-secret" => statics::rollback(ctx, params).await,
        "get-account-settings" => account::settings(ctx),
        "update-account-settings" => account::update_settings(ctx, params).await,
        "account-create" => account::create(ctx, params).await,
        "account-overview" => fleet::overview(ctx, params).await,
        "item-search" => fleet::search(ctx, params).await,
        "folder-list" => fleet::folders(ctx, params).await,
        "holder-list" => fleet::holders(ctx).await,
        "explain-access" => access::explain(ctx, params).await,
        "audit-list" => audit::list(ctx, params).await,
        "audit-verify" => audit::verify(ctx).await,
        "validate-token" => Ok(auth::validate(ctx)),
        "revoke-token" => auth::revoke(ctx).await,
        "fragments-status" => fragments::status(ctx).await,
        "fragments-refresh" => fragments::refresh(ctx).await,
        "fragments-repair" => fragments::repair(ctx, params).await,
        "fragments-add-holder" => fragments::add_holder(ctx, params).await,
        "fragments-drop-holder" => fragments::drop_holder(ctx, params).await,
        "fragments-rekey" => rekey::rekey(ctx, params).await,
        "fragments-doctor" => fragments::doctor(ctx).await,
        "revoke-all-tokens" => auth::revoke_all(ctx).await,
        other => identities(ctx, other, params).await,
    }
}

async fn identities(ctx: &Ctx<'_>, name: &str, params: &Params) -> Answer {
    match name {
        "auth-method-create-api-key" => methods::create(ctx, params).await,
        "auth-method-update-api-key" => methods::update(ctx, params).await,
        "auth-method-get" => methods::get(ctx, params).await,
        "auth-method-list" => methods::list(ctx, params).await,
        "auth-method-delete" => methods::delete(ctx, params).await,
        "reset-access-key" => methods::reset(ctx, params).await,
        "create-role" => roles::create(ctx, params).await,
        "update-role" => roles::update(ctx, params).await,
        "get-role" => roles::get(ctx, params).await,
        "list-roles" => roles::list(ctx, params).await,
        "delete-role" => roles::delete(ctx, params).await,
        "set-role-rule" => roles::set_rule(ctx, params).await,
        "delete-role-rule" => roles::delete_rule(ctx, params).await,
        "assoc-role-am" => roles::associate(ctx, params).await,
        "update-assoc" => roles::update_assoc(ctx, params).await,
        "delete-assoc" => roles::delete_assoc(ctx, params).await,
        "describe-permissions" => roles::permissions(ctx, params),
        other => Err(ApiError::UnknownCommand(other.to_owned())),
    }
}
