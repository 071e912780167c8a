//! Accounts: their settings, and making more of them.

use serde_json::json;
use volvelle_domain::Secret;
use volvelle_domain::account::{Account, AccountSettings};
use volvelle_domain::connector::PasswordPolicy;
use volvelle_domain::identity::{AuthLimits, AuthMethod, Role, RoleAssoc, RoleRule, SubClaims};
use volvelle_domain::ids::{AccessId, AccountId, AuthMethodId, RoleId, Uid};
use volvelle_domain::password::{LONGEST, SHORTEST};
use volvelle_domain::{ItemPath, rules};
use volvelle_rotation::Parts;
use volvelle_store::{accounts, audit, auth_methods, roles};

use super::Answer;
use crate::credentials;
use crate::ctx::Ctx;
use crate::error::ApiError;
use crate::params::{Params, bad};
use crate::shape;

/// A new account and its administrator's key, which is shown once.
pub struct Founded {
    /// The account.
    pub account: AccountId,
    /// The administrator.
    pub access_id: AccessId,
    /// The administrator's key.
    pub access_key: Secret,
}

/// Whether an account may make more of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rank {
    /// It may.
    Operator,
    /// It may not.
    Tenant,
}

/// Makes an account with a key of its own and an administrator, with these credentials, who may do everything in it.
///
/// # Errors
/// The key cannot be generated (every holder must be up), or the store failed.
pub async fn found(
    parts: &Parts,
    name: &str,
    (access_id, key): (AccessId, Secret),
    rank: Rank,
    entry: Option<(&AccountId, audit::Entry)>,
) -> Result<Founded, ApiError> {
    let (entropy, now) = (parts.entropy.as_ref(), parts.clock.now());
    let mut realm = [0; 16];
    entropy.fill(&mut realm);
    parts.vault.quorum().create_key(realm, 1).await?;
    let account = Account {
        id: credentials::account_id(entropy),
        name: name.to_owned(),
        realm: Uid(realm),
        key_id: 1,
        generation: 1,
        content: 1,
        operator: rank == Rank::Operator,
        created_at: now,
        settings: AccountSettings::default(),
    };
    let path = |text: &str| ItemPath::parse(text).map_err(|_| ApiError::Internal);
    let method = AuthMethod {
        account: account.id.clone(),
        id: AuthMethodId(0),
        access_id,
        name: path("/admin")?,
        kind: "api_key".to_owned(),
        description: "the administrator".to_owned(),
        key_hash: credentials::hash(key.expose()),
        key_changed_at: now,
        limits: AuthLimits::default(),
        delete_protection: false,
        created_at: now,
        modified_at: now,
    };
    let role = Role {
        account: account.id.clone(),
        id: RoleId(0),
        name: path("/admin")?,
        description: "everything in the account".to_owned(),
        delete_protection: false,
        rules: Vec::new(),
        assocs: Vec::new(),
        created_at: now,
        modified_at: now,
    };
    let mut tx = parts.store.begin().await?;
    accounts::add(&mut tx, &account).await?;
    let id = auth_methods::add(&mut tx, &method).await?;
    let role_id = roles::add(&mut tx, &role).await?;
    for rule_type in rules::RULE_TYPES {
        let capabilities = rules::grantable(rule_type).iter().map(|word| (*word).to_owned()).collect();
        let rule = RoleRule {
            path: "/*".to_owned(),
            rule_type: (*rule_type).to_owned(),
            capabilities,
            ttl_minutes: 0,
            set_at: now,
        };
        roles::set_rule(&mut tx, &account.id, role_id, &rule).await?;
    }
    let assoc = RoleAssoc {
        id: credentials::assoc_id(entropy),
        auth_method: id,
        auth_method_name: method.name.clone(),
        access_id: method.access_id.clone(),
        sub_claims: SubClaims::new(),
        case_sensitive: true,
    };
    roles::add_assoc(&mut tx, &account.id, role_id, &assoc).await?;
    if let Some((account, entry)) = entry {
        audit::append(&mut tx, account, &[entry]).await?;
    }
    tx.commit().await?;
    Ok(Founded { account: account.id, access_id: method.access_id, access_key: key })
}

/// Makes another account; for administrators of the operator's account.
///
/// # Errors
/// The caller may not, or the key cannot be generated.
pub async fn create(ctx: &Ctx<'_>, params: &Params) -> Answer {
    ctx.require_admin()?;
    if !ctx.account().operator {
        return Err(ctx.unauthorized());
    }
    let name = params.text("name").ok_or_else(|| bad("name", "is required"))?;
    let entry = ctx.entry(name, "ok", "");
    let parts = ctx.app.engine.parts();
    let admin = (credentials::access_id(parts.entropy.as_ref()), credentials::access_key(parts.entropy.as_ref()));
    let founded = found(parts, name, admin, Rank::Tenant, Some((ctx.id(), entry))).await?;
    ctx.note();
    let key = founded.access_key.expose_str().unwrap_or_default();
    Ok(json!({"account_id": founded.account.0, "access_id": founded.access_id.0, "access_key": key}))
}

/// Shows the account's settings.
///
/// # Errors
/// None; every identity of the account may know them.
pub fn settings(ctx: &Ctx<'_>) -> Answer {
    let (account, s) = (ctx.account(), &ctx.account().settings);
    Ok(json!({
        "account_id": account.id.0,
        "company_name": account.name,
        "realm": hex::encode(account.realm.0),
        "object_version_settings": {"default-versioning": s.default_versioning, "force_new_versions": s.force_new_versions,
            "max_versions": s.max_versions, "items": []},
        "general_settings": {
            "protect_items_by_default": false,
            "password_policy": shape::policy(&s.password_policy),
            "rotation_secret_max_interval": {"enable": s.max_rotation_interval.is_some(),
                "max_interval_by_days": s.max_rotation_interval.unwrap_or(0)},
            "item_locking": {"enable": s.item_locking_enabled},
        },
        "system_access_creds_settings": {"jwt_ttl_default": s.jwt_ttl_default, "jwt_ttl_minimum": s.jwt_ttl_min,
            "jwt_ttl_maximum": s.jwt_ttl_max},
    }))
}

/// Changes the account's settings.
///
/// # Errors
/// The caller may not, or a parameter is wrong.
pub async fn update_settings(ctx: &Ctx<'_>, params: &Params) -> Answer {
    ctx.require_admin()?;
    let settings = changed(&ctx.account().settings, params)?;
    let mut tx = ctx.app.store.begin().await?;
    accounts::update_settings(&mut tx, ctx.id(), &settings).await?;
    ctx.commit(tx, ctx.id().0.as_str(), "").await?;
    Ok(json!({"updated": true}))
}

fn changed(before: &AccountSettings, params: &Params) -> Result<AccountSettings, ApiError> {
    let mut after = before.clone();
    for (name, value) in [
        ("jwt-ttl-default", &mut after.jwt_ttl_default),
        ("jwt-ttl-min", &mut after.jwt_ttl_min),
        ("jwt-ttl-max", &mut after.jwt_ttl_max),
    ] {
        match params.int(name).filter(|minutes| *minutes != 0) {
            Some(minutes @ 1..=525_600) => *value = minutes,
            Some(_) => return Err(bad(name, "must be between 1 and 525600 minutes")),
            None => {}
        }
    }
    if !(after.jwt_ttl_min <= after.jwt_ttl_default && after.jwt_ttl_default <= after.jwt_ttl_max) {
        return Err(bad("jwt-ttl-default", "must lie between jwt-ttl-min and jwt-ttl-max"));
    }
    match params.int("max-versions").filter(|n| *n != 0) {
        Some(n @ 1..=300) => after.max_versions = u32::try_from(n).unwrap_or(after.max_versions),
        Some(_) => return Err(bad("max-versions", "must be between 1 and 300")),
        None => {}
    }
    after.default_versioning = params.flag("default-versioning").unwrap_or(after.default_versioning);
    after.force_new_versions = params.flag("force-new-versions").unwrap_or(after.force_new_versions);
    after.item_locking_enabled = params.flag("item-locking-enabled").unwrap_or(after.item_locking_enabled);
    if let Some(days) = params.number::<u32>("max-rotation-interval")?.filter(|days| *days != 0) {
        after.max_rotation_interval = Some(days);
    }
    match params.flag("max-rotation-interval-enable") {
        Some(false) => after.max_rotation_interval = None,
        Some(true) if after.max_rotation_interval.is_none() => {
            return Err(bad("max-rotation-interval", "is needed to enable the limit"));
        }
        _ => {}
    }
    after.password_policy = policy(&after.password_policy, params)?;
    Ok(after)
}

fn policy(before: &PasswordPolicy, params: &Params) -> Result<PasswordPolicy, ApiError> {
    let after = PasswordPolicy {
        length: params.number("password-length")?.filter(|n| *n != 0).unwrap_or(before.length),
        lower: params.flag("use-lower-letters").unwrap_or(before.lower),
        upper: params.flag("use-capital-letters").unwrap_or(before.upper),
        digits: params.flag("use-numbers").unwrap_or(before.digits),
        special: params.flag("use-special-characters").unwrap_or(before.special),
    };
    if !(SHORTEST..=LONGEST).contains(&after.length) {
        return Err(bad("password-length", format!("must be between {SHORTEST} and {LONGEST}")));
    }
    if !(after.lower || after.upper || after.digits || after.special) {
        return Err(bad("use-lower-letters", "at least one class of characters must be allowed"));
    }
    Ok(after)
}
