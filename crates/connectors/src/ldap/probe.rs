//! Which of several passwords opens an account: read where `userPassword` may be read, else asked.
//!
//! A domain shows no verifier to anybody, and lets the previous password in for an hour. So a login there is only the first half of
//! the question; Kerberos, which knows the present password only, answers the second. A key that answers is the only one there
//! is: the other passwords are then refused without being tried.

use tokio::time::{Instant, timeout_at};
use volvelle_domain::connector::{Evidence, Failure, FailureClass, ProbeOutcome, ProbeReport};
use volvelle_domain::{Credential, Secret};

use super::answers::Bound;
use super::hashed;
use super::timed_out;
use super::visit::{Account, Visit};
use crate::kerberos::{Question, Verdict};
use crate::sent::nobody_knows;

/// Asks about every credential, in order.
pub(super) async fn passwords(visit: &Visit<'_>, credentials: &[&Credential]) -> ProbeReport {
    let deadline = Instant::now() + visit.call.timeout;
    let looked = timeout_at(deadline, look(visit)).await.unwrap_or_else(|_| Err(timed_out()));
    let account = match (looked, visit.remembered()) {
        (Ok(account), _) | (Err(_), Some(account)) => account,
        (Err(failure), None) => return nobody_knows(credentials, &failure),
    };
    if let Some(report) = by_reading(visit, &account, credentials) {
        return report;
    }
    let mut trial = Trial { visit, account: &account, failed_logins: 0, opened: None };
    let mut outcomes = Vec::with_capacity(credentials.len());
    for credential in credentials {
        let asked = timeout_at(deadline, trial.ask(credential)).await;
        outcomes.push(asked.unwrap_or_else(|_| ProbeOutcome::Unknown(timed_out())));
    }
    ProbeReport { outcomes, failed_logins: trial.failed_logins }
}

/// Looks the account up as the target's account; where that is what rotates, nobody else can look.
async fn look(visit: &Visit<'_>) -> Result<Account, Failure> {
    if visit.is_target() {
        let (dn, _) = visit.privileged();
        return visit.remembered().ok_or_else(|| {
            Failure::new(
                FailureClass::Config,
                format!("nothing is known of {dn} yet"),
                "rotate once, or run target check",
            )
        });
    }
    let mut link = visit.server.connect().await?;
    let (dn, password) = visit.privileged();
    link.must_bind(dn, password).await?;
    let root = link.root().await?;
    visit.locate(&mut link, &root).await
}

/// Compares with the stored values, if all of them can be compared.
fn by_reading(visit: &Visit<'_>, account: &Account, credentials: &[&Credential]) -> Option<ProbeReport> {
    let entry = account.entry.as_ref().filter(|_| !account.domain)?;
    let stored = entry.secrets("userPassword");
    let locked = entry.value("pwdAccountLockedTime").is_some();
    let mut outcomes = Vec::with_capacity(credentials.len());
    for credential in credentials {
        let verdict = hashed::verdict(&stored, credential.field("password")?);
        outcomes.push(match verdict {
            hashed::Verdict::Holds if locked => ProbeOutcome::Unknown(Failure::new(
                FailureClass::LoginBudget,
                format!("{} is locked on the directory (pwdAccountLockedTime)", visit.who()),
                "unlock it, then rotate again",
            )),
            hashed::Verdict::Holds => ProbeOutcome::Opens(Evidence::WitnessRead),
            hashed::Verdict::Differs => ProbeOutcome::Refused(Evidence::WitnessRead),
            hashed::Verdict::Unknown => return None,
        });
    }
    Some(ProbeReport { outcomes, failed_logins: 0 })
}

/// Asks about one credential by logging in; how many failed logins it cost.
pub(super) async fn by_login(visit: &Visit<'_>, account: &Account, credential: &Credential) -> (ProbeOutcome, u32) {
    let mut trial = Trial { visit, account, failed_logins: 0, opened: None };
    let outcome = trial.ask(credential).await;
    (outcome, trial.failed_logins)
}

/// The password that was seen to open the account, and what its entry then shows.
struct Opened {
    password: Secret,
    stored: Vec<Secret>,
}

/// Trying passwords one after the other.
struct Trial<'a> {
    visit: &'a Visit<'a>,
    account: &'a Account,
    failed_logins: u32,
    opened: Option<Opened>,
}

impl Trial<'_> {
    async fn ask(&mut self, credential: &Credential) -> ProbeOutcome {
        let Some(password) = credential.field("password") else {
            return unknown(FailureClass::Config, "there is no password to ask about");
        };
        if let Some(opened) = &self.opened {
            return self.beside(opened, password);
        }
        if self.visit.call.login_budget <= self.failed_logins {
            return unknown(FailureClass::LoginBudget, "not asked: it could cost one failed login too many");
        }
        match self.log_in(password).await {
            Ok(outcome) => outcome,
            Err(failure) => ProbeOutcome::Unknown(failure),
        }
    }

    /// One password is known to open the account; what follows for another.
    fn beside(&self, opened: &Opened, password: &Secret) -> ProbeOutcome {
        if opened.password.ct_eq(password) {
            return ProbeOutcome::Opens(Evidence::Login);
        }
        if self.account.domain {
            return ProbeOutcome::Refused(Evidence::Login);
        }
        match hashed::verdict(&opened.stored, password) {
            hashed::Verdict::Holds => ProbeOutcome::Opens(Evidence::WitnessRead),
            hashed::Verdict::Differs => ProbeOutcome::Refused(Evidence::WitnessRead),
            hashed::Verdict::Unknown => unknown(
                FailureClass::LoginBudget,
                "not asked: another password opens the account, and asking would cost a failed login",
            ),
        }
    }

    async fn log_in(&mut self, password: &Secret) -> Result<ProbeOutcome, Failure> {
        let mut link = self.visit.server.connect().await?;
        match link.bind(&self.account.bind, Some(password)).await? {
            Bound::Refused(_) => {
                self.failed_logins += 1;
                return Ok(ProbeOutcome::Refused(Evidence::Login));
            }
            Bound::Locked(failure) => {
                // A locked account says nothing of any password; asking on would only keep it locked.
                self.failed_logins = self.visit.call.login_budget;
                return Ok(ProbeOutcome::Unknown(failure));
            }
            Bound::Failed(failure) => return Ok(ProbeOutcome::Unknown(failure)),
            Bound::In | Bound::RightButBarred(_) => {}
        }
        let mut stored = Vec::new();
        if self.account.domain {
            let question = Question { host: self.visit.kdc(), realm: &self.account.realm, user: &self.account.logon };
            match question.ask(password).await {
                Verdict::Opens => {}
                Verdict::Refused => {
                    self.failed_logins += 1;
                    return Ok(ProbeOutcome::Refused(Evidence::Login));
                }
                Verdict::Unknown(failure) => return Ok(ProbeOutcome::Unknown(failure)),
            }
        } else if let Ok(Some(entry)) = link.read(&self.account.dn, &["userPassword"]).await {
            stored = entry.secrets("userPassword");
        }
        self.opened = Some(Opened { password: password.clone(), stored });
        Ok(ProbeOutcome::Opens(Evidence::Login))
    }
}

fn unknown(class: FailureClass, why: &str) -> ProbeOutcome {
    ProbeOutcome::Unknown(Failure::new(class, why, ""))
}
