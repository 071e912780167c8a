//! Puts a gateway together and runs it until it is told to stop.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use volvelle_domain::ids::{Clock, Micros};
use volvelle_holder::Quorum;
use volvelle_holder::quorum::QuorumConfig;
use volvelle_rotation::{Engine, Parts, Settings, Vault};
use volvelle_store::{Store, accounts, items, tokens};

use crate::app::App;
use crate::config::{self, Config};
use crate::credentials::OsEntropy;
use crate::server::{self, Limits, Operations};
use crate::trail;

/// How often the gauges are brought up to date.
const GAUGES: Duration = Duration::from_secs(15);
/// Upper bounds of the latency buckets, in seconds.
const BUCKETS: &[f64] = &[0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0, 120.0];

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Micros {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }
}

/// A gateway that is put together but does not serve yet.
pub struct Gateway {
    /// Everything behind the front.
    pub app: Arc<App>,
    engine: Engine,
}

impl Gateway {
    /// Puts a gateway together over an opened store. `name` stands in its leases.
    ///
    /// # Errors
    /// The holders' configuration is wrong.
    pub fn new(store: Store, quorum: &QuorumConfig, name: &str, settings: Settings) -> Result<Self> {
        let vault = Vault::new(Quorum::new(quorum)?);
        let registry = volvelle_connectors::registry();
        let known = registry.clone();
        let parts = Parts {
            store: store.clone(),
            vault,
            connectors: Arc::new(move |kind| known.get(kind)),
            clock: Arc::new(SystemClock),
            entropy: Arc::new(OsEntropy),
            name: name.to_owned(),
            settings,
        };
        let engine = Engine::new(parts);
        let app = Arc::new(App::new(engine.clone(), registry, trail::start(store), recorder()?));
        Ok(Self { app, engine })
    }

    /// Serves and rotates until `shutdown`.
    pub async fn run(self, listener: TcpListener, tls: Option<TlsAcceptor>, shutdown: CancellationToken) {
        let operations: Arc<dyn Operations> = Arc::clone(&self.app) as Arc<dyn Operations>;
        let front = server::serve(listener, tls, Limits::default(), operations, shutdown.clone());
        tokio::join!(front, self.engine.run(shutdown.clone()), gauges(Arc::clone(&self.app), shutdown));
    }
}

fn recorder() -> Result<PrometheusHandle> {
    let builder = PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("seconds".to_owned()), BUCKETS)?;
    let recorder = builder.build_recorder();
    let handle = recorder.handle();
    // A second gateway in one process (tests) records into the first one's.
    if metrics::set_global_recorder(recorder).is_err() {
        tracing::debug!("metrics are recorded elsewhere already");
    }
    Ok(handle)
}

async fn gauges(app: Arc<App>, shutdown: CancellationToken) {
    loop {
        if let Err(error) = measure(&app).await {
            tracing::debug!(%error, "the gauges cannot be brought up to date");
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(GAUGES) => {}
        }
    }
}

async fn measure(app: &App) -> Result<(), crate::ApiError> {
    let now = app.now();
    let mut tx = app.store.read().await?;
    let counts = items::counts(&mut tx, now).await?;
    let open = volvelle_store::rotations::open_count(&mut tx).await?;
    drop(tx);
    let set = |name: &'static str, value: i64| metrics::gauge!(name).set(value as f64);
    set("volvelle_rotated_secrets", counts.secrets);
    set("volvelle_secrets_overdue", counts.overdue);
    set("volvelle_secrets_out_of_sync", counts.out_of_sync);
    set("volvelle_secrets_in_doubt", counts.in_doubt);
    set("volvelle_secrets_failed", counts.failed);
    set("volvelle_rotations_open", open);
    for holder in app.vault.quorum().status().await {
        let up = if holder.state == "up" { 1.0 } else { 0.0 };
        metrics::gauge!("volvelle_holder_up", "holder" => holder.index.to_string()).set(up);
    }
    let mut tx = app.store.begin().await?;
    tokens::purge_expired(&mut tx, now).await?;
    tx.commit().await?;
    Ok(())
}

/// Runs `volvelle gateway --config FILE`.
///
/// # Errors
/// A file is missing, wrong, or secret and readable by everybody; the store or the address cannot be used.
pub async fn production(path: &Path, shutdown: CancellationToken) -> Result<()> {
    let config = Config::load(path)?;
    let tls = config::acceptor(&config.tls)?;
    let text =
        std::fs::read_to_string(&config.quorum).with_context(|| format!("cannot read {}", config.quorum.display()))?;
    let quorum: QuorumConfig =
        toml::from_str(&text).with_context(|| format!("{} is no quorum configuration", config.quorum.display()))?;
    let store = Store::open(&config.store).await.context("the store cannot be opened")?;
    let gateway = Gateway::new(store, &quorum, &lease_name(&config.store, config.listen), Settings::default())?;
    if config.store.starts_with("sqlite") {
        gateway.engine.bury_the_dead().await?;
    }
    let listener =
        TcpListener::bind(config.listen).await.with_context(|| format!("cannot listen on {}", config.listen))?;
    tracing::info!(listen = %config.listen, "the gateway is ready");
    gateway.run(listener, Some(tls), shutdown).await;
    Ok(())
}

/// One name per process: on a shared database a restarted gateway must not take the leases of another one for its own.
fn lease_name(store: &str, listen: SocketAddr) -> String {
    if store.starts_with("sqlite") { "gateway".to_owned() } else { format!("{listen}-{}", std::process::id()) }
}

/// The first account of an empty store: the operator's.
///
/// # Errors
/// The key cannot be generated, or the store failed.
pub async fn first_account(
    app: &App,
    admin: (volvelle_domain::ids::AccessId, volvelle_domain::Secret),
) -> Result<bool, crate::ApiError> {
    let mut tx = app.store.read().await?;
    let known = accounts::list(&mut tx).await?;
    drop(tx);
    if !known.is_empty() {
        return Ok(false);
    }
    let rank = crate::ops::account::Rank::Operator;
    crate::ops::account::found(app.engine.parts(), "operator", admin, rank, None).await?;
    Ok(true)
}
