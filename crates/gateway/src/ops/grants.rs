//! Changes of identities and of what they may do.
//!
//! What must stay true: a change is judged by the roles as they are in its own transaction; nobody gives, or gets by way of
//! another identity, more than he has; and an account that has an administrator keeps one.

use std::collections::BTreeSet;

use volvelle_domain::ItemPath;
use volvelle_domain::identity::{AuthMethod, Role, RoleRule, SubClaims};
use volvelle_domain::ids::{AccountId, AuthMethodId, Micros};
use volvelle_domain::rules::{self, Asker};
use volvelle_store::{Tx, accounts, auth_methods, roles};

use crate::ctx::{AUDIT, Ctx, ITEMS, METHODS, ROLES, TARGETS};
use crate::error::ApiError;

/// A change under way. Dropped without [`Change::commit`], it changes nothing.
pub struct Change<'a> {
    ctx: &'a Ctx<'a>,
    /// The transaction.
    pub tx: Tx,
    /// Every role of the account before the change.
    pub roles: Vec<Role>,
    before: Administration,
}

/// Who is left to put things right without a limit of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Administration {
    /// Somebody may change every role.
    roles: bool,
    /// Somebody may grant everything to anybody.
    everything: bool,
}

impl<'a> Change<'a> {
    /// Begins a change for a caller with `capability` on `path`.
    ///
    /// # Errors
    /// He has not.
    pub async fn begin(
        ctx: &'a Ctx<'a>,
        rule_type: &str,
        path: &ItemPath,
        capability: &str,
    ) -> Result<Change<'a>, ApiError> {
        ctx.require(rule_type, path.as_str(), capability)?;
        let change = Self::open(ctx).await?;
        change.require(rule_type, path, capability)?;
        Ok(change)
    }

    /// Begins a change whose object is not known yet: the caller must be judged by [`Change::require`].
    ///
    /// # Errors
    /// The store failed.
    pub async fn open(ctx: &'a Ctx<'a>) -> Result<Change<'a>, ApiError> {
        let mut tx = ctx.app.store.begin().await?;
        // It takes the account's row, so that changes of one account follow each other.
        accounts::bump_generation(&mut tx, ctx.id()).await?;
        let roles = roles::load_all(&mut tx, ctx.id()).await?;
        let before = administration(&mut tx, ctx.id(), &roles).await?;
        Ok(Self { ctx, tx, roles, before })
    }

    /// Refuses unless the caller has `capability` on `path` now.
    ///
    /// # Errors
    /// He has not.
    pub fn require(&self, rule_type: &str, path: &ItemPath, capability: &str) -> Result<(), ApiError> {
        let may = rules::allows(&self.roles, &self.ctx.asker(), rule_type, path.as_str(), capability);
        if may { Ok(()) } else { Err(self.ctx.unauthorized()) }
    }

    /// The role of that name.
    ///
    /// # Errors
    /// There is none.
    pub fn role(&self, name: &ItemPath) -> Result<Role, ApiError> {
        let role = self.roles.iter().find(|role| role.name == *name).cloned();
        role.ok_or_else(|| self.ctx.not_found(&format!("role {name}")))
    }

    /// The auth method of that name.
    ///
    /// # Errors
    /// There is none.
    pub async fn method(&mut self, name: &ItemPath) -> Result<AuthMethod, ApiError> {
        let method = auth_methods::find_by_name(&mut self.tx, self.ctx.id(), name).await?;
        method.ok_or_else(|| self.ctx.not_found(&format!("auth method {name}")))
    }

    /// Refuses to grant what the caller has not.
    ///
    /// # Errors
    /// One of the rules grants more.
    pub fn may_grant<'r>(&self, rules: impl IntoIterator<Item = &'r RoleRule>) -> Result<(), ApiError> {
        let asker = self.ctx.asker();
        let covered = |rule: &RoleRule| !rules::is_live(rule, self.ctx.now) || rules::covers(&self.roles, &asker, rule);
        if rules.into_iter().all(covered) { Ok(()) } else { Err(self.ctx.unauthorized()) }
    }

    /// Refuses to lift a denial for others unless the caller has everything that it may have kept from them.
    ///
    /// # Errors
    /// He has not.
    pub fn may_lift<'r>(&self, rules: impl IntoIterator<Item = &'r RoleRule>) -> Result<(), ApiError> {
        let denials = rules.into_iter().filter(|rule| rules::denies(rule) && rules::is_live(rule, self.ctx.now));
        let lifted: Vec<RoleRule> = denials.map(|rule| everything(&rule.rule_type, &rule.path)).collect();
        self.may_grant(&lifted)
    }

    /// Refuses to touch an identity that can do more than the caller.
    ///
    /// # Errors
    /// It can.
    pub fn may_impersonate(&self, method: AuthMethodId) -> Result<(), ApiError> {
        let given = self.roles.iter().filter(|role| role.assocs.iter().any(|assoc| assoc.auth_method == method));
        self.may_grant(given.flat_map(|role| &role.rules))
    }

    /// Commits the change with its audit entry.
    ///
    /// # Errors
    /// Nobody would be left to administer the account, or the store failed.
    pub async fn commit(mut self, object: &ItemPath, detail: &str) -> Result<(), ApiError> {
        let roles = roles::load_all(&mut self.tx, self.ctx.id()).await?;
        let after = administration(&mut self.tx, self.ctx.id(), &roles).await?;
        if (self.before.roles && !after.roles) || (self.before.everything && !after.everything) {
            return Err(ApiError::Conflict(
                "the account would have no administrator left; first give another auth method, without sub-claims and \
                 without an expiry, a role that may do everything on /*"
                    .to_owned(),
            ));
        }
        self.ctx.commit(self.tx, object.as_str(), detail).await
    }
}

/// The rule that grants everything of one type below a path for ever.
fn everything(rule_type: &str, path: &str) -> RoleRule {
    RoleRule {
        path: path.to_owned(),
        rule_type: rule_type.to_owned(),
        capabilities: rules::grantable(rule_type).iter().map(|word| (*word).to_owned()).collect(),
        ttl_minutes: 0,
        set_at: Micros(0),
    }
}

async fn administration(tx: &mut Tx, account: &AccountId, roles: &[Role]) -> Result<Administration, ApiError> {
    let changes_roles =
        |rule: &RoleRule| rule.rule_type == ROLES && rule.capabilities.iter().any(|word| word == "update");
    let holders: BTreeSet<AuthMethodId> = roles
        .iter()
        .filter(|role| role.rules.iter().any(changes_roles))
        .flat_map(|role| role.assocs.iter().map(|assoc| assoc.auth_method))
        .collect();
    let claims = SubClaims::new();
    let mut found = Administration::default();
    for auth_method in holders {
        let limits = auth_methods::load(tx, account, auth_method).await?.limits;
        if limits.access_expires > 0 {
            continue;
        }
        // At the end of time, nothing that ends by itself counts.
        let now = Micros(i64::MAX);
        let asker = Asker { auth_method, claims: &claims, force_sub_claims: limits.force_sub_claims, now };
        found.roles |= rules::allows(roles, &asker, ROLES, "/", "update");
        let core = [ITEMS, TARGETS, ROLES, METHODS, AUDIT];
        found.everything |= core.iter().all(|rule_type| rules::covers(roles, &asker, &everything(rule_type, "/*")));
        if found.roles && found.everything {
            break;
        }
    }
    Ok(found)
}
