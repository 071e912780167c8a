//! The ways of changing a password in a directory: chosen by preflight, recorded in the slot's memory, used by apply.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use ldap3::{LdapError, LdapResult};
use volvelle_domain::connector::{ApplyOutcome, Failure, FailureClass, PasswordPolicy, Preflight, ProbeOutcome};
use volvelle_domain::{Credential, Secret};

use super::answers;
use super::config;
use super::link::{Link, Root, quoted};
use super::probe;
use super::visit::{Account, Visit};
use crate::kerberos::Question;

/// Units of 100 ns between 1601 and 1970.
const EPOCH_1601: i64 = 116_444_736_000_000_000;

/// Proves that the change can be made, and how.
pub(super) async fn preflight(visit: &Visit<'_>, policy: &PasswordPolicy) -> Result<Preflight, Failure> {
    let (who, mut link) = (visit.who(), visit.server.connect().await?);
    let (dn, password) = visit.privileged();
    link.must_bind(dn, password).await?;
    let root = link.root().await?;
    let account = visit.locate(&mut link, &root).await?;
    if let Some(failure) = account.barred(who) {
        return Err(failure);
    }
    let mut own = None;
    if visit.own() && !visit.is_target() {
        let mut link = visit.server.connect().await?;
        link.must_bind(&account.bind, visit.call.current.field("password")).await?;
        own = Some(link);
    }
    let mut notes = Vec::new();
    let (method, tightened) = if account.domain {
        kerberos_answers(visit, &account).await?;
        let rules = Rules::read(&mut link, &root).await?;
        rules.check_age(visit, &account)?;
        if !visit.own() {
            check_right(&mut link, &account, &root, who).await?;
        }
        notes.push(format!(
            "the password is changed by {} and witnessed by Kerberos",
            if visit.own() { "the account itself" } else { "the target's account (reset)" }
        ));
        (if visit.own() { "domain-change" } else { "domain-reset" }, rules.tighten(policy))
    } else {
        let acting = own.as_mut().unwrap_or(&mut link);
        check_right(acting, &account, &root, who).await?;
        notes.push(reading(&account));
        let tightened = tighten_by_subentry(&mut link, &account, policy).await?;
        (if root.passmod { "passmod" } else { "replace" }, tightened)
    };
    Ok(Preflight {
        memory: memory(&account, method),
        policy: tightened,
        witness_read: !account.domain && readable(&account),
        notes,
    })
}

fn memory(account: &Account, method: &str) -> BTreeMap<String, String> {
    let domain = if account.domain { "yes" } else { "no" };
    [
        ("method", method),
        ("dn", &account.dn),
        ("bind", &account.bind),
        ("logon", &account.logon),
        ("realm", &account.realm),
        ("domain", domain),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

fn readable(account: &Account) -> bool {
    account.entry.as_ref().is_some_and(|entry| !entry.secrets("userPassword").is_empty())
}

fn reading(account: &Account) -> String {
    if readable(account) {
        "the outcome is read from userPassword".to_owned()
    } else {
        "userPassword cannot be read by bind-dn: the outcome is found out by logging in".to_owned()
    }
}

/// Without Kerberos nobody can tell the present password of a domain account from its previous one.
async fn kerberos_answers(visit: &Visit<'_>, account: &Account) -> Result<(), Failure> {
    let question = Question { host: visit.kdc(), realm: &account.realm, user: &account.logon };
    question.greet().await
}

async fn check_right(link: &mut Link, account: &Account, root: &Root, who: &str) -> Result<(), Failure> {
    let denied = |hint| {
        let said = format!("the acting account may not change the password of {who}");
        Err(Failure::new(FailureClass::Privilege, said, hint))
    };
    if root.domain && link.may_not_reset(&account.dn).await? {
        return denied("give it the right `Reset Password` on the account");
    }
    if root.open_ldap && link.may_write(&account.dn).await? == Some(false) {
        return denied("give it `write` on userPassword of the entry");
    }
    Ok(())
}

/// The entry's own password policy, where it can be read.
async fn tighten_by_subentry(
    link: &mut Link,
    account: &Account,
    policy: &PasswordPolicy,
) -> Result<Option<PasswordPolicy>, Failure> {
    let subentry = account.entry.as_ref().and_then(|entry| entry.value("pwdPolicySubentry"));
    let Some(subentry) = subentry else { return Ok(None) };
    let Some(rules) = link.read(subentry, &["pwdMinLength", "pwdMaxLength"]).await? else { return Ok(None) };
    let least = rules.number("pwdMinLength").and_then(|n| u16::try_from(n).ok()).unwrap_or(0);
    let most = rules.number("pwdMaxLength").and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0).unwrap_or(u16::MAX);
    let length = policy.length.max(least.min(128)).min(most);
    Ok((length != policy.length).then(|| PasswordPolicy { length, ..policy.clone() }))
}

/// What a domain demands of passwords.
struct Rules {
    min_length: u16,
    complex: bool,
    /// Units of 100 ns.
    min_age: i64,
}

impl Rules {
    async fn read(link: &mut Link, root: &Root) -> Result<Self, Failure> {
        const COMPLEX: i64 = 1;
        let found = link.read(&root.base, &["minPwdLength", "pwdProperties", "minPwdAge"]).await?;
        let number = |name: &str| found.as_ref().and_then(|entry| entry.number(name));
        Ok(Self {
            min_length: number("minPwdLength").and_then(|n| u16::try_from(n).ok()).unwrap_or(0),
            complex: number("pwdProperties").is_none_or(|flags| flags & COMPLEX != 0),
            min_age: number("minPwdAge").map_or(0, i64::saturating_abs),
        })
    }

    /// A reset skips the minimum age, a change by the account itself does not.
    fn check_age(&self, visit: &Visit<'_>, account: &Account) -> Result<(), Failure> {
        let Some(last) = account.last_set().filter(|_| visit.own() && !visit.is_target()) else { return Ok(()) };
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() / 100);
        let now = EPOCH_1601.saturating_add(i64::try_from(since_1970).unwrap_or(0));
        // The domain's clock may be a little ahead of ours.
        let age = now.saturating_sub(last).max(0);
        if last > 0 && age < self.min_age {
            let left = (self.min_age - age) / 36_000_000_000 + 1;
            return Err(Failure::new(
                FailureClass::Privilege,
                format!("the domain lets {} change its password again in {left} hours only", visit.who()),
                "wait, or let the target's credential act (use-target-creds): a reset is not bound by it",
            ));
        }
        Ok(())
    }

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
    let Some(password) = candidate.field("password").filter(|password| !password.is_empty()) else {
        return ApplyOutcome::Rejected(config("the candidate has no password", ""));
    };
    let Some(account) = visit.remembered() else {
        return ApplyOutcome::NotReached(config("no preflight was made for this secret", "rotate again"));
    };
    let mut link = match enter(visit, &account).await {
        Ok(link) => link,
        Err(failure) => return before_sending(visit, &account, candidate, failure).await,
    };
    let change = Change { visit, account: &account, password };
    visit.sent.mark();
    let method = visit.call.memory.get("method").map_or("", String::as_str);
    let result = match method {
        "domain-reset" => change.reset(&mut link).await,
        "domain-change" => change.exchange(&mut link).await,
        "passmod" => {
            let old = visit.call.current.field("password").filter(|_| visit.own());
            link.passmod(&account.dn, old, password).await
        }
        _ => link.replace(&account.dn, "userPassword", password).await,
    };
    change.judge(&mut link, candidate, result).await
}

async fn enter(visit: &Visit<'_>, account: &Account) -> Result<Link, Failure> {
    let mut link = visit.server.connect().await?;
    if visit.own() {
        link.must_bind(&account.bind, visit.call.current.field("password")).await?;
    } else {
        let (dn, password) = visit.privileged();
        link.must_bind(dn, password).await?;
    }
    Ok(link)
}

/// Where the account acts for itself, a refused login may mean that the candidate is in force already.
async fn before_sending(
    visit: &Visit<'_>,
    account: &Account,
    candidate: &Credential,
    failure: Failure,
) -> ApplyOutcome {
    if failure.class == FailureClass::Auth && visit.own() && is_in_force(visit, account, candidate).await {
        return ApplyOutcome::Applied;
    }
    match failure.class {
        FailureClass::Unreachable | FailureClass::Timeout | FailureClass::LoginBudget => {
            ApplyOutcome::NotReached(failure)
        }
        _ => ApplyOutcome::Rejected(failure),
    }
}

async fn is_in_force(visit: &Visit<'_>, account: &Account, candidate: &Credential) -> bool {
    visit.call.login_budget > 1 && matches!(probe::by_login(visit, account, candidate).await.0, ProbeOutcome::Opens(_))
}

/// One change on its way.
struct Change<'a> {
    visit: &'a Visit<'a>,
    account: &'a Account,
    password: &'a Secret,
}

impl Change<'_> {
    async fn reset(&self, link: &mut Link) -> Result<LdapResult, LdapError> {
        let new = quoted(self.password).unwrap_or_else(|| Secret::from(""));
        link.replace(&self.account.dn, "unicodePwd", &new).await
    }

    /// The target's own account may be one that can reset itself where the domain says that it is too early for a change.
    async fn exchange(&self, link: &mut Link) -> Result<LdapResult, LdapError> {
        let old = self.visit.call.current.field("password").and_then(quoted).unwrap_or_else(|| Secret::from(""));
        let new = quoted(self.password).unwrap_or_else(|| Secret::from(""));
        let first = link.exchange(&self.account.dn, "unicodePwd", &old, &new).await?;
        let early =
            matches!(answers::changed(&first, ""), ApplyOutcome::Rejected(f) if f.message.contains("too young"));
        if early && self.visit.is_target() {
            let second = link.replace(&self.account.dn, "unicodePwd", &new).await?;
            return Ok(if second.rc == 50 { first } else { second });
        }
        Ok(first)
    }

    async fn judge(
        &self,
        link: &mut Link,
        candidate: &Credential,
        result: Result<LdapResult, LdapError>,
    ) -> ApplyOutcome {
        let result = match result {
            Ok(result) => result,
            Err(error) => {
                let said = format!("the connection to the directory broke during the change: {error}");
                return ApplyOutcome::Ambiguous(Failure::new(FailureClass::Unreachable, said, ""));
            }
        };
        let outcome = answers::changed(&result, self.visit.who());
        // A password that was used before may be the one that is in force, and an old one that is wrong may have been replaced, if
        // this change was made already.
        let made = matches!(&outcome, ApplyOutcome::Rejected(f) if f.class == FailureClass::Auth);
        if (made || answers::is_in_history(&result)) && is_in_force(self.visit, self.account, candidate).await {
            return ApplyOutcome::Applied;
        }
        if outcome == ApplyOutcome::Applied && !self.visit.own() && !self.account.domain {
            self.clear_reset(link).await;
        }
        outcome
    }

    /// A policy may demand that a password set by somebody else be changed at once; nobody is there to do that.
    async fn clear_reset(&self, link: &mut Link) {
        let entry = link.read(&self.account.dn, &["pwdReset"]).await;
        let set = entry.ok().flatten().is_some_and(|entry| entry.value("pwdReset") == Some("TRUE"));
        if set && !link.remove(&self.account.dn, "pwdReset").await.is_ok_and(|result| result.rc == 0) {
            tracing::warn!(
                "the directory wants the new password changed at the next login, and this could not be undone"
            );
        }
    }
}
