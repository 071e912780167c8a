//! The holder: listens, knows its peers by pin, evaluates for gateways, takes part in key generations.

mod authorize;
mod evaluate;
mod keygen;
mod policy;
mod renew;
mod repair;
mod retire;
mod serve;
mod tombstones;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use aws_lc_rs::signature::Ed25519KeyPair;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use volvelle_fragments::Suite;

use self::authorize::Authorizer;
pub use self::authorize::{Authorization, Mode, Rotation};
use self::keygen::Session;
use self::policy::Guard;
pub(crate) use self::renew::certificate;
use self::repair::Repair;
use crate::lock;
use crate::log::Log;
use crate::roster::{IdentityFiles, Roster, read_private};
pub use crate::state::Unlock;
use crate::state::{Folder, Key, KeyName, now};
use crate::tls;
use crate::tombstones::Tombstones;
use crate::trust;
use crate::wire::{KeyRef, Request, Response};

/// Longest a peer may take for a handshake or a message between holders.
const PATIENCE: Duration = Duration::from_secs(10);
/// Connections at once, at most.
const CONNECTIONS: usize = 512;

/// `volvelle-holder --config FILE`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HolderConfig {
    /// This holder's index in the roster.
    pub index: u8,
    /// Where it listens.
    pub listen: String,
    /// Who takes part.
    pub roster: PathBuf,
    /// Where it keeps its fragments.
    pub state: PathBuf,
    /// Where it keeps its log; `log` in the folder of the fragments, if nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<PathBuf>,
    /// Its certificate and key.
    pub identity: IdentityFiles,
    /// What opens the key that seals the fragments; if nothing is said, that key lies beside them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unlock: Option<Unlock>,
    /// Seconds that a retired key waits for somebody who needs it before it is destroyed; a week, if nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retire_after_seconds: Option<u64>,
    /// The suites of which it makes keys, and takes part in making them; all that it knows, if nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suites: Option<Vec<Suite>>,
    /// Whether a client must be behind what gateways ask for; nobody need, if nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorization: Option<Authorization>,
}

impl HolderConfig {
    /// Reads a configuration file. Paths in it that are not absolute begin at its folder.
    ///
    /// # Errors
    /// The file cannot be read, or has a word that is not known.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut config: Self =
            toml::from_str(&text).with_context(|| format!("{} is no configuration of a holder", path.display()))?;
        let home = path.parent().unwrap_or(Path::new(""));
        let Self { roster, state, identity, .. } = &mut config;
        for file in [roster, state, &mut identity.certificate, &mut identity.key] {
            *file = home.join(&*file);
        }
        config.log = config.log.map(|log| home.join(log));
        config.unlock = config.unlock.map(|unlock| unlock.beside(home));
        for issuer in config.authorization.iter_mut().flat_map(|section| &mut section.issuers) {
            issuer.jwks = home.join(&issuer.jwks);
        }
        Ok(config)
    }
}

/// Keys told in one answer, at most.
const KEYS_AT_ONCE: usize = 500;

/// Active keys by realm and id.
type Keys = HashMap<KeyName, Arc<Key>>;

struct Holder {
    config: HolderConfig,
    roster: Roster,
    folder: Folder,
    signing: Ed25519KeyPair,
    keys: Mutex<Keys>,
    sessions: Mutex<HashMap<String, Session>>,
    repairs: Mutex<HashMap<String, Repair>>,
    /// Held while a key's file is read, changed and written.
    changing: Mutex<()>,
    /// By the gateways of the roster, in order.
    guards: Vec<Guard>,
    authorizer: Authorizer,
    log: Log,
    tombstones: Tombstones,
}

#[derive(Clone, Copy)]
enum Peer {
    /// By its place in the roster.
    Gateway(usize),
    Holder(u8),
}

/// Runs until the future `shutdown` ends.
///
/// # Errors
/// The configuration or the roster is wrong, or the address cannot be listened on.
pub async fn run(config: HolderConfig, shutdown: impl Future<Output = ()>) -> Result<()> {
    let roster = trust::believed(&config.roster)?;
    ensure!(roster.holders.iter().any(|h| h.index == config.index), "the roster has no holder {}", config.index);
    let signing = Ed25519KeyPair::from_pkcs8(&read_private(&config.identity.key)?)
        .map_err(|_| anyhow!("{} is no Ed25519 key", config.identity.key.display()))?;
    let pins = roster.holders.iter().map(|h| h.pin.clone()).chain(roster.gateways.iter().cloned()).collect();
    let acceptor = TlsAcceptor::from(tls::server(&config.identity, pins)?);
    let folder = Folder::open(config.state.clone(), config.unlock.as_ref())?;
    let listener =
        TcpListener::bind(&config.listen).await.with_context(|| format!("cannot listen on {}", config.listen))?;
    let log = Log::open(config.log.clone().unwrap_or_else(|| config.state.join("log")))?;
    let policy = |pin: &String| roster.policies.iter().find(|policy| policy.gateway == *pin).cloned();
    let holder = Arc::new(Holder {
        guards: roster.gateways.iter().map(|pin| Guard::new(policy(pin))).collect(),
        authorizer: Authorizer::new(config.authorization.as_ref(), &roster, Path::new(""))?,
        log,
        tombstones: Tombstones::open(config.state.clone())?,
        folder,
        roster,
        signing,
        keys: Mutex::default(),
        sessions: Mutex::default(),
        repairs: Mutex::default(),
        changing: Mutex::default(),
        config,
    });
    tracing::info!(index = holder.config.index, listen = holder.config.listen, "ready");
    tokio::pin!(shutdown);
    tokio::select! {
        () = &mut shutdown => {}
        () = accept(&holder, &acceptor, &listener) => {}
        () = bring_to_disk(&holder) => {}
        () = tombstones::follow(&holder) => {}
    }
    holder.log.sync();
    tracing::info!(index = holder.config.index, "stopped");
    Ok(())
}

/// Once a second, for ever.
async fn bring_to_disk(holder: &Holder) {
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        holder.log.sync();
        holder.destroy_retired();
    }
}

/// Lets peers in for ever; beyond the limit they wait in the listener's queue.
async fn accept(holder: &Arc<Holder>, acceptor: &TlsAcceptor, listener: &TcpListener) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let place = Arc::clone(&places).acquire_owned().await;
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection cannot be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (acceptor, holder) = (acceptor.clone(), Arc::clone(holder));
        tokio::spawn(async move {
            if let Err(error) = serve::serve(&holder, acceptor, stream).await {
                tracing::debug!(%error, "a connection ended");
            }
            drop(place);
        });
    }
}

fn realm(text: &str) -> Result<[u8; 16]> {
    hex::decode(text).ok().and_then(|bytes| bytes.try_into().ok()).context("a realm is 16 bytes")
}

fn named(realm_text: &str, key_id: u32) -> Result<KeyName> {
    Ok((realm(realm_text)?, key_id))
}

impl Holder {
    async fn answer(&self, peer: Peer, request: Request) -> Result<Response> {
        match (peer, request) {
            (Peer::Gateway(gateway), Request::Bury { realm, inputs }) => self.bury(gateway, &realm, &inputs),
            (Peer::Holder(_), Request::Tombstones { after }) => self.tombstones_after(after.as_deref()),
            (Peer::Gateway(_), request) => self.answer_gateway(request).await,
            (Peer::Holder(from), Request::Share { session, package }) => self.receive(from, &session, &package),
            _ => bail!("this peer may not ask that"),
        }
    }

    async fn answer_gateway(&self, request: Request) -> Result<Response> {
        match request {
            Request::Health {} => Ok(Response::Health {
                index: self.config.index,
                software: concat!("volvelle-holder ", env!("CARGO_PKG_VERSION")).to_owned(),
                suites: self.suites().iter().map(|suite| suite.byte()).collect(),
                clock: now(),
                backup: self.folder.backed_up(),
                tombstones: self.tombstones.sum().count,
            }),
            Request::KeyInfo { realm, key_id } => self.info(&named(&realm, key_id)?),
            Request::Round1 { realm, key_id, session, suite } => self.round1(named(&realm, key_id)?, session, suite),
            Request::Refresh1 { realm, key_id, session, base, epoch } => {
                self.refresh1(named(&realm, key_id)?, session, (base, epoch))
            }
            Request::Round2 { session, packages } => self.round2(&session, &packages).await,
            Request::Round3 { session } => self.round3(&session),
            Request::Activate { realm, key_id, transcript, signatures } => {
                self.activate(&named(&realm, key_id)?, &transcript, signatures)
            }
            Request::Keys { after } => self.names(after),
            Request::Epochs { realm, key_id } => self.epochs(&named(&realm, key_id)?),
            Request::Confirm { realm, key_id, epoch } => self.confirm(&named(&realm, key_id)?, epoch),
            Request::Certify { realm, key_id, epoch, signatures } => {
                self.certify(&named(&realm, key_id)?, epoch, signatures)
            }
            Request::RepairBegin { session, plan } => self.repair_begin(session, &plan),
            Request::RepairSplit { session } => self.repair_split(&session).await,
            Request::RepairSum { session } => self.repair_sum(&session).await,
            Request::RepairFinish { session, info } => self.repair_finish(&session, info),
            Request::Highest { realm } => self.highest(&realm),
            Request::Retire { realm, key_id } => self.retire(&named(&realm, key_id)?),
            Request::Keep { realm, key_id } => self.keep(&named(&realm, key_id)?),
            Request::Share { .. } | Request::Bury { .. } | Request::Tombstones { .. } => {
                bail!("this peer may not ask that")
            }
        }
    }

    /// The suites of which it makes keys.
    fn suites(&self) -> &[Suite] {
        self.config.suites.as_deref().unwrap_or(&Suite::ALL)
    }

    /// A secret package from another holder, for whatever is under way.
    fn receive(&self, from: u8, session: &str, package: &str) -> Result<Response> {
        let package = zeroize::Zeroizing::new(hex::decode(package)?);
        if let Some(repair) = lock(&self.repairs).get_mut(session) {
            return repair.receive(from, package);
        }
        lock(&self.sessions).get_mut(session).context("nothing of this name is under way here")?.receive(from, package)
    }

    /// A key that is in use, or not yet.
    fn key(&self, name: &KeyName) -> Result<Option<Arc<Key>>> {
        if let Some(key) = lock(&self.keys).get(name) {
            return Ok(Some(Arc::clone(key)));
        }
        let _changing = lock(&self.changing);
        let key = self.folder.load(name)?.map(Arc::new);
        if let Some(key) = &key {
            self.remember(name, key);
        }
        Ok(key)
    }

    fn remember(&self, name: &KeyName, key: &Arc<Key>) {
        if key.newest().is_some() {
            lock(&self.keys).insert(*name, Arc::clone(key));
        }
    }

    /// Reads a key, changes it and remembers what came of it. What the change stores is stored even if it fails later.
    fn change<T>(&self, name: &KeyName, change: impl FnOnce(&mut Key) -> Result<T>) -> Result<T> {
        let _changing = lock(&self.changing);
        let mut key = self.folder.load(name)?.unwrap_or_default();
        let outcome = change(&mut key);
        let stored = self.folder.load(name)?;
        lock(&self.keys).remove(name);
        if let Some(stored) = stored {
            self.remember(name, &Arc::new(stored));
        }
        outcome
    }

    fn info(&self, name: &KeyName) -> Result<Response> {
        let key = self.key(name)?;
        let slot = key.as_ref().and_then(|key| key.newest().or_else(|| key.slots.values().next_back()));
        Ok(Response::Key(slot.map(|slot| slot.info.clone())))
    }

    fn names(&self, after: Option<KeyRef>) -> Result<Response> {
        let after = after.map(|key| named(&key.realm, key.key_id)).transpose()?;
        let later = self.folder.keys()?.into_iter().filter(|name| after.is_none_or(|after| *name > after));
        // What is on its way out is neither refreshed nor repaired any more.
        let later = later.filter(|name| self.folder.retired(name).is_none());
        let names = later.take(KEYS_AT_ONCE).map(|(realm, key_id)| KeyRef { realm: hex::encode(realm), key_id });
        Ok(Response::Keys(names.collect()))
    }
}
