//! Puts a gateway together and runs it until it is told to stop.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use volvelle_domain::ids::{Clock, Micros};
use volvelle_holder::authorization::Signer;
use volvelle_holder::quorum::QuorumConfig;
use volvelle_holder::{CustomerFragments, Presence, Quorum};
pub use volvelle_rotation::Settings;
use volvelle_rotation::{Engine, Parts, Vault};
use volvelle_store::{Store, accounts, items, tokens};

use crate::app::App;
use crate::burial;
use crate::children::DirLock;
use crate::config::{self, Config};
use crate::console::Console;
use crate::credentials::OsEntropy;
use crate::customer;
use crate::server::{self, Limits, Operations};
use crate::trail;
use crate::watermark::Watermark;

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
    watermark: Option<Watermark>,
    restored: bool,
}

impl Gateway {
    /// Puts a gateway together over an opened store, with the customer's fragments it has. `name` stands in its leases.
    ///
    /// # Errors
    /// The holders' configuration is wrong.
    pub fn new(
        store: Store,
        (quorum, customer): (&QuorumConfig, CustomerFragments),
        name: &str,
        settings: Settings,
    ) -> Result<Self> {
        let vault = Vault::new(Quorum::with_customer(quorum, customer)?);
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
        Ok(Self { app, engine, watermark: None, restored: false })
    }

    /// Has it sign authorizations of clients for the holders, for itself and the gateways with these pins.
    ///
    /// # Errors
    /// The key cannot be read.
    pub fn sign_with(&self, key: &Path, quorum: &QuorumConfig, others: &[String]) -> Result<()> {
        let signer = Signer::load(key, &quorum.identity.certificate, others)?;
        self.app.signer.set(signer).map_err(|_| anyhow::anyhow!("there is a signing key already"))
    }

    /// Makes ready for the work: leases of a dead predecessor are given back if `Predecessor::Dead`, and a restored database is
    /// noticed. Says which of the customer's fragments are missing.
    ///
    /// # Errors
    /// The store or the watermark's file cannot be used.
    pub async fn make_ready(&mut self, predecessor: Predecessor, watermark: Option<PathBuf>) -> Result<()> {
        customer::announce(&self.app.store, &self.app.vault).await?;
        if predecessor == Predecessor::Dead {
            self.engine.bury_the_dead().await?;
        }
        if let Some(watermark) = watermark.map(Watermark::new) {
            self.restored = watermark.check(&self.app.store, &self.engine).await?;
            self.watermark = Some(watermark);
        }
        Ok(())
    }

    /// Serves and rotates until `shutdown`.
    pub async fn run(self, listener: TcpListener, tls: Option<TlsAcceptor>, shutdown: CancellationToken) {
        let operations: Arc<dyn Operations> = Arc::new(Console::new(Arc::clone(&self.app)));
        let front = server::serve(listener, tls, Limits::default(), operations, shutdown.clone());
        let (store, engine, stop) = (self.app.store.clone(), self.engine.clone(), shutdown.clone());
        let follow = async {
            if let Some(watermark) = &self.watermark {
                watermark.follow(store, stop).await;
            }
        };
        let stop = shutdown.clone();
        let ask = async {
            if self.restored {
                tokio::select! {
                    () = stop.cancelled() => {}
                    asked = engine.ask_everything() => if let Err(error) = asked {
                        tracing::error!(%error, "not every secret could be verified after the restore");
                    },
                }
            }
        };
        let gauges = gauges(Arc::clone(&self.app), shutdown.clone());
        let rekeyer = self.app.rekeyer.clone();
        let rekeys = rekeyer.run(shutdown.clone());
        let burials = burial::follow(Arc::clone(&self.app), shutdown.clone());
        tokio::join!(front, self.engine.run(shutdown), gauges, follow, ask, rekeys, burials);
    }
}

/// What is known of the process that had this gateway's name before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Predecessor {
    /// It is dead for sure: nobody else can have this database.
    Dead,
    /// It may live on.
    Unknown,
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
    let unburied = volvelle_store::tombstones::count(&mut tx).await?;
    let used = volvelle_store::keys::with_customer(&mut tx).await?;
    drop(tx);
    let set = |name: &'static str, value: i64| metrics::gauge!(name).set(value as f64);
    set("volvelle_rotated_secrets", counts.secrets);
    set("volvelle_secrets_overdue", counts.overdue);
    set("volvelle_secrets_out_of_sync", counts.out_of_sync);
    set("volvelle_secrets_in_doubt", counts.in_doubt);
    set("volvelle_secrets_failed", counts.failed);
    set("volvelle_rotations_open", open);
    set("volvelle_tombstones_pending", unburied.count);
    let absent = used.iter().filter(|key| customer::presence(&app.vault, key) != Presence::Present).count();
    metrics::gauge!("volvelle_keys_without_customer_fragment").set(absent as f64);
    for holder in app.vault.quorum().status().await {
        let up = if holder.state == "up" { 1.0 } else { 0.0 };
        metrics::gauge!("volvelle_holder_up", "holder" => holder.index.to_string()).set(up);
        let index = || holder.index.to_string();
        let named = |state: &str| if holder.state == state { 1.0 } else { 0.0 };
        for state in ["down", "lost", "stale", "quarantined"] {
            metrics::gauge!("volvelle_holder_state", "holder" => index(), "state" => state).set(named(state));
        }
        metrics::gauge!("volvelle_holder_tombstones", "holder" => index()).set(holder.tombstones.unwrap_or(0) as f64);
        metrics::gauge!("volvelle_holder_epoch", "holder" => index()).set(f64::from(holder.epoch.unwrap_or(0)));
    }
    let mut tx = app.store.begin().await?;
    tokens::purge_expired(&mut tx, now).await?;
    tx.commit().await?;
    Ok(())
}

/// Runs `volvelle gateway --config FILE`. With `first_account_file` an empty store gets its first account, whose administrator's
/// key is written there.
///
/// # Errors
/// A file is missing, wrong, or secret and readable by everybody; the store or the address cannot be used.
pub async fn production(path: &Path, first_account_file: Option<&Path>, shutdown: CancellationToken) -> Result<()> {
    let config = Config::load(path)?;
    let tls = config::acceptor(&config.tls)?;
    let text =
        std::fs::read_to_string(&config.quorum).with_context(|| format!("cannot read {}", config.quorum.display()))?;
    let quorum: QuorumConfig =
        toml::from_str(&text).with_context(|| format!("{} is no quorum configuration", config.quorum.display()))?;
    let quorum = beside(quorum, &config.quorum);
    let fragments = customer::load(
        config.customer_fragments.as_deref(),
        config.customer_fragment.as_ref().map(|fragment| &fragment.pkcs11),
    )?;
    let store = Store::open(&config.store).await.context("the store cannot be opened")?;
    let name = lease_name(&config.store, config.listen);
    let mut gateway = Gateway::new(store, (&quorum, fragments), &name, Settings::default())?;
    if let Some(key) = &config.authorization_key {
        gateway.sign_with(key, &quorum, &config.authorization_gateways)?;
    }
    if let Some(file) = first_account_file {
        first_account_into(&gateway.app, file, config.listen).await?;
    }
    let sqlite = config.store.strip_prefix("sqlite://").map(PathBuf::from);
    // Whoever has the file's lock is the only gateway on it.
    let _lock = match sqlite.as_deref().and_then(Path::parent) {
        Some(folder) => Some(DirLock::take(folder)?),
        None => None,
    };
    let predecessor = if sqlite.is_some() { Predecessor::Dead } else { Predecessor::Unknown };
    let watermark = config.watermark.clone().or_else(|| sqlite.map(|file| file.with_extension("watermark")));
    gateway.make_ready(predecessor, watermark).await?;
    let listener =
        TcpListener::bind(config.listen).await.with_context(|| format!("cannot listen on {}", config.listen))?;
    tracing::info!(listen = %config.listen, "the gateway is ready");
    Box::pin(gateway.run(listener, Some(tls), shutdown)).await;
    Ok(())
}

/// Relative paths of a quorum configuration start at its own folder.
fn beside(mut quorum: QuorumConfig, file: &Path) -> QuorumConfig {
    let folder = file.parent().unwrap_or(Path::new("."));
    for path in [&mut quorum.roster, &mut quorum.identity.certificate, &mut quorum.identity.key] {
        *path = folder.join(&*path);
    }
    quorum
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

/// The first account, its key in a file that must not exist yet.
async fn first_account_into(app: &App, file: &Path, listen: SocketAddr) -> Result<()> {
    let mut tx = app.store.read().await?;
    let founded = !accounts::list(&mut tx).await?.is_empty();
    drop(tx);
    if founded {
        tracing::info!("the store has an account already: none was made");
        return Ok(());
    }
    let host = if listen.ip().is_unspecified() { "localhost".to_owned() } else { listen.ip().to_string() };
    let admin = crate::dev::admin(file, &format!("https://{host}:{}", listen.port()))?;
    first_account(app, admin).await.map_err(|error| anyhow::anyhow!("the first account cannot be made: {error}"))?;
    tracing::info!(file = %file.display(), "the first account was made; its administrator's key is in the file");
    Ok(())
}
