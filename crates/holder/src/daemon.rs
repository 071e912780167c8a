//! The holder: listens, knows its peers by pin, evaluates for gateways, takes part in key generations.

mod evaluate;
mod keygen;
mod serve;

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
use volvelle_fragments::place::SUITE;

pub(crate) use self::evaluate::EPOCH;
use self::keygen::Session;
pub(crate) use self::keygen::check_signatures;
use crate::lock;
use crate::roster::{IdentityFiles, Roster, read_private};
use crate::state::{Folder, Key};
use crate::tls;
use crate::wire::{Request, Response};

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
    /// Its certificate and key.
    pub identity: IdentityFiles,
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
        Ok(config)
    }
}

/// Active keys by realm and id.
type Keys = HashMap<([u8; 16], u32), Arc<Key>>;

struct Holder {
    config: HolderConfig,
    roster: Roster,
    folder: Folder,
    signing: Ed25519KeyPair,
    keys: Mutex<Keys>,
    sessions: Mutex<HashMap<String, Session>>,
}

#[derive(Clone, Copy)]
enum Peer {
    Gateway,
    Holder(u8),
}

/// Runs until the future `shutdown` ends.
///
/// # Errors
/// The configuration or the roster is wrong, or the address cannot be listened on.
pub async fn run(config: HolderConfig, shutdown: impl Future<Output = ()>) -> Result<()> {
    let roster = Roster::load(&config.roster)?;
    ensure!(roster.holders.iter().any(|h| h.index == config.index), "the roster has no holder {}", config.index);
    let signing = Ed25519KeyPair::from_pkcs8(&read_private(&config.identity.key)?)
        .map_err(|_| anyhow!("{} is no Ed25519 key", config.identity.key.display()))?;
    let pins = roster.holders.iter().map(|h| h.pin.clone()).chain(roster.gateways.iter().cloned()).collect();
    let acceptor = TlsAcceptor::from(tls::server(&config.identity, pins)?);
    let folder = Folder::open(config.state.clone())?;
    let listener =
        TcpListener::bind(&config.listen).await.with_context(|| format!("cannot listen on {}", config.listen))?;
    let holder =
        Arc::new(Holder { folder, roster, signing, keys: Mutex::default(), sessions: Mutex::default(), config });
    tracing::info!(index = holder.config.index, listen = holder.config.listen, "ready");
    tokio::pin!(shutdown);
    tokio::select! {
        () = &mut shutdown => {}
        () = accept(&holder, &acceptor, &listener) => {}
    }
    tracing::info!(index = holder.config.index, "stopped");
    Ok(())
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

impl Holder {
    async fn answer(&self, peer: Peer, request: Request) -> Result<Response> {
        match (peer, request) {
            (Peer::Gateway, Request::Health {}) => Ok(Response::Health {
                index: self.config.index,
                software: concat!("volvelle-holder ", env!("CARGO_PKG_VERSION")).to_owned(),
                suites: vec![SUITE],
            }),
            (Peer::Gateway, Request::KeyInfo { realm: r, key_id }) => {
                Ok(Response::Key(self.key(&realm(&r)?, key_id)?.map(|key| key.info.clone())))
            }
            (Peer::Gateway, Request::Round1 { realm: r, key_id, session }) => self.round1(realm(&r)?, key_id, session),
            (Peer::Gateway, Request::Round2 { session, packages }) => self.round2(&session, &packages).await,
            (Peer::Holder(from), Request::Share { session, package }) => self.share(from, &session, &package),
            (Peer::Gateway, Request::Round3 { session }) => self.round3(&session),
            (Peer::Gateway, Request::Activate { realm: r, key_id, transcript, signatures }) => {
                self.activate(&realm(&r)?, key_id, &transcript, signatures)
            }
            _ => bail!("this peer may not ask that"),
        }
    }

    fn key(&self, realm: &[u8; 16], key_id: u32) -> Result<Option<Arc<Key>>> {
        if let Some(key) = lock(&self.keys).get(&(*realm, key_id)) {
            return Ok(Some(Arc::clone(key)));
        }
        let key = self.folder.load(realm, key_id)?.map(Arc::new);
        if let Some(key) = key.as_ref().filter(|key| key.info.active) {
            lock(&self.keys).insert((*realm, key_id), Arc::clone(key));
        }
        Ok(key)
    }
}
