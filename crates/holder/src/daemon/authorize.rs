//! Whether a client is behind a request: each holder judges by itself, by keys that its own administrator gave it.
//!
//! What must stay true: with `require`, nothing but probes is evaluated without a client's valid authorization, save for what the section
//! `rotation` allows, within a budget; what was found stands in the log; the number of authorizations remembered is bounded.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Mutex;

use anyhow::{Context as _, Result};
use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use volvelle_fragments::Input;

use super::policy::Guard;
use crate::authorization::{self, Issuer, IssuerConfig, Shown};
use crate::eval::{Answer, EvalRequest, Operation};
use crate::lock;
use crate::roster::{Policy, Roster};
use crate::state::now;

/// Authorizations remembered, at most: a signature is checked once.
const REMEMBERED: usize = 4096;
/// Clocks may differ by so many seconds.
const SKEW: u64 = 30;
/// What a gateway calls itself when it works for no client.
const OWN: &str = "volvelle";

/// What is asked of requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Nothing.
    #[default]
    Off,
    /// What is missing is written down, and nothing is refused.
    Log,
    /// Whatever no client asks for is refused.
    Require,
}

/// The section `authorization` of a holder's configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Authorization {
    /// What is asked of requests.
    pub mode: Mode,
    /// Public keys, in hexadecimal, of those who sign clients in.
    #[serde(default)]
    pub signing_keys: Vec<String>,
    /// Providers whose clients' own tokens are believed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub issuers: Vec<IssuerConfig>,
    /// What a gateway may do for no client; without it, nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<Rotation>,
}

/// What a gateway may do for no client, such as rotating by schedule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Rotation {
    /// Paths at and under which it may; its targets' too.
    pub prefixes: Vec<String>,
    /// Different items in a minute, at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_minute: Option<u32>,
    /// Different items in an hour, at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_hour: Option<u32>,
    /// Different items in a day, at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_day: Option<u32>,
}

/// Judges authorizations.
pub(super) struct Authorizer {
    mode: Mode,
    keys: Vec<[u8; 32]>,
    issuers: Vec<Issuer>,
    /// By the gateways of the roster, in order; what they may do for no client.
    rotation: Option<Vec<Guard>>,
    /// By the hash of its bytes.
    known: Mutex<HashMap<[u8; 32], Shown>>,
}

/// What is known of who is behind a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Behind {
    /// It was not asked.
    Unasked,
    /// This client.
    Client(String),
    /// Nobody, and the gateway says so.
    Nobody,
    /// It is not shown; why not.
    Unknown(String),
}

impl Behind {
    /// As it stands in the log.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Unasked => String::new(),
            Self::Client(access_id) => format!("client {access_id}"),
            Self::Nobody => "nobody".to_owned(),
            Self::Unknown(why) => format!("not shown: {why}"),
        }
    }
}

impl Authorizer {
    pub(super) fn new(config: Option<&Authorization>, roster: &Roster, home: &Path) -> Result<Self> {
        let config = config.cloned().unwrap_or_default();
        let key = |text: &String| hex::decode(text).ok().and_then(|bytes| bytes.try_into().ok());
        let keys = config.signing_keys.iter().map(|text| key(text).context("a signing key is 64 hexadecimal digits"));
        let guards = |rotation: Rotation| {
            let policy = |gateway: &String| Policy {
                gateway: gateway.clone(),
                prefixes: rotation.prefixes.clone(),
                operations: ["seal", "open", "rewrap"].map(str::to_owned).to_vec(),
                per_minute: rotation.per_minute,
                per_hour: rotation.per_hour,
                per_day: rotation.per_day,
                buried_per_day: None,
            };
            roster.gateways.iter().map(|gateway| Guard::new(Some(policy(gateway)))).collect()
        };
        Ok(Self {
            mode: config.mode,
            keys: keys.collect::<Result<_>>()?,
            issuers: config.issuers.iter().map(|issuer| Issuer::load(issuer, home)).collect::<Result<_>>()?,
            rotation: config.rotation.map(guards),
            known: Mutex::default(),
        })
    }

    /// Who is behind a request of this gateway, and whether it is refused for that.
    pub(super) fn judge(&self, gateway: &str, request: &EvalRequest<'_>) -> (Behind, bool) {
        if self.mode == Mode::Off || request.operation == Operation::Probe {
            return (Behind::Unasked, false);
        }
        let behind = match self.find(gateway, request) {
            Ok(behind) => behind,
            Err(error) => Behind::Unknown(format!("{error:#}")),
        };
        let refused = matches!(behind, Behind::Unknown(_)) && self.mode == Mode::Require;
        (behind, refused)
    }

    fn find(&self, gateway: &str, request: &EvalRequest<'_>) -> Result<Behind> {
        if request.authorization.is_empty() {
            anyhow::ensure!(request.principal == OWN, "no client's authorization came with it");
            let allowed = self.rotation.is_some();
            anyhow::ensure!(allowed, "nothing may be done here for no client (`rotation` of `authorization`)");
            return Ok(Behind::Nobody);
        }
        let mut name = [0; 32];
        name.copy_from_slice(digest(&SHA256, request.authorization).as_ref());
        let known = lock(&self.known).get(&name).cloned();
        let shown = match known {
            Some(shown) => shown,
            None => {
                let verified = authorization::verify(request.authorization, &self.keys, &self.issuers);
                let shown = verified.context("the client's authorization is not valid")?;
                let mut known = lock(&self.known);
                if known.len() >= REMEMBERED {
                    known.clear();
                }
                known.insert(name, shown.clone());
                shown
            }
        };
        let time = now();
        anyhow::ensure!(time < shown.expires_at.saturating_add(SKEW), "the client's authorization has expired");
        anyhow::ensure!(shown.issued_at <= time.saturating_add(SKEW), "the client's authorization is not yet valid");
        anyhow::ensure!(shown.realms.contains(&request.realm), "the client's authorization is for another account");
        let named = shown.gateways.is_none_or(|gateways| gateways.iter().any(|pin| hex::encode(pin) == gateway));
        anyhow::ensure!(named, "the client's authorization is for another gateway");
        Ok(Behind::Client(shown.access_id))
    }

    /// Why an input is refused that nobody asks for, if it is.
    pub(super) fn refuses(
        &self,
        behind: &Behind,
        gateway: usize,
        operation: Operation,
        input: &Input,
    ) -> Option<Answer> {
        if *behind != Behind::Nobody || self.mode != Mode::Require {
            return None;
        }
        match self.rotation.as_ref().and_then(|guards| guards.get(gateway)) {
            Some(guard) => guard.refuses(operation, input),
            None => Some(Answer::Denied),
        }
    }
}
