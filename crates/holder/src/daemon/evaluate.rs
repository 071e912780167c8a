//! Evaluating: the holder's whole purpose.
//!
//! What must stay true: only inputs that parse strictly, and are of the key's own suite, are evaluated; inputs of probes and inputs of records never mix, so that a
//! probe's answer says nothing about any record.

use anyhow::{Context as _, Result, bail, ensure};
use volvelle_fragments::place::PROBE;
use volvelle_fragments::{Input, Suite, proof};

use super::Holder;
use super::authorize::Behind;
use crate::eval::{Answer, EvalAnswers, EvalRequest, Operation, Proving};
use crate::log::{Entry, Line};
use crate::wire::Stale;

/// What comes of a request to evaluate.
pub(super) enum Outcome {
    Answers(Vec<u8>),
    /// The epoch is not held here.
    Stale(Vec<u8>),
    /// No client is behind it; why that is not believed.
    Unauthorized(String),
}

impl Holder {
    /// Answers an evaluation. An input that is not allowed gets its status; the others are evaluated all the same. What was asked
    /// is in the log before anything is evaluated.
    pub(super) fn evaluate(&self, gateway: usize, body: &[u8]) -> Result<Outcome> {
        let request = EvalRequest::decode(body)?;
        let key = self.key(&(request.realm, request.key_id))?;
        let key = key.filter(|key| key.newest().is_some()).context("this key is not known here")?;
        let Some(slot) = key.slots.get(&request.epoch) else {
            let held = key.slots.keys().copied().collect();
            let stale = Stale { held, newest: key.newest().map(|slot| slot.info.clone()) };
            return Ok(Outcome::Stale(serde_json::to_vec(&stale)?));
        };
        let pin = self.roster.gateways.get(gateway).context("the gateway is not in the roster")?;
        let (behind, unauthorized) = self.authorizer.judge(pin, &request);
        if unauthorized {
            let read =
                |x: &&[u8]| Input::parse(x).map_or_else(|_| Line::unread(), |i| Line::of(i.place, "unauthorized"));
            let lines = request.inputs.iter().map(read).collect();
            self.log.append(self.entry(gateway, &request, lines, &behind)?)?;
            let Behind::Unknown(why) = behind else { bail!("nobody is behind it") };
            return Ok(Outcome::Unauthorized(why));
        }
        self.used(&(request.realm, request.key_id), request.operation)?;
        let (refused, lines) = self.judge(gateway, (&request, slot.share.suite()), &behind)?;
        ensure!(
            refused.iter().any(|refused| *refused != Some(Answer::Bad)),
            "none of the inputs belongs to this key and operation"
        );
        self.log.append(self.entry(gateway, &request, lines, &behind)?)?;
        let pairs = || request.inputs.iter().zip(&refused);
        let good: Vec<&[u8]> = pairs().filter(|(_, refused)| refused.is_none()).map(|(x, _)| *x).collect();
        let (encoded, proof) = match request.proving {
            _ if good.is_empty() => (vec![], None),
            Proving::Optimistic => (slot.share.answer(&good)?, None),
            Proving::Proved => {
                let (encoded, proof) = proof::answer(&slot.share, &good)?;
                (encoded, Some(proof.to_bytes()))
            }
        };
        let mut encoded = encoded.into_iter();
        let answer = |refused: &Option<Answer>| refused.or_else(|| encoded.next().map(Answer::Evaluated));
        let answers = refused.iter().map(answer).map(|answer| answer.unwrap_or(Answer::Bad)).collect();
        EvalAnswers { epoch: request.epoch, answers, proof }.encode().map(Outcome::Answers)
    }

    /// Which inputs are refused, and what the log says of each.
    fn judge(
        &self,
        gateway: usize,
        (request, suite): (&EvalRequest<'_>, Suite),
        behind: &Behind,
    ) -> Result<(Vec<Option<Answer>>, Vec<Line>)> {
        let guard = self.guards.get(gateway).context("the gateway is not in the roster")?;
        let mut judged = (Vec::with_capacity(request.inputs.len()), Vec::with_capacity(request.inputs.len()));
        for x in &request.inputs {
            let (refused, line) =
                match Input::parse(x).ok().filter(|input| input.suite == suite && belongs(input, request)) {
                    None => (Some(Answer::Bad), Line::unread()),
                    Some(input) => {
                        let deleted = self.tombstones.hit(&input)?.then_some(Answer::Tombstone);
                        let refused = deleted
                            .or_else(|| self.authorizer.refuses(behind, gateway, request.operation, &input))
                            .or_else(|| guard.refuses(request.operation, &input));
                        let status = refused.map_or("evaluated", Answer::word);
                        (refused, Line::of(input.place, status))
                    }
                };
            judged.0.push(refused);
            judged.1.push(line);
        }
        Ok(judged)
    }

    fn entry(&self, gateway: usize, request: &EvalRequest<'_>, inputs: Vec<Line>, behind: &Behind) -> Result<Entry> {
        Ok(Entry {
            seq: 0,
            at: 0,
            gateway: self.roster.gateways.get(gateway).context("the gateway is not in the roster")?.clone(),
            operation: request.operation.word().to_owned(),
            realm: hex::encode(request.realm),
            key_id: request.key_id,
            epoch: request.epoch,
            request: hex::encode(request.request_id),
            principal: request.principal.to_owned(),
            authorization: behind.text(),
            inputs,
            prev: String::new(),
        })
    }
}

fn belongs(input: &Input, request: &EvalRequest<'_>) -> bool {
    input.place.realm == request.realm
        && input.place.key_id == request.key_id
        && (input.place.purpose == PROBE) == (request.operation == Operation::Probe)
}
