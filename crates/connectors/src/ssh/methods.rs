//! The ways of changing a password, chosen by preflight and recorded, and the ways of finding out which one is in force.

use std::collections::BTreeMap;

use volvelle_domain::connector::{
    ActingAs, ApplyOutcome, Call, Evidence, Failure, FailureClass, Preflight, ProbeOutcome, ProbeReport,
};
use volvelle_domain::{Credential, Secret};

use super::session::{Ran, Session};
use super::shadow::{self, Scheme};
use super::timed_out;

/// How the acting user becomes root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rise {
    /// It is root.
    Root,
    /// sudo asks nothing.
    Sudo,
    /// sudo asks for the acting user's password.
    SudoPassword,
    /// Not at all.
    Never,
}

impl Rise {
    const ALL: [(Self, &str); 4] =
        [(Self::Root, "root"), (Self::Sudo, "sudo"), (Self::SudoPassword, "sudo-password"), (Self::Never, "never")];

    fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(rise, _)| *rise == self).map_or("never", |(_, name)| name)
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, n)| *n == name).map(|(rise, _)| *rise)
    }

    /// Runs a command as root. The password sudo asks for goes first on standard input.
    async fn run(self, session: &Session, acting: &Credential, command: &str, input: &[u8]) -> Result<Ran, Failure> {
        match self {
            Self::Root | Self::Never => session.run(&format!("LC_ALL=C {command}"), input).await,
            Self::Sudo => session.run(&format!("LC_ALL=C sudo -n {command}"), input).await,
            Self::SudoPassword => {
                let password = acting.field("password").map_or(&[][..], Secret::expose);
                let both = zeroize::Zeroizing::new([password, b"\n", input].concat());
                session.run(&format!("LC_ALL=C sudo -k -S -p '' {command}"), &both).await
            }
        }
    }
}

/// The credential that logs in to make the change.
fn acting(call: &Call<'_>) -> Credential {
    if call.acting == ActingAs::User {
        return call.current.clone();
    }
    let names = [("ssh-password", "password"), ("private-key", "private_key")];
    let mut credential =
        Credential::default().with("username", super::session::text(call.target, "ssh-username").into());
    for (parameter, field) in names.into_iter().chain([("private-key-password", "private_key_password")]) {
        if let Some(value) = call.target.secret.field(parameter) {
            credential = credential.with(field, value.clone());
        }
    }
    credential
}

fn user<'a>(call: &Call<'a>) -> &'a str {
    call.current.expose_text("username").unwrap_or_default()
}

/// Logs in, unless that could cost a failed login and `budget` has none left.
async fn enter(call: &Call<'_>, credential: &Credential, budget: u32) -> Result<Session, Failure> {
    let mut session = Session::connect(call).await?;
    if session.log_in(credential, budget > 0).await? {
        return Ok(session);
    }
    let who = credential.expose_text("username").unwrap_or_default();
    Err(Failure::new(
        FailureClass::Auth,
        format!("the host refused the credential of {who}"),
        "run `volvelle rotated-secret verify`, or correct the credential of the target",
    ))
}

/// Reads the account's shadow field, if the acting user may. A broken connection is not an absent field.
async fn read_field(session: &Session, rise: Rise, acting: &Credential, user: &str) -> Result<Option<Secret>, Failure> {
    if rise == Rise::Never {
        return Ok(None);
    }
    let ran = rise.run(session, acting, &format!("grep '^{user}:' /etc/shadow"), b"").await?;
    Ok(if ran.succeeded() { shadow::field(&ran.stdout, user) } else { None })
}

/// Proves that the change can be made, and how.
pub(super) async fn preflight(call: &Call<'_>) -> Result<Preflight, Failure> {
    let acting = acting(call);
    if acting.expose_text("username").is_none() {
        return Err(super::config("ssh-username is empty", "set ssh-username and a credential on the target"));
    }
    let session = enter(call, &acting, call.login_budget).await?;
    let rise = rise(&session, &acting).await?;
    let own = acting.expose_text("username") == Some(user(call));
    let field = read_field(&session, rise, &acting, user(call)).await?;
    if rise == Rise::Never && !own {
        return Err(Failure::new(
            FailureClass::Privilege,
            format!("{} may not change the password of {}", acting.expose_text("username").unwrap_or(""), user(call)),
            "give the target root, or a user with `NOPASSWD: /usr/sbin/chpasswd` in sudoers",
        ));
    }
    if rise == Rise::Root && field.is_none() {
        return Err(super::config(
            format!("the host has no account {} with a password", user(call)),
            "check rotated-username",
        ));
    }
    let scheme = match field.as_ref().and_then(Secret::expose_str).filter(|f| f.starts_with('$')) {
        Some(field) => Scheme::named(field),
        None => default_scheme(&session).await,
    };
    let has_chpasswd =
        rise != Rise::Never && session.run("command -v chpasswd || test -x /usr/sbin/chpasswd", b"").await?.succeeded();
    let method = if has_chpasswd { "chpasswd-e" } else { "passwd" };
    let memory = BTreeMap::from([
        ("method".to_owned(), method.to_owned()),
        ("rise".to_owned(), rise.as_str().to_owned()),
        ("scheme".to_owned(), scheme.as_str().to_owned()),
    ]);
    let reads =
        if field.is_some() { "the outcome is read from /etc/shadow" } else { "the outcome is found out by logging in" };
    let notes = vec![format!("the change is made with {method} ({}); {reads}", rise.as_str())];
    Ok(Preflight { memory, policy: None, witness_read: field.is_some(), notes })
}

async fn rise(session: &Session, acting: &Credential) -> Result<Rise, Failure> {
    if session.run("id -u", b"").await?.stdout.expose().starts_with(b"0\n") {
        return Ok(Rise::Root);
    }
    if session.run("LC_ALL=C sudo -n -l chpasswd -e", b"").await?.succeeded() {
        return Ok(Rise::Sudo);
    }
    // The password has just opened the session, so asking sudo with it cannot count as a failed login.
    let has_password = acting.field("password").is_some() && acting.field("private_key").is_none();
    if has_password && Rise::SudoPassword.run(session, acting, "-l chpasswd -e", b"").await?.succeeded() {
        return Ok(Rise::SudoPassword);
    }
    Ok(Rise::Never)
}

async fn default_scheme(session: &Session) -> Scheme {
    let ran = session.run("grep '^ENCRYPT_METHOD' /etc/login.defs", b"").await;
    ran.ok().and_then(|r| r.stdout.expose_str()?.split_whitespace().nth(1).map(Scheme::named)).unwrap_or(Scheme::Sha512)
}

/// Makes `candidate` the password. Everything before the sending of it is `NotReached` or `Rejected`.
pub(super) async fn apply(call: &Call<'_>, candidate: &Credential) -> ApplyOutcome {
    let Some(password) = candidate.field("password") else {
        return ApplyOutcome::Rejected(super::config("the candidate has no password", ""));
    };
    let acting = acting(call);
    let session = match enter(call, &acting, call.login_budget).await {
        Ok(session) => session,
        Err(failure) => return before_sending(call, candidate, failure).await,
    };
    let Some(rise) = call.memory.get("rise").and_then(|name| Rise::named(name)) else {
        return ApplyOutcome::NotReached(super::config("no preflight was made for this secret", "rotate again"));
    };
    if let Ok(Some(field)) = read_field(&session, rise, &acting, user(call)).await
        && shadow::holds(&field, password) == Some(true)
    {
        return ApplyOutcome::Applied;
    }
    let by_passwd = call.memory.get("method").is_some_and(|method| method == "passwd");
    let ran = if by_passwd {
        by_passwd_prompt(&session, rise, &acting, user(call), password).await
    } else {
        let scheme = call.memory.get("scheme").map_or(Scheme::Sha512, |name| Scheme::named(name));
        let Some(hash) = shadow::hash(scheme, password) else {
            return ApplyOutcome::NotReached(Failure::new(FailureClass::Protocol, "the password cannot be hashed", ""));
        };
        let line = zeroize::Zeroizing::new([user(call).as_bytes(), b":", hash.expose(), b"\n"].concat());
        rise.run(&session, &acting, "chpasswd -e", &line).await
    };
    match ran {
        Ok(ran) => judge(&ran),
        Err(failure) => ApplyOutcome::Ambiguous(failure),
    }
}

/// Where the acting credential is the account's own, a refused login may mean that the candidate is in force already.
async fn before_sending(call: &Call<'_>, candidate: &Credential, failure: Failure) -> ApplyOutcome {
    let own = acting(call).expose_text("username") == Some(user(call));
    if failure.class == FailureClass::Auth
        && own
        && enter(call, candidate, call.login_budget.saturating_sub(1)).await.is_ok()
    {
        return ApplyOutcome::Applied;
    }
    match failure.class {
        FailureClass::Unreachable | FailureClass::Timeout | FailureClass::LoginBudget => {
            ApplyOutcome::NotReached(failure)
        }
        _ => ApplyOutcome::Rejected(failure),
    }
}

/// What the prompt for the new password says.
const NEW: &[&str] = &["new password"];
/// What the prompt for its repetition says; the same prompt as before means that the first answer was not accepted.
const AGAIN: &[&str] = &["retype", "re-enter", "reenter", "repeat", "again", "confirm", "verify"];

async fn by_passwd_prompt(
    session: &Session,
    rise: Rise,
    acting: &Credential,
    user: &str,
    password: &Secret,
) -> Result<Ran, Failure> {
    let old = acting.field("password").cloned().unwrap_or_else(|| Secret::from(""));
    let (new, again) = ((NEW, password), (AGAIN, password));
    match rise {
        Rise::Root => session.converse(&format!("LC_ALL=C passwd {user}"), &[new, again]).await,
        Rise::Sudo => session.converse(&format!("LC_ALL=C sudo -n passwd {user}"), &[new, again]).await,
        Rise::SudoPassword | Rise::Never => {
            session.converse("LC_ALL=C passwd", &[(&["password"], &old), new, again]).await
        }
    }
}

fn judge(ran: &Ran) -> ApplyOutcome {
    let said = ran.stderr.to_lowercase();
    let policy =
        ["bad password", "already been used", "too short", "too simple", "similar", "exhausted maximum", "unchanged"];
    match ran.status {
        Some(0) => ApplyOutcome::Applied,
        None => ApplyOutcome::Ambiguous(Failure::new(
            FailureClass::Unreachable,
            "the connection broke while the password was being changed",
            "",
        )),
        Some(_) if policy.iter().any(|text| said.contains(text)) => ApplyOutcome::Rejected(Failure::new(
            FailureClass::Policy,
            "the host's password policy refuses the new password",
            "make password-length longer or allow more classes of characters",
        )),
        Some(status) if said.contains("sudo") || said.contains("permission") || said.contains("not allowed") => {
            ApplyOutcome::Rejected(Failure::new(
                FailureClass::Privilege,
                format!("the acting user may not change the password (exit status {status})"),
                "allow `chpasswd` in sudoers, or act as root",
            ))
        }
        Some(status) => ApplyOutcome::Ambiguous(Failure::new(
            FailureClass::Protocol,
            format!("the host answered the change with exit status {status}"),
            "",
        )),
    }
}

/// Reads where it can, logs in where it must: newest first, and never more failures than the budget.
pub(super) async fn probe(call: &Call<'_>, credentials: &[&Credential]) -> ProbeReport {
    let mut report = ProbeReport { outcomes: Vec::new(), failed_logins: 0 };
    match tokio::time::timeout(call.timeout, by_reading(call, credentials)).await {
        Ok(Ok(Some(outcomes))) => return ProbeReport { outcomes, failed_logins: 0 },
        Ok(Err(failure)) if failure.class == FailureClass::Auth => report.failed_logins = 1,
        _ => {}
    }
    let mut session = None;
    for credential in credentials {
        if let Some((session, rise, with)) = &session
            && let Ok(Some(field)) = read_field(session, *rise, with, user(call)).await
        {
            report.outcomes.push(compare(&field, credential));
            continue;
        }
        if session.is_some() || report.failed_logins >= call.login_budget {
            let why = "not asked: another password opens the account, or asking would cost too many failed logins";
            report.outcomes.push(ProbeOutcome::Unknown(Failure::new(FailureClass::LoginBudget, why, "")));
            continue;
        }
        let tried =
            tokio::time::timeout(call.timeout, enter(call, credential, call.login_budget - report.failed_logins))
                .await
                .unwrap_or_else(|_| Err(timed_out()));
        report.outcomes.push(match tried {
            Ok(entered) => {
                let rise = rise(&entered, credential).await.unwrap_or(Rise::Never);
                session = Some((entered, rise, (*credential).clone()));
                ProbeOutcome::Opens(Evidence::Login)
            }
            Err(failure) if failure.class == FailureClass::Auth => {
                report.failed_logins += 1;
                ProbeOutcome::Refused(Evidence::Login)
            }
            Err(failure) => ProbeOutcome::Unknown(failure),
        });
    }
    report
}

/// With a privileged credential other than the account's own, the shadow field answers for every password at once.
/// `None` means that there is no such credential or that it may not read.
async fn by_reading(call: &Call<'_>, credentials: &[&Credential]) -> Result<Option<Vec<ProbeOutcome>>, Failure> {
    let acting = acting(call);
    if call.acting != ActingAs::Target || acting.expose_text("username") == Some(user(call)) {
        return Ok(None);
    }
    let session = enter(call, &acting, call.login_budget).await?;
    let rise = call.memory.get("rise").and_then(|name| Rise::named(name)).unwrap_or(Rise::Root);
    let field = read_field(&session, rise, &acting, user(call)).await?;
    Ok(field.map(|field| credentials.iter().map(|credential| compare(&field, credential)).collect()))
}

fn compare(field: &Secret, credential: &Credential) -> ProbeOutcome {
    match credential.field("password").and_then(|password| shadow::holds(field, password)) {
        Some(true) => ProbeOutcome::Opens(Evidence::WitnessRead),
        Some(false) => ProbeOutcome::Refused(Evidence::WitnessRead),
        None => ProbeOutcome::Unknown(Failure::new(
            FailureClass::Protocol,
            "the host stores passwords in a form that cannot be compared",
            "",
        )),
    }
}
