//! The gateway as a whole: what every operation works with, who calls, and what is remembered between calls.
//!
//! What must stay true: nothing remembered is used without its stamp being compared with the database, either before the
//! operation or, for reads of values, in the transaction of their audit entry.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use async_trait::async_trait;
use foldhash::quality::RandomState;
use futures_util::future::BoxFuture;
use hyper::StatusCode;
use metrics::Histogram;
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::{Value, json};
use volvelle_api::Operation;
use volvelle_connectors::Registry;
use volvelle_domain::Secret;
use volvelle_domain::account::Account;
use volvelle_domain::identity::{AuthMethod, Role, SubClaims};
use volvelle_domain::ids::{AccountId, Micros};
use volvelle_holder::asker::{self, Asker, Identity};
use volvelle_holder::authorization::Signer;
use volvelle_rotation::rekey::Rekeyer;
use volvelle_rotation::{Engine, Vault};
use volvelle_store::{Store, accounts, auth_methods, roles, tokens};

use crate::credentials;
use crate::ctx::Ctx;
use crate::error::ApiError;
use crate::ops;
use crate::params::Params;
use crate::reading::{self, Shelf, Wanted};
use crate::server::{Answer, Call, Operations, Origin};
use crate::throttle::Throttle;
use crate::trail::{Stamp, Trail};

/// Most tokens remembered.
const MOST_TOKENS: usize = 100_000;

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
    /// How the holders know him.
    pub identity: Arc<Identity>,
    /// Unlike that of any other caller of this process.
    pub serial: u64,
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
            shelf: Shelf::default(),
        }
    }
}

/// The view of one account; there is none until somebody asks, and after a change.
#[derive(Default)]
struct Slot(RwLock<Option<Arc<View>>>);

/// A caller as he was at one generation of his account.
struct Known {
    caller: Arc<Caller>,
    generation: i64,
    slot: Arc<Slot>,
}

/// Takes the beginning of what is hashed already. Only tokens that were found in the database are kept under it, so that nobody
/// can choose what collides.
#[derive(Default)]
struct Beginning(u64);

impl Hasher for Beginning {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0 ^= u64::from_le_bytes(*first);
        }
    }

    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0
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
    /// Changes keys.
    pub rekeyer: Rekeyer,
    /// The kinds there are.
    pub registry: Registry,
    /// Where entries of reads go.
    pub trail: Trail,
    /// Slows down guessing.
    pub throttle: Throttle,
    /// Signs what shows the holders that a client asks, if this gateway does that.
    pub signer: OnceLock<Signer>,
    /// Rings when something was deleted.
    pub burials: tokio::sync::Notify,
    /// The operations there are.
    pub operations: Vec<Operation>,
    by_name: HashMap<String, usize, RandomState>,
    openapi: Value,
    metrics: PrometheusHandle,
    views: RwLock<HashMap<AccountId, Arc<Slot>>>,
    known: RwLock<HashMap<[u8; 32], Known, BuildHasherDefault<Beginning>>>,
    callers: AtomicU64,
    /// How long each operation takes, from its first call on.
    seconds: Vec<OnceLock<Histogram>>,
}

impl App {
    /// A gateway over its parts.
    #[must_use]
    pub fn new(engine: Engine, registry: Registry, trail: Trail, metrics: PrometheusHandle) -> Self {
        let declarations: Vec<_> = registry.all().iter().map(|c| c.declaration().clone()).collect();
        let operations = volvelle_api::operations(&declarations);
        let mut by_name = HashMap::default();
        for (n, op) in operations.iter().enumerate() {
            for name in std::iter::once(&op.name).chain(&op.aliases) {
                by_name.insert(name.clone(), n);
            }
        }
        let (store, vault) = (engine.parts().store.clone(), engine.parts().vault.clone());
        let rekeyer = Rekeyer::new(engine.parts().clone());
        let openapi = volvelle_api::openapi(&operations);
        let seconds = operations.iter().map(|_| OnceLock::new()).collect();
        Self {
            engine,
            store,
            vault,
            rekeyer,
            registry,
            trail,
            throttle: Throttle::default(),
            signer: OnceLock::new(),
            burials: tokio::sync::Notify::new(),
            operations,
            by_name,
            openapi,
            metrics,
            views: RwLock::default(),
            known: RwLock::default(),
            callers: AtomicU64::new(0),
            seconds,
        }
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Micros {
        self.engine.now()
    }

    /// Who has the token of this hash, from memory if possible, and what is known of the account. With `Fresh::Checked` the database was
    /// asked whether it still holds.
    ///
    /// # Errors
    /// The token is not valid.
    pub async fn enter(&self, hash: [u8; 32], fresh: Fresh) -> Result<(Arc<View>, Arc<Caller>), ApiError> {
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
                self.keep(&renewed);
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
                let fresh = Arc::new(View { stamp, account, roles, timeless, shelf: Shelf::default() });
                self.keep(&fresh);
                fresh
            }
        };
        let method = auth_methods::load(&mut tx, &token.account, token.auth_method).await?;
        let authorization = tokens::statement(&mut tx, &hash).await?;
        let identity = Identity { principal: method.access_id.0.clone(), authorization };
        let caller = Arc::new(Caller {
            identity: Arc::new(identity),
            account: Arc::clone(&view.account),
            method,
            claims: token.sub_claims,
            expires_at: token.expires_at,
            token_hash: hash,
            serial: self.callers.fetch_add(1, Ordering::Relaxed),
        });
        let slot = self.slot(&token.account);
        let mut known = write(&self.known);
        if known.len() >= MOST_TOKENS {
            known.clear();
        }
        known.insert(hash, Known { caller: Arc::clone(&caller), generation: view.stamp.0, slot });
        drop(known);
        alive(view, caller, self.now())
    }

    fn remembered(&self, hash: &[u8; 32]) -> Option<(Arc<View>, Arc<Caller>)> {
        let known = read(&self.known);
        let Known { caller, generation, slot } = known.get(hash)?;
        let view = read(&slot.0).clone().filter(|view| view.stamp.0 == *generation)?;
        Some((view, Arc::clone(caller)))
    }

    fn view(&self, account: &AccountId) -> Option<Arc<View>> {
        read(&self.views).get(account).and_then(|slot| read(&slot.0).clone())
    }

    fn slot(&self, account: &AccountId) -> Arc<Slot> {
        Arc::clone(write(&self.views).entry(account.clone()).or_default())
    }

    fn keep(&self, view: &Arc<View>) {
        *write(&self.slot(&view.account.id).0) = Some(Arc::clone(view));
    }

    /// Forgets what is known of an account.
    pub fn forget(&self, account: &AccountId) {
        *write(&self.slot(account).0) = None;
    }

    async fn operate(&self, op: &Operation, call: &Call) -> Result<Answer, ApiError> {
        let read = matches!(op.name.as_str(), "rotated-secret-get-value" | "get-rotated-secret-value");
        match Wanted::plain(&call.body).filter(|_| read) {
            Some(wanted) => reading::value(self, &wanted, &call.from).await,
            None => Box::pin(self.operate_in_full(op, call, read)).await,
        }
    }

    /// The same for whatever is not in the commonest form.
    async fn operate_in_full(&self, op: &Operation, call: &Call, read: bool) -> Result<Answer, ApiError> {
        let from = &call.from;
        let raw = Params::parse(&call.body)?;
        let token = raw.secret("token").or_else(|| raw.secret("uid-token"));
        if token.is_none() && !matches!(op.name.as_str(), "auth" | "validate-producer-credentials") {
            return Err(ApiError::Unauthenticated);
        }
        let params = raw.normalised(op)?;
        let status = StatusCode::from_u16(op.status).unwrap_or(StatusCode::OK);
        if op.name == "auth" {
            let answer = Box::pin(ops::auth::sign_in(self, from, &params)).await?;
            return Ok(Answer::json(status, &answer));
        }
        if op.name == "validate-producer-credentials" {
            let answer = Box::pin(ops::callers::validate(self, from, &params)).await?;
            return Ok(Answer::json(status, &answer));
        }
        let token = token.ok_or(ApiError::Unauthenticated)?;
        if read {
            return reading::value_of(self, &token, &params, from).await;
        }
        let answer = Box::pin(self.other(op, &token, from, &params)).await?;
        Ok(Answer::json(status, &answer))
    }

    /// Every operation but the two that must be quick.
    async fn other(&self, op: &Operation, token: &Secret, from: &Origin, params: &Params) -> Result<Value, ApiError> {
        let (view, caller) = self.enter(credentials::hash(token.expose()), Fresh::Checked).await?;
        let remote = ops::auth::admit(&caller.method, from, self.now())?;
        asker::identify(&caller.identity);
        let ctx = Ctx::new(self, view, caller, remote, &op.name);
        let outcome = ops::run(&ctx, &op.name, params).await;
        ctx.close(params, &outcome).await?;
        outcome
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

pub(crate) fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl Operations for App {
    fn call(&self, call: Call) -> BoxFuture<'_, Result<Answer, ApiError>> {
        // Written out, so that the call is in the future once. Thousands of them may be waiting at a time.
        let Some(&index) = self.by_name.get(&call.operation) else {
            return Box::pin(std::future::ready(Err(ApiError::UnknownCommand(call.operation))));
        };
        let (started, op) = (std::time::Instant::now(), &self.operations[index]);
        Box::pin(async move {
            let outcome = Asker::new(call.request_id.bytes()).scope(self.operate(op, &call)).await;
            if let Err(error @ (ApiError::Internal | ApiError::Unavailable { .. })) = &outcome {
                tracing::error!(operation = op.name, request_id = %call.request_id, ?error, "a request was not done");
            }
            let seconds = self.seconds[index]
                .get_or_init(|| metrics::histogram!("volvelle_request_seconds", "operation" => op.name.clone()));
            seconds.record(started.elapsed().as_secs_f64());
            outcome
        })
    }

    async fn health(&self) -> Result<Value, ApiError> {
        let mut tx = self.store.read().await?;
        accounts::list(&mut tx).await?;
        let used = volvelle_store::keys::with_customer(&mut tx).await?;
        drop(tx);
        let mut health = json!({"status": "ok", "version": env!("CARGO_PKG_VERSION")});
        // Anybody may ask: how they are, and not which.
        if let Some(state) = crate::customer::worst(&self.vault, &used) {
            health["customer_fragments"] = Value::from(state.as_str());
        }
        Ok(health)
    }

    fn openapi(&self) -> Value {
        self.openapi.clone()
    }

    fn metrics(&self) -> String {
        self.metrics.render()
    }
}
