//! Slots whose target makes the credentials: what it makes is stored at once, and what a crash left there is cleared away.
//!
//! What must stay true: nothing is taken off a target that was there before the intent, and never the current credential.

use volvelle_domain::Credential;
use volvelle_domain::connector::{ApplyOutcome, Evidence, Failure, FailureClass, INTENT, IssueOutcome, ProbeOutcome};
use volvelle_domain::grace::Grace;
use volvelle_domain::ids::Version;
use volvelle_domain::item::{ItemVersion, Rotator, VersionState};
use volvelle_domain::rotation::{Manner, State};
use volvelle_store::versions;

use crate::job::{SlotJob, failed};
use crate::{EngineError, Parts};

/// Cause of the row that ends a grace.
pub(crate) const GRACE: &str = "grace";
/// Seconds for which a target may check who calls.
const PROOF_SECONDS: i64 = 300;
/// Attempts to seal what was issued: if all fail, it is given up and cleared away.
const SEALINGS: usize = 3;

/// Where new credentials of a secret come from.
pub(crate) fn manner(parts: &Parts, rotator: &Rotator) -> Manner {
    let connector = (parts.connectors)(&rotator.kind);
    let Some(connector) = connector else { return Manner::Chosen };
    let kind = rotator.rotator_type.as_str();
    match (connector.issues(kind), connector.declaration().capabilities.blind.contains(&kind)) {
        (false, false) => Manner::Chosen,
        (false, true) => Manner::Told,
        (true, true) => Manner::Blind,
        (true, false) if matches!(Grace::of(&rotator.params), Ok(Some(_))) => Manner::Graceful,
        (true, false) => Manner::Issued,
    }
}

/// The state in which a rotation of a slot with these open versions begins.
pub(crate) fn fresh_state(open: &[ItemVersion], manner: Manner) -> State {
    let of = |state: VersionState| open.iter().filter(move |v| v.state == state).map(|v| v.version);
    let mut candidates: Vec<_> = of(VersionState::Candidate).collect();
    candidates.sort_unstable();
    let state = State::new(of(VersionState::Current).max(), candidates);
    if matches!(manner, Manner::Chosen) { state } else { state.issued(manner, of(VersionState::Grace).collect()) }
}

/// The state in which the graces of a slot end; `None` if there is none.
pub(crate) fn ending_state(open: &[ItemVersion]) -> Option<State> {
    let of = |state: VersionState| open.iter().filter(move |v| v.state == state).map(|v| v.version);
    let graces: Vec<Version> = of(VersionState::Grace).collect();
    if graces.is_empty() { None } else { State::ending(of(VersionState::Current).max(), graces) }
}

impl SlotJob {
    pub(crate) fn issues(&self) -> bool {
        self.seat.connector.issues(&self.seat.rotator.rotator_type)
    }

    /// What is on the target before anything is asked of it.
    pub(crate) async fn intent(&mut self, version: Version) -> Result<Credential, Failure> {
        let call = self.seat.call(0, self.connector_time());
        let before = self.seat.connector.intend(&call).await?;
        self.intended = Some(version);
        Ok(before.with(INTENT, "yes".into()))
    }

    /// Lets the target make the credential of a version that is an intent until then.
    pub(crate) async fn issue(
        &mut self,
        version: &ItemVersion,
        intent: &Credential,
    ) -> (ApplyOutcome, Option<Vec<u8>>) {
        if !intent.is_intent() {
            let message = "the credential that the target issued does not open the account";
            let hint = "it is given up; look at the target, then rotate again";
            return (ApplyOutcome::Rejected(Failure::new(FailureClass::Protocol, message, hint)), None);
        }
        if self.seat.connector.declaration().capabilities.caller_proof {
            let until = self.parts.clock.now().plus_seconds(PROOF_SECONDS);
            match self.parts.vault.prove_caller(&self.seat.account, &self.seat.item, until).await {
                Ok(proof) => self.seat.proof = proof,
                Err(error) => return (ApplyOutcome::NotReached(failed(error.into())), None),
            }
        }
        let call = self.seat.call(0, self.change_time());
        // Only another attempt can have left something behind. What others make meanwhile is not ours to take away.
        if self.intended.take() != Some(version.version)
            && let Err(failure) = self.seat.connector.revoke(&call, intent).await
        {
            return (ApplyOutcome::NotReached(failure), None);
        }
        let issued = match self.seat.connector.issue(&call, intent).await {
            IssueOutcome::Issued(issued) => issued,
            IssueOutcome::Rejected(failure) => return (ApplyOutcome::Rejected(failure), None),
            IssueOutcome::NotReached(failure) => return (ApplyOutcome::NotReached(failure), None),
            IssueOutcome::Ambiguous(failure) => return (ApplyOutcome::Ambiguous(failure), None),
        };
        let place = (self.seat.host.as_str(), version.version);
        let mut last = None;
        for _ in 0..SEALINGS {
            match self.parts.vault.seal_version(&self.seat.account, &self.seat.item, place, &issued).await {
                Ok(sealed) => {
                    self.opened.insert(version.version, issued);
                    return (ApplyOutcome::Applied, Some(sealed));
                }
                Err(error) => last = Some(error),
            }
        }
        let failure = last.map_or_else(|| EngineError::Busy, EngineError::from);
        (ApplyOutcome::Ambiguous(failed(failure)), None)
    }

    /// Takes versions off the target, acting with what is current now.
    pub(crate) async fn take_off(&mut self, superseded: &[ItemVersion]) -> Result<(), Failure> {
        self.load_current().await?;
        for version in superseded {
            let credential = self.open(version).await?;
            if credential.ct_eq(&self.seat.current) {
                return Err(Failure::new(FailureClass::Protocol, "a superseded version equals the current one", ""));
            }
            let call = self.seat.call(0, self.connector_time());
            self.seat.connector.revoke(&call, &credential).await?;
        }
        Ok(())
    }

    /// The current version may have changed since the job was made.
    async fn load_current(&mut self) -> Result<(), Failure> {
        let mut tx = self.parts.store.read().await.map_err(|error| failed(error.into()))?;
        let open = versions::open_set(&mut tx, &self.slot()).await.map_err(|error| failed(error.into()))?;
        drop(tx);
        if let Some(current) = open.iter().find(|version| version.state == VersionState::Current) {
            self.seat.current = self.open(current).await?;
        }
        Ok(())
    }
}

/// The answers about all of `versions`: intents open nothing, the others are asked about with `ask`.
pub(crate) fn with_intents(credentials: &[Credential], asked: Vec<ProbeOutcome>) -> Vec<ProbeOutcome> {
    let mut asked = asked.into_iter();
    let silent = || ProbeOutcome::Unknown(Failure::new(FailureClass::Protocol, "the target was not asked", ""));
    let one = |credential: &Credential| match credential.is_intent() {
        true => ProbeOutcome::Refused(Evidence::WitnessRead),
        false => asked.next().unwrap_or_else(silent),
    };
    credentials.iter().map(one).collect()
}
