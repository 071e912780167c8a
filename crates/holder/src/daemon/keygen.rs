//! The holder's part in a key generation: three rounds and the activation.
//!
//! What must stay true: secret packages go from holder to holder, never through the coordinator; a fragment is stored before its
//! transcript is signed; a key is used only after every holder signed the same transcript.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use volvelle_fragments::dkg;

use super::{Holder, PATIENCE};
use crate::channel::{Channel, Turn};
use crate::lock;
use crate::roster::Roster;
use crate::state::Key;
use crate::tls;
use crate::wire::{KeyInfo, Kind, Request, Response};

/// Generations under way at once, at most.
const SESSIONS: usize = 64;

/// A key generation under way. It lives in memory only: after a crash another one is begun.
pub(super) struct Session {
    realm: [u8; 16],
    key_id: u32,
    first: Option<dkg::AfterRound1>,
    second: Option<dkg::AfterRound2>,
    received: BTreeMap<u8, Vec<u8>>,
}

impl Holder {
    pub(super) fn round1(&self, realm: [u8; 16], key_id: u32, session: String) -> Result<Response> {
        let active = self.key(&realm, key_id)?.is_some_and(|key| key.info.active);
        ensure!(!active, "this key exists already");
        let n = u8::try_from(self.roster.holders.len())?;
        let (first, package) = dkg::round1(self.config.index, n, self.roster.threshold)?;
        let mut sessions = lock(&self.sessions);
        sessions.retain(|_, other| (other.realm, other.key_id) != (realm, key_id));
        ensure!(sessions.len() < SESSIONS, "too many key generations are under way");
        let received = BTreeMap::new();
        sessions.insert(session, Session { realm, key_id, first: Some(first), second: None, received });
        Ok(Response::Package(hex::encode(package)))
    }

    pub(super) async fn round2(&self, session: &str, packages: &BTreeMap<u8, String>) -> Result<Response> {
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
            let mut channel = Channel::new(connector.connect("holder".try_into()?, stream).await?);
            let request = Request::Share { session: session.to_owned(), package: hex::encode(package) };
            channel.send(Kind::Request, 1, &zeroize::Zeroizing::new(serde_json::to_vec(&request)?))?;
            loop {
                channel.turn(Turn::ReadAndWrite).await?;
                let Some(frame) = channel.next()? else { continue };
                match frame.kind {
                    Kind::Response => return Ok(()),
                    Kind::Refused => bail!(String::from_utf8_lossy(&frame.body).into_owned()),
                    _ => bail!("an unexpected answer"),
                }
            }
        };
        tokio::time::timeout(PATIENCE, exchange).await?
    }

    pub(super) fn share(&self, from: u8, session: &str, package: &str) -> Result<Response> {
        let mut sessions = lock(&self.sessions);
        let state = sessions.get_mut(session).context("this key generation is not known here")?;
        state.received.insert(from, hex::decode(package)?);
        Ok(Response::Done)
    }

    pub(super) fn round3(&self, session: &str) -> Result<Response> {
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
    pub(super) fn activate(
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
        lock(&self.keys).insert((*realm, key_id), Arc::new(key));
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
