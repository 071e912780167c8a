//! Records whose key has a leg of the customer's.
//!
//! A record does not say which fragment it needs: each one that is here is tried, and the commitment tells.

use volvelle_fragments::{Bound, Combined, Error, Input, Kek, Record, Sealed};

use super::{Opened, Quorum, QuorumError};
use crate::customer::{CustomerFragments, Presence};

/// What is wrong with a fragment, in words.
pub(super) fn absent(fragment: &str, presence: Presence) -> String {
    match (fragment, presence) {
        ("", _) => "it needs a customer's fragment, and this gateway has none".to_owned(),
        (id, Presence::Wrong) => {
            format!("the customer's fragment {id} of this gateway is not the one it was sealed with")
        }
        (id, _) => format!("it needs the customer's fragment {id}, which this gateway does not have"),
    }
}

impl Quorum {
    /// The customer's fragments that this gateway has.
    #[must_use]
    pub fn customer(&self) -> &CustomerFragments {
        &self.0.customer
    }

    /// Whether there is a leg that a record of this kind could need; nobody is asked for a record that cannot be opened.
    pub(super) fn has_legs(&self, sealed: Sealed<'_>) -> Result<(), QuorumError> {
        if sealed.with_customer() { self.has_any_leg() } else { Ok(()) }
    }

    pub(super) fn has_any_leg(&self) -> Result<(), QuorumError> {
        if self.0.customer.is_empty() {
            return Err(QuorumError::CustomerFragment { fragment: String::new(), presence: Presence::Missing });
        }
        Ok(())
    }

    pub(super) async fn open_with_customer(&self, entry: &(usize, Sealed<'_>, Bound), y: &Combined) -> Opened {
        for held in self.0.customer.iter() {
            let leg = held.leg(entry.2.x()).await?;
            let kek = Kek::derive(entry.2.x(), y, Some(&leg))?;
            match self.open_and_keep(entry, &kek) {
                Err(QuorumError::Record(Error::Commitment)) => {}
                outcome => return outcome,
            }
        }
        Err(Error::Commitment.into())
    }

    /// The record at another place by the holders' legs of both, and the customer's if it takes part.
    pub(super) async fn rewrap_by(
        &self,
        record: &Record,
        (from, y_old): (&Input, &Combined),
        (to, y_new): (&Input, &Combined),
    ) -> Result<Vec<u8>, QuorumError> {
        let (x_old, x_new) = (from.encode()?, to.encode()?);
        if !record.with_customer() {
            let (old, new) = (Kek::derive(&x_old, y_old, None)?, Kek::derive(&x_new, y_new, None)?);
            return Ok(record.rewrap((from, &old), (to, &new), false)?.into_bytes());
        }
        for held in self.0.customer.iter() {
            let old = Kek::derive(&x_old, y_old, Some(&*held.leg(&x_old).await?))?;
            let new = Kek::derive(&x_new, y_new, Some(&*held.leg_to_seal(&x_new).await?))?;
            match record.rewrap((from, &old), (to, &new), true) {
                Err(Error::Commitment) => {}
                outcome => return Ok(outcome?.into_bytes()),
            }
        }
        Err(Error::Commitment.into())
    }
}
