//! The one message of the hot path, in binary: evaluate these inputs.
//!
//! ```text
//! request:  operation u8 | flags u8 (1 = proof) | realm[16] | key u32 | epoch u32 | request[16]
//!           | principal: len u8, text | authorization: len u16, bytes | count u16 | count × (len u16, x)
//! answers:  epoch u32 | flags u8 (1 = proof) | count u16 | count × (status u8, y[32] if 0, y[33] if 5) | proof[64] if flagged
//! ```
//! Big-endian, canonical, nothing may follow. Principal and authorization are carried from the first day, so that holders can
//! begin to judge by them. Unknown operations, statuses and flags are refused: the other side is newer than this one.

use anyhow::{Context as _, Result, ensure};
use volvelle_fragments::{Encoded, Suite};

/// Most inputs of one request.
pub const LARGEST_BATCH: usize = 256;
/// Longest authorization in bytes.
pub const LONGEST_AUTHORIZATION: usize = 8 * 1024;
const WITH_PROOF: u8 = 1;

/// What the gateway wants it for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// To seal a new record.
    Seal = 1,
    /// To open one.
    Open = 2,
    /// To move one to another path or key.
    Rewrap = 3,
    /// To see whether the holder can; only for inputs that no record has.
    Probe = 4,
}

impl Operation {
    /// As it is written in policies and logs.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Seal => "seal",
            Self::Open => "open",
            Self::Rewrap => "rewrap",
            Self::Probe => "probe",
        }
    }
}

/// Whether the answers must be proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proving {
    /// Answers only.
    Optimistic,
    /// With a proof over all of them.
    Proved,
}

/// What became of one input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The encoded evaluation.
    Evaluated(Encoded),
    /// Policy forbids it.
    Denied,
    /// Too many at this time.
    Rate,
    /// This version was deleted.
    Tombstone,
    /// It is no input, or not one for this operation or key.
    Bad,
}

/// A request, borrowed from the frame it came in or the caller that sends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvalRequest<'a> {
    /// What for.
    pub operation: Operation,
    /// With a proof or not.
    pub proving: Proving,
    /// Whose key.
    pub realm: [u8; 16],
    /// Which key.
    pub key_id: u32,
    /// The epoch of the shares.
    pub epoch: u32,
    /// Names the request in everybody's log.
    pub request_id: [u8; 16],
    /// Who asks the gateway.
    pub principal: &'a str,
    /// What shows that somebody does.
    pub authorization: &'a [u8],
    /// The inputs, all of this key.
    pub inputs: Vec<&'a [u8]>,
}

/// What a holder answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvalAnswers {
    /// The epoch of the shares.
    pub epoch: u32,
    /// One for each input, in order.
    pub answers: Vec<Answer>,
    /// Over all evaluated ones, if it was asked for.
    pub proof: Option<[u8; 64]>,
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(n).context("the message is cut short")?;
        self.0 = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk::<N>().context("the message is cut short")?;
        self.0 = tail;
        Ok(*head)
    }

    fn u8(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    fn u16(&mut self) -> Result<usize> {
        Ok(usize::from(u16::from_be_bytes(self.array()?)))
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    fn proving(&mut self) -> Result<Proving> {
        let flags = self.u8()?;
        ensure!(flags & !WITH_PROOF == 0, "the message has unknown flags: upgrade this side");
        Ok(if flags == WITH_PROOF { Proving::Proved } else { Proving::Optimistic })
    }

    fn count(&mut self) -> Result<usize> {
        let count = self.u16()?;
        ensure!((1..=LARGEST_BATCH).contains(&count), "a batch has 1 to {LARGEST_BATCH} inputs");
        Ok(count)
    }

    fn end(&self) -> Result<()> {
        ensure!(self.0.is_empty(), "something follows the message");
        Ok(())
    }
}

impl Answer {
    /// As it is written in logs.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Evaluated(_) => "evaluated",
            Self::Denied => "denied",
            Self::Rate => "rate",
            Self::Tombstone => "tombstone",
            Self::Bad => "bad",
        }
    }
}

impl<'a> EvalRequest<'a> {
    /// The bytes to send.
    ///
    /// # Errors
    /// Something is longer than the message allows.
    pub fn encode(&self) -> Result<Vec<u8>> {
        ensure!((1..=LARGEST_BATCH).contains(&self.inputs.len()), "a batch has 1 to {LARGEST_BATCH} inputs");
        ensure!(self.authorization.len() <= LONGEST_AUTHORIZATION, "the authorization is too long");
        let proof = if self.proving == Proving::Proved { WITH_PROOF } else { 0 };
        let inputs: usize = self.inputs.iter().map(|x| x.len() + 2).sum();
        let mut out = Vec::with_capacity(64 + self.principal.len() + self.authorization.len() + inputs);
        out.extend_from_slice(&[self.operation as u8, proof]);
        out.extend_from_slice(&self.realm);
        out.extend_from_slice(&self.key_id.to_be_bytes());
        out.extend_from_slice(&self.epoch.to_be_bytes());
        out.extend_from_slice(&self.request_id);
        out.push(u8::try_from(self.principal.len()).context("the principal's name is too long")?);
        out.extend_from_slice(self.principal.as_bytes());
        prefixed(&mut out, self.authorization)?;
        out.extend_from_slice(&u16::try_from(self.inputs.len())?.to_be_bytes());
        for x in &self.inputs {
            prefixed(&mut out, x)?;
        }
        Ok(out)
    }

    /// Reads what [`Self::encode`] writes and refuses everything else.
    ///
    /// # Errors
    /// The bytes are anything else.
    pub fn decode(bytes: &'a [u8]) -> Result<Self> {
        let mut from = Reader(bytes);
        let operation = from.u8()?;
        let operation = [Operation::Seal, Operation::Open, Operation::Rewrap, Operation::Probe]
            .into_iter()
            .find(|known| *known as u8 == operation)
            .context("an unknown operation")?;
        let proving = from.proving()?;
        let (realm, key_id, epoch, request_id) = (from.array()?, from.u32()?, from.u32()?, from.array()?);
        let length = usize::from(from.u8()?);
        let principal = std::str::from_utf8(from.take(length)?).context("a principal's name is text")?;
        let length = from.u16()?;
        ensure!(length <= LONGEST_AUTHORIZATION, "the authorization is too long");
        let authorization = from.take(length)?;
        let count = from.count()?;
        let mut inputs = Vec::with_capacity(count);
        for _ in 0..count {
            let length = from.u16()?;
            inputs.push(from.take(length)?);
        }
        from.end()?;
        Ok(Self { operation, proving, realm, key_id, epoch, request_id, principal, authorization, inputs })
    }
}

fn prefixed(out: &mut Vec<u8>, bytes: &[u8]) -> Result<()> {
    out.extend_from_slice(&u16::try_from(bytes.len()).context("a field is too long")?.to_be_bytes());
    out.extend_from_slice(bytes);
    Ok(())
}

impl EvalAnswers {
    /// The bytes to send.
    ///
    /// # Errors
    /// There are none, or too many.
    pub fn encode(&self) -> Result<Vec<u8>> {
        ensure!((1..=LARGEST_BATCH).contains(&self.answers.len()), "a batch has 1 to {LARGEST_BATCH} answers");
        let mut out = Vec::with_capacity(7 + self.answers.len() * 34 + 64);
        out.extend_from_slice(&self.epoch.to_be_bytes());
        out.push(if self.proof.is_some() { WITH_PROOF } else { 0 });
        out.extend_from_slice(&u16::try_from(self.answers.len())?.to_be_bytes());
        for answer in &self.answers {
            match answer {
                Answer::Evaluated(y) => {
                    out.push(if y.suite() == Suite::Ristretto255 { 0 } else { 5 });
                    out.extend_from_slice(y);
                }
                Answer::Denied => out.push(1),
                Answer::Rate => out.push(2),
                Answer::Tombstone => out.push(3),
                Answer::Bad => out.push(4),
            }
        }
        if let Some(proof) = &self.proof {
            out.extend_from_slice(proof);
        }
        Ok(out)
    }

    /// Reads what [`Self::encode`] writes and refuses everything else.
    ///
    /// # Errors
    /// The bytes are anything else.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut from = Reader(bytes);
        let epoch = from.u32()?;
        let proving = from.proving()?;
        let count = from.count()?;
        let mut answers = Vec::with_capacity(count);
        for _ in 0..count {
            answers.push(match from.u8()? {
                0 => Answer::Evaluated(Encoded::of(from.take(32)?)?),
                1 => Answer::Denied,
                2 => Answer::Rate,
                3 => Answer::Tombstone,
                4 => Answer::Bad,
                5 => Answer::Evaluated(Encoded::of(from.take(33)?)?),
                _ => anyhow::bail!("an unknown status: upgrade this side"),
            });
        }
        let proof = if proving == Proving::Proved { Some(from.array()?) } else { None };
        from.end()?;
        Ok(Self { epoch, answers, proof })
    }
}
