//! Services, IIS application pools and scheduled tasks that log on with a rotated account: each gets the new password over WinRM, and on
//! a target that is itself reached over SSH, over that.
//!
//! One that fails is told by name and keeps nobody else from its password; what logs on with another account is left alone.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};
use volvelle_domain::connector::{ActingAs, Call, Dependent, Failure, FailureClass, TargetParams};
use volvelle_domain::{Credential, Secret};

use super::http::Place;
use super::login::{self, Login};
use super::shell::{self, Shell};
use super::visit::{Address, Route, Visit, Who, password, split};
use super::{config, parent, timed_out};
use crate::ldap::{flag, text};

const HAND_ON: &str = include_str!("scripts/hand_on.ps1");
/// Most dependents of one account.
const MOST: usize = 256;
/// The parameters, and what they list.
const KINDS: &[(&str, &str)] = &[("services", "service"), ("iis-app-pools", "pool"), ("scheduled-tasks", "task")];

/// One thing that logs on with the account.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    kind: &'static str,
    name: String,
    /// Empty: the target's own.
    host: String,
    port: u16,
    /// WinRM or SSH.
    over: Route,
}

/// Reads the three lists: `name[@host[:port]]`, separated by commas.
fn entries(call: &Call<'_>) -> Result<Vec<Entry>, Failure> {
    let mut out = Vec::new();
    let address = Address::of(call.target)?;
    for (parameter, kind) in KINDS {
        let list = call.params.get(*parameter).and_then(Value::as_str).unwrap_or_default();
        for part in list.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let entry = entry(part, kind, call.target, &address).ok_or_else(|| {
                config(
                    format!("{parameter} is a list of name[@host[:port]], and {part:?} is none of these"),
                    format!("set {parameter}"),
                )
            })?;
            if entry.over == Route::WinRm && entry.port == 22 {
                return Err(config(
                    format!("{part:?} is on another host than the target, and such hosts are reached over WinRM only"),
                    "leave the port out, or give that of WinRM",
                ));
            }
            out.push(entry);
        }
    }
    if out.len() > MOST {
        return Err(config(format!("an account has at most {MOST} dependents"), "split them over several accounts"));
    }
    Ok(out)
}

fn entry(part: &str, kind: &'static str, target: &TargetParams, address: &Address) -> Option<Entry> {
    let (name, place) = part.rsplit_once('@').unwrap_or((part, ""));
    let here = place.is_empty() && address.route == Route::Ssh;
    let (host, port) = match place.rsplit_once(':') {
        _ if here => ("", address.port),
        Some((host, port)) => (host, port.parse().ok().filter(|port| *port != 0)?),
        None => (place, if target.plain.contains_key("use-tls") && !flag(target, "use-tls") { 5985 } else { 5986 }),
    };
    let bad = |text: &str| text.chars().any(char::is_control) || text.contains(['"', '<', '>']);
    if name.is_empty() || bad(name) || bad(host) || host.contains(['/', '\\', ' ']) {
        return None;
    }
    let over = if here { Route::Ssh } else { Route::WinRm };
    Some(Entry { kind, name: name.to_owned(), host: host.to_owned(), port, over })
}

/// Whether the lists can be read, and the target's account may act: it is what logs in where the dependents are, so that whoever may not
/// let it act must not send it there.
pub(super) fn check(call: &Call<'_>) -> Result<(), Failure> {
    if entries(call)?.is_empty() {
        return Ok(());
    }
    if call.acting == ActingAs::User && call.rotator_type != "target" {
        return Err(config(
            "services, iis-app-pools and scheduled-tasks get the password from the target's account, and this secret does not use it",
            "set authentication-credentials to use-target-creds, or leave them out",
        ));
    }
    parent::must_have_a_name(split(text(call.target, "username"), "").1)
}

/// Gives every dependent the new password.
pub(super) async fn hand_on(visit: &Visit<'_>, credential: &Credential) -> Vec<Dependent> {
    let Ok(entries) = entries(visit.call) else { return Vec::new() };
    if let Err(failure) = check(visit.call) {
        let told = |entry| Dependent { shown: shown(visit, &entry), failure: Some(failure.clone()) };
        return entries.into_iter().map(told).collect();
    }
    let deadline = Instant::now() + visit.call.timeout;
    let mut work = Work { visit, credential, sessions: BTreeMap::new() };
    let mut out = Vec::with_capacity(entries.len());
    for mut entry in entries {
        if entry.host.is_empty() {
            entry.host.clone_from(&visit.address.host);
        }
        let done = timeout_at(deadline, Box::pin(work.give(&entry))).await.unwrap_or_else(|_| Err(timed_out()));
        out.push(Dependent { shown: shown(visit, &entry), failure: done.err() });
    }
    out
}

/// A dependent as the wire has it.
fn shown(visit: &Visit<'_>, entry: &Entry) -> serde_json::Map<String, Value> {
    let skip = visit.call.params.get("skip-restart").is_some_and(|v| v == true || v == "true");
    let value = json!({
        "name": entry.name,
        "host": entry.host,
        "kind": entry.kind,
        "attributes": {
            "connection_type": "credentials",
            "port": entry.port.to_string(),
            "use_tls": entry.over == Route::WinRm && entry.port != 5985,
            "iis_app_pool": entry.kind == "pool",
            "skip_restart": skip,
        },
    });
    value.as_object().cloned().unwrap_or_default()
}

struct Work<'a> {
    visit: &'a Visit<'a>,
    credential: &'a Credential,
    /// One per host.
    sessions: BTreeMap<(String, u16), Shell>,
}

impl Work<'_> {
    async fn give(&mut self, entry: &Entry) -> Result<(), Failure> {
        let Some(new) = password(self.credential) else { return Err(config("there is no new password", "")) };
        let key = (entry.host.clone(), entry.port);
        let mut shell = match self.sessions.remove(&key) {
            Some(shell) => shell,
            None => self.enter(entry, new).await?,
        };
        let restart = if shown(self.visit, entry)["attributes"]["skip_restart"] == true { "no" } else { "yes" };
        let [kind, name, user, restart] =
            [entry.kind, entry.name.as_str(), self.visit.user(), restart].map(Secret::from);
        let answers = shell.run(HAND_ON, &[&kind, &name, &user, new, &restart], &|| ()).await?;
        self.sessions.insert(key, shell);
        let result = answers.iter().find(|(name, _)| name == "result").map_or("", |(_, result)| result.as_str());
        judge(entry, self.visit.user(), result)
    }

    /// The target's account acts; where that is what has just changed, with its new password.
    async fn enter(&self, entry: &Entry, new: &Secret) -> Result<Shell, Failure> {
        let privileged = self.visit.privileged();
        parent::must_have_a_name(privileged.user)?;
        let password = if self.visit.is_target() { Some(new) } else { privileged.password };
        let who = Who { password, ..privileged };
        let denied = || {
            Failure::new(
                FailureClass::Auth,
                format!("{} was refused by {} ({} does not tell why)", who.user, entry.host, entry.over.shown()),
                "give the target's account the right to manage that host",
            )
        };
        if entry.over == Route::Ssh {
            return match shell::log_in(self.visit, &who).await? {
                Login::In(shell) => Ok(*shell),
                Login::Denied => Err(denied()),
            };
        }
        let own = Place::of(self.visit);
        let known_as = if entry.host == self.visit.address.host { own.known_as } else { entry.host.as_str() };
        let place = Place { host: &entry.host, port: entry.port, tls: entry.port != 5985, known_as, ..own };
        match login::log_in(&place, &who).await? {
            Login::In(session) => Ok(Shell::WinRm(session)),
            Login::Denied => Err(denied()),
        }
    }
}

fn judge(entry: &Entry, user: &str, result: &str) -> Result<(), Failure> {
    let Entry { kind, name, host, .. } = entry;
    let fail =
        |class, said: String, hint: &str| Err(Failure::new(class, format!("{kind} {name} on {host} {said}"), hint));
    match result {
        "0" => Ok(()),
        "missing" => fail(FailureClass::Config, "does not exist".into(), "take it off the list"),
        "other" => fail(FailureClass::Config, format!("does not log on as {user}"), "take it off the list"),
        "80070005" => fail(
            FailureClass::Privilege,
            "may not be changed by the target's account".into(),
            "make it an administrator there",
        ),
        "" => fail(FailureClass::Protocol, "gave no answer".into(), "look at it on the host"),
        code => fail(FailureClass::Protocol, format!("answers {code}"), "look at it on the host"),
    }
}
