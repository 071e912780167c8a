//! Users of a controller over IPMI 2.0: preflight, change, and the witness that is part of every key exchange.
//!
//! The controller shows a code made with the user's password before we have proven anything, so that any number of passwords can be
//! compared with it and no login fails. That it is the right controller that says no, only an open session of another user proves: where
//! there is none, a password is refused only if another one is seen to open.

use std::collections::BTreeMap;

use volvelle_domain::connector::{
    ApplyOutcome, Evidence, Failure, FailureClass, PasswordPolicy, Preflight, ProbeOutcome,
};
use volvelle_domain::{Credential, Secret};
use zeroize::Zeroizing;

use super::rmcp::{Challenge, Place, Reply, Role, Session};
use super::visit::{Visit, Who};
use super::{config, strange};
use crate::parameters::flag;

/// Commands.
const SET_PRIVILEGE: u8 = 0x3b;
const USER_ACCESS: u8 = 0x44;
const USER_NAME: u8 = 0x46;
const USER_PASSWORD: u8 = 0x47;
/// The channel that the session uses.
const THIS_CHANNEL: u8 = 0x0e;
/// The operation of [`USER_PASSWORD`] that sets one. (The one that tests one is of no use: some firmware answers that all are right.)
const SET: u8 = 2;
/// Longest password that is set. There is a form with 20 bytes as well, which some firmware takes, confirms, and cuts off in silence.
pub(super) const LONGEST: u16 = 16;
/// Highest number of a user.
const LAST_USER: u8 = 63;

fn place<'a>(visit: &'a Visit<'_>) -> Place<'a> {
    let address = &visit.address;
    Place { host: &address.host, port: address.port, legacy: flag(visit.call.target, "allow-legacy-algorithms") }
}

/// A session that may manage users.
async fn enter(visit: &Visit<'_>, who: Who<'_>) -> Result<Session, Failure> {
    let challenge = Challenge::of(&place(visit), who.user, Role::Administrator).await?;
    let mut session = challenge.log_in(who.must()?).await?;
    let reply = session.ask(SET_PRIVILEGE, &[Role::Administrator as u8]).await?;
    if reply.code != 0 {
        session.close().await;
        return Err(Failure::new(
            FailureClass::Privilege,
            format!("the BMC does not let {} act as administrator", who.user),
            "make the user an administrator of the LAN channel",
        ));
    }
    Ok(session)
}

fn not_admitted() -> Failure {
    Failure::new(
        FailureClass::Privilege,
        "the BMC does not let the acting user manage users",
        "make the user an administrator of the LAN channel",
    )
}

/// The answer of a command that only reads.
fn read(reply: Reply, what: &str) -> Result<Vec<u8>, Failure> {
    match reply.code {
        0 => Ok(reply.data),
        0xd4 => Err(not_admitted()),
        code => Err(strange(format!("{what} ends with code {code:#04x}"))),
    }
}

async fn name_of(session: &mut Session, id: u8) -> Result<Option<String>, Failure> {
    let reply = session.ask(USER_NAME, &[id]).await?;
    if matches!(reply.code, 0xc9 | 0xcb | 0xcc) {
        return Ok(None);
    }
    let data = read(reply, "reading a user's name")?;
    Ok(Some(String::from_utf8_lossy(&data).trim_end_matches('\0').to_owned()))
}

/// The number of the user.
async fn number_of(session: &mut Session, user: &str) -> Result<u8, Failure> {
    let access = read(session.ask(USER_ACCESS, &[THIS_CHANNEL, 1]).await?, "reading the users")?;
    let last = access.first().map_or(0, |most| most & LAST_USER);
    for id in 1..=last {
        if name_of(session, id).await?.is_some_and(|name| name == user) {
            return Ok(id);
        }
    }
    Err(config(format!("the BMC has no user {user}"), "make the user on the BMC, or correct rotated-username"))
}

/// Whether the user can log in at all, so that the outcome can be found out.
async fn may_log_in(session: &mut Session, id: u8, user: &str) -> Result<(), Failure> {
    let access = read(session.ask(USER_ACCESS, &[THIS_CHANNEL, id]).await?, "reading a user's access")?;
    let disabled = access.get(1).is_some_and(|byte| byte >> 6 == 0b10);
    let messaging = access.get(3).is_none_or(|byte| byte & 0x10 != 0);
    if !disabled && messaging {
        return Ok(());
    }
    Err(config(
        format!("the user {user} may not log in to the BMC over the network, so that its password cannot be checked"),
        "enable the user for IPMI over LAN, or stop rotating it",
    ))
}

/// The request that sets a password.
fn about(id: u8, password: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut data = Zeroizing::new(vec![0; 2 + usize::from(LONGEST)]);
    (data[0], data[1]) = (id, SET);
    data[2..2 + password.len()].copy_from_slice(password);
    data
}

/// Proves that the change can be made.
pub(super) async fn preflight(visit: &Visit<'_>, policy: &PasswordPolicy) -> Result<Preflight, Failure> {
    let mut session = enter(visit, visit.acting()).await?;
    let found = found(visit, &mut session, policy).await;
    session.close().await;
    found
}

async fn found(visit: &Visit<'_>, session: &mut Session, policy: &PasswordPolicy) -> Result<Preflight, Failure> {
    let user = visit.user();
    let id = number_of(session, user).await?;
    may_log_in(session, id, user).await?;
    let mut notes =
        vec!["the password is set over IPMI; the outcome is read from the key exchange, and no login fails".to_owned()];
    let tightened = PasswordPolicy { length: policy.length.min(LONGEST), ..policy.clone() };
    if tightened != *policy {
        notes.push(format!("passwords have {LONGEST} characters: not every BMC keeps longer ones over IPMI"));
    }
    let memory = [("method", "ipmi".to_owned()), ("user", id.to_string())];
    Ok(Preflight {
        memory: BTreeMap::from(memory.map(|(name, value)| (name.to_owned(), value))),
        policy: (tightened != *policy).then_some(tightened),
        witness_read: true,
        notes,
    })
}

/// Makes `new` the password.
pub(super) async fn apply(visit: &Visit<'_>, new: &Secret) -> ApplyOutcome {
    if new.len() > usize::from(LONGEST) {
        let message = format!("no password of more than {LONGEST} bytes is set over IPMI");
        return ApplyOutcome::Rejected(Failure::new(FailureClass::Policy, message, "shorten password-length"));
    }
    let mut session = match enter(visit, visit.acting()).await {
        Ok(session) => session,
        Err(failure) => return refused(visit, new, failure).await,
    };
    let outcome = change(visit, &mut session, new).await;
    session.close().await;
    outcome.unwrap_or_else(|failure| visit.outcome(failure))
}

/// Where the account acts for itself, a refused login may mean that the candidate is in force already.
async fn refused(visit: &Visit<'_>, new: &Secret, failure: Failure) -> ApplyOutcome {
    if failure.class == FailureClass::Auth
        && visit.own()
        && let Ok(challenge) = Challenge::of(&place(visit), visit.user(), Role::User).await
        && challenge.holds(new)
    {
        return ApplyOutcome::Applied;
    }
    visit.outcome(failure)
}

async fn change(visit: &Visit<'_>, session: &mut Session, new: &Secret) -> Result<ApplyOutcome, Failure> {
    let user = visit.user();
    let remembered = visit.remembered("user").and_then(|text| text.parse().ok());
    let id = match remembered {
        // Numbers are given to other users.
        Some(id) if name_of(session, id).await?.is_some_and(|name| name == user) => id,
        _ => number_of(session, user).await?,
    };
    visit.sent.mark();
    let reply = session.ask(USER_PASSWORD, &about(id, new.expose())).await?;
    Ok(changed(reply.code))
}

/// What a completion code says of the change.
fn changed(code: u8) -> ApplyOutcome {
    let failure = |class, message: &str| Failure::new(class, format!("{message} (code {code:#04x})"), "");
    match code {
        0 => ApplyOutcome::Applied,
        0xd4 => ApplyOutcome::Rejected(not_admitted()),
        0xc7 | 0xc8 | 0xc9 | 0xcc | 0x80..=0xbe => {
            ApplyOutcome::Rejected(failure(FailureClass::Policy, "the BMC refuses the new password"))
        }
        0xc1 | 0xc2 | 0xcb | 0xd6 => {
            ApplyOutcome::Rejected(failure(FailureClass::Config, "the BMC sets no passwords over IPMI"))
        }
        0xc0 | 0xc4 | 0xd0..=0xd3 | 0xd5 => {
            ApplyOutcome::NotReached(failure(FailureClass::Timeout, "the BMC is busy and did nothing"))
        }
        _ => ApplyOutcome::Ambiguous(failure(FailureClass::Protocol, "the BMC does not say what became of the change")),
    }
}

/// Compares every credential with what the controller shows.
pub(super) async fn probe(visit: &Visit<'_>, credentials: &[&Credential]) -> Vec<ProbeOutcome> {
    let proven = !visit.own() && is_proven(visit).await;
    let challenge = match Challenge::of(&place(visit), visit.user(), Role::User).await {
        Ok(challenge) => challenge,
        Err(failure) => return credentials.iter().map(|_| ProbeOutcome::Unknown(failure.clone())).collect(),
    };
    let holds = |credential: &&Credential| credential.field("password").is_some_and(|p| challenge.holds(p));
    let held: Vec<bool> = credentials.iter().map(holds).collect();
    let definite = proven || held.contains(&true);
    let of = |held: bool| match held {
        true => ProbeOutcome::Opens(Evidence::WitnessRead),
        false if definite => ProbeOutcome::Refused(Evidence::WitnessRead),
        false => {
            let message =
                "the BMC shows that it knows another password, and nobody has proven that it is the right BMC";
            let hint = "let the target's privileged credential act (use-target-creds)";
            ProbeOutcome::Unknown(Failure::new(FailureClass::Auth, message, hint))
        }
    };
    held.into_iter().map(of).collect()
}

/// Whether the acting user gets in, and the user is there: then what the controller shows is its own answer.
async fn is_proven(visit: &Visit<'_>) -> bool {
    let Ok(mut session) = enter(visit, visit.acting()).await else { return false };
    let there = number_of(&mut session, visit.user()).await.is_ok();
    session.close().await;
    there
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_padded_to_the_form_it_is_sent_in() {
        assert_eq!(about(3, b"abc")[..6], [3, 2, b'a', b'b', b'c', 0]);
        assert_eq!(about(3, b"abcdefghijklmnop").len(), 18);
    }

    #[test]
    fn only_codes_that_say_so_mean_that_nothing_changed() {
        assert_eq!(changed(0), ApplyOutcome::Applied);
        for code in [0xc3, 0xce, 0xff] {
            assert!(matches!(changed(code), ApplyOutcome::Ambiguous(_)), "{code:#x}");
        }
        assert!(matches!(changed(0xd4), ApplyOutcome::Rejected(f) if f.class == FailureClass::Privilege));
        assert!(matches!(changed(0xc0), ApplyOutcome::NotReached(_)));
    }
}
