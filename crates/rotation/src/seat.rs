//! Everything that a call of a connector needs to know about one slot, loaded once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use volvelle_domain::Credential;
use volvelle_domain::account::Account;
use volvelle_domain::connector::{
    ActingAs, Call, Connector, Dependent, Failure, FailureClass, Parent, PasswordPolicy, PeerIdentity, RotatorType,
    TargetParams,
};
use volvelle_domain::ids::{Micros, TargetId};
use volvelle_domain::item::{Item, Rotator};
use volvelle_domain::target::Target;
use volvelle_store::slots::SlotFacts;
use volvelle_store::{Tx, targets};

use crate::{EngineError, Parts};

/// A target with its secrets opened; of a linked target, those of its parent.
pub struct Resolved {
    /// The target as named by the secret.
    pub record: Target,
    /// Whose parameters and credential count: the record itself or its parent.
    pub source: Option<Target>,
    /// The kind of the connector.
    pub kind: String,
    /// The opened secret parameters.
    pub secret: Credential,
    /// The target through which it is reached, with its opened secret parameters; a linked target's parent is its `source` instead.
    pub through: Option<Box<(Target, Credential)>>,
}

impl Resolved {
    /// Loads and opens a target.
    ///
    /// # Errors
    /// It does not exist, or its secrets cannot be opened.
    pub async fn load(parts: &Parts, account: &Account, id: TargetId) -> Result<Self, EngineError> {
        let mut tx = parts.store.read().await?;
        let record = targets::load(&mut tx, &account.id, id).await?;
        Box::pin(Self::of(parts, account, record, tx)).await
    }

    async fn of(parts: &Parts, account: &Account, record: Target, mut tx: Tx) -> Result<Self, EngineError> {
        let parent = match record.parent {
            Some(parent) => Some(targets::load(&mut tx, &account.id, parent).await?),
            None => None,
        };
        let (source, through) = match &record.linked {
            Some(_) => (parent, None),
            None => (Some(record.clone()), parent),
        };
        let mut newest = [None, None];
        for (target, newest) in [&source, &through].into_iter().zip(&mut newest) {
            if let Some(target) = target {
                *newest = targets::find_version(&mut tx, &account.id, target.id, target.last_version).await?;
            }
        }
        drop(tx);
        let [own, parents] = newest;
        let secret = match (&source, &own) {
            (Some(source), Some(version)) => parts.vault.open_target(account, source, version).await?,
            _ => Credential::default(),
        };
        let through = match (through, &parents) {
            (Some(parent), Some(version)) => {
                let secret = parts.vault.open_target(account, &parent, version).await?;
                Some(Box::new((parent, secret)))
            }
            _ => None,
        };
        let kind = match (&source, &record.linked) {
            (Some(source), _) => source.kind.clone(),
            (None, Some(linked)) => linked.hosts_kind.clone(),
            (None, None) => record.kind.clone(),
        };
        Ok(Self { record, source, kind, secret, through })
    }

    /// The parameters for one host (`host:port` of a linked target, empty otherwise).
    #[must_use]
    pub fn params(&self, host: &str) -> TargetParams {
        let mut plain = self.source.as_ref().map(|source| source.params.clone()).unwrap_or_default();
        if let Some((name, port)) = split_host(host) {
            plain.insert("host".to_owned(), Value::from(name));
            if let Some(port) = port {
                plain.insert("port".to_owned(), Value::from(port));
            }
        }
        let parent = self.through.as_deref().map(|(parent, secret)| {
            let params = TargetParams { plain: parent.params.clone(), secret: secret.clone(), parent: None };
            Box::new(Parent { kind: parent.kind.clone(), params })
        });
        TargetParams { plain, secret: self.secret.clone(), parent }
    }

    /// The target whose account acts: its refused logins count there, whoever caused them.
    #[must_use]
    pub fn acting(&self) -> &Target {
        self.through.as_deref().map_or(&self.record, |(parent, _)| parent)
    }

    /// The targets that it consists of: itself and its parent.
    fn records(&self) -> impl Iterator<Item = &Target> {
        let source = self.source.iter().filter(|source| source.id != self.record.id);
        std::iter::once(&self.record).chain(source).chain(self.through.iter().map(|through| &through.0))
    }

    /// Pinned identities of the target and of its parent.
    #[must_use]
    pub fn pinned(&self) -> Vec<PeerIdentity> {
        self.records().flat_map(|record| record.pinned.iter()).cloned().collect()
    }

    /// The slots a secret on this target has: one per host of a linked target, else the one without a name.
    #[must_use]
    pub fn hosts(&self) -> Vec<String> {
        match &self.record.linked {
            None => vec![String::new()],
            Some(linked) => linked.hosts.iter().map(|(host, _)| host.clone()).collect(),
        }
    }
}

/// `name:port`, `[v6]:port`, `name` or a bare IPv6 address.
fn split_host(host: &str) -> Option<(&str, Option<&str>)> {
    if host.is_empty() {
        return None;
    }
    if let Some(rest) = host.strip_prefix('[') {
        let (name, port) = rest.split_once(']')?;
        return Some((name, port.strip_prefix(':')));
    }
    match host.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') => Some((name, Some(port))),
        _ => Some((host, None)),
    }
}

/// One slot, ready for calls.
pub struct Seat {
    /// The tenant.
    pub account: Account,
    /// The secret.
    pub item: Item,
    /// Its rotating half.
    pub rotator: Rotator,
    /// Empty, or the host of a linked target.
    pub host: String,
    /// The target.
    pub resolved: Resolved,
    /// Who speaks with it.
    pub connector: Arc<dyn Connector>,
    /// What was recorded about the slot.
    pub facts: SlotFacts,
    /// What the account opens with as far as is known; at least it names the account.
    pub current: Credential,
    /// Proof of who calls, where the target wants one.
    pub proof: String,
    /// What got the new credential besides readers, and what did not.
    pub dependents: Vec<Dependent>,
    params: TargetParams,
    pinned: Vec<PeerIdentity>,
}

impl Seat {
    /// Puts a seat together.
    ///
    /// # Errors
    /// The kind has no connector, or the item does not rotate.
    pub fn new(
        parts: &Parts,
        account: &Account,
        item: &Item,
        host: &str,
        resolved: Resolved,
    ) -> Result<Self, EngineError> {
        let rotator = item.rotator.clone().ok_or(EngineError::NotRotated)?;
        let connector = (parts.connectors)(&resolved.kind).ok_or_else(|| {
            config(format!("targets of kind {} cannot be rotated", resolved.kind), "use a target of a supported kind")
        })?;
        let (params, pinned) = (resolved.params(host), resolved.pinned());
        Ok(Self {
            account: account.clone(),
            item: item.clone(),
            rotator,
            host: host.to_owned(),
            resolved,
            connector,
            facts: SlotFacts::default(),
            current: Credential::default(),
            proof: String::new(),
            dependents: Vec::new(),
            params,
            pinned,
        })
    }

    /// With the credential that calls start from.
    #[must_use]
    pub fn with_current(mut self, current: Credential) -> Self {
        self.current = current;
        self
    }

    /// The credential that names the account when no value is known yet.
    ///
    /// # Errors
    /// A parameter is missing.
    pub fn nameless(&self) -> Result<Credential, Failure> {
        let given = TargetParams { plain: self.rotator.params.clone(), ..TargetParams::default() };
        self.connector.initial_credential(&self.rotator.rotator_type, &self.params, &given)
    }

    /// The rotator type, if the target holds what it rotates.
    pub(crate) fn feeding(&self) -> Option<&RotatorType> {
        // Hosts with a password each have no one value that the target could hold.
        if !self.host.is_empty() && !self.rotator.same_password {
            return None;
        }
        let own = self.connector.declaration().rotator_type(&self.rotator.rotator_type)?;
        own.feeds_into(&self.resolved.params("")).then_some(own)
    }

    /// Who acts: a secret that is the target's own credential acts as itself.
    #[must_use]
    pub fn acting(&self) -> ActingAs {
        if self.rotator.rotator_type == "target" { ActingAs::User } else { self.rotator.acting }
    }

    /// A call with this much of the login budget left.
    #[must_use]
    pub fn call(&self, login_budget: u32, timeout: Duration) -> Call<'_> {
        Call {
            target: &self.params,
            pinned: &self.pinned,
            rotator_type: &self.rotator.rotator_type,
            params: &self.rotator.params,
            acting: self.acting(),
            current: &self.current,
            memory: &self.facts.memory,
            proof: &self.proof,
            login_budget,
            timeout,
        }
    }

    /// The policy of new passwords.
    #[must_use]
    pub fn policy(&self) -> PasswordPolicy {
        self.rotator.policy.clone().unwrap_or_else(|| self.account.settings.password_policy.clone())
    }

    /// Why nothing may be asked of the target at all.
    ///
    /// # Errors
    /// The target stands still because its peer changed.
    pub fn may_call(&self) -> Result<(), Failure> {
        match self.resolved.records().find(|record| !record.halted.is_empty()) {
            Some(record) => Err(Failure::new(
                FailureClass::PeerIdentity,
                record.halted.clone(),
                format!(
                    "compare the fingerprint, then run `volvelle target trust-host-key -n {}`",
                    self.resolved.record.name
                ),
            )),
            None => Ok(()),
        }
    }

    /// Failed logins the slot may still cause at `now`.
    #[must_use]
    pub fn budget(&self, parts: &Parts, now: Micros) -> u32 {
        let window = i64::try_from(parts.settings.login_window.as_secs()).unwrap_or(i64::MAX);
        let spent = self.facts.failed_logins.iter().filter(|at| at.plus_seconds(window) > now).count();
        parts.settings.login_tries.saturating_sub(u32::try_from(spent).unwrap_or(u32::MAX))
    }

    /// What a preflight recorded.
    #[must_use]
    pub const fn memory(&self) -> &BTreeMap<String, String> {
        &self.facts.memory
    }
}

pub(crate) fn config(message: impl Into<String>, hint: impl Into<String>) -> Failure {
    Failure::new(FailureClass::Config, message, hint)
}

#[cfg(test)]
mod tests {
    use super::split_host;

    #[test]
    fn hosts_are_split_as_people_write_them() {
        assert_eq!(split_host("a.b:22"), Some(("a.b", Some("22"))));
        assert_eq!(split_host("a.b"), Some(("a.b", None)));
        assert_eq!(split_host("[::1]:22"), Some(("::1", Some("22"))));
        assert_eq!(split_host("::1"), Some(("::1", None)));
        assert_eq!(split_host(""), None);
    }
}
