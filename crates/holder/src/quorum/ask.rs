//! Asking t holders, and others when one is slow or fails.
//!
//! What must stay true: the first t good answers win; a slow or hung holder delays a read by a small multiple of what holders
//! usually take, and only the first time; a holder that fails is asked last until it answers a probe; when a holder shows the
//! certificate of a newer epoch, all are asked anew in that one.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;
use volvelle_fragments::{Combined, Error, Partial, Proof, Suite, Weights, place, proof};

use super::epochs::View;
use super::{KeyName, PATIENCE, Peer, Quorum, QuorumError, Refusal};
use crate::asker;
use crate::eval::{Answer, EvalAnswers, EvalRequest, Operation, Proving};
use crate::link::Failure;
use crate::lock;
use crate::wire::{Frame, Kind};

/// Another holder is asked after three times the median, within these bounds.
const HEDGE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(200));
/// What each further input of a batch may take.
const fn per_input(suite: Suite) -> Duration {
    match suite {
        Suite::Ristretto255 => Duration::from_micros(200),
        Suite::P256 => Duration::from_micros(800),
    }
}

/// Holders whose medians have the same place among these bounds are asked in turn; faster ones first.
const PACES_US: [u32; 5] = [3_000, 10_000, 30_000, 100_000, 300_000];

/// How often a message is sent anew because the key was refreshed meanwhile.
const ANEW: usize = 8;

/// The answers of t holders for the inputs of one message.
struct Answers {
    weights: Arc<Weights>,
    /// For each input, in the order of the weights.
    partials: Vec<Vec<Partial>>,
}

/// Why an answer does not count.
pub(super) enum Wrong {
    /// It is no evaluation by this holder's fragment.
    Lied,
    /// It says why not, or is not understood.
    Says(String),
    /// It refuses, as it was told to.
    Refuses(Refusal),
}

/// Why a race gave no answers.
enum End {
    /// The key was refreshed: ask anew.
    Refreshed(Arc<View>),
    Failed(QuorumError),
}

/// One message under way.
struct Race<'a> {
    quorum: &'a Quorum,
    key: KeyName,
    xs: &'a [&'a [u8]],
    view: &'a View,
    proving: Proving,
    body: Arc<Vec<u8>>,
    newer: Option<Arc<View>>,
    answers: Vec<(u8, Vec<Partial>)>,
    complaints: Vec<String>,
    refusals: Vec<Refusal>,
    /// Who was asked when and has not answered.
    asked: Vec<(&'a Arc<Peer>, Instant)>,
}

impl Quorum {
    /// The holders' legs of these inputs, believed without proof; a record's commitment tells whether they are right.
    pub(super) async fn derive(&self, op: Operation, key: KeyName, xs: &[&[u8]]) -> Result<Vec<Combined>, QuorumError> {
        combine(&self.evaluate(op, key, xs, Proving::Optimistic).await?)
    }

    /// The holders' legs of these inputs, from answers whose proofs hold.
    pub(super) async fn derive_proved(
        &self,
        op: Operation,
        key: KeyName,
        xs: &[&[u8]],
    ) -> Result<Vec<Combined>, QuorumError> {
        combine(&self.evaluate(op, key, xs, Proving::Proved).await?)
    }

    pub(super) fn message(
        &self,
        operation: Operation,
        ((realm, key_id), epoch): (KeyName, u32),
        xs: &[&[u8]],
        proving: Proving,
    ) -> Result<Arc<Vec<u8>>, QuorumError> {
        let (start, count) = &self.0.requests;
        let turn = count.fetch_add(1, Ordering::Relaxed);
        let named = if operation == Operation::Probe { None } else { asker::next() };
        let (request_id, identity) = named.unwrap_or_else(|| {
            let mut request_id = [0; 16];
            request_id[..8].copy_from_slice(&start.to_be_bytes());
            request_id[8..].copy_from_slice(&turn.to_be_bytes());
            (request_id, None)
        });
        let (principal, authorization) =
            identity.as_ref().map_or(("", [].as_slice()), |known| (known.principal.as_str(), &known.authorization));
        let inputs = xs.to_vec();
        let request =
            EvalRequest { operation, proving, realm, key_id, epoch, request_id, principal, authorization, inputs };
        request.encode().map(Arc::new).map_err(QuorumError::Config)
    }

    /// Asks t holders, and another one for each that fails or is slow; proved answers count only if the proof holds.
    async fn evaluate(
        &self,
        op: Operation,
        key: KeyName,
        xs: &[&[u8]],
        proving: Proving,
    ) -> Result<Answers, QuorumError> {
        self.keep_up();
        *lock(&self.0.last_used) = Some(key);
        let mut view = self.view(key).await?;
        // A record says of which suite its key is; whoever changed that changed the record.
        if xs.iter().any(|x| place::suite(x) != Some(view.suite())) {
            return Err(Error::Tampered.into());
        }
        for _ in 0..ANEW {
            let body = self.message(op, (key, view.epoch), xs, proving)?;
            let race = Race {
                quorum: self,
                key,
                xs,
                view: &view,
                proving,
                body,
                newer: None,
                answers: vec![],
                complaints: vec![],
                refusals: vec![],
                asked: vec![],
            };
            match race.run().await {
                Ok(answers) => return Ok(answers),
                Err(End::Refreshed(newer)) => view = newer,
                Err(End::Failed(error)) => return Err(error),
            }
        }
        Err(QuorumError::Holders("the key is refreshed faster than it can be used".to_owned()))
    }

    /// Holders in the order in which they are to be asked: who failed last, fast ones before slow ones, equals in turn.
    fn order(&self) -> Vec<&Arc<Peer>> {
        let turn = usize::try_from(self.0.requests.1.load(Ordering::Relaxed) % 0xffff).unwrap_or(0);
        let n = self.0.peers.len();
        let mut order: Vec<&Arc<Peer>> =
            (0..n).map(|i| &self.0.peers[(i + turn) % n]).filter(|peer| !peer.is_quarantined()).collect();
        let pace = |peer: &Arc<Peer>| {
            let median = peer.median_us.load(Ordering::Relaxed);
            PACES_US.iter().take_while(|bound| median > **bound).count()
        };
        let is_last = |peer: &Arc<Peer>| peer.down.load(Ordering::Relaxed) || peer.stale.load(Ordering::Relaxed);
        order.sort_by_key(|peer| (is_last(peer), pace(peer)));
        order
    }

    fn weights(&self, indices: &[u8]) -> Result<Arc<Weights>, QuorumError> {
        let set = indices.iter().fold(0_u16, |set, index| set | 1 << (index & 15));
        let known = self.0.weights.read().unwrap_or_else(PoisonError::into_inner).get(&set).map(Arc::clone);
        if let Some(weights) = known {
            return Ok(weights);
        }
        let weights = Arc::new(Weights::of(indices)?);
        self.0.weights.write().unwrap_or_else(PoisonError::into_inner).insert(set, Arc::clone(&weights));
        Ok(weights)
    }
}

impl<'a> Race<'a> {
    async fn run(mut self) -> Result<Answers, End> {
        let needed = usize::from(self.view.threshold);
        let order = self.quorum.order();
        let delay = delay(&order[..needed.min(order.len())], self.xs.len(), self.view.suite());
        let mut waiting = order.into_iter();
        let mut under_way = FuturesUnordered::new();
        for peer in waiting.by_ref().take(needed) {
            under_way.push(self.ask(peer));
        }
        let mut hedge = self.quorum.0.hedges.after(delay);
        let mut patient = true;
        while self.answers.len() < needed {
            tokio::select! {
                biased;
                Some((peer, answer)) = under_way.next() => {
                    let counts = self.take(peer, answer);
                    if let Some(newer) = self.newer.take() {
                        return Err(End::Refreshed(newer));
                    }
                    if !counts && let Some(peer) = waiting.next() {
                        under_way.push(self.ask(peer));
                    }
                }
                () = &mut hedge, if !under_way.is_empty() => match waiting.next() {
                    Some(peer) => {
                        under_way.push(self.ask(peer));
                        hedge.again(delay);
                    }
                    None if patient => {
                        patient = false;
                        hedge.again(PATIENCE);
                    }
                    None => return Err(End::Failed(self.out_of_time())),
                },
                else => return Err(End::Failed(self.too_few())),
            }
        }
        for (peer, since) in &self.asked {
            if since.elapsed() > delay {
                self.quorum.fails(peer);
            }
        }
        self.finish().map_err(End::Failed)
    }

    /// The future borrows nothing of the race, so that answers can be taken while others are under way.
    fn ask(&mut self, peer: &'a Arc<Peer>) -> impl Future<Output = (&'a Arc<Peer>, Result<Frame, Failure>)> + use<'a> {
        self.asked.push((peer, Instant::now()));
        let body = Arc::clone(&self.body);
        async move { (peer, peer.link.call_patiently(Kind::Eval, body, PATIENCE).await) }
    }

    /// Whether the answer counts.
    fn take(&mut self, peer: &'a Arc<Peer>, answer: Result<Frame, Failure>) -> bool {
        let asked = self.asked.iter().position(|(other, _)| Arc::ptr_eq(other, peer));
        let since = asked.map(|n| self.asked.swap_remove(n).1);
        let why = match answer {
            Ok(frame) if frame.kind == Kind::Stale => match self.quorum.newer(self.key, self.view, &frame.body) {
                Some(newer) => {
                    self.newer = Some(newer);
                    return false;
                }
                None => {
                    peer.falls_behind();
                    "it has an older fragment only and needs repair".to_owned()
                }
            },
            Ok(frame) => match read(peer.index, &frame, self.xs, (self.view, self.proving)) {
                Ok(partials) => {
                    peer.down.store(false, Ordering::Relaxed);
                    peer.stale.store(false, Ordering::Relaxed);
                    if let (Some(since), 1..=4) = (since, self.xs.len()) {
                        peer.observe(since.elapsed());
                    }
                    self.answers.push((peer.index, partials));
                    return true;
                }
                Err(Wrong::Lied) => {
                    peer.quarantine();
                    "it answered wrongly and is left out".to_owned()
                }
                Err(Wrong::Says(why)) => why,
                Err(Wrong::Refuses(why)) => {
                    self.refusals.push(why);
                    why.to_string()
                }
            },
            Err(failure) => {
                if matches!(failure, Failure::Unreachable(_) | Failure::Late) {
                    self.quorum.fails(peer);
                }
                if matches!(failure, Failure::Unauthorized(_)) {
                    self.refusals.push(Refusal::Authorization);
                }
                failure.to_string()
            }
        };
        self.complaints.push(format!("holder {}: {why}", peer.index));
        false
    }

    fn finish(mut self) -> Result<Answers, QuorumError> {
        self.answers.sort_by_key(|(index, _)| *index);
        let indices: Vec<u8> = self.answers.iter().map(|(index, _)| *index).collect();
        let weights = self.quorum.weights(&indices)?;
        let partials =
            (0..self.xs.len()).map(|n| self.answers.iter().map(|(_, answers)| answers[n]).collect()).collect();
        Ok(Answers { weights, partials })
    }

    fn out_of_time(mut self) -> QuorumError {
        for (peer, _) in std::mem::take(&mut self.asked) {
            self.quorum.fails(peer);
            self.complaints.push(format!("holder {}: {}", peer.index, Failure::Late));
        }
        self.too_few()
    }

    fn too_few(mut self) -> QuorumError {
        for peer in self.quorum.0.peers.iter().filter(|peer| peer.is_quarantined()) {
            let known = format!("holder {}:", peer.index);
            if !self.complaints.iter().any(|complaint| complaint.starts_with(&known)) {
                self.complaints.push(format!("{known} it answered wrongly of late and is left out"));
            }
        }
        let (needed, reachable) = (self.view.threshold, self.answers.len());
        let detail = self.complaints.join("; ");
        match self.refusals.first() {
            // Those that are down would not have helped, or may refuse as well.
            Some(why) if reachable + self.refusals.len() >= usize::from(needed) => {
                QuorumError::Refused { why: *why, detail }
            }
            _ => QuorumError::TooFewHolders { needed, reachable, detail },
        }
    }
}

fn delay(asked: &[&Arc<Peer>], inputs: usize, suite: Suite) -> Duration {
    let median = asked.iter().map(|peer| peer.median_us.load(Ordering::Relaxed)).max().unwrap_or(0);
    let usual = Duration::from_micros(u64::from(median) * 3).clamp(HEDGE.0, HEDGE.1);
    usual + per_input(suite) * u32::try_from(inputs.saturating_sub(1)).unwrap_or(u32::MAX)
}

fn combine(answers: &Answers) -> Result<Vec<Combined>, QuorumError> {
    Ok(match answers.partials.as_slice() {
        [only] => vec![answers.weights.combine(only)?],
        many => answers.weights.combine_all(many)?,
    })
}

/// A holder's answers for `xs`, in the epoch of the view. An encoding that no evaluation has is a lie too.
pub(super) fn read(
    index: u8,
    frame: &Frame,
    xs: &[&[u8]],
    (view, proving): (&View, Proving),
) -> Result<Vec<Partial>, Wrong> {
    let says = |why: &str| Wrong::Says(why.to_owned());
    if frame.kind != Kind::Answers {
        return Err(says("an answer to another question"));
    }
    let answers = EvalAnswers::decode(&frame.body).map_err(|error| Wrong::Says(error.to_string()))?;
    if answers.answers.len() != xs.len() || answers.epoch != view.epoch {
        return Err(says("an answer to another question"));
    }
    let mut partials = Vec::with_capacity(xs.len());
    for answer in &answers.answers {
        partials.push(match answer {
            Answer::Evaluated(y) if y.suite() == view.suite() => Partial::from_bytes(y).map_err(|_| Wrong::Lied)?,
            Answer::Evaluated(_) => return Err(Wrong::Lied),
            Answer::Denied => return Err(Wrong::Refuses(Refusal::Policy)),
            Answer::Rate => return Err(Wrong::Refuses(Refusal::Budget)),
            Answer::Tombstone => return Err(Wrong::Refuses(Refusal::Deleted)),
            Answer::Bad => return Err(says("it does not accept the input")),
        });
    }
    if proving == Proving::Optimistic {
        return Ok(partials);
    }
    let proof = answers.proof.ok_or_else(|| says("no proof"))?;
    let proof = Proof::from_bytes(view.suite(), &proof).map_err(|_| Wrong::Lied)?;
    let public = view.publics.get(&index).ok_or_else(|| says("no public share"))?;
    proof::verify(public, xs, &partials, &proof).map_err(|_| Wrong::Lied)?;
    Ok(partials)
}
