//! The gateway's side: asks t holders, combines, and names whoever answers wrongly.
//!
//! Reads are optimistic: a wrong answer gives a key whose commitment differs, and only then proofs are asked for. Writes are
//! always proved, since a wrong answer there would destroy data later.

mod ask;
mod bury;
mod cache;
mod customer;
mod doctor;
mod epochs;
mod generate;
mod health;
mod hedge;
mod refresh;
mod rekey;
mod repair;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use volvelle_fragments::record::fresh_salt;
use volvelle_fragments::{Bound, Combined, Error, Input, Kek, Place, PublicShare, Record, Sealed, Suite, Weights};
use zeroize::Zeroizing;

pub use self::bury::{Grave, LARGEST_BURIAL};
use self::cache::Cache;
pub use self::doctor::{Finding, Severity};
use self::epochs::View;
use self::hedge::Hedges;
pub use self::refresh::Refreshed;
pub use self::rekey::Fate;
pub use self::repair::Repaired;
use crate::customer::{CustomerFragments, Presence, Wanted};
use crate::eval::Operation;
use crate::link::Link;
use crate::lock;
use crate::roster::{IdentityFiles, Roster};
use crate::tls;
use crate::trust;

/// Longest a holder may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// A liar is asked again after this long.
const QUARANTINE: Duration = Duration::from_secs(600);
/// Records opened by one message.
const BATCH: usize = 64;
/// Messages of one [`Quorum::open_many`] under way at once.
const MESSAGES: usize = 4;
/// What a holder is believed to take before it was ever asked.
const FIRST_GUESS_US: u32 = 20_000;

/// How a gateway reaches its holders.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuorumConfig {
    /// Who takes part.
    pub roster: PathBuf,
    /// The gateway's certificate and key.
    pub identity: IdentityFiles,
    /// Seconds a derived key may be kept; 0 = not at all.
    #[serde(default = "usual_cache")]
    pub kek_cache_seconds: u64,
    /// Hours after which every fragment is replaced; 0 = only when somebody asks for it.
    #[serde(default = "usual_refresh")]
    pub refresh_hours: u64,
    /// The cryptographic suite of the keys of new accounts: `ristretto255` or `p256`.
    #[serde(default)]
    pub suite: Suite,
}

/// Seconds a derived key is kept when nobody says.
const fn usual_cache() -> u64 {
    30
}

/// A week, when nobody says.
pub(crate) const fn usual_refresh() -> u64 {
    7 * 24
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
    Record(#[from] Error),
    /// The key generation did not come to an end; it may be begun again.
    #[error("the key generation failed: {0}; every holder must be up to make a key")]
    KeyGeneration(String),
    /// A refresh or repair did not come to an end. Nothing is lost; it may be repeated.
    #[error("{0}")]
    Holders(String),
    /// So many holders refuse that too few are left.
    #[error("{detail}")]
    Refused {
        /// What they object to.
        why: Refusal,
        /// Which holder says what.
        detail: String,
    },
    /// The customer's fragment is needed, and this gateway has not got it.
    #[error("{}", customer::absent(.fragment, *.presence))]
    CustomerFragment {
        /// Its id; empty if that is not known.
        fragment: String,
        /// Whether it is missing or another one.
        presence: Presence,
    },
    /// The token that keeps the customer's fragment does not answer, or has another key.
    #[error("the token that keeps the customer's fragment {fragment} fails: {detail}")]
    CustomerToken {
        /// Its id.
        fragment: String,
        /// What the token says.
        detail: String,
    },
    /// The configuration is wrong.
    #[error("the holders' configuration is wrong: {0:#}")]
    Config(anyhow::Error),
}

/// What holders object to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The version was deleted.
    Deleted,
    /// Their policy does not allow this gateway to ask for it.
    Policy,
    /// The gateway has asked for as many items as it may.
    Budget,
    /// No client of this gateway shows that it may ask.
    Authorization,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Deleted => "this version was deleted",
            Self::Policy => "its policy forbids it",
            Self::Budget => "its budget is used up",
            Self::Authorization => "no client's authorization",
        })
    }
}

impl QuorumError {
    /// The same for each record of a message.
    fn repeat(&self) -> Self {
        match self {
            Self::TooFewHolders { needed, reachable, detail } => {
                Self::TooFewHolders { needed: *needed, reachable: *reachable, detail: detail.clone() }
            }
            Self::Record(error) => Self::Record(*error),
            Self::KeyGeneration(why) => Self::KeyGeneration(why.clone()),
            Self::Holders(why) => Self::Holders(why.clone()),
            Self::Refused { why, detail } => Self::Refused { why: *why, detail: detail.clone() },
            Self::CustomerFragment { fragment, presence } => {
                Self::CustomerFragment { fragment: fragment.clone(), presence: *presence }
            }
            Self::CustomerToken { fragment, detail } => {
                Self::CustomerToken { fragment: fragment.clone(), detail: detail.clone() }
            }
            Self::Config(error) => Self::Config(anyhow::anyhow!("{error:#}")),
        }
    }
}

/// What is known of a holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HolderStatus {
    /// Its index.
    pub index: u8,
    /// `up`; `down`; `lost` (it has no fragment); `stale` (it has an older one only); `quarantined` (it answered wrongly).
    pub state: &'static str,
    /// The newest epoch it has the certificate of.
    pub epoch: Option<u32>,
    /// Every epoch it holds; more than one while a refresh is under way or broke off.
    pub epochs_held: Vec<u32>,
    /// When its newest certificate came, in seconds since 1970.
    pub refreshed_at: Option<u64>,
    /// Deleted versions that it never evaluates again, if it answered.
    pub tombstones: Option<u64>,
    /// Seconds its clock differs from this one's, if it answered.
    pub clock_skew: Option<u64>,
    /// How long a question and its answer took, if it answered.
    pub round_trip: Option<Duration>,
    /// Program and version, if it answered.
    pub software: Option<String>,
    /// The cryptographic suites it speaks, if it answered.
    pub suites: Vec<u8>,
    /// When a backup of its state was made, in seconds since 1970, as far as it knows.
    pub backup_at: Option<u64>,
    /// Why it is not up.
    pub detail: Option<String>,
}

impl HolderStatus {
    /// Nothing is known of it.
    const fn unknown(index: u8) -> Self {
        Self {
            index,
            state: "down",
            epoch: None,
            epochs_held: Vec::new(),
            refreshed_at: None,
            tombstones: None,
            clock_skew: None,
            round_trip: None,
            software: None,
            suites: Vec::new(),
            backup_at: None,
            detail: None,
        }
    }
}

/// A key's realm and id.
pub type KeyName = ([u8; 16], u32);
/// Public shares by holder.
type Publics = BTreeMap<u8, PublicShare>;
type Opened = Result<Zeroizing<Vec<u8>>, QuorumError>;
/// One record of many, with its place among them.
type Asked<'a> = (usize, Sealed<'a>, Bound);

/// A holder as the gateway sees it.
struct Peer {
    index: u8,
    link: Link,
    quarantined: Mutex<Option<Instant>>,
    /// It failed of late: others are asked first, and it is probed until it answers.
    down: AtomicBool,
    /// It showed to have an older fragment only.
    stale: AtomicBool,
    /// The median of what it takes, in microseconds.
    median_us: AtomicU32,
}

struct Inner {
    roster: Roster,
    peers: Vec<Arc<Peer>>,
    views: Mutex<HashMap<KeyName, Arc<View>>>,
    /// The key holders are probed with.
    last_used: Mutex<Option<KeyName>>,
    /// By the set of indices, as bits.
    weights: RwLock<HashMap<u16, Arc<Weights>>>,
    hedges: Hedges,
    cache: Cache,
    customer: CustomerFragments,
    refresh_hours: u64,
    suite: Suite,
    /// Half random, half counted: names requests.
    requests: (u64, AtomicU64),
    upkeep: Mutex<Option<JoinHandle<()>>>,
}

/// The holders of a roster as one. Cheap to clone, for any number of tasks.
#[derive(Clone)]
pub struct Quorum(Arc<Inner>);

impl Quorum {
    /// Reads the configuration; connects when first asked.
    ///
    /// # Errors
    /// A file is missing or makes no sense.
    pub fn new(config: &QuorumConfig) -> Result<Self, QuorumError> {
        Self::with_customer(config, CustomerFragments::default())
    }

    /// The same with the customer's fragments that this gateway has.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_customer(config: &QuorumConfig, customer: CustomerFragments) -> Result<Self, QuorumError> {
        let roster = trust::believed(&config.roster).map_err(QuorumError::Config)?;
        let mut peers = Vec::new();
        for member in &roster.holders {
            let connector = tls::client(&config.identity, member.pin.clone()).map_err(QuorumError::Config)?;
            peers.push(Arc::new(Peer {
                index: member.index,
                link: Link::new(member.clone(), connector.into()),
                quarantined: Mutex::default(),
                down: AtomicBool::new(false),
                stale: AtomicBool::new(false),
                median_us: AtomicU32::new(FIRST_GUESS_US),
            }));
        }
        let [a, b, c, d, e, f, g, h, ..] = fresh_salt()?;
        Ok(Self(Arc::new(Inner {
            roster,
            peers,
            views: Mutex::default(),
            refresh_hours: config.refresh_hours,
            suite: config.suite,
            last_used: Mutex::default(),
            weights: RwLock::default(),
            hedges: Hedges::default(),
            cache: Cache::new(Duration::from_secs(config.kek_cache_seconds)),
            customer,
            requests: (u64::from_be_bytes([a, b, c, d, e, f, g, h]), AtomicU64::new(0)),
            upkeep: Mutex::default(),
        })))
    }

    /// Seals a value at its place, under a key that t holders proved.
    ///
    /// # Errors
    /// Too few holders answer with a proof that holds.
    pub async fn seal(&self, place: &Place, plaintext: &[u8]) -> Result<Vec<u8>, QuorumError> {
        self.seal_with(place, None, plaintext).await
    }

    /// The same with a leg of the customer's, if one is wanted.
    ///
    /// # Errors
    /// As [`Self::seal`], or the customer's fragment is not here.
    pub async fn seal_with(
        &self,
        place: &Place,
        customer: Option<Wanted<'_>>,
        plaintext: &[u8],
    ) -> Result<Vec<u8>, QuorumError> {
        // Before anybody is asked: a write without its leg is no write.
        let held = customer.map(|wanted| self.0.customer.find(wanted)).transpose()?;
        let key = (place.realm, place.key_id);
        let input = Input { suite: self.suite_of(key).await?, place: place.clone(), salt: fresh_salt()? };
        let x = input.encode()?;
        let leg = match held {
            Some(held) => Some(held.leg_to_seal(&x).await?),
            None => None,
        };
        let combined = self.derive_proved(Operation::Seal, key, &[&x]).await?;
        let kek = Kek::derive(&x, combined.first().ok_or(Error::Quorum)?, leg.as_deref())?;
        Ok(Record::seal(&input, &kek, leg.is_some(), plaintext)?.into_bytes())
    }

    /// Opens a record at its place.
    ///
    /// # Errors
    /// The record does not belong there or was changed, or too few holders answer.
    pub async fn open(&self, place: &Place, record: &[u8]) -> Opened {
        let bound = Sealed::parse(record)?.bind(place)?;
        self.open_bound(&bound, record).await
    }

    /// Opens a record that was bound to its place before.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn open_bound(&self, bound: &Bound, record: &[u8]) -> Opened {
        if let Some(plain) = self.open_cached(bound, record)? {
            return Ok(plain);
        }
        let sealed = Sealed::parse(record)?;
        self.has_legs(sealed)?;
        let chunk = [(0, sealed, bound.clone())];
        let mut opened = Box::pin(self.open_chunk((bound.realm(), sealed.key_id()), &chunk)).await;
        opened.pop().map_or(Err(Error::Library.into()), |(_, v)| v)
    }

    /// The same by a cached key; `None` if there is none.
    ///
    /// # Errors
    /// The record was changed.
    pub fn open_cached(&self, bound: &Bound, record: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>, QuorumError> {
        let Some(kek) = self.0.cache.find(bound.name()) else { return Ok(None) };
        Ok(Some(Sealed::parse(record)?.open(bound, &kek)?))
    }

    /// Opens many records, each at its place, in few messages. Each has its own outcome, in the order given.
    pub async fn open_many(&self, records: &[(Place, Vec<u8>)]) -> Vec<Opened> {
        let mut outcomes: Vec<Option<Opened>> = Vec::new();
        // Apart by suite too: one record that claims another one spoils no message but its own.
        let mut cold: BTreeMap<(KeyName, Suite), Vec<Asked<'_>>> = BTreeMap::new();
        for (n, (place, record)) in records.iter().enumerate() {
            let bound = Sealed::parse(record).and_then(|sealed| Ok((sealed, sealed.bind(place)?)));
            outcomes.push(match bound {
                Err(error) => Some(Err(error.into())),
                Ok((sealed, bound)) => match self.0.cache.find(bound.name()) {
                    Some(kek) => Some(sealed.open(&bound, &kek).map_err(QuorumError::from)),
                    None if self.has_legs(sealed).is_err() => self.has_legs(sealed).err().map(Err),
                    None => {
                        cold.entry(((place.realm, sealed.key_id()), sealed.suite()))
                            .or_default()
                            .push((n, sealed, bound));
                        None
                    }
                },
            });
        }
        let chunks = cold.iter().flat_map(|((key, _), records)| records.chunks(BATCH).map(|chunk| (*key, chunk)));
        let messages: Vec<_> = chunks.map(|(key, chunk)| self.open_chunk(key, chunk)).collect();
        let mut opened = futures_util::stream::iter(messages).buffer_unordered(MESSAGES);
        while let Some(chunk) = opened.next().await {
            for (n, outcome) in chunk {
                outcomes[n] = Some(outcome);
            }
        }
        outcomes.into_iter().map(|outcome| outcome.unwrap_or(Err(Error::Library.into()))).collect()
    }

    /// Opens records of one key by one message; those whose commitment differs, by a second one with proofs, which tells
    /// whether somebody answered wrongly or the record was moved.
    async fn open_chunk(&self, key: KeyName, chunk: &[Asked<'_>]) -> Vec<(usize, Opened)> {
        let xs: Vec<&[u8]> = chunk.iter().map(|(_, _, bound)| bound.x()).collect();
        let combined = match self.derive(Operation::Open, key, &xs).await {
            Ok(combined) => combined,
            Err(error) => return chunk.iter().map(|(n, ..)| (*n, Err(error.repeat()))).collect(),
        };
        let (mut outcomes, mut doubtful) = (Vec::with_capacity(chunk.len()), Vec::new());
        for (entry, y) in chunk.iter().zip(&combined) {
            match self.open_by(entry, y).await {
                Err(QuorumError::Record(Error::Commitment)) => doubtful.push(entry),
                outcome => outcomes.push((entry.0, outcome)),
            }
        }
        if doubtful.is_empty() {
            return outcomes;
        }
        let xs: Vec<&[u8]> = doubtful.iter().map(|(_, _, bound)| bound.x()).collect();
        match self.derive_proved(Operation::Open, key, &xs).await {
            Ok(combined) => {
                for (entry, y) in doubtful.iter().zip(&combined) {
                    outcomes.push((entry.0, self.open_by(entry, y).await));
                }
            }
            Err(error) => outcomes.extend(doubtful.iter().map(|(n, ..)| (*n, Err(error.repeat())))),
        }
        outcomes
    }

    /// Opens a record by the holders' leg, and the customer's if it takes part.
    async fn open_by(&self, entry: &Asked<'_>, y: &Combined) -> Opened {
        if entry.1.with_customer() {
            return Box::pin(self.open_with_customer(entry, y)).await;
        }
        self.open_and_keep(entry, &Kek::derive(entry.2.x(), y, None)?)
    }

    fn open_and_keep(&self, (_, sealed, bound): &Asked<'_>, kek: &Kek) -> Opened {
        let plain = sealed.open(bound, kek)?;
        self.0.cache.keep(bound.name(), kek);
        Ok(plain)
    }

    /// The same value at another path; the payload is not touched.
    ///
    /// # Errors
    /// As [`Self::open`] and [`Self::seal`].
    pub async fn rewrap(&self, from: &Place, to: &Place, record: &[u8]) -> Result<Vec<u8>, QuorumError> {
        let record = Record::parse(record)?;
        let from = record.input(from)?;
        let suite = match (to.realm, to.key_id) {
            key if key == (from.place.realm, from.place.key_id) => from.suite,
            other => self.suite_of(other).await?,
        };
        let to = Input { suite, place: to.clone(), salt: from.salt };
        let (old, new) = (from.encode()?, to.encode()?);
        let name = |input: &Input| (input.place.realm, input.place.key_id);
        if record.with_customer() {
            self.has_any_leg()?;
        }
        let combined = if name(&from) == name(&to) {
            self.derive_proved(Operation::Rewrap, name(&from), &[&old, &new]).await?
        } else {
            let mut combined = self.derive_proved(Operation::Rewrap, name(&from), &[&old]).await?;
            combined.extend(self.derive_proved(Operation::Rewrap, name(&to), &[&new]).await?);
            combined
        };
        let [y_old, y_new] = combined.as_slice() else { return Err(Error::Quorum.into()) };
        self.rewrap_by(&record, (&from, y_old), (&to, y_new)).await
    }

    /// Holders needed for an answer.
    #[must_use]
    pub fn threshold(&self) -> u8 {
        self.0.roster.threshold
    }

    /// The suite of the keys of new accounts.
    #[must_use]
    pub fn suite(&self) -> Suite {
        self.0.suite
    }

    /// Whether the roster has a holder of this index.
    #[must_use]
    pub fn has_holder(&self, index: u8) -> bool {
        self.0.peers.iter().any(|peer| peer.index == index)
    }

    /// Forgets every cached key.
    pub fn forget(&self) {
        self.0.cache.clear();
    }
}

impl Peer {
    fn is_quarantined(&self) -> bool {
        lock(&self.quarantined).is_some_and(|since| since.elapsed() < QUARANTINE)
    }

    /// Leaves it out for a while: what it answered is wrong beyond doubt.
    fn quarantine(&self) {
        tracing::error!(holder = self.index, "a fragment holder answered wrongly and is left out");
        *lock(&self.quarantined) = Some(Instant::now());
    }

    /// Notes that it has an older fragment only; it is asked last.
    fn falls_behind(&self) {
        if !self.stale.swap(true, Ordering::Relaxed) {
            tracing::error!(holder = self.index, "a fragment holder has an older fragment only and needs repair");
        }
    }

    /// A running median: each observation moves it a little up or down.
    fn observe(&self, took: Duration) {
        let took = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        let median = self.median_us.load(Ordering::Relaxed);
        let step = (median / 8).max(1);
        let moved = if median == FIRST_GUESS_US {
            took
        } else if took > median {
            median.saturating_add(step)
        } else {
            median.saturating_sub(step)
        };
        self.median_us.store(moved, Ordering::Relaxed);
    }
}
