//! The gateway's side: asks t holders, combines, and names whoever answers wrongly.
//!
//! Reads are optimistic: a wrong answer gives a key whose commitment differs, and only then proofs are asked for. Writes are
//! always proved, since a wrong answer there would destroy data later.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use volvelle_fragments::record::fresh_salt;
use volvelle_fragments::{Input, Kek, Partial, Place, Proof, PublicShare, Record, combine, proof};
use zeroize::Zeroizing;

use crate::daemon::check_signatures;
use crate::roster::{IdentityFiles, Member, Roster};
use crate::tls;
use crate::wire::{self, KeyInfo, Request, Response};

/// Longest a holder may take before the next one is asked.
const PATIENCE: Duration = Duration::from_secs(3);
/// A liar is asked again after this long.
const QUARANTINE: Duration = Duration::from_secs(600);
/// Most keys cached.
const CACHE_SIZE: usize = 100_000;

/// How a gateway reaches its holders.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuorumConfig {
    /// Who takes part.
    pub roster: PathBuf,
    /// The gateway's certificate and key.
    pub identity: IdentityFiles,
    /// Seconds a derived key may be kept; 0 = not at all.
    pub kek_cache_seconds: u64,
}

/// Why a quorum did not do it.
#[derive(Debug, thiserror::Error)]
pub enum QuorumError {
    /// Too few holders answer.
    #[error(
        "{needed} fragment holders are needed and only {reachable} answer ({detail}); values cannot be opened until another is back"
    )]
    TooFewHolders {
        /// The threshold.
        needed: u8,
        /// How many answered.
        reachable: usize,
        /// What the others said.
        detail: String,
    },
    /// The record does not belong to its place, or was changed.
    #[error(transparent)]
    Record(#[from] volvelle_fragments::Error),
    /// The key generation did not come to an end; it may be begun again.
    #[error("the key generation failed: {0}; every holder must be up to make a key")]
    KeyGeneration(String),
    /// The configuration is wrong.
    #[error("the holders' configuration is wrong: {0:#}")]
    Config(anyhow::Error),
}

/// What is known of a holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HolderStatus {
    /// Its index.
    pub index: u8,
    /// `up`, `down` or `quarantined`.
    pub state: &'static str,
}

type Stream = TlsStream<TcpStream>;
/// Public shares by realm and key.
type Publics = HashMap<([u8; 16], u32), Arc<BTreeMap<u8, PublicShare>>>;

struct Holder {
    member: Member,
    connector: TlsConnector,
    idle: Mutex<Vec<Stream>>,
    quarantined: Mutex<Option<Instant>>,
}

struct Inner {
    roster: Roster,
    holders: Vec<Holder>,
    publics: Mutex<Publics>,
    cache: Mutex<HashMap<Vec<u8>, (Instant, Kek)>>,
    cache_for: Duration,
}

/// The holders of a roster as one. Cheap to clone.
#[derive(Clone)]
pub struct Quorum(Arc<Inner>);

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Holder {
    async fn ask(&self, request: &Request, patience: Duration) -> Result<Response, String> {
        let exchange = async {
            let idle = lock(&self.idle).pop();
            let mut stream = match idle {
                Some(stream) => stream,
                None => self.connect().await?,
            };
            if wire::send(&mut stream, request).await.is_err() {
                // An idle connection may have been closed meanwhile.
                stream = self.connect().await?;
                wire::send(&mut stream, request).await?;
            }
            let response = match wire::receive::<Response>(&mut stream).await? {
                Some(response) => response,
                None => {
                    stream = self.connect().await?;
                    wire::send(&mut stream, request).await?;
                    wire::receive::<Response>(&mut stream).await?.ok_or_else(|| anyhow::anyhow!("no answer"))?
                }
            };
            lock(&self.idle).push(stream);
            anyhow::Ok(response)
        };
        match tokio::time::timeout(patience, exchange).await {
            Ok(Ok(Response::Refused(why))) => Err(why),
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("no answer in time".to_owned()),
        }
    }

    async fn connect(&self) -> anyhow::Result<Stream> {
        let stream = TcpStream::connect(&self.member.address).await?;
        stream.set_nodelay(true)?;
        Ok(self.connector.connect("holder".try_into()?, stream).await?)
    }

    fn is_quarantined(&self) -> bool {
        lock(&self.quarantined).is_some_and(|since| since.elapsed() < QUARANTINE)
    }
}

/// Answers of t holders for one input.
struct Answers(Vec<(u8, Partial)>);

impl Quorum {
    /// Reads the configuration; connects when first asked.
    ///
    /// # Errors
    /// A file is missing or makes no sense.
    pub fn new(config: &QuorumConfig) -> Result<Self, QuorumError> {
        let roster = Roster::load(&config.roster).map_err(QuorumError::Config)?;
        let mut holders = Vec::new();
        for member in &roster.holders {
            let connector = tls::client(&config.identity, member.pin.clone()).map_err(QuorumError::Config)?;
            holders.push(Holder {
                member: member.clone(),
                connector: connector.into(),
                idle: Mutex::default(),
                quarantined: Mutex::default(),
            });
        }
        Ok(Self(Arc::new(Inner {
            roster,
            holders,
            publics: Mutex::default(),
            cache: Mutex::default(),
            cache_for: Duration::from_secs(config.kek_cache_seconds),
        })))
    }

    /// Makes the key of a realm, or finds that it is there. Every holder must be up. A generation that broke off is begun anew.
    ///
    /// # Errors
    /// [`QuorumError::KeyGeneration`] says which holder is the reason.
    pub async fn create_key(&self, realm: [u8; 16], key_id: u32) -> Result<(), QuorumError> {
        let known = self.ask_all(|_| Request::KeyInfo { realm: hex::encode(realm), key_id }).await?;
        let infos: Vec<KeyInfo> =
            known.into_values().filter_map(|r| if let Response::Key(info) = r { info } else { None }).collect();
        if let Some(active) = infos.iter().find(|info| info.active) {
            let signatures = active.signatures.clone();
            return self.activate(realm, key_id, &active.transcript, signatures).await;
        }
        let session = hex::encode(fresh_salt()?);
        let start = |_| Request::Round1 { realm: hex::encode(realm), key_id, session: session.clone() };
        let packages: BTreeMap<u8, String> = self
            .ask_all(start)
            .await?
            .into_iter()
            .filter_map(|(index, r)| if let Response::Package(p) = r { Some((index, p)) } else { None })
            .collect();
        self.ask_all(|_| Request::Round2 { session: session.clone(), packages: packages.clone() }).await?;
        let signed = self.ask_all(|_| Request::Round3 { session: session.clone() }).await?;
        let mut signatures = BTreeMap::new();
        let mut transcripts = HashSet::new();
        for (index, response) in signed {
            let Response::Signed { transcript, signature } = response else { continue };
            signatures.insert(index, signature);
            transcripts.insert(transcript);
        }
        let mut transcripts = transcripts.into_iter();
        match (transcripts.next(), transcripts.next()) {
            (Some(transcript), None) => self.activate(realm, key_id, &transcript, signatures).await,
            _ => Err(QuorumError::KeyGeneration("the holders do not agree on what was generated".into())),
        }
    }

    async fn activate(
        &self,
        realm: [u8; 16],
        key_id: u32,
        transcript: &str,
        signatures: BTreeMap<u8, String>,
    ) -> Result<(), QuorumError> {
        let request = |_| Request::Activate {
            realm: hex::encode(realm),
            key_id,
            transcript: transcript.to_owned(),
            signatures: signatures.clone(),
        };
        self.ask_all(request).await.map(|_| ())
    }

    async fn ask_all(&self, request: impl Fn(u8) -> Request) -> Result<BTreeMap<u8, Response>, QuorumError> {
        let asked = self.0.holders.iter().map(|holder| {
            let request = request(holder.member.index);
            async move { (holder.member.index, holder.ask(&request, PATIENCE * 5).await) }
        });
        let mut answers = BTreeMap::new();
        for (index, answer) in futures_util::future::join_all(asked).await {
            let answer = answer.map_err(|why| QuorumError::KeyGeneration(format!("holder {index}: {why}")))?;
            answers.insert(index, answer);
        }
        Ok(answers)
    }

    /// Seals a value at its place, under a key that t holders proved.
    ///
    /// # Errors
    /// Too few holders answer with a proof that holds.
    pub async fn seal(&self, place: &Place, plaintext: &[u8]) -> Result<Vec<u8>, QuorumError> {
        let input = Input { place: place.clone(), salt: fresh_salt()? };
        let kek = self.derive(&input, true).await?;
        Ok(Record::seal(&input, &kek, false, plaintext)?.as_bytes().to_vec())
    }

    /// Opens a record at its place.
    ///
    /// # Errors
    /// The record does not belong there or was changed, or too few holders answer.
    pub async fn open(&self, place: &Place, record: &[u8]) -> Result<Zeroizing<Vec<u8>>, QuorumError> {
        let record = Record::parse(record)?;
        let input = record.input(place)?;
        if let Some(kek) = self.cached(&input)? {
            return Ok(record.open(&input, &kek)?);
        }
        let kek = self.derive(&input, false).await?;
        match record.open(&input, &kek) {
            Ok(plain) => {
                self.keep(&input, &kek)?;
                Ok(plain)
            }
            Err(volvelle_fragments::Error::Commitment) => {
                // Somebody answered wrongly, or the record was moved: proofs tell which.
                let proved = self.derive(&input, true).await?;
                let plain = record.open(&input, &proved)?;
                self.keep(&input, &proved)?;
                Ok(plain)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The same value at another path; the payload is not touched.
    ///
    /// # Errors
    /// As [`Self::open`] and [`Self::seal`].
    pub async fn rewrap(&self, from: &Place, to: &Place, record: &[u8]) -> Result<Vec<u8>, QuorumError> {
        let record = Record::parse(record)?;
        let from = record.input(from)?;
        let to = Input { place: to.clone(), salt: from.salt };
        let (old, new) = (self.derive(&from, true).await?, self.derive(&to, true).await?);
        Ok(record.rewrap((&from, &old), (&to, &new), record.with_customer())?.as_bytes().to_vec())
    }

    /// How the holders are, by asking each.
    pub async fn status(&self) -> Vec<HolderStatus> {
        let nothing = Request::KeyInfo { realm: hex::encode([0; 16]), key_id: 0 };
        let asked = self.0.holders.iter().map(|holder| async {
            let up = holder.ask(&nothing, PATIENCE).await.is_ok();
            let state = match (holder.is_quarantined(), up) {
                (true, _) => "quarantined",
                (false, true) => "up",
                (false, false) => "down",
            };
            HolderStatus { index: holder.member.index, state }
        });
        futures_util::future::join_all(asked).await
    }

    async fn derive(&self, input: &Input, proved: bool) -> Result<Kek, QuorumError> {
        let x = input.encode()?;
        let publics = if proved { Some(self.publics(input.place.realm, input.place.key_id).await?) } else { None };
        let Answers(answers) = self.evaluate(&x, publics.as_deref()).await?;
        Ok(Kek::derive(&x, &combine(&answers)?, None)?)
    }

    /// Asks t holders, and another one for each that fails; with `publics` an answer counts only with a proof that holds.
    async fn evaluate(&self, x: &[u8], publics: Option<&BTreeMap<u8, PublicShare>>) -> Result<Answers, QuorumError> {
        let needed = usize::from(self.0.roster.threshold);
        let mut waiting = self.0.holders.iter().filter(|h| !h.is_quarantined());
        let request = Request::Eval { inputs: vec![hex::encode(x)], want_proof: publics.is_some() };
        let by_index = |index: u8| self.0.holders.iter().find(|h| h.member.index == index);
        let mut asked: FuturesUnordered<_> =
            waiting.by_ref().take(needed).map(|holder| asking(holder, &request)).collect();
        let (mut answers, mut complaints) = (Vec::new(), Vec::new());
        while let Some((index, response)) = asked.next().await {
            match response.and_then(|response| partial(index, &response, x, publics)) {
                Ok(partial) => answers.push((index, partial)),
                Err(why) => {
                    if why == LIED
                        && let Some(holder) = by_index(index)
                    {
                        tracing::error!(holder = index, "a fragment holder answered wrongly and is left out");
                        *lock(&holder.quarantined) = Some(Instant::now());
                    }
                    complaints.push(format!("holder {index}: {why}"));
                    if let Some(holder) = waiting.next() {
                        asked.push(asking(holder, &request));
                    }
                }
            }
            if answers.len() == needed {
                return Ok(Answers(answers));
            }
        }
        let needed = self.0.roster.threshold;
        Err(QuorumError::TooFewHolders { needed, reachable: answers.len(), detail: complaints.join("; ") })
    }

    /// The public shares of a key, believed only with the signature of every holder.
    async fn publics(&self, realm: [u8; 16], key_id: u32) -> Result<Arc<BTreeMap<u8, PublicShare>>, QuorumError> {
        if let Some(publics) = lock(&self.0.publics).get(&(realm, key_id)) {
            return Ok(Arc::clone(publics));
        }
        let request = Request::KeyInfo { realm: hex::encode(realm), key_id };
        let mut complaints = Vec::new();
        for holder in &self.0.holders {
            match holder.ask(&request, PATIENCE).await {
                Ok(Response::Key(Some(info))) if check_signatures(&self.0.roster, &info, &info.signatures).is_ok() => {
                    let mut publics = BTreeMap::new();
                    for (index, text) in &info.publics {
                        let bytes =
                            hex::decode(text).map_err(|_| volvelle_fragments::Error::Encoding("a public share"))?;
                        publics.insert(*index, PublicShare::from_bytes(&bytes)?);
                    }
                    let publics = Arc::new(publics);
                    lock(&self.0.publics).insert((realm, key_id), Arc::clone(&publics));
                    return Ok(publics);
                }
                Ok(_) => complaints.push(format!("holder {}: has no such key", holder.member.index)),
                Err(why) => complaints.push(format!("holder {}: {why}", holder.member.index)),
            }
        }
        let needed = self.0.roster.threshold;
        Err(QuorumError::TooFewHolders { needed, reachable: 0, detail: complaints.join("; ") })
    }

    fn cached(&self, input: &Input) -> Result<Option<Kek>, QuorumError> {
        let key = input.encode()?;
        let mut cache = lock(&self.0.cache);
        match cache.get(&key) {
            Some((since, kek)) if since.elapsed() < self.0.cache_for => Ok(Some(kek.clone())),
            Some(_) => {
                cache.remove(&key);
                Ok(None)
            }
            None => Ok(None),
        }
    }

    fn keep(&self, input: &Input, kek: &Kek) -> Result<(), QuorumError> {
        if self.0.cache_for.is_zero() {
            return Ok(());
        }
        let mut cache = lock(&self.0.cache);
        if cache.len() >= CACHE_SIZE {
            let cache_for = self.0.cache_for;
            cache.retain(|_, (since, _)| since.elapsed() < cache_for);
            if cache.len() >= CACHE_SIZE {
                cache.clear();
            }
        }
        cache.insert(input.encode()?, (Instant::now(), kek.clone()));
        Ok(())
    }

    /// Forgets every cached key.
    pub fn forget(&self) {
        lock(&self.0.cache).clear();
    }
}

async fn asking(holder: &Holder, request: &Request) -> (u8, Result<Response, String>) {
    (holder.member.index, holder.ask(request, PATIENCE).await)
}

const LIED: &str = "its proof does not hold";

fn partial(
    index: u8,
    response: &Response,
    x: &[u8],
    publics: Option<&BTreeMap<u8, PublicShare>>,
) -> Result<Partial, String> {
    let Response::Answers { partials, proof } = response else { return Err("an unexpected answer".into()) };
    let [only] = partials.as_slice() else { return Err("an unexpected number of answers".into()) };
    let read = |text: &str| hex::decode(text).map_err(|_| "an answer that is no hexadecimal".to_owned());
    let partial = Partial::from_bytes(&read(only)?).map_err(|error| error.to_string())?;
    let Some(publics) = publics else { return Ok(partial) };
    let proof = proof.as_deref().ok_or("no proof")?;
    let proof = Proof::from_bytes(&read(proof)?).map_err(|_| LIED.to_owned())?;
    let public = publics.get(&index).ok_or("no public share")?;
    proof::verify(public, &[x], &[partial], &proof).map_err(|_| LIED.to_owned())?;
    Ok(partial)
}
