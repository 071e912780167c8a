//! One authenticated call: what it may do, and what it leaves in the audit log.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;
use volvelle_domain::ItemPath;
use volvelle_domain::account::Account;
use volvelle_domain::ids::{AccountId, Micros};
use volvelle_domain::item::Item;
use volvelle_domain::rules::{self, Asker};
use volvelle_domain::target::Target;
use volvelle_holder::asker;
use volvelle_store::{Tx, audit, items, targets};

use crate::app::{App, Caller, View};
use crate::committer::CommitError;
use crate::error::ApiError;
use crate::params::Params;
use crate::trail::{Basis, Noted};

/// Rules on items.
pub const ITEMS: &str = "item-rule";
/// Rules on targets.
pub const TARGETS: &str = "target-rule";
/// Rules on roles.
pub const ROLES: &str = "role-rule";
/// Rules on auth methods.
pub const METHODS: &str = "auth-method-rule";
/// Rules on the audit log.
pub const AUDIT: &str = "search-rule";

/// One call.
pub struct Ctx<'a> {
    /// The gateway.
    pub app: &'a App,
    /// What is known of the account.
    pub view: Arc<View>,
    /// Who calls.
    pub caller: Arc<Caller>,
    /// From where.
    pub remote: Arc<str>,
    /// The time by which everything in this call is judged.
    pub now: Micros,
    operation: &'a str,
    action: Cow<'static, str>,
    noted: AtomicBool,
}

impl<'a> Ctx<'a> {
    /// A call of `operation`.
    #[must_use]
    pub fn new(app: &'a App, view: Arc<View>, caller: Arc<Caller>, remote: Arc<str>, operation: &'a str) -> Self {
        let (now, action) = (app.now(), action(operation));
        Self { app, view, caller, remote, now, operation, action, noted: AtomicBool::new(false) }
    }

    /// The caller's account.
    #[must_use]
    pub fn account(&self) -> &Account {
        &self.caller.account
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &AccountId {
        &self.caller.account.id
    }

    /// The caller's access id.
    #[must_use]
    pub fn who(&self) -> &str {
        &self.caller.method.access_id.0
    }

    /// Whether the caller has `capability` on `path`.
    #[must_use]
    pub fn may(&self, rule_type: &str, path: &str, capability: &str) -> bool {
        rules::allows(&self.view.roles, &self.asker(), rule_type, path, capability)
    }

    /// Everything the caller may do on `path`, sorted.
    #[must_use]
    pub fn capabilities(&self, rule_type: &str, path: &str) -> Vec<String> {
        rules::capabilities(&self.view.roles, &self.asker(), rule_type, path).into_iter().collect()
    }

    /// The caller as the rules see him.
    #[must_use]
    pub fn asker(&self) -> Asker<'_> {
        Asker {
            auth_method: self.caller.method.id,
            claims: &self.caller.claims,
            force_sub_claims: self.caller.method.limits.force_sub_claims,
            now: self.now,
        }
    }

    /// Refuses, whether or not the object exists, unless the caller has `capability` on `path`.
    ///
    /// # Errors
    /// He has not.
    pub fn require(&self, rule_type: &str, path: &str, capability: &str) -> Result<(), ApiError> {
        if self.may(rule_type, path, capability) { Ok(()) } else { Err(self.unauthorized()) }
    }

    /// Refuses unless the caller may change the roles of the whole account, which is what makes an administrator.
    ///
    /// # Errors
    /// He may not.
    pub fn require_admin(&self) -> Result<(), ApiError> {
        self.require(ROLES, "/", "update")
    }

    /// The refusal that tells nothing.
    #[must_use]
    pub fn unauthorized(&self) -> ApiError {
        ApiError::Unauthorized { account: self.id().0.clone(), access_id: self.who().to_owned() }
    }

    /// There is no such thing, told to somebody who may know.
    #[must_use]
    pub fn not_found(&self, what: &str) -> ApiError {
        ApiError::NotFound { account: self.id().0.clone(), access_id: self.who().to_owned(), what: what.to_owned() }
    }

    /// The item of that name, for a caller with `capability` on it.
    ///
    /// # Errors
    /// He has not the right, or there is no such item.
    pub async fn item(&self, path: &ItemPath, capability: &str) -> Result<Item, ApiError> {
        self.require(ITEMS, path.as_str(), capability)?;
        let mut tx = self.app.store.read().await?;
        let item = items::find(&mut tx, self.id(), path).await?;
        item.ok_or_else(|| self.not_found(&format!("item {path}")))
    }

    /// The target of that name, for a caller with `capability` on it.
    ///
    /// # Errors
    /// He has not the right, or there is no such target.
    pub async fn target(&self, path: &ItemPath, capability: &str) -> Result<Target, ApiError> {
        self.require(TARGETS, path.as_str(), capability)?;
        let mut tx = self.app.store.read().await?;
        let target = targets::find(&mut tx, self.id(), path).await?;
        target.ok_or_else(|| self.not_found(&format!("target {path}")))
    }

    /// Names of the parameters of this call's operation.
    pub fn parameter_names(&self) -> impl Iterator<Item = String> + use<> {
        let operation = volvelle_api::find(&self.app.operations, self.operation);
        let properties = operation.and_then(|op| op.params.get("properties")).and_then(Value::as_object);
        properties.into_iter().flatten().map(|(name, _)| name.clone()).collect::<Vec<_>>().into_iter()
    }

    /// The audit entry of this call on `object`.
    #[must_use]
    pub fn entry(&self, object: &str, outcome: &str, detail: &str) -> audit::Entry {
        audit::Entry {
            at: self.now,
            actor: self.who().to_owned(),
            action: self.action.to_string(),
            object: object.to_owned(),
            outcome: outcome.to_owned(),
            remote: self.remote.to_string(),
            detail: detail.to_owned(),
            request: asker::evaluated().unwrap_or_default(),
        }
    }

    /// The same as the line to be stored.
    #[must_use]
    pub fn line(&self, object: &str, outcome: &str, detail: &str) -> audit::Line {
        let request = asker::evaluated().unwrap_or_default();
        let said = audit::Said {
            at: self.now,
            actor: self.who(),
            action: &self.action,
            object,
            outcome,
            remote: &self.remote,
            detail,
            request: &request,
        };
        said.line()
    }

    /// Commits a change together with its audit entry.
    ///
    /// # Errors
    /// The store failed: nothing was changed, or it is not known.
    pub async fn commit(&self, mut tx: Tx, object: &str, detail: &str) -> Result<(), ApiError> {
        audit::append(&mut tx, self.id(), &[self.entry(object, "ok", detail)]).await?;
        tx.commit().await?;
        asker::note();
        self.note();
        Ok(())
    }

    /// The entry of this call is, or will be, written by whoever does its work.
    pub fn note(&self) {
        self.noted.store(true, Ordering::Relaxed);
    }

    /// Ends the call: what left no entry of its own gets one, refusals too.
    ///
    /// # Errors
    /// The entry cannot be written, so the answer must not leave.
    pub async fn close(&self, params: &Params, outcome: &Result<Value, ApiError>) -> Result<(), ApiError> {
        if self.noted.load(Ordering::Relaxed) && outcome.is_ok() {
            return Ok(());
        }
        let object = ["name", "names", "role-name", "path", "assoc-id"].iter().find_map(|name| params.text(name));
        let word = match outcome {
            Ok(_) => "ok",
            Err(ApiError::Unauthorized { .. }) => "denied",
            Err(_) => "failed",
        };
        let line = self.line(object.unwrap_or_default(), word, "");
        let noted = Noted { account: self.id().clone(), line, basis: Basis::Nothing };
        self.app.trail.commit(noted).await.map_err(unwritten)?;
        asker::note();
        Ok(())
    }
}

impl Drop for Ctx<'_> {
    /// A call that is cut off in the middle, by its time or by the end of the gateway, leaves its entry too, if the holders were asked for it.
    fn drop(&mut self) {
        if self.noted.load(Ordering::Relaxed) || !asker::is_unnoted() {
            return;
        }
        let line = self.line("", "aborted", "");
        let (trail, account) = (self.app.trail.clone(), self.id().clone());
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { trail.commit(Noted { account, line, basis: Basis::Nothing }).await.is_ok() });
        }
    }
}

/// An answer without an audit entry does not leave.
pub(crate) fn unwritten(error: CommitError<Arc<volvelle_store::StoreError>>) -> ApiError {
    tracing::error!(?error, "an audit entry cannot be written");
    ApiError::Unavailable {
        message: "the audit log cannot be written".to_owned(),
        hint: "look at the database and at the gateway's log".to_owned(),
    }
}

/// The audit log's word for an operation.
pub(crate) fn action(operation: &str) -> Cow<'static, str> {
    let word = match operation {
        "rotated-secret-get-value" | "get-rotated-secret-value" => "get_rotated_secret_value",
        "describe-item" => "get_item",
        "gateway-rotate-secret" => "rotate_item",
        "rotated-secret-delete" | "delete-item" | "delete-items" => "delete_item",
        "create-rotated-secret" | "create-secret" => "create_item",
        "update-rotated-secret" | "gateway-update-item" | "update-item" | "update-secret-val" => "update_item",
        "target-get" | "target-get-details" => "get_target",
        "target-list" => "list_targets",
        "target-delete" => "delete_target",
        "assoc-role-am" => "create_assoc_role_auth_method",
        "auth-method-create-api-key" => "create_auth_method",
        "auth-method-update-api-key" => "update_auth_method",
        "auth-method-get" => "get_auth_method",
        "auth-method-delete" => "delete_auth_method",
        other if other.starts_with("rotated-secret-create-") => "create_item",
        other if other.starts_with("rotated-secret-update-") => "update_item",
        other if other.starts_with("target-create-") => "create_target",
        other if other.starts_with("target-update-") => "update_target",
        other => return Cow::Owned(other.replace('-', "_")),
    };
    Cow::Borrowed(word)
}
