//! The gateway as a whole: what every operation works with, who calls, and what is remembered between calls.
//!
//! What must stay true: nothing remembered is used without its stamp being compared with the database, either before the
//! operation or, for reads of values, in the transaction of their audit entry.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use hyper::StatusCode;
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::{Value, json};
use volvelle_api::{Operation, quirks};
use volvelle_connectors::Registry;
use volvelle_domain::Secret;
use volvelle_domain::account::Account;
use volvelle_domain::identity::{AuthMethod, Role, SubClaims};
use volvelle_domain::ids::{AccountId, Micros};
use volvelle_rotation::{Engine, Vault};
use volvelle_store::{Store, accounts, auth_methods, roles, tokens};

use crate::credentials;
use crate::ctx::Ctx;
use crate::error::ApiError;
use crate::ops;
use crate::params::{Params, bad};
use crate::reading::Shelf;
use crate::server::{Call, Operations};
use crate::throttle::Throttle;
use crate::trail::{Stamp, Trail};

/// Most tokens remembered per account.
const MOST_TOKENS: usize = 20_000;
/// Most decisions remembered per token.
const MOST_PATHS: usize = 10_000;

/// Who calls.
pub struct Caller {
    /// The tenant.
    pub account: Arc<Account>,
    /// The identity.
    pub method: AuthMethod,
    /// Its claims.
    pub claims: SubClaims,
    /// When the token ends.
    pub expires_at: Micros,
    /// What is stored of the token.
    pub token_hash: [u8; 32],
    /// Paths this caller was found to be allowed to read; good for as long as the view it belongs to.
    readable: RwLock<HashSet<String>>,
}

impl Caller {
    /// Whether it was decided before that this caller may read the item at `path`.
    #[must_use]
    pub fn is_known_reader(&self, path: &str) -> bool {
        read(&self.readable).contains(path)
    }

    /// Remembers such a decision.
    pub fn note_reader(&self, path: &str) {
        let mut readable = write(&self.readable);
        if readable.len() >= MOST_PATHS {
            readable.clear();
        }
        readable.insert(path.to_owned());
    }
}

/// What is known of one account at one stamp.
pub struct View {
    /// Generation and content it was loaded at.
    pub stamp: Stamp,
    /// The account.
    pub account: Arc<Account>,
    /// Every role.
    pub roles: Arc<Vec<Role>>,
    /// Whether no rule ends by itself, so that a decision holds as long as the roles are the same.
    pub timeless: bool,
    callers: Arc<RwLock<HashMap<[u8; 32], Arc<Caller>>>>,
    /// Items ready to be read.
    pub shelf: Shelf,
}

impl View {
    /// The same rules and identities, and nothing remembered of items.
    fn with_other_content(&self, stamp: Stamp) -> Self {
        Self {
            stamp,
            account: Arc::clone(&self.account),
            roles: Arc::clone(&self.roles),
            timeless: self.timeless,
            callers: Arc::clone(&self.callers),
            shelf: Shelf::default(),
        }
    }
}

/// Everything an operation may use.
pub struct App {
    /// The engine.
    pub engine: Engine,
    /// The database.
    pub store: Store,
    /// Seals and opens.
    pub vault: Vault,
    /// The kinds there are.
    pub registry: Registry,
    /// Where entries of reads go.
    pub trail: Trail,
    /// Slows down guessing.
    pub throttle: Throttle,
    /// The operations there are.
    pub operations: Vec<Operation>,
    by_name: HashMap<String, usize>,
    openapi: Value,
    metrics: PrometheusHandle,
    views: RwLock<HashMap<AccountId, Arc<View>>>,
    whose: RwLock<HashMap<[u8; 32], AccountId>>,
}

impl App {
    /// A gateway over its parts.
    #[must_use]
    pub fn new(engine: Engine, registry: Registry, trail: Trail, metrics: PrometheusHandle) -> Self {
        let declarations: Vec<_> = registry.all().iter().map(|c| c.declaration().clone()).collect();
        let operations = volvelle_api::operations(&declarations);
        let mut by_name = HashMap::new();
        for (n, op) in operations.iter().enumerate() {
            for name in std::iter::once(&op.name).chain(&op.aliases) {
                by_name.insert(name.clone(), n);
            }
        }
        let (store, vault) = (engine.parts().store.clone(), engine.parts().vault.clone());
        let openapi = volvelle_api::openapi(&operations);
        Self {
            engine,
            store,
            vault,
            registry,
            trail,
            throttle: Throttle::default(),
            operations,
            by_name,
            openapi,
            metrics,
            views: RwLock::default(),
            whose: RwLock::default(),
        }
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Micros {
        self.engine.now()
    }

    /// Who has this token, from memory if possible, and what is known of the account. With `Fresh::Checked` the database was
    /// asked whether it still holds.
    ///
    /// # Errors
    /// The token is not valid.
    pub async fn enter(&self, token: &Secret, fresh: Fresh) -> Result<(Arc<View>, Arc<Caller>), ApiError> {
        let hash = credentials::hash(token);
        if let Some((view, caller)) = self.remembered(&hash).filter(|_| fresh == Fresh::Remembered) {
            return alive(view, caller, self.now());
        }
        Box::pin(self.look_up(hash)).await
    }

    /// The same from the database, or from memory when the database says that nothing has changed.
    async fn look_up(&self, hash: [u8; 32]) -> Result<(Arc<View>, Arc<Caller>), ApiError> {
        if let Some((view, caller)) = self.remembered(&hash) {
            let mut tx = self.store.read().await?;
            let stamp = accounts::stamp(&mut tx, &view.account.id).await?;
            if stamp == view.stamp {
                return alive(view, caller, self.now());
            }
            if stamp.0 == view.stamp.0 {
                let renewed = Arc::new(view.with_other_content(stamp));
                write(&self.views).insert(view.account.id.clone(), Arc::clone(&renewed));
                return alive(renewed, caller, self.now());
            }
            self.forget(&view.account.id);
        }
        let mut tx = self.store.read().await?;
        let token = tokens::find(&mut tx, &hash).await?.ok_or(ApiError::Unauthenticated)?;
        let view = match self.view(&token.account) {
            Some(view) if accounts::stamp(&mut tx, &token.account).await? == view.stamp => view,
            _ => {
                let account = accounts::find(&mut tx, &token.account).await?.ok_or(ApiError::Unauthenticated)?;
                let stamp = (account.generation, account.content);
                let roles = Arc::new(roles::load_all(&mut tx, &account.id).await?);
                let account = Arc::new(account);
                let timeless = roles.iter().flat_map(|role| &role.rules).all(|rule| rule.ttl_minutes <= 0);
                let fresh = Arc::new(View {
                    stamp,
                    account,
                    roles,
                    timeless,
                    callers: Arc::default(),
                    shelf: Shelf::default(),
                });
                write(&self.views).insert(token.account.clone(), Arc::clone(&fresh));
                fresh
            }
        };
        let method = auth_methods::load(&mut tx, &token.account, token.auth_method).await?;
        let caller = Arc::new(Caller {
            account: Arc::clone(&view.account),
            method,
            claims: token.sub_claims,
            expires_at: token.expires_at,
            token_hash: hash,
            readable: RwLock::default(),
        });
        remember(&view.callers, hash, Arc::clone(&caller));
        remember(&self.whose, hash, token.account);
        alive(view, caller, self.now())
    }

    fn remembered(&self, hash: &[u8; 32]) -> Option<(Arc<View>, Arc<Caller>)> {
        let whose = read(&self.whose).get(hash).cloned()?;
        let view = self.view(&whose)?;
        let caller = read(&view.callers).get(hash).cloned()?;
        Some((view, caller))
    }

    fn view(&self, account: &AccountId) -> Option<Arc<View>> {
        read(&self.views).get(account).cloned()
    }

    /// Forgets what is known of an account.
    pub fn forget(&self, account: &AccountId) {
        write(&self.views).remove(account);
    }

    async fn operate(&self, call: Call) -> Result<(StatusCode, Value), ApiError> {
        let index =
            self.by_name.get(&call.operation).ok_or_else(|| ApiError::UnknownCommand(call.operation.clone()))?;
        let op = &self.operations[*index];
        let normalised = quirks::normalise(&call.params, &op.params).map_err(|error| bad(&error.param, error.message));
        let raw = Params::new(call.params);
        let token = raw.secret("token").or_else(|| raw.secret("uid-token"));
        if token.is_none() && op.name != "auth" {
            return Err(ApiError::Unauthenticated);
        }
        let params = Params::new(normalised?);
        let status = StatusCode::from_u16(op.status).unwrap_or(StatusCode::OK);
        let from = ops::auth::From { remote: call.remote.ip(), forwarded: call.forwarded_for };
        if op.name == "auth" {
            return Ok((status, Box::pin(ops::auth::sign_in(self, &from, &params)).await?));
        }
        let token = token.ok_or(ApiError::Unauthenticated)?;
        if matches!(op.name.as_str(), "rotated-secret-get-value" | "get-rotated-secret-value") {
            return Ok((status, crate::reading::value(self, &token, &from, &params).await?));
        }
        Box::pin(self.other(op, status, &token, &from, &params)).await
    }

    /// Every operation but the two that must be quick.
    async fn other(
        &self,
        op: &Operation,
        status: StatusCode,
        token: &Secret,
        from: &ops::auth::From,
        params: &Params,
    ) -> Result<(StatusCode, Value), ApiError> {
        let (view, caller) = self.enter(token, Fresh::Checked).await?;
        let remote = ops::auth::admit(&caller.method, from, self.now())?;
        let ctx = Ctx::new(self, view, caller, remote, &op.name);
        let outcome = ops::run(&ctx, &op.name, params).await;
        ctx.close(params, &outcome).await?;
        outcome.map(|value| (status, value))
    }
}

/// Whether what is remembered must be compared with the database at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fresh {
    /// The caller compares the stamp later, before the answer leaves.
    Remembered,
    /// Compare now.
    Checked,
}

fn alive(view: Arc<View>, caller: Arc<Caller>, now: Micros) -> Result<(Arc<View>, Arc<Caller>), ApiError> {
    if caller.expires_at <= now { Err(ApiError::Unauthenticated) } else { Ok((view, caller)) }
}

fn remember<V>(map: &RwLock<HashMap<[u8; 32], V>>, key: [u8; 32], value: V) {
    let mut map = write(map);
    if map.len() >= MOST_TOKENS {
        map.clear();
    }
    map.insert(key, value);
}

pub(crate) fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl Operations for App {
    async fn call(&self, call: Call) -> Result<(StatusCode, Value), ApiError> {
        let (started, operation, id) = (std::time::Instant::now(), call.operation.clone(), call.request_id.clone());
        let outcome = self.operate(call).await;
        if let Err(error @ (ApiError::Internal | ApiError::Unavailable { .. })) = &outcome {
            tracing::error!(operation, request_id = id, ?error, "a request was not done");
        }
        if self.by_name.contains_key(&operation) {
            metrics::histogram!("volvelle_request_seconds", "operation" => operation)
                .record(started.elapsed().as_secs_f64());
        }
        outcome
    }

    async fn health(&self) -> Result<Value, ApiError> {
        let mut tx = self.store.read().await?;
        accounts::list(&mut tx).await?;
        Ok(json!({"status": "ok", "version": env!("CARGO_PKG_VERSION")}))
    }

    fn openapi(&self) -> Value {
        self.openapi.clone()
    }

    fn metrics(&self) -> String {
        self.metrics.render()
    }
}
