//! Local users of network devices: a shell instead of commands, and a profile for each platform.
//!
//! What must stay true: the stored form of a password is sent and never the password, the configuration is saved, and a
//! change that is not saved is not called done.

mod cisco;
mod desk;
mod line;
mod netconf;
mod profile;
mod telnet;
mod terminal;

use std::collections::BTreeMap;
use std::sync::Arc;

use volvelle_domain::connector::{
    ActingAs, ApplyOutcome, Evidence, Failure, FailureClass, Preflight, ProbeOutcome, ProbeReport, TargetParams,
};
use volvelle_domain::{Credential, Secret};

use self::desk::Desk;
use self::line::Line;
use self::profile::{Profile, Verifier};
use super::config;
use super::session::text;
use super::shadow::Verdict;
use super::visit::Visit;

/// The rotator type of the secret of a privileged mode, and the name that stands for its user.
pub(super) const ENABLE: &str = "enable";

pub(super) use self::line::is_telnet;

/// The name of the platform, if the target is a device.
pub(super) fn kind(target: &TargetParams) -> Option<&str> {
    Some(text(target, "device-type")).filter(|name| !name.is_empty())
}

/// Checks the parameter without asking the device.
pub(super) fn check(target: &TargetParams, rotator_type: Option<&str>, command: &str) -> Result<(), Failure> {
    let enable = rotator_type == Some(ENABLE);
    let Some(name) = kind(target) else {
        return match enable || is_telnet(target) {
            true => Err(config("enable secrets and telnet are for network devices only", "set device-type")),
            false => Ok(()),
        };
    };
    let profile = profile::named(name, text(target, "device-profile"))?;
    match text(target, "device-transport") {
        "" | "cli" => {}
        "telnet" => line::check(target)?,
        "netconf" if profile.netconf.is_some() => {}
        "netconf" => return Err(desk::no_netconf(&profile.summary)),
        other => {
            return Err(config(format!("device-transport {other:?} is not one of cli, netconf, telnet"), "set it"));
        }
    }
    if enable {
        check_enable(target, &profile)?;
    }
    if rotator_type == Some("key") {
        return Err(config("keys of devices are not rotated", "use rotator-type password or target"));
    }
    if command.trim().is_empty() {
        return Ok(());
    }
    Err(config("rotator-custom-cmd is for Unix hosts", "leave it out with device-type"))
}

fn check_enable(target: &TargetParams, profile: &Profile) -> Result<(), Failure> {
    profile.place(ENABLE)?;
    if text(target, "device-transport") == "netconf" {
        return Err(config("enable secrets are rotated at the command line", "set device-transport to cli"));
    }
    if text(target, "ssh-username") == ENABLE {
        return Err(config("the acting user is called enable, like the secret", "let another user act"));
    }
    Ok(())
}

fn profile_of(visit: &Visit<'_>) -> Result<Arc<Profile>, Failure> {
    let target = visit.call.target;
    profile::named(kind(target).unwrap_or_default(), text(target, "device-profile"))
}

async fn log_in(visit: &Visit<'_>, profile: &Profile, credential: &Credential) -> Result<Line, Failure> {
    line::log_in(visit, profile, credential, visit.call.login_budget).await
}

/// The passwords of the privileged mode: where that is what changes, first those that it may be; then the target's.
fn keys<'a>(visit: &Visit<'a>, those: &[&'a Credential]) -> Vec<&'a Secret> {
    let changing = those.iter().filter(|_| visit.call.rotator_type == ENABLE);
    let mut keys: Vec<&Secret> = changing.filter_map(|credential| credential.field("password")).collect();
    let recorded = visit.call.target.secret.field("enable-password");
    keys.extend(recorded.filter(|recorded| !keys.iter().any(|key| key.ct_eq(recorded))));
    keys
}

fn filled(template: &str, user: &str) -> String {
    template.replace("{{USERNAME}}", user)
}

/// The acting user gets in and up, and the account is there.
pub(super) async fn preflight(visit: &Visit<'_>) -> Result<Preflight, Failure> {
    let profile = profile_of(visit)?;
    let profile = &*profile;
    let mut line = log_in(visit, profile, &visit.acting()).await?;
    let mut desk = Desk::open(visit, &mut line, profile, &keys(visit, &[visit.call.current])).await?;
    desk.rehearse().await?;
    let Some(field) = desk.running(visit.user()).await? else {
        if visit.call.rotator_type == ENABLE {
            return Err(config("the device has no enable secret", "set one on the device"));
        }
        let message = format!("the device has no local user {}", visit.user());
        return Err(config(message, "make the user on the device, or correct rotated-username"));
    };
    let comparable = Verifier::compares(&field);
    let mut notes = vec![format!("{}: the stored form is sent, and the configuration is saved", profile.summary)];
    if desk.tries() {
        notes.push("the change is on trial until a login with the new password has succeeded".to_owned());
    }
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
        let mut line = log_in(visit, profile, &visit.acting()).await?;
        let keys = keys(visit, &[visit.call.current, candidate]);
        let mut desk = Desk::open(visit, &mut line, profile, &keys).await?;
        let Some(present) = desk.running(visit.user()).await? else {
            return Ok(ApplyOutcome::Rejected(config("the user is no more on the device", "make it again")));
        };
        if Verifier::judge(&present, password).await != Verdict::Holds {
            let verifier = profile.verifier.of(password).await;
            let verifier = verifier.ok_or_else(|| config("no stored form can be computed", "report this"))?;
            if let Some(outcome) = desk.change(visit, verifier.expose_str().unwrap_or_default()).await? {
                return Ok(outcome);
            }
            if desk.tries()
                && let Some(outcome) = unproven(visit, &mut desk, candidate).await?
            {
                return Ok(outcome);
            }
        }
        desk.keep().await
    };
    match outcome.await {
        Ok(outcome) => outcome,
        Err(failure) if visit.has_sent() => ApplyOutcome::Ambiguous(failure),
        Err(failure) if failure.class == FailureClass::Auth && done_before(visit, candidate).await => {
            ApplyOutcome::Applied
        }
        Err(failure) => match failure.class {
            FailureClass::Unreachable | FailureClass::Timeout => ApplyOutcome::NotReached(failure),
            _ => ApplyOutcome::Rejected(failure),
        },
    }
}

/// Where the account acts for itself, a refused login may mean that this change was made already.
async fn done_before(visit: &Visit<'_>, candidate: &Credential) -> bool {
    let Ok(profile) = profile_of(visit) else { return false };
    visit.own()
        && line::opens(visit, &profile, candidate, visit.call.login_budget.saturating_sub(1)).await.is_ok()
        && matches!(saved_too(visit, candidate).await, ProbeOutcome::Opens(_))
}

/// Logs in with the new password while the change is on trial. The outcome, if that failed and the change was taken back.
async fn unproven(
    visit: &Visit<'_>,
    desk: &mut Desk<'_>,
    candidate: &Credential,
) -> Result<Option<ApplyOutcome>, Failure> {
    let profile = profile_of(visit)?;
    let tried = line::opens(visit, &profile, candidate, visit.call.login_budget).await;
    let Err(failure) = tried else { return Ok(None) };
    if !desk.undo().await? {
        return Ok(Some(ApplyOutcome::Ambiguous(failure)));
    }
    let message = format!("the new password was taken back, because nobody got in with it: {}", failure.message);
    Ok(Some(match failure.class {
        FailureClass::Unreachable | FailureClass::Timeout | FailureClass::LoginBudget => {
            ApplyOutcome::NotReached(Failure::new(failure.class, message, failure.hint))
        }
        _ => ApplyOutcome::Rejected(Failure::new(
            FailureClass::Config,
            message,
            "check that the user may log in over SSH with a password",
        )),
    }))
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
        let tried = match profile_of(visit) {
            Ok(profile) => line::opens(visit, &profile, credential, left).await,
            Err(failure) => Err(failure),
        };
        outcomes.push(match tried {
            Ok(()) => {
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

/// A password that opens opens until the restart, or as long as it is on trial; whether longer, the saved configuration says, if the
/// account may read it (and it is saved then).
async fn saved_too(visit: &Visit<'_>, credential: &Credential) -> ProbeOutcome {
    let on_trial = profile_of(visit).is_ok_and(|profile| profile.trial.is_some());
    let looked = read_all(visit, credential, &[credential]).await.map(|mut outcomes| outcomes.pop());
    match looked {
        Ok(Some(ProbeOutcome::Unknown(failure))) if on_trial || failure.message == UNSAVED => {
            ProbeOutcome::Unknown(failure)
        }
        Ok(Some(ProbeOutcome::Refused(_))) => unknown("the device went back to another password while it was asked"),
        Err(failure) if on_trial && failure.class != FailureClass::Privilege => ProbeOutcome::Unknown(failure),
        _ => ProbeOutcome::Opens(Evidence::Login),
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
    let mut line = log_in(visit, profile, acting).await?;
    let mut desk = Desk::open(visit, &mut line, profile, &keys(visit, credentials)).await?;
    let running = desk.running(visit.user()).await?;
    let saved = if desk.tries() { None } else { desk.saved(visit.user()).await? };
    let mut outcomes = Vec::with_capacity(credentials.len());
    for credential in credentials {
        let (Some(field), Some(password)) = (&running, credential.field("password")) else {
            outcomes.push(unknown("the device shows no stored password of the user"));
            continue;
        };
        outcomes.push(match Verifier::judge(field, password).await {
            // A connection that broke between the change and its saving left this; saving it now is all that is missing.
            Verdict::Holds
                if !credential.ct_eq(visit.call.current) && (desk.tries() || unsaved(saved.as_ref(), field)) =>
            {
                kept(visit, &mut desk, password).await
            }
            Verdict::Holds => ProbeOutcome::Opens(Evidence::WitnessRead),
            Verdict::Differs => ProbeOutcome::Refused(Evidence::WitnessRead),
            Verdict::Locked | Verdict::Unknown if visit.call.rotator_type == ENABLE => unknown(
                "the device stores its enable secret in a form that cannot be compared; after a rotation it can be",
            ),
            Verdict::Locked | Verdict::Unknown => by_login(visit, credential).await,
        });
    }
    Ok(outcomes)
}

/// Saves a change that was left unsaved or on trial, and looks again: the device may have gone back in the meantime.
async fn kept(visit: &Visit<'_>, desk: &mut Desk<'_>, password: &Secret) -> ProbeOutcome {
    let looked = async {
        if desk.keep().await? != ApplyOutcome::Applied {
            return Ok(unknown(UNSAVED));
        }
        let Some(field) = desk.running(visit.user()).await? else { return Ok(unknown(UNSAVED)) };
        Ok(match Verifier::judge(&field, password).await {
            Verdict::Holds => ProbeOutcome::Opens(Evidence::WitnessRead),
            _ => ProbeOutcome::Refused(Evidence::WitnessRead),
        })
    };
    looked.await.unwrap_or_else(ProbeOutcome::Unknown)
}

/// Whether the next restart would bring another password.
fn unsaved(saved: Option<&Secret>, field: &Secret) -> bool {
    saved.is_some_and(|saved| !saved.ct_eq(field))
}

/// A stored form that cannot be compared: the login is tried, if it may fail.
async fn by_login(visit: &Visit<'_>, credential: &Credential) -> ProbeOutcome {
    let tried = match profile_of(visit) {
        Ok(profile) => line::opens(visit, &profile, credential, visit.call.login_budget.saturating_sub(1)).await,
        Err(failure) => Err(failure),
    };
    match tried {
        Ok(()) => ProbeOutcome::Opens(Evidence::Login),
        Err(failure) if failure.class == FailureClass::Auth => ProbeOutcome::Refused(Evidence::Login),
        Err(failure) => ProbeOutcome::Unknown(failure),
    }
}

fn unknown(message: &str) -> ProbeOutcome {
    ProbeOutcome::Unknown(Failure::new(FailureClass::Protocol, message, "save the configuration on the device"))
}
