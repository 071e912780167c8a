//! Accounts of a host itself, by scripts over WinRM or SSH: preflight, change and probe.
//!
//! Neither tells anybody why it refuses a login, so that a refusal there is no answer about a password. The target's account therefore asks
//! the host itself (`LogonUser`), which does tell; an account that acts for itself is believed when it gets in.

use std::collections::BTreeMap;

use tokio::time::{Instant, timeout_at};
use volvelle_domain::connector::{
    ApplyOutcome, Evidence, Failure, FailureClass, PasswordPolicy, Preflight, ProbeOutcome, ProbeReport,
};
use volvelle_domain::{Credential, Secret};

use super::login::{self, Login};
use super::shell::{Shell, log_in};
use super::status;
use super::visit::{Route, Visit, Who, password};
use super::{config, timed_out};

const FACTS: &str = include_str!("scripts/facts.ps1");
const SET: &str = include_str!("scripts/set.ps1");
const CHANGE: &str = include_str!("scripts/change.ps1");
const PROBE: &str = include_str!("scripts/probe.ps1");

async fn must_log_in(visit: &Visit<'_>, who: &Who<'_>) -> Result<Shell, Failure> {
    let way = visit.address.route.shown();
    match log_in(visit, who).await? {
        Login::In(shell) => Ok(*shell),
        Login::Denied => Err(Failure::new(
            FailureClass::Auth,
            format!("{} was refused by the host ({way} does not tell why)", who.user),
            format!("check the password, that the account is not locked, and that it may use {way}"),
        )),
    }
}

fn answer<'a>(answers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    answers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

/// Proves that the change can be made, and how.
pub(super) async fn preflight(visit: &Visit<'_>, policy: &PasswordPolicy) -> Result<Preflight, Failure> {
    let user = visit.user();
    let mut session = must_log_in(visit, &visit.acting()).await?;
    let answers = session.run(FACTS, &[&Secret::from(user)], &|| ()).await?;
    let is = |name: &str| answer(&answers, name) == Some("True");
    if answer(&answers, "admin").is_none() {
        return Err(Failure::new(FailureClass::Protocol, "PowerShell gives no answer on the host", ""));
    }
    if is("controller") {
        return Err(config(
            "the host is a domain controller: its accounts are those of the domain",
            "set transport to ldap, so that the previous password is not taken for the present one",
        ));
    }
    if !is("account") {
        return Err(config(format!("the host has no account {user}"), "check rotated-username"));
    }
    if is("disabled") {
        return Err(config(format!("{user} is disabled on the host"), "enable the account, or stop rotating it"));
    }
    if is("locked") {
        return Err(status::denied(0xc000_0234, user).failure());
    }
    if !visit.own() && !is("admin") {
        return Err(Failure::new(
            FailureClass::Privilege,
            format!("the acting account may not change the password of {user}: it is no administrator there"),
            "use an account of the host's Administrators group",
        ));
    }
    let least = answer(&answers, "length").and_then(|length| length.parse::<u16>().ok()).unwrap_or(0);
    let length = policy.length.max(least.min(128));
    let method = match (visit.address.route, visit.own()) {
        (Route::Ssh, true) => "ssh-change",
        (Route::Ssh, false) => "ssh-reset",
        (_, true) => "winrm-change",
        (_, false) => "winrm-reset",
    };
    Ok(Preflight {
        memory: BTreeMap::from([("method".to_owned(), method.to_owned())]),
        policy: (length != policy.length).then(|| PasswordPolicy { length, ..policy.clone() }),
        witness_read: false,
        notes: vec![format!(
            "the password is changed over {} ({method}); the outcome is found out by logging in",
            over(visit)?
        )],
    })
}

/// The way, and over WinRM the login that is used on it.
fn over(visit: &Visit<'_>) -> Result<String, Failure> {
    let way = visit.address.route.shown();
    if visit.address.route == Route::Ssh {
        return Ok(way.to_owned());
    }
    let login = login::Way::of(visit.call.target, visit.acting().domain)?;
    Ok(format!("{way} with {}", login.shown()))
}

/// Makes `candidate` the password. Everything before the sending of it is `NotReached` or `Rejected`.
pub(super) async fn apply(visit: &Visit<'_>, candidate: &Credential) -> ApplyOutcome {
    let Some(new) = password(candidate) else {
        return ApplyOutcome::Rejected(config("the candidate has no password", ""));
    };
    let outcome = match make(visit, new).await {
        Ok(answers) => judge(visit, answer(&answers, "result")),
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
        let report = by_login(visit, &[candidate]).await;
        if matches!(report.outcomes.first(), Some(ProbeOutcome::Opens(_))) {
            return ApplyOutcome::Applied;
        }
    }
    outcome
}

async fn make(visit: &Visit<'_>, new: &Secret) -> Result<Vec<(String, String)>, Failure> {
    let mut session = must_log_in(visit, &visit.acting()).await?;
    let user = Secret::from(visit.user());
    if !visit.own() {
        return session.run(SET, &[&user, new], &|| visit.sending()).await;
    }
    let Some(old) = visit.call.current.field("password") else {
        return Err(config(format!("there is no present password of {}", visit.user()), "give it"));
    };
    session.run(CHANGE, &[&user, old, new], &|| visit.sending()).await
}

/// What the result of a script means: zero, or the code of the host's error.
fn judge(visit: &Visit<'_>, result: Option<&str>) -> ApplyOutcome {
    let Some(code) = result.and_then(|code| u32::from_str_radix(code, 16).ok()) else {
        let said = "the script on the host ended without telling what became of the change";
        return ApplyOutcome::Ambiguous(Failure::new(FailureClass::Protocol, said, ""));
    };
    status::changed(
        match code {
            0x8007_08c5 => 0xc000_006c,
            0x8007_0056 => 0xc000_006a,
            0x8007_0005 => 0xc000_0022,
            0x8007_0775 => 0xc000_0234,
            other => other,
        },
        visit.user(),
    )
}

/// Asks about every credential, in order.
pub(super) async fn probe(visit: &Visit<'_>, credentials: &[&Credential]) -> ProbeReport {
    let deadline = Instant::now() + visit.call.timeout;
    let asking = async {
        if visit.own() { Ok(by_login(visit, credentials).await) } else { by_script(visit, credentials).await }
    };
    let failure = match timeout_at(deadline, asking).await {
        Ok(Ok(report)) => return report,
        Ok(Err(failure)) => failure,
        Err(_) => timed_out(),
    };
    // How far the asking came is not known: at most the whole budget was spent where the script had begun.
    let failed_logins = if visit.has_sent() { visit.call.login_budget } else { 0 };
    let outcomes = credentials.iter().map(|_| ProbeOutcome::Unknown(failure.clone())).collect();
    ProbeReport { outcomes, failed_logins }
}

/// The account logs in itself. Getting in is an answer; being refused is one only if another password gets in.
async fn by_login(visit: &Visit<'_>, credentials: &[&Credential]) -> ProbeReport {
    let (mut opened, mut failed_logins, mut refused): (Option<Secret>, u32, Vec<Option<Failure>>) =
        (None, 0, Vec::new());
    for credential in credentials {
        let why = |class, said: &str| Some(Failure::new(class, said, ""));
        refused.push(match password(credential) {
            None => why(FailureClass::Config, "there is no password to ask about"),
            Some(_) if opened.is_some() => None,
            Some(_) if failed_logins >= visit.call.login_budget => {
                why(FailureClass::LoginBudget, "not asked: it could cost one failed login too many")
            }
            Some(password) => match log_in(visit, &visit.as_account(Some(password))).await {
                Ok(Login::In(_)) => {
                    opened = Some(password.clone());
                    None
                }
                Ok(Login::Denied) => {
                    failed_logins += 1;
                    why(FailureClass::Auth, "the host refuses it and does not tell whether the password is wrong")
                }
                Err(failure) => Some(failure),
            },
        });
    }
    let outcomes =
        credentials.iter().zip(refused).map(|(credential, why)| match (&opened, password(credential), why) {
            (Some(opened), Some(password), _) if opened.ct_eq(password) => ProbeOutcome::Opens(Evidence::Login),
            (Some(_), Some(_), _) => ProbeOutcome::Refused(Evidence::Login),
            (_, _, Some(failure)) => ProbeOutcome::Unknown(failure),
            (_, _, None) => ProbeOutcome::Unknown(timed_out()),
        });
    ProbeReport { outcomes: outcomes.collect(), failed_logins }
}

/// The host is asked by the target's account.
async fn by_script(visit: &Visit<'_>, credentials: &[&Credential]) -> Result<ProbeReport, Failure> {
    let mut session = must_log_in(visit, &visit.acting()).await?;
    let (user, budget) = (Secret::from(visit.user()), Secret::from(visit.call.login_budget.to_string()));
    let empty = Secret::from("");
    let mut arguments = vec![&user, &budget];
    arguments.extend(credentials.iter().map(|credential| password(credential).unwrap_or(&empty)));
    let answers = session.run(PROBE, &arguments, &|| visit.sending()).await?;
    let codes: Vec<Option<u32>> = (0..credentials.len())
        .map(|number| answer(&answers, &format!("code{number}")).and_then(|code| code.parse().ok()))
        .collect();
    let opens = |code: &u32| [0, 1330, 1907, 1385, 1327, 1328, 1329, 1793].contains(code);
    let opened = codes.iter().zip(credentials).find(|(code, _)| code.as_ref().is_some_and(opens));
    let opened = opened.and_then(|(_, credential)| password(credential)).cloned();
    let failed_logins = codes.iter().flatten().filter(|code| **code == 1326).count();
    let outcomes =
        codes.iter().zip(credentials).map(|(code, credential)| match (&opened, password(credential), code) {
            (Some(opened), Some(password), _) if opened.ct_eq(password) => ProbeOutcome::Opens(Evidence::Login),
            (Some(_), Some(_), _) | (None, _, Some(1326)) => ProbeOutcome::Refused(Evidence::Login),
            (_, _, Some(1909)) => ProbeOutcome::Unknown(status::denied(0xc000_0234, visit.user()).failure()),
            (_, _, Some(1331)) => ProbeOutcome::Unknown(status::denied(0xc000_0072, visit.user()).failure()),
            (_, _, Some(code)) => ProbeOutcome::Unknown(Failure::new(
                FailureClass::Protocol,
                format!("the host answers a login of {} with error {code}", visit.user()),
                "",
            )),
            (_, _, None) => ProbeOutcome::Unknown(Failure::new(
                FailureClass::LoginBudget,
                "not asked: it could cost one failed login too many",
                "",
            )),
        });
    Ok(ProbeReport { outcomes: outcomes.collect(), failed_logins: u32::try_from(failed_logins).unwrap_or(u32::MAX) })
}
