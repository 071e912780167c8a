//! The holder: listens, knows its peers by pin, evaluates for gateways, takes part in key generations.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use volvelle_fragments::{Input, Partial, dkg, proof};

use crate::roster::{IdentityFiles, Roster, pin, read_private};
use crate::state::{Folder, Key};
use crate::tls;
use crate::wire::{self, KeyInfo, LARGEST_BATCH, Request, Response};

/// Longest a peer may take for a handshake or a message between holders.
const PATIENCE: Duration = Duration::from_secs(10);

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
    /// Reads a configuration file.
    ///
    /// # Errors
    /// The file cannot be read, or has a word that is not known.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("{} is no configuration of a holder", path.display()))
    }
}

struct Holder {
    config: HolderConfig,
    roster: Roster,
    folder: Folder,
    signing: Ed25519KeyPair,
    keys: Mutex<HashMap<([u8; 16], u32), Key>>,
    sessions: Mutex<HashMap<String, Session>>,
}

/// A key generation under way. It lives in memory only: after a crash another one is begun.
struct Session {
    realm: [u8; 16],
    key_id: u32,
    first: Option<dkg::AfterRound1>,
    second: Option<dkg::AfterRound2>,
    received: BTreeMap<u8, Vec<u8>>,
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
    let listener =
        TcpListener::bind(&config.listen).await.with_context(|| format!("cannot listen on {}", config.listen))?;
    let holder = Arc::new(Holder {
        folder: Folder::open(config.state.clone())?,
        roster,
        signing,
        keys: Mutex::default(),
        sessions: Mutex::default(),
        config,
    });
    tracing::info!(index = holder.config.index, listen = holder.config.listen, "ready");
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => return Ok(()),
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let (acceptor, holder) = (acceptor.clone(), Arc::clone(&holder));
                tokio::spawn(async move {
                    if let Err(error) = serve(&holder, acceptor, stream).await {
                        tracing::debug!(%error, "a connection ended");
                    }
                });
            }
        }
    }
}

async fn serve(holder: &Arc<Holder>, acceptor: TlsAcceptor, stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = tokio::time::timeout(PATIENCE, acceptor.accept(stream)).await??;
    let certificate = stream.get_ref().1.peer_certificates().and_then(|c| c.first()).context("no certificate")?;
    let shown = pin(certificate);
    let peer = match holder.roster.holder_of(&shown) {
        Some(index) => Peer::Holder(index),
        None if holder.roster.gateways.contains(&shown) => Peer::Gateway,
        None => bail!("a peer that is not in the roster"),
    };
    while let Some(request) = wire::receive::<Request>(&mut stream).await? {
        let response = match holder.answer(peer, request).await {
            Ok(response) => response,
            Err(error) => Response::Refused(error.to_string()),
        };
        wire::send(&mut stream, &response).await?;
    }
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn realm(text: &str) -> Result<[u8; 16]> {
    hex::decode(text).ok().and_then(|bytes| bytes.try_into().ok()).context("a realm is 16 bytes")
}

impl Holder {
    async fn answer(&self, peer: Peer, request: Request) -> Result<Response> {
        match (peer, request) {
            (Peer::Gateway, Request::Eval { inputs, want_proof }) => self.evaluate(&inputs, want_proof),
            (Peer::Gateway, Request::KeyInfo { realm: r, key_id }) => {
                Ok(Response::Key(self.key(&realm(&r)?, key_id)?.map(|key| key.info)))
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

    fn key(&self, realm: &[u8; 16], key_id: u32) -> Result<Option<Key>> {
        if let Some(key) = lock(&self.keys).get(&(*realm, key_id)) {
            return Ok(Some(key.clone()));
        }
        let key = self.folder.load(realm, key_id)?;
        if let Some(key) = key.as_ref().filter(|key| key.info.active) {
            lock(&self.keys).insert((*realm, key_id), key.clone());
        }
        Ok(key)
    }

    /// All inputs of one request belong to one key, and that key is active.
    fn evaluate(&self, inputs: &[String], want_proof: bool) -> Result<Response> {
        ensure!(!inputs.is_empty() && inputs.len() <= LARGEST_BATCH, "a batch has 1 to {LARGEST_BATCH} inputs");
        let inputs: Vec<Vec<u8>> = inputs.iter().map(hex::decode).collect::<Result<_, _>>().context("hexadecimal")?;
        let parsed: Vec<Input> = inputs.iter().map(|x| Input::parse(x)).collect::<Result<_, _>>()?;
        let (realm, key_id) = (parsed[0].place.realm, parsed[0].place.key_id);
        let one_key = parsed.iter().all(|i| i.place.realm == realm && i.place.key_id == key_id);
        ensure!(one_key, "the inputs of a batch belong to one key");
        let key = self.key(&realm, key_id)?.filter(|key| key.info.active).context("this key is not known here")?;
        let partials: Vec<Partial> = inputs.iter().map(|x| key.share.evaluate(x)).collect::<Result<_, _>>()?;
        let proof = if want_proof {
            let inputs: Vec<&[u8]> = inputs.iter().map(Vec::as_slice).collect();
            Some(hex::encode(proof::prove(&key.share, &inputs, &partials)?.to_bytes()))
        } else {
            None
        };
        Ok(Response::Answers { partials: partials.iter().map(|p| hex::encode(p.to_bytes())).collect(), proof })
    }

    fn round1(&self, realm: [u8; 16], key_id: u32, session: String) -> Result<Response> {
        let active = self.key(&realm, key_id)?.is_some_and(|key| key.info.active);
        ensure!(!active, "this key exists already");
        let n = u8::try_from(self.roster.holders.len())?;
        let (first, package) = dkg::round1(self.config.index, n, self.roster.threshold)?;
        let mut sessions = lock(&self.sessions);
        sessions.retain(|_, other| (other.realm, other.key_id) != (realm, key_id));
        ensure!(sessions.len() < 64, "too many key generations are under way");
        let received = BTreeMap::new();
        sessions.insert(session, Session { realm, key_id, first: Some(first), second: None, received });
        Ok(Response::Package(hex::encode(package)))
    }

    async fn round2(&self, session: &str, packages: &BTreeMap<u8, String>) -> Result<Response> {
        let mut others = BTreeMap::new();
        for holder in self.roster.holders.iter().filter(|h| h.index != self.config.index) {
            let package = packages.get(&holder.index).context("a holder's package is missing")?;
            others.insert(holder.index, hex::decode(package)?);
        }
        let outgoing = {
            let mut sessions = lock(&self.sessions);
            let state = sessions.get_mut(session).context("this key generation is not known here")?;
            let first = state.first.take().context("this round was run already")?;
            let (second, outgoing) = dkg::round2(first, self.config.index, &others)?;
            state.second = Some(second);
            outgoing
        };
        for (to, package) in outgoing {
            let package = zeroize::Zeroizing::new(package);
            self.deliver(session, to, &package).await.with_context(|| format!("holder {to} cannot be reached"))?;
        }
        Ok(Response::Done)
    }

    /// From holder to holder, past the coordinator: this package is a secret between the two.
    async fn deliver(&self, session: &str, to: u8, package: &[u8]) -> Result<()> {
        let member = self.roster.holders.iter().find(|h| h.index == to).context("not in the roster")?;
        let connector = TlsConnector::from(tls::client(&self.config.identity, member.pin.clone())?);
        let exchange = async {
            let stream = TcpStream::connect(&member.address).await?;
            let mut stream = connector.connect("holder".try_into()?, stream).await?;
            let request = Request::Share { session: session.to_owned(), package: hex::encode(package) };
            wire::send(&mut stream, &request).await?;
            match wire::receive::<Response>(&mut stream).await? {
                Some(Response::Done) => Ok(()),
                Some(Response::Refused(why)) => bail!(why),
                _ => bail!("no answer"),
            }
        };
        tokio::time::timeout(PATIENCE, exchange).await?
    }

    fn share(&self, from: u8, session: &str, package: &str) -> Result<Response> {
        let mut sessions = lock(&self.sessions);
        let state = sessions.get_mut(session).context("this key generation is not known here")?;
        state.received.insert(from, hex::decode(package)?);
        Ok(Response::Done)
    }

    fn round3(&self, session: &str) -> Result<Response> {
        let state = lock(&self.sessions).remove(session).context("this key generation is not known here")?;
        let second = state.second.as_ref().context("the second round was not run")?;
        let context = [state.realm.as_slice(), &state.key_id.to_be_bytes(), &self.roster.canonical()].concat();
        let outcome = dkg::round3(second, self.config.index, &state.received, &context)?;
        let publics = outcome.publics.iter().map(|(i, p)| (*i, hex::encode(p.to_bytes()))).collect();
        let transcript = hex::encode(outcome.transcript);
        let info = KeyInfo { active: false, transcript, publics, signatures: BTreeMap::new() };
        let signature = hex::encode(self.signing.sign(&info.signed_bytes()).as_ref());
        let transcript = info.transcript.clone();
        self.folder.store(&state.realm, state.key_id, &Key { share: outcome.share, info })?;
        Ok(Response::Signed { transcript, signature })
    }

    /// A key is used only when every holder has durably stored its fragment and signed the same transcript.
    fn activate(
        &self,
        realm: &[u8; 16],
        key_id: u32,
        transcript: &str,
        signatures: BTreeMap<u8, String>,
    ) -> Result<Response> {
        let mut key = self.folder.load(realm, key_id)?.context("this key is not known here")?;
        ensure!(key.info.transcript == transcript, "this holder stored another generation of the key");
        check_signatures(&self.roster, &key.info, &signatures)?;
        key.info.active = true;
        key.info.signatures = signatures;
        self.folder.store(realm, key_id, &key)?;
        lock(&self.keys).insert((*realm, key_id), key);
        Ok(Response::Done)
    }
}

/// Every holder of the roster signed this key.
pub(crate) fn check_signatures(roster: &Roster, info: &KeyInfo, signatures: &BTreeMap<u8, String>) -> Result<()> {
    for holder in &roster.holders {
        let signature =
            signatures.get(&holder.index).with_context(|| format!("holder {} did not sign", holder.index))?;
        UnparsedPublicKey::new(&ED25519, hex::decode(&holder.signing_key)?)
            .verify(&info.signed_bytes(), &hex::decode(signature)?)
            .map_err(|_| anyhow!("the signature of holder {} does not hold", holder.index))?;
    }
    Ok(())
}
