//! Finding out by logging in over Redfish, which shows no verifier and no time of the last change to anybody.
//!
//! What must stay true: never as many logins fail as lock an account, and an account that is locked or disabled says nothing about its
//! password. An account has one password: when one opens it, the others are refused without being tried.

use tokio::time::{Instant, timeout_at};
use volvelle_domain::connector::{ActingAs, Evidence, Failure, FailureClass, ProbeOutcome, ProbeReport};
use volvelle_domain::{Credential, Secret};

use super::service::{self, Login};
use super::visit::{Visit, Who};
use super::{redfish, timed_out};

/// Logins that may fail: what the call allows, and always one less than lock the account.
pub(super) fn budget(visit: &Visit<'_>) -> u32 {
    let threshold = visit.remembered("threshold").and_then(|text| text.parse::<u32>().ok()).unwrap_or(0);
    let safe = if threshold == 0 { u32::MAX } else { threshold - 1 };
    visit.call.login_budget.min(safe)
}

/// One login.
pub(super) async fn ask(visit: &Visit<'_>, who: Who<'_>) -> ProbeOutcome {
    match service::log_in(visit, who).await {
        Ok(Login::In(inside)) => {
            inside.leave().await;
            ProbeOutcome::Opens(Evidence::Login)
        }
        Ok(Login::Refused) => ProbeOutcome::Refused(Evidence::Login),
        Err(failure) => ProbeOutcome::Unknown(failure),
    }
}

/// Asks about every credential, in order.
pub(super) async fn probe(visit: &Visit<'_>, credentials: &[&Credential]) -> ProbeReport {
    let deadline = Instant::now() + visit.call.timeout;
    let (mut failed_logins, mut opened) = (0, None::<Secret>);
    let mut outcomes = Vec::with_capacity(credentials.len());
    for credential in credentials {
        let Some(password) = credential.field("password") else {
            outcomes.push(unknown(FailureClass::Config, "there is no password to ask about"));
            continue;
        };
        if let Some(opened) = &opened {
            let same = opened.ct_eq(password);
            let told = if same { ProbeOutcome::Opens } else { ProbeOutcome::Refused };
            outcomes.push(told(Evidence::Login));
            continue;
        }
        if failed_logins >= budget(visit) {
            outcomes.push(unknown(FailureClass::LoginBudget, "not asked: it could cost one failed login too many"));
            continue;
        }
        let who = Who { user: visit.user(), password: Some(password) };
        let outcome = timeout_at(deadline, ask(visit, who)).await;
        let outcome = outcome.unwrap_or_else(|_| ProbeOutcome::Unknown(timed_out()));
        match &outcome {
            ProbeOutcome::Opens(_) => opened = Some(password.clone()),
            ProbeOutcome::Refused(_) => failed_logins += 1,
            // A locked account says nothing of any password; asking on would only keep it locked.
            ProbeOutcome::Unknown(failure) if failure.class == FailureClass::LoginBudget => failed_logins = u32::MAX,
            ProbeOutcome::Unknown(_) => {}
        }
        outcomes.push(outcome);
    }
    let failed_logins = if failed_logins == u32::MAX { visit.call.login_budget } else { failed_logins };
    if opened.is_none() && outcomes.iter().any(|outcome| matches!(outcome, ProbeOutcome::Refused(_))) {
        let asked = timeout_at(deadline.max(Instant::now() + super::http::CONNECT), barred(visit)).await;
        if let Some(failure) = asked.unwrap_or_else(|_| Some(timed_out())) {
            for outcome in &mut outcomes {
                *outcome = ProbeOutcome::Unknown(failure.clone());
            }
        }
    }
    ProbeReport { outcomes, failed_logins }
}

fn unknown(class: FailureClass, why: &str) -> ProbeOutcome {
    ProbeOutcome::Unknown(Failure::new(class, why, ""))
}

/// Why the refusals say nothing about the password, if so: the service refuses locked and disabled accounts with the same words.
async fn barred(visit: &Visit<'_>) -> Option<Failure> {
    if visit.own() || visit.call.acting == ActingAs::User {
        return Some(Failure::new(
            FailureClass::Auth,
            format!("the BMC refuses {}, and does not say whether the account is locked", visit.user()),
            "let the target's privileged credential act (use-target-creds)",
        ));
    }
    let read = async {
        let mut inside = redfish::enter(visit, visit.acting()).await?;
        let found = inside.accounts([visit.user()]).await;
        inside.leave().await;
        found
    };
    match read.await {
        Ok((_, [Some(account)])) => account.barred(),
        Ok((_, [None])) => Some(super::config(format!("the BMC has no account {}", visit.user()), "make it again")),
        Err(failure) => Some(failure),
    }
}
