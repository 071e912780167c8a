//! The holder's part in the three rounds of a key generation or a refresh, and the activation of a new key.
//!
//! What must stay true: secret packages go from holder to holder, never through the coordinator; a fragment is stored before its
//! transcript is signed; a key is used only after every holder signed the same transcript.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use volvelle_fragments::dkg::Outcome;
use volvelle_fragments::{Suite, dkg, refresh};
use zeroize::Zeroizing;

use super::{Holder, PATIENCE, certificate};
use crate::channel::{Channel, Turn};
use crate::lock;
use crate::state::{KeyName, now};
use crate::tls;
use crate::wire::{KeyInfo, Kind, Request, Response};

/// Generations and refreshes under way at once, at most.
const SESSIONS: usize = 64;

/// A coordinator that began is not interrupted by another one for so long.
const PRECEDENCE: Duration = Duration::from_secs(2);

/// What a session makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    NewKey,
    /// New fragments, from those of an epoch.
    Refresh {
        base: u32,
        epoch: u32,
    },
}

enum First {
    NewKey(dkg::AfterRound1),
    Refresh(refresh::AfterRound1),
}

enum Second {
    NewKey(dkg::AfterRound2),
    Refresh(refresh::AfterRound2),
}

/// A generation or refresh under way. It lives in memory only: after a crash another one is begun.
pub(super) struct Session {
    name: KeyName,
    purpose: Purpose,
    begun: Instant,
    first: Option<First>,
    second: Option<Second>,
    received: BTreeMap<u8, Zeroizing<Vec<u8>>>,
}

impl Session {
    pub(super) fn receive(&mut self, from: u8, package: Zeroizing<Vec<u8>>) -> Result<Response> {
        self.received.insert(from, package);
        Ok(Response::Done)
    }
}

impl Holder {
    pub(super) fn round1(&self, name: KeyName, session: String, suite: Suite) -> Result<Response> {
        ensure!(self.suites().contains(&suite), "this holder makes no keys of suite {suite}");
        let active = self.key(&name)?.is_some_and(|key| key.newest().is_some());
        ensure!(!active, "this key exists already");
        ensure!(!self.folder.was_destroyed(&name), "this key was destroyed; take another id");
        let n = u8::try_from(self.roster.holders.len())?;
        let (first, package) = dkg::round1(suite, self.config.index, n, self.roster.threshold)?;
        self.begin(session, name, Purpose::NewKey, First::NewKey(first))?;
        Ok(Response::Package(hex::encode(package)))
    }

    pub(super) fn refresh1(&self, name: KeyName, session: String, (base, epoch): (u32, u32)) -> Result<Response> {
        let key = self.key(&name)?.context("this key is not known here")?;
        // Whether the outcome could be stored is known before anything is computed.
        key.epochs()?.prepare(base, epoch, [0; 32])?;
        let slot = key.slots.get(&base).with_context(|| format!("epoch {base} is not held here"))?;
        let n = u8::try_from(self.roster.holders.len())?;
        let (first, package) = refresh::round1(slot.share.suite(), self.config.index, n, slot.info.threshold()?)?;
        self.begin(session, name, Purpose::Refresh { base, epoch }, First::Refresh(first))?;
        Ok(Response::Package(hex::encode(package)))
    }

    fn begin(&self, session: String, name: KeyName, purpose: Purpose, first: First) -> Result<()> {
        let mut sessions = lock(&self.sessions);
        // The first holder decides between two coordinators; else each would break off what the other began.
        let decides = self.roster.holders.first().is_some_and(|first| first.index == self.config.index);
        let fresh = |other: &Session| other.name == name && other.begun.elapsed() < PRECEDENCE;
        ensure!(!decides || !sessions.values().any(fresh), "another one began this a moment ago and goes first");
        sessions.retain(|_, other| other.name != name);
        ensure!(sessions.len() < SESSIONS, "too many key generations are under way");
        let received = BTreeMap::new();
        let begun = Instant::now();
        sessions.insert(session, Session { name, purpose, begun, first: Some(first), second: None, received });
        Ok(())
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
            let (second, outgoing) = match state.first.take().context("this round was run already")? {
                First::NewKey(first) => {
                    let (second, outgoing) = dkg::round2(first, self.config.index, &others)?;
                    (Second::NewKey(second), outgoing)
                }
                First::Refresh(first) => {
                    let (second, outgoing) = refresh::round2(first, self.config.index, &others)?;
                    (Second::Refresh(second), outgoing)
                }
            };
            state.second = Some(second);
            outgoing
        };
        for (to, package) in outgoing {
            self.deliver(session, to, &Zeroizing::new(package)).await?;
        }
        Ok(Response::Done)
    }

    /// From holder to holder, past the coordinator: this package is a secret between the two.
    pub(super) async fn deliver(&self, session: &str, to: u8, package: &[u8]) -> Result<()> {
        let member = self.roster.holders.iter().find(|h| h.index == to).context("not in the roster")?;
        let connector = TlsConnector::from(tls::client(&self.config.identity, member.pin.clone())?);
        let exchange = async {
            let stream = TcpStream::connect(&member.address).await?;
            let mut channel = Channel::new(connector.connect("holder".try_into()?, stream).await?);
            let request = Request::Share { session: session.to_owned(), package: hex::encode(package) };
            channel.send(Kind::Request, 1, &Zeroizing::new(serde_json::to_vec(&request)?))?;
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
        let sent = tokio::time::timeout(PATIENCE, exchange).await.context("no answer in time");
        sent.and_then(|sent| sent).with_context(|| format!("holder {to} cannot be reached"))
    }

    pub(super) fn round3(&self, session: &str) -> Result<Response> {
        let state = lock(&self.sessions).remove(session).context("this key generation is not known here")?;
        let received: BTreeMap<u8, Vec<u8>> =
            state.received.iter().map(|(from, package)| (*from, package.to_vec())).collect();
        let (name, index) = (state.name, self.config.index);
        let info = match (&state.purpose, state.second.as_ref().context("the second round was not run")?) {
            (Purpose::NewKey, Second::NewKey(second)) => {
                let outcome = dkg::round3(second, index, &received, &self.context(&name, &[]))?;
                self.change(&name, |key| {
                    ensure!(key.newest().is_none(), "this key exists already");
                    let info = info(&outcome, 0);
                    self.folder.add(&name, key, outcome.share, info.clone())?;
                    Ok(info)
                })?
            }
            (Purpose::Refresh { base, epoch }, Second::Refresh(second)) => self.change(&name, |key| {
                let slot = key.slots.get(base).with_context(|| format!("epoch {base} is not held here"))?;
                let (from, to) = (base.to_be_bytes(), epoch.to_be_bytes());
                let context = self.context(&name, &[&from, &to, &slot.info.transcript()?]);
                let publics = slot.info.shares_for(&self.roster)?;
                let members = refresh::Members { threshold: slot.info.threshold()?, publics: &publics };
                let outcome = refresh::round3((second, index), &received, &slot.share, &members, &context)?;
                key.epochs()?.prepare(*base, *epoch, outcome.transcript)?;
                let info = info(&outcome, *epoch);
                self.folder.add(&name, key, outcome.share, info.clone())?;
                Ok(info)
            })?,
            _ => bail!("the rounds do not belong together"),
        };
        Ok(self.sign(&name, &info))
    }

    /// What all must agree on besides the packages.
    fn context(&self, (realm, key_id): &KeyName, more: &[&[u8]]) -> Vec<u8> {
        [realm.as_slice(), &key_id.to_be_bytes(), &more.concat(), &self.roster.canonical()].concat()
    }

    pub(super) fn sign(&self, name: &KeyName, info: &KeyInfo) -> Response {
        let signature = hex::encode(self.signing.sign(&info.signed_bytes(name)).as_ref());
        Response::Signed { transcript: info.transcript.clone(), signature }
    }

    /// A key is used only when every holder has durably stored its fragment and signed the same transcript.
    pub(super) fn activate(
        &self,
        name: &KeyName,
        transcript: &str,
        signatures: BTreeMap<u8, String>,
    ) -> Result<Response> {
        self.change(name, |key| {
            // It was refreshed since.
            if key.newest().is_some_and(|newest| newest.info.epoch > 0) {
                return Ok(Response::Done);
            }
            let slot = key.slots.get_mut(&0).context("this key is not known here")?;
            ensure!(slot.info.transcript == transcript, "this holder stored another generation of the key");
            certificate(&self.roster, name, &slot.info, &signatures)?;
            slot.info.active = true;
            slot.info.signatures = signatures;
            key.since = now();
            self.folder.save(name, key)?;
            Ok(Response::Done)
        })
    }
}

fn info(outcome: &Outcome, epoch: u32) -> KeyInfo {
    KeyInfo {
        active: false,
        epoch,
        transcript: hex::encode(outcome.transcript),
        publics: outcome.publics.iter().map(|(i, p)| (*i, hex::encode(p.to_bytes()))).collect(),
        signatures: BTreeMap::new(),
    }
}
