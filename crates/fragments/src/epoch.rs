//! The epochs of one key at one holder, and what a coordinator does next: a pure state machine.
//!
//! A refresh gives every holder a new fragment of the same key under a new epoch number. What must stay true, whatever is lost,
//! repeated or reordered, whoever crashes and whatever a coordinator says: any t holders share an epoch at every moment. It follows
//! from one rule: a fragment is erased only on a certificate that every member has durably stored a newer one. Nothing else
//! erases; an attempt that broke off is superseded by another one with a higher number. A holder stores at most one outcome for
//! each number, and numbers only grow, so no two outcomes of one number can both be certified.

use std::collections::{BTreeMap, BTreeSet};

/// SHA-256 of what all holders must agree on.
pub type Transcript = [u8; 32];

/// Fragments of one key that a holder keeps at most: one in use and attempts that broke off.
///
/// Attempts that broke off cannot be erased before a later one is certified, so this bounds how often a refresh may break off while
/// some holder can store nothing. Coordinators make few attempts in a day; one refresh that succeeds erases them all.
pub const MOST_HELD: usize = 1024;

/// An epoch that a holder has stored.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Held {
    /// What it came of.
    pub transcript: Transcript,
    /// Whether the holder has seen the certificate.
    pub certified: bool,
}

/// Why a holder does not do it. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The epoch to start from is not here.
    #[error("epoch {0} is not held here")]
    NotHeld(u32),
    /// A number that was used or passed over already.
    #[error("epoch {0} is not newer than what is held here")]
    NotNewer(u32),
    /// Too many attempts broke off.
    #[error("{MOST_HELD} epochs of this key are held here; finish one of them first")]
    TooMany,
    /// The same number, but another outcome.
    #[error("another outcome is held here as epoch {0}")]
    Other(u32),
    /// Erasing it could lose the key.
    #[error("epoch {0} is still needed")]
    Needed(u32),
}

/// That every member has durably stored one outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    number: u32,
    transcript: Transcript,
}

impl Certificate {
    /// From what the members confirmed; the caller checked their signatures. `None` unless every member confirmed the same
    /// outcome.
    #[must_use]
    pub fn of(number: u32, members: &BTreeSet<u8>, confirmed: &BTreeMap<u8, Transcript>) -> Option<Self> {
        let transcript = *confirmed.get(members.first()?)?;
        let all = members.iter().all(|member| confirmed.get(member) == Some(&transcript));
        all.then_some(Self { number, transcript })
    }
}

/// What a holder has durably stored of one key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epochs(BTreeMap<u32, Held>);

impl Epochs {
    /// What a holder tells, or has read from its disk.
    #[must_use]
    pub fn of(held: impl IntoIterator<Item = (u32, Held)>) -> Self {
        Self(held.into_iter().collect())
    }

    /// Every epoch that is held, by number.
    pub fn held(&self) -> impl Iterator<Item = (u32, &Held)> {
        self.0.iter().map(|(number, held)| (*number, held))
    }

    /// Whether the holder can answer in this epoch.
    #[must_use]
    pub fn holds(&self, number: u32) -> bool {
        self.0.contains_key(&number)
    }

    /// The newest epoch whose certificate the holder has seen.
    #[must_use]
    pub fn certified(&self) -> Option<u32> {
        self.held().filter(|(_, held)| held.certified).map(|(number, _)| number).last()
    }

    fn highest(&self) -> Option<u32> {
        self.0.last_key_value().map(|(number, _)| *number)
    }

    /// Takes in the outcome of a refresh beside what is there. To be stored durably before it is confirmed to anybody.
    ///
    /// # Errors
    /// The epoch it starts from is not held, or the number is not new.
    pub fn prepare(&mut self, base: u32, number: u32, transcript: Transcript) -> Result<(), Refusal> {
        match self.0.get(&number) {
            Some(held) if held.transcript == transcript => return Ok(()),
            Some(_) => return Err(Refusal::Other(number)),
            None => {}
        }
        if !self.holds(base) {
            return Err(Refusal::NotHeld(base));
        }
        if self.highest().is_some_and(|highest| number <= highest) {
            return Err(Refusal::NotNewer(number));
        }
        if self.0.len() >= MOST_HELD {
            return Err(Refusal::TooMany);
        }
        self.0.insert(number, Held { transcript, certified: false });
        Ok(())
    }

    /// Takes in a certificate. One that is older than what is known changes nothing.
    ///
    /// # Errors
    /// The holder does not have what it confirmed: it lost something and needs repair.
    pub fn certify(&mut self, certificate: &Certificate) -> Result<(), Refusal> {
        let number = certificate.number;
        if self.certified().is_some_and(|newest| newest > number) {
            return Ok(());
        }
        let held = self.0.get_mut(&number).ok_or(Refusal::NotHeld(number))?;
        if held.transcript != certificate.transcript {
            return Err(Refusal::Other(number));
        }
        held.certified = true;
        Ok(())
    }

    /// What may be erased: everything older than the newest certified epoch.
    #[must_use]
    pub fn superseded(&self) -> Vec<u32> {
        let newest = self.certified().unwrap_or(0);
        self.0.range(..newest).map(|(number, _)| *number).collect()
    }

    /// Erases one epoch.
    ///
    /// # Errors
    /// It may not be erased.
    pub fn erase(&mut self, number: u32) -> Result<(), Refusal> {
        if !self.superseded().contains(&number) {
            return Err(Refusal::Needed(number));
        }
        self.0.remove(&number);
        Ok(())
    }
}

/// What a coordinator does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Every member holds this epoch, and some do not know that it is so: certify it.
    Finish(u32),
    /// Begin a refresh.
    Begin {
        /// The newest epoch that all members hold.
        base: u32,
        /// A number that nobody used.
        number: u32,
    },
    /// These members lack the epoch in use: repair them first.
    Repair(Vec<u8>),
}

/// From what every member holds. With nothing known there is nothing to do.
#[must_use]
pub fn plan(known: &BTreeMap<u8, Epochs>) -> Option<Plan> {
    let newest = known.values().filter_map(Epochs::certified).max()?;
    let lacking: Vec<u8> = known.iter().filter(|(_, held)| !held.holds(newest)).map(|(index, _)| *index).collect();
    if !lacking.is_empty() {
        return Some(Plan::Repair(lacking));
    }
    let common = |number: u32, held: &Held| {
        known.values().all(|other| other.0.get(&number).is_some_and(|theirs| theirs.transcript == held.transcript))
    };
    let (base, _) = known.values().next()?.held().filter(|(number, held)| common(*number, held)).last()?;
    if known.values().any(|held| held.certified() != Some(base)) {
        return Some(Plan::Finish(base));
    }
    let number = known.values().filter_map(Epochs::highest).max()?.checked_add(1)?;
    Some(Plan::Begin { base, number })
}
