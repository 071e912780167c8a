//! Evaluating: the holder's whole purpose.
//!
//! What must stay true: only inputs that parse strictly are evaluated; inputs of probes and inputs of records never mix, so that a
//! probe's answer says nothing about any record.

use anyhow::{Context as _, Result, ensure};
use volvelle_fragments::place::PROBE;
use volvelle_fragments::{Input, proof};

use super::Holder;
use crate::eval::{Answer, EvalAnswers, EvalRequest, Operation, Proving};
use crate::wire::Stale;

/// What comes of a request to evaluate.
pub(super) enum Outcome {
    Answers(Vec<u8>),
    /// The epoch is not held here.
    Stale(Vec<u8>),
}

impl Holder {
    /// Answers an evaluation. An input that is not allowed gets its status; the others are evaluated all the same.
    pub(super) fn evaluate(&self, body: &[u8]) -> Result<Outcome> {
        let request = EvalRequest::decode(body)?;
        let key = self.key(&(request.realm, request.key_id))?;
        let key = key.filter(|key| key.newest().is_some()).context("this key is not known here")?;
        let Some(slot) = key.slots.get(&request.epoch) else {
            let held = key.slots.keys().copied().collect();
            let stale = Stale { held, newest: key.newest().map(|slot| slot.info.clone()) };
            return Ok(Outcome::Stale(serde_json::to_vec(&stale)?));
        };
        let good: Vec<&[u8]> = request.inputs.iter().copied().filter(|x| belongs(x, &request)).collect();
        ensure!(!good.is_empty(), "none of the inputs belongs to this key and operation");
        let (encoded, proof) = match request.proving {
            Proving::Optimistic => (slot.share.answer(&good)?, None),
            Proving::Proved => {
                let (encoded, proof) = proof::answer(&slot.share, &good)?;
                (encoded, Some(proof.to_bytes()))
            }
        };
        let mut encoded = encoded.into_iter();
        let answers = if good.len() == request.inputs.len() {
            encoded.map(Answer::Evaluated).collect()
        } else {
            let answer = |x: &&[u8]| if belongs(x, &request) { encoded.next() } else { None };
            request.inputs.iter().map(answer).map(|y| y.map_or(Answer::Bad, Answer::Evaluated)).collect()
        };
        EvalAnswers { epoch: request.epoch, answers, proof }.encode().map(Outcome::Answers)
    }
}

fn belongs(x: &[u8], request: &EvalRequest<'_>) -> bool {
    Input::parse(x).is_ok_and(|input| {
        input.place.realm == request.realm
            && input.place.key_id == request.key_id
            && (input.place.purpose == PROBE) == (request.operation == Operation::Probe)
    })
}
