//! Accounts of a host itself, over SMB: preflight, change and probe.
//!
//! A host (unlike a domain) lets nobody in with a previous password, so that a login tells the present one. It shows no verifier, and
//! an account has one password: when one opens it, the others are refused without being tried.

use std::collections::BTreeMap;

use tokio::time::{Instant, timeout_at};
use volvelle_domain::connector::{
    ApplyOutcome, Evidence, Failure, FailureClass, PasswordPolicy, Preflight, ProbeOutcome, ProbeReport,
};
use volvelle_domain::{Credential, Secret};

use super::samr::{self, Rules, Sam, Wish};
use super::smb::{Connection, Login, Session};
use super::status::{self, Denied};
use super::visit::{Visit, Who};
use super::{config, timed_out};

async fn log_in(visit: &Visit<'_>, who: &Who<'_>) -> Result<Result<Session, Denied>, Failure> {
    let Some(password) = who.password else {
        return Err(config(format!("there is no password of {}", who.user), "give it"));
    };
    let connection = Connection::open(&visit.address.host, visit.address.port).await?;
    Ok(match connection.log_in(who.domain, who.user, password).await? {
        Login::In(session) => Ok(*session),
        Login::Denied(status) => Err(status::denied(status, who.user)),
    })
}

async fn must_log_in(visit: &Visit<'_>, who: &Who<'_>) -> Result<Session, Failure> {
    log_in(visit, who).await?.map_err(Denied::failure)
}

/// Proves that the change can be made, and how.
pub(super) async fn preflight(visit: &Visit<'_>, policy: &PasswordPolicy) -> Result<Preflight, Failure> {
    let (who, host) = (visit.user(), visit.address.host.as_str());
    let session = must_log_in(visit, &visit.acting()).await?;
    let computer = session.computer.clone();
    let rpc = samr::bind(session, host).await?;
    let mut sam = match Sam::open(rpc, host).await {
        Ok(sam) => sam,
        // An ordinary account need not read the database to change its own password.
        Err(failure) if failure.class == FailureClass::Privilege && visit.own() => {
            return Ok(found("samr-change", None, Rules::default()));
        }
        Err(failure) => return Err(failure),
    };
    if !sam.name.eq_ignore_ascii_case(&computer) {
        return Err(config(
            format!("the host is a domain controller of {}: its accounts are those of the domain", sam.name),
            "set transport to ldap, so that the previous password is not taken for the present one",
        ));
    }
    let rules = sam.rules().await?;
    let account = sam.account(who, if visit.own() { Wish::Read } else { Wish::Set }).await?;
    let facts = sam.facts(&account).await?;
    if facts.disabled {
        return Err(config(format!("{who} is disabled on the host"), "enable the account, or stop rotating it"));
    }
    if facts.locked {
        return Err(status::denied(0xc000_0234, who).failure());
    }
    let method = if visit.own() { "samr-change" } else { "samr-reset" };
    Ok(found(method, rules.tighten(policy), rules))
}

fn found(method: &str, policy: Option<PasswordPolicy>, rules: Rules) -> Preflight {
    let by = if method == "samr-change" { "the account itself" } else { "the target's account" };
    let mut notes = vec![format!("the password is changed by {by} over SMB; the outcome is found out by logging in")];
    if rules.history > 0 {
        notes.push(format!("the host refuses the last {} passwords to the account itself", rules.history));
    }
    Preflight { memory: BTreeMap::from([("method".to_owned(), method.to_owned())]), policy, witness_read: false, notes }
}

impl Rules {
    fn tighten(&self, policy: &PasswordPolicy) -> Option<PasswordPolicy> {
        let mut tightened = policy.clone();
        tightened.length = policy.length.max(self.min_length.min(128));
        let classes = [policy.lower, policy.upper, policy.digits, policy.special].iter().filter(|on| **on).count();
        if self.complex && classes < 3 {
            (tightened.lower, tightened.upper, tightened.digits) = (true, true, true);
        }
        (tightened != *policy).then_some(tightened)
    }
}

/// Makes `candidate` the password. Everything before the sending of it is `NotReached` or `Rejected`.
pub(super) async fn apply(visit: &Visit<'_>, candidate: &Credential) -> ApplyOutcome {
    let Some(new) = candidate.field("password").filter(|password| !password.is_empty()) else {
        return ApplyOutcome::Rejected(config("the candidate has no password", ""));
    };
    let outcome = match make(visit, new).await {
        Ok(status) => status::changed(status, visit.user()),
        Err(failure) if visit.has_sent() => ApplyOutcome::Ambiguous(failure),
        Err(failure) => match failure.class {
            FailureClass::Unreachable | FailureClass::Timeout | FailureClass::LoginBudget => {
                ApplyOutcome::NotReached(failure)
            }
            _ => ApplyOutcome::Rejected(failure),
        },
    };
    // Where the account acts for itself, a refusal may mean that this change was made already.
    let doubtful =
        matches!(&outcome, ApplyOutcome::Rejected(f) if matches!(f.class, FailureClass::Auth | FailureClass::Policy));
    if doubtful && visit.own() && visit.call.login_budget > 1 {
        let mut trial = Trial { visit, failed_logins: 0, opened: None };
        if matches!(trial.ask(candidate).await, ProbeOutcome::Opens(_)) {
            return ApplyOutcome::Applied;
        }
    }
    outcome
}

async fn make(visit: &Visit<'_>, new: &Secret) -> Result<u32, Failure> {
    let (user, host) = (visit.user(), visit.address.host.as_str());
    let session = must_log_in(visit, &visit.acting()).await?;
    let mut rpc = samr::bind(session, host).await?;
    if visit.own() {
        let Some(old) = visit.call.current.field("password") else {
            return Err(config(format!("there is no present password of {user}"), "give it"));
        };
        visit.sending();
        return samr::change(&mut rpc, host, user, old, new).await;
    }
    let mut sam = Sam::open(rpc, host).await?;
    let account = sam.account(user, Wish::Set).await?;
    visit.sending();
    sam.set(&account, new).await
}

/// Asks about every credential, in order.
pub(super) async fn probe(visit: &Visit<'_>, credentials: &[&Credential]) -> ProbeReport {
    let deadline = Instant::now() + visit.call.timeout;
    let mut trial = Trial { visit, failed_logins: 0, opened: None };
    let mut outcomes = Vec::with_capacity(credentials.len());
    for credential in credentials {
        let asked = timeout_at(deadline, trial.ask(credential)).await;
        outcomes.push(asked.unwrap_or_else(|_| ProbeOutcome::Unknown(timed_out())));
    }
    ProbeReport { outcomes, failed_logins: trial.failed_logins }
}

/// Trying passwords one after the other.
struct Trial<'a> {
    visit: &'a Visit<'a>,
    failed_logins: u32,
    opened: Option<Secret>,
}

impl Trial<'_> {
    async fn ask(&mut self, credential: &Credential) -> ProbeOutcome {
        let unknown = |class, why: &str| ProbeOutcome::Unknown(Failure::new(class, why, ""));
        let Some(password) = credential.field("password") else {
            return unknown(FailureClass::Config, "there is no password to ask about");
        };
        if let Some(opened) = &self.opened {
            let same = opened.ct_eq(password);
            return if same { ProbeOutcome::Opens(Evidence::Login) } else { ProbeOutcome::Refused(Evidence::Login) };
        }
        if self.visit.call.login_budget <= self.failed_logins {
            return unknown(FailureClass::LoginBudget, "not asked: it could cost one failed login too many");
        }
        let who = Who { domain: None, user: self.visit.user(), password: Some(password) };
        match log_in(self.visit, &who).await {
            Ok(Ok(_) | Err(Denied::RightButBarred(_))) => {
                self.opened = Some(password.clone());
                ProbeOutcome::Opens(Evidence::Login)
            }
            Ok(Err(Denied::Wrong(_))) => {
                self.failed_logins += 1;
                ProbeOutcome::Refused(Evidence::Login)
            }
            Ok(Err(Denied::Unclear(failure))) => {
                if failure.class == FailureClass::LoginBudget {
                    // A locked account says nothing of any password; asking on would only keep it locked.
                    self.failed_logins = self.visit.call.login_budget;
                }
                ProbeOutcome::Unknown(failure)
            }
            Err(failure) => ProbeOutcome::Unknown(failure),
        }
    }
}
