//! Local users of network devices: a shell instead of commands, and a profile for each platform.
//!
//! What must stay true: the stored form of a password is sent and never the password, the configuration is saved, and a
//! change that is not saved is not called done.

mod profile;
mod terminal;
mod type8;

use std::collections::BTreeMap;
use std::sync::Arc;

use volvelle_domain::connector::{
    ActingAs, ApplyOutcome, Evidence, Failure, FailureClass, Preflight, ProbeOutcome, ProbeReport, TargetParams,
};
use volvelle_domain::{Credential, Secret};

use self::profile::{Profile, Verifier};
use self::terminal::Terminal;
use super::config;
use super::session::{Session, text};
use super::shadow::Verdict;
use super::visit::{Visit, expired};

/// The name of the platform, if the target is a device.
pub(super) fn kind(target: &TargetParams) -> Option<&str> {
    Some(text(target, "device-type")).filter(|name| !name.is_empty())
}

/// Checks the parameter without asking the device.
pub(super) fn check(target: &TargetParams, rotator_type: Option<&str>, command: &str) -> Result<(), Failure> {
    let Some(name) = kind(target) else { return Ok(()) };
    profile::named(name, text(target, "device-profile"))?;
    if rotator_type == Some("key") {
        return Err(config("keys of devices are not rotated", "use rotator-type password or target"));
    }
    if command.trim().is_empty() {
        return Ok(());
    }
    Err(config("rotator-custom-cmd is for Unix hosts", "leave it out with device-type"))
}

fn profile_of(visit: &Visit<'_>) -> Result<Arc<Profile>, Failure> {
    let target = visit.call.target;
    profile::named(kind(target).unwrap_or_default(), text(target, "device-profile"))
}

async fn log_in(visit: &Visit<'_>, credential: &Credential) -> Result<Session, Failure> {
    visit.log_in(credential, visit.call.login_budget).await?.ok_or_else(|| expired(credential))
}

/// A privileged shell with paging off.
async fn shell<'a>(visit: &Visit<'_>, session: &'a Session, profile: &'a Profile) -> Result<Terminal<'a>, Failure> {
    let mut terminal = Terminal::open(session, profile).await?;
    if !terminal.is_privileged() {
        let password = visit.call.target.secret.field("enable-password");
        if !terminal.rise(password).await? {
            let message = "the device does not admit the acting user to its privileged mode";
            return Err(Failure::new(
                FailureClass::Privilege,
                message,
                "set enable-password, or give the user privilege 15",
            ));
        }
    }
    for command in &profile.quiet {
        terminal.run(command).await?;
    }
    Ok(terminal)
}

fn filled(template: &str, user: &str) -> String {
    template.replace("{{USERNAME}}", user)
}

/// The account's stored password in the running configuration.
async fn running(visit: &Visit<'_>, terminal: &mut Terminal<'_>, profile: &Profile) -> Result<Option<Secret>, Failure> {
    let shown = terminal.run(&filled(&profile.running, visit.user())).await?;
    Ok(profile.stored(&shown))
}

/// The acting user gets in and up, and the account is there.
pub(super) async fn preflight(visit: &Visit<'_>) -> Result<Preflight, Failure> {
    let profile = profile_of(visit)?;
    let profile = &*profile;
    let session = log_in(visit, &visit.acting()).await?;
    let mut terminal = shell(visit, &session, profile).await?;
    let Some(field) = running(visit, &mut terminal, profile).await? else {
        let message = format!("the device has no local user {}", visit.user());
        return Err(config(message, "make the user on the device, or correct rotated-username"));
    };
    let comparable = ["$8$", "$5$", "$6$"].iter().any(|start| field.expose().starts_with(start.as_bytes()));
    let mut notes = vec![format!("{}: the stored form is sent, and the configuration is saved", profile.summary)];
    if !comparable {
        notes.push("the present password is stored in a form that cannot be compared; the new one can".to_owned());
    }
    Ok(Preflight {
        memory: BTreeMap::from([("method".to_owned(), "device".to_owned())]),
        policy: None,
        witness_read: comparable && !visit.own(),
        notes,
    })
}

/// Sets the password, unless it is set already, and saves the configuration.
pub(super) async fn apply(visit: &Visit<'_>, candidate: &Credential) -> ApplyOutcome {
    let Some(password) = candidate.field("password") else {
        return ApplyOutcome::NotReached(config("the version has no password", "rotate again"));
    };
    let outcome = async {
        let profile = profile_of(visit)?;
        let profile = &*profile;
        let session = log_in(visit, &visit.acting()).await?;
        let mut terminal = shell(visit, &session, profile).await?;
        let present = running(visit, &mut terminal, profile).await?;
        let Some(present) = present else {
            return Ok(ApplyOutcome::Rejected(config("the user is no more on the device", "make it again")));
        };
        if Verifier::judge(&present, password).await != Verdict::Holds
            && let Err(outcome) = change(visit, &mut terminal, profile, password).await?
        {
            return Ok(outcome);
        }
        save(&mut terminal, profile).await
    };
    match outcome.await {
        Ok(outcome) => outcome,
        Err(failure) if visit.has_sent() => ApplyOutcome::Ambiguous(failure),
        Err(failure) => match failure.class {
            FailureClass::Unreachable | FailureClass::Timeout => ApplyOutcome::NotReached(failure),
            _ => ApplyOutcome::Rejected(failure),
        },
    }
}

async fn change(
    visit: &Visit<'_>,
    terminal: &mut Terminal<'_>,
    profile: &Profile,
    password: &Secret,
) -> Result<Result<(), ApplyOutcome>, Failure> {
    let verifier = profile.verifier.of(password).await;
    let verifier = verifier.ok_or_else(|| config("no stored form can be computed", "report this"))?;
    terminal.run(&profile.configure).await?;
    if !terminal.is_configuring() {
        let message = "the device does not admit the acting user to its configuration";
        return Err(Failure::new(FailureClass::Privilege, message, "give the user privilege 15"));
    }
    let command =
        filled(&profile.change, visit.user()).replace("{{VERIFIER}}", verifier.expose_str().unwrap_or_default());
    visit.sending();
    let said = terminal.run(&command).await?;
    let refusal = profile.refusal(&said);
    terminal.run(&profile.leave).await?;
    let Some(words) = refusal else { return Ok(Ok(())) };
    let policy =
        ["length", "complex", "weak", "history", "reuse"].iter().any(|word| words.to_lowercase().contains(word));
    let class = if policy { FailureClass::Policy } else { FailureClass::Config };
    let failure =
        Failure::new(class, format!("the device refuses the change: {words}"), "check device-type and its version");
    Ok(Err(ApplyOutcome::Rejected(failure)))
}

/// A change that is not saved is gone with the next restart.
async fn save(terminal: &mut Terminal<'_>, profile: &Profile) -> Result<ApplyOutcome, Failure> {
    let said = terminal.run(&profile.save).await?;
    if profile.kept.is_match(&said) {
        return Ok(ApplyOutcome::Applied);
    }
    let words = profile.refusal(&said).unwrap_or_default();
    let message = format!("the device has the new password, but its configuration was not saved {words}");
    Ok(ApplyOutcome::Ambiguous(Failure::new(FailureClass::Protocol, message.trim_end(), "save it on the device")))
}

/// Reads the configuration with a credential that does not change; else logs in, newest first.
pub(super) async fn probe(visit: &Visit<'_>, credentials: &[&Credential]) -> ProbeReport {
    let mut failed_logins = 0;
    if !visit.own() {
        match read_all(visit, &visit.acting(), credentials).await {
            Ok(outcomes) => return ProbeReport { outcomes, failed_logins },
            Err(failure) if visit.call.acting == ActingAs::Target => {
                let failed_logins = u32::from(failure.class == FailureClass::Auth);
                let outcomes = credentials.iter().map(|_| ProbeOutcome::Unknown(failure.clone())).collect();
                return ProbeReport { outcomes, failed_logins };
            }
            Err(_) => {}
        }
    }
    let mut outcomes = Vec::with_capacity(credentials.len());
    let mut opened = false;
    for credential in credentials {
        let left = visit.call.login_budget.saturating_sub(failed_logins);
        if opened || left == 0 {
            let message = "not asked: asking could cost a failed login";
            outcomes.push(ProbeOutcome::Unknown(Failure::new(FailureClass::LoginBudget, message, "")));
            continue;
        }
        outcomes.push(match visit.log_in(credential, left).await {
            Ok(_) => {
                opened = true;
                saved_too(visit, credential).await
            }
            Err(failure) if failure.class == FailureClass::Auth => {
                failed_logins += 1;
                ProbeOutcome::Refused(Evidence::Login)
            }
            Err(failure) => ProbeOutcome::Unknown(failure),
        });
    }
    ProbeReport { outcomes, failed_logins }
}

/// A password that opens opens until the restart; whether longer, the saved configuration says, if the account may read it (and it
/// is saved then).
async fn saved_too(visit: &Visit<'_>, credential: &Credential) -> ProbeOutcome {
    match read_all(visit, credential, &[credential]).await {
        Ok(mut outcomes) => match outcomes.pop() {
            Some(ProbeOutcome::Unknown(failure)) if failure.message == UNSAVED => ProbeOutcome::Unknown(failure),
            _ => ProbeOutcome::Opens(Evidence::Login),
        },
        Err(_) => ProbeOutcome::Opens(Evidence::Login),
    }
}

const UNSAVED: &str = "the running configuration has the password and the saved one has another";

async fn read_all(
    visit: &Visit<'_>,
    acting: &Credential,
    credentials: &[&Credential],
) -> Result<Vec<ProbeOutcome>, Failure> {
    let profile = profile_of(visit)?;
    let profile = &*profile;
    let session = log_in(visit, acting).await?;
    let mut terminal = shell(visit, &session, profile).await?;
    let running = running(visit, &mut terminal, profile).await?;
    let shown = terminal.run(&filled(&profile.saved, visit.user())).await?;
    let saved = profile.stored(&shown);
    let mut outcomes = Vec::with_capacity(credentials.len());
    for credential in credentials {
        let (Some(field), Some(password)) = (&running, credential.field("password")) else {
            outcomes.push(unknown("the device shows no stored password of the user"));
            continue;
        };
        outcomes.push(match Verifier::judge(field, password).await {
            // A connection that broke between the change and its saving left this; saving it now is all that is missing.
            Verdict::Holds if unsaved(saved.as_ref(), field) && !credential.ct_eq(visit.call.current) => {
                match save(&mut terminal, profile).await {
                    Ok(ApplyOutcome::Applied) => ProbeOutcome::Opens(Evidence::WitnessRead),
                    _ => unknown(UNSAVED),
                }
            }
            Verdict::Holds => ProbeOutcome::Opens(Evidence::WitnessRead),
            Verdict::Differs => ProbeOutcome::Refused(Evidence::WitnessRead),
            Verdict::Locked | Verdict::Unknown => by_login(visit, credential).await,
        });
    }
    Ok(outcomes)
}

/// Whether the next restart would bring another password.
fn unsaved(saved: Option<&Secret>, field: &Secret) -> bool {
    saved.is_some_and(|saved| !saved.ct_eq(field))
}

/// A stored form that cannot be compared: the login is tried, if it may fail.
async fn by_login(visit: &Visit<'_>, credential: &Credential) -> ProbeOutcome {
    match visit.log_in(credential, visit.call.login_budget.saturating_sub(1)).await {
        Ok(_) => ProbeOutcome::Opens(Evidence::Login),
        Err(failure) if failure.class == FailureClass::Auth => ProbeOutcome::Refused(Evidence::Login),
        Err(failure) => ProbeOutcome::Unknown(failure),
    }
}

fn unknown(message: &str) -> ProbeOutcome {
    ProbeOutcome::Unknown(Failure::new(FailureClass::Protocol, message, "save the configuration on the device"))
}
