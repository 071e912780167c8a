//! Accounts of a controller over Redfish (`AccountService`): preflight and change.
//!
//! What must stay true: the account is changed only in the state in which it was read (`If-Match`), so that two actors cannot both win.

use std::collections::BTreeMap;

use volvelle_domain::Secret;
use volvelle_domain::connector::{ApplyOutcome, Failure, FailureClass, PasswordPolicy, Preflight, ProbeOutcome};

use super::service::{self, Account, Inside, Login, Rules};
use super::visit::{Visit, Who};
use super::{config, messages, trial};

/// Characters of a password where the service does not say how many it takes.
const SAFE_LENGTH: u16 = 20;

/// Logs in; a refusal is told.
pub(super) async fn enter(visit: &Visit<'_>, who: Who<'_>) -> Result<Inside, Failure> {
    if visit.call.login_budget == 0 {
        let message = "no failed login may be risked on the BMC any more";
        return Err(Failure::new(FailureClass::LoginBudget, message, "wait until the login budget is free again"));
    }
    match service::log_in(visit, who).await? {
        Login::In(inside) => Ok(*inside),
        Login::Refused => Err(Failure::new(
            FailureClass::Auth,
            format!("the BMC refused the credential of {}, or has locked the account", who.user),
            "run `volvelle rotated-secret verify`, or correct the credential of the target",
        )),
    }
}

/// Proves that the change can be made.
pub(super) async fn preflight(visit: &Visit<'_>, policy: &PasswordPolicy) -> Result<Preflight, Failure> {
    let mut inside = enter(visit, visit.acting()).await?;
    let found = found(visit, &mut inside, policy).await;
    inside.leave().await;
    found
}

async fn found(visit: &Visit<'_>, inside: &mut Inside, policy: &PasswordPolicy) -> Result<Preflight, Failure> {
    let (user, acting) = (visit.user(), visit.acting());
    if let Some(path) = inside.must_change.clone() {
        return demanded(visit, inside, path).await;
    }
    let (rules, [account, other]) = if visit.own() {
        let (rules, [account]) = inside.accounts([user]).await?;
        (rules, [account, None])
    } else {
        inside.accounts([user, acting.user]).await?
    };
    let own = if visit.own() { account.as_ref() } else { other.as_ref() };
    let mut notes = vec!["the password is set over Redfish; the outcome is found out by logging in".to_owned()];
    // Who may not change accounts may not see them either.
    may(visit, inside, own, &mut notes).await?;
    let account = account.as_ref().ok_or_else(|| {
        config(format!("the BMC has no account {user}"), "make the account on the BMC, or correct rotated-username")
    })?;
    if let Some(failure) = account.barred() {
        return Err(failure);
    }
    if account.body["PasswordChangeRequired"] == true {
        notes.push(format!("the BMC demands a new password of {user}; this change may be what it asks for"));
    }
    if rules.threshold > 0 {
        notes.push(format!("the BMC locks an account after {} failed logins; fewer are risked", rules.threshold));
    }
    let tightened = rules.tighten(policy);
    if let (Some(tightened), Some(longest)) = (&tightened, rules.longest.filter(|longest| *longest < policy.length)) {
        notes.push(format!("passwords have {} characters: the BMC takes at most {longest}", tightened.length));
    }
    Ok(Preflight { memory: rules.memory(&account.path), policy: tightened, witness_read: false, notes })
}

/// The acting account itself must change its password before anything else.
async fn demanded(visit: &Visit<'_>, inside: &mut Inside, path: String) -> Result<Preflight, Failure> {
    let who = visit.acting().user;
    let account = if service::is_path(&path) { inside.account(&path).await.ok() } else { None };
    let Some(account) = account.filter(|account| visit.own() && account.name() == visit.user()) else {
        return Err(Failure::new(
            FailureClass::Privilege,
            format!("the BMC demands a new password of {who} before it lets {who} do anything"),
            "change it, or rotate the target's own password first",
        ));
    };
    // Its limits cannot be read before; this many characters every service takes.
    let rules = Rules { longest: Some(SAFE_LENGTH), ..Rules::default() };
    Ok(Preflight {
        memory: rules.memory(&account.path),
        policy: None,
        witness_read: false,
        notes: vec!["the BMC demands a new password at login: this change is what it asks for".to_owned()],
    })
}

/// Whether the acting account's role lets it make the change, as far as that can be read.
async fn may(
    visit: &Visit<'_>,
    inside: &mut Inside,
    acting: Option<&Account>,
    notes: &mut Vec<String>,
) -> Result<(), Failure> {
    let privileges = match acting {
        Some(account) => inside.privileges(account).await,
        None => None,
    };
    let Some(privileges) = privileges else {
        notes.push("what the acting user may do cannot be read; the change will show it".to_owned());
        return Ok(());
    };
    let has = |name: &str| privileges.iter().any(|own| own == name);
    if has("ConfigureUsers") || visit.own() && has("ConfigureSelf") {
        return Ok(());
    }
    let who = visit.acting().user;
    Err(Failure::new(
        FailureClass::Privilege,
        format!("the role of {who} on the BMC lets it change no passwords of others"),
        "give it a role with ConfigureUsers",
    ))
}

impl Rules {
    fn tighten(&self, policy: &PasswordPolicy) -> Option<PasswordPolicy> {
        let length = policy.length.max(self.shortest.unwrap_or(0)).min(self.longest.unwrap_or(u16::MAX));
        (length != policy.length).then(|| PasswordPolicy { length, ..policy.clone() })
    }

    fn memory(&self, account: &str) -> BTreeMap<String, String> {
        let mut memory = BTreeMap::from([
            ("method".to_owned(), "redfish".to_owned()),
            ("account".to_owned(), account.to_owned()),
            ("threshold".to_owned(), self.threshold.to_string()),
        ]);
        for (name, length) in [("shortest", self.shortest), ("longest", self.longest)] {
            if let Some(length) = length {
                memory.insert(name.to_owned(), length.to_string());
            }
        }
        memory
    }
}

/// Makes `new` the password. Everything before the sending of it is `NotReached` or `Rejected`.
pub(super) async fn apply(visit: &Visit<'_>, new: &Secret) -> ApplyOutcome {
    let outcome = match enter(visit, visit.acting()).await {
        Ok(mut inside) => {
            let outcome = change(visit, &mut inside, new).await;
            inside.leave().await;
            outcome.unwrap_or_else(|failure| visit.outcome(failure))
        }
        Err(failure) => visit.outcome(failure),
    };
    // Where the account acts for itself, a refused login may mean that this change was made already.
    let refused = matches!(&outcome, ApplyOutcome::Rejected(f) if f.class == FailureClass::Auth);
    if refused && visit.own() && trial::budget(visit) > 1 {
        let who = Who { user: visit.user(), password: Some(new) };
        if matches!(trial::ask(visit, who).await, ProbeOutcome::Opens(_)) {
            return ApplyOutcome::Applied;
        }
    }
    outcome
}

async fn change(visit: &Visit<'_>, inside: &mut Inside, new: &Secret) -> Result<ApplyOutcome, Failure> {
    let user = visit.user();
    let text = new.expose_str().ok_or_else(|| config("the candidate is no text", "rotate again"))?;
    let demanded = inside.must_change.clone();
    let known = demanded.as_deref().or_else(|| visit.remembered("account")).filter(|path| service::is_path(path));
    let known = match known {
        Some(path) => inside.account(path).await.ok().filter(|account| account.name() == user),
        None => None,
    };
    let account = match known {
        Some(account) => account,
        // Slots are given to other users.
        None => {
            let (_, [account]) = inside.accounts([user]).await?;
            account.ok_or_else(|| config(format!("the BMC has no account {user} any more"), "make it again"))?
        }
    };
    visit.sent.mark();
    let answer = inside.set_password(&account, text).await?;
    Ok(match answer.status {
        200 | 204 if !messages::refused_all_the_same(&answer.body) => ApplyOutcome::Applied,
        200 | 204 => ApplyOutcome::Rejected(messages::refusal(400, &answer.body, "set the password", Some(new))),
        status @ 400..=499 => {
            let failure = messages::refusal(status, &answer.body, "set the password", Some(new));
            // Nothing was changed; only what a person must mend is a rejection.
            if failure.class == FailureClass::Timeout || failure.class == FailureClass::LoginBudget || status == 401 {
                ApplyOutcome::NotReached(failure)
            } else {
                ApplyOutcome::Rejected(failure)
            }
        }
        status => ApplyOutcome::Ambiguous(Failure::new(
            FailureClass::Protocol,
            format!("the BMC does not say what became of the change (HTTP {status})"),
            "",
        )),
    })
}
