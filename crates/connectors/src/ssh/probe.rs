//! Finding out which password is in force: by reading where it can, by logging in where it must.
//!
//! What must stay true: a refusal is told only of the password itself, and never more logins fail than the budget allows.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use volvelle_domain::connector::{Evidence, Failure, FailureClass, ProbeOutcome, ProbeReport};
use volvelle_domain::{Credential, Secret};

use super::change::read_field;
use super::session::{Session, Way};
use super::shadow::{self, Verdict};
use super::survey::{Rise, Survey};
use super::timed_out;
use super::visit::{Inside, Visit, locked};

/// Reads if a privileged credential can, else logs in: in the given order, newest first.
pub(super) async fn passwords(visit: &Visit<'_>, credentials: &[&Credential]) -> ProbeReport {
    let deadline = Instant::now() + visit.call.timeout;
    let mut failed_logins = 0;
    match timeout_at(deadline, by_reading(visit, credentials)).await {
        Ok(Ok(Some(outcomes))) => return ProbeReport { outcomes, failed_logins: 0 },
        Ok(Err(failure)) if failure.class == FailureClass::Auth => failed_logins = 1,
        _ => {}
    }
    let mut trial = Trial { visit, deadline, failed_logins, opened: None };
    let mut outcomes = Vec::with_capacity(credentials.len());
    for credential in credentials {
        outcomes.push(trial.ask(credential).await);
    }
    ProbeReport { outcomes, failed_logins: trial.failed_logins }
}

/// With a credential that the change does not touch, the shadow field answers for every password at once. `None` means that
/// there is no such credential or that it may not read.
async fn by_reading(visit: &Visit<'_>, credentials: &[&Credential]) -> Result<Option<Vec<ProbeOutcome>>, Failure> {
    let acting = visit.acting();
    let rise = visit.call.memory.get("rise").and_then(|name| Rise::named(name)).unwrap_or(Rise::Root);
    let changes = visit.own() && (acting.field("private_key").is_none() || rise == Rise::SudoPassword);
    if changes || rise == Rise::Never {
        return Ok(None);
    }
    let inside = visit.enter_unexpired(&acting, visit.call.login_budget).await?;
    let (field, session) = read_field(visit, &acting, rise, inside).await?;
    let Some(field) = field else {
        // A password beside a key may be the wrong one for sudo, which counts as a failed login.
        return if rise == Rise::SudoPassword && session.way == Way::Key {
            Err(Failure::new(FailureClass::Auth, "sudo refuses the password of the target", "correct ssh-password"))
        } else {
            Ok(None)
        };
    };
    let known = session.seen.as_ref().and_then(|seen| seen.password.clone());
    let outcomes = judge_all(visit.user(), &field, known, credentials).await;
    visit.leave(&acting, session);
    Ok(Some(outcomes))
}

/// A field holds one password: once it is known which, every other one is refused without a comparison.
async fn judge_all(
    user: &str,
    field: &Secret,
    mut holder: Option<Secret>,
    credentials: &[&Credential],
) -> Vec<ProbeOutcome> {
    let mut outcomes = Vec::with_capacity(credentials.len());
    for credential in credentials {
        outcomes.push(judge(user, field, &mut holder, credential).await);
    }
    outcomes
}

async fn judge(user: &str, field: &Secret, holder: &mut Option<Secret>, credential: &Credential) -> ProbeOutcome {
    let Some(password) = credential.field("password") else { return unknown("the version has no password") };
    if let Some(holder) = holder {
        return if holder.ct_eq(password) {
            ProbeOutcome::Opens(Evidence::WitnessRead)
        } else {
            ProbeOutcome::Refused(Evidence::WitnessRead)
        };
    }
    match shadow::verdict_aside(field, password).await {
        Verdict::Holds => {
            *holder = Some(password.clone());
            ProbeOutcome::Opens(Evidence::WitnessRead)
        }
        Verdict::Differs => ProbeOutcome::Refused(Evidence::WitnessRead),
        Verdict::Locked => ProbeOutcome::Unknown(locked(user, "'!' in /etc/shadow")),
        Verdict::Unknown => unknown("the host stores passwords in a form that cannot be compared"),
    }
}

fn unknown(why: &str) -> ProbeOutcome {
    ProbeOutcome::Unknown(Failure::new(FailureClass::Protocol, why, ""))
}

/// The password that was seen to open the account, and the shadow field if it could then be read.
struct Opened {
    password: Option<Secret>,
    field: Option<Secret>,
}

/// Trying passwords one after the other.
struct Trial<'a> {
    visit: &'a Visit<'a>,
    deadline: Instant,
    failed_logins: u32,
    opened: Option<Opened>,
}

impl Trial<'_> {
    async fn ask(&mut self, credential: &Credential) -> ProbeOutcome {
        if let Some(opened) = &self.opened {
            let same = opened.password.as_ref().zip(credential.field("password")).is_some_and(|(a, b)| a.ct_eq(b));
            return match &opened.field {
                _ if same => ProbeOutcome::Opens(Evidence::Login),
                Some(field) => judge(self.visit.user(), field, &mut None, credential).await,
                None => spent("not asked: another password opens the account, and asking would cost a failed login"),
            };
        }
        let left = self.visit.call.login_budget.saturating_sub(self.failed_logins);
        if left == 0 {
            return spent("not asked: it could cost one failed login too many");
        }
        let tried = timeout_at(self.deadline, self.visit.log_in(credential, left)).await;
        match tried.unwrap_or_else(|_| Err(timed_out())) {
            Ok(session) => {
                let field = match session {
                    Some(session) => self.read_as(credential, session).await,
                    None => None,
                };
                self.opened = Some(Opened { password: credential.field("password").cloned(), field });
                ProbeOutcome::Opens(Evidence::Login)
            }
            Err(failure) if failure.class == FailureClass::Auth => {
                self.failed_logins += 1;
                ProbeOutcome::Refused(Evidence::Login)
            }
            Err(failure) if failure.class == FailureClass::LoginBudget => {
                // A locked account says nothing of any password; asking on would only keep it locked.
                self.failed_logins = self.visit.call.login_budget;
                ProbeOutcome::Unknown(failure)
            }
            Err(failure) => ProbeOutcome::Unknown(failure),
        }
    }

    /// The shadow field, if the account that has just logged in may read it.
    async fn read_as(&self, credential: &Credential, session: Session) -> Option<Secret> {
        let reading = async {
            let channel = session.open().await.ok()?;
            let (survey, _) = Survey::make(self.visit, credential, Inside { session, channel }).await.ok()?;
            survey.field(self.visit.user())
        };
        // Too little time left is no reason to forget that the login succeeded.
        timeout_at(self.deadline.max(Instant::now() + Duration::from_millis(1)), reading).await.ok().flatten()
    }
}

fn spent(why: &str) -> ProbeOutcome {
    ProbeOutcome::Unknown(Failure::new(FailureClass::LoginBudget, why, ""))
}
