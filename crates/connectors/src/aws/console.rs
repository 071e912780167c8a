//! The console password of one IAM user: its login profile.
//!
//! IAM shows no verifier of it and admits no trial but `ChangePassword`, which changes it. So what must stay true: no answer here ever
//! says that a password opens. What can be seen is whether the login profile is there, and whether it is still the one that the last
//! rotation found.

use std::collections::BTreeMap;

use volvelle_domain::connector::{
    ApplyOutcome, Call, Evidence, Failure, FailureClass, PasswordPolicy, Preflight, ProbeOutcome,
};
use volvelle_domain::ids::Entropy;
use volvelle_domain::{Credential, Secret, password};

use super::place::Service;
use super::query::{Key, Trouble};
use super::visit::{Visit, protocol};
use super::{config, xml};

/// Fact of a slot: when the login profile was made, by which a new one is told from it.
const PROFILE: &str = "profile";
/// What IAM counts as a symbol, which is less than a password policy of ours may use.
const SYMBOLS: &[u8] = b"!@#$%^&*()_+-=[]{}|'";
/// Passwords drawn until one has such a symbol; one of about thirty has none.
const DRAWS: usize = 64;
/// Shortest password in an account that has no password policy.
const USUAL_LENGTH: u16 = 8;
/// Kinds of characters that such an account asks for.
const USUAL_KINDS: usize = 3;
/// Longest password that IAM takes.
const LONGEST: u16 = 128;

/// What IAM admits as the name of a user.
pub(super) fn check_user(name: &str) -> Result<(), Failure> {
    let good = |c: char| c.is_ascii_alphanumeric() || "_+=,.@-".contains(c);
    if (1..=64).contains(&name.len()) && name.chars().all(good) {
        return Ok(());
    }
    Err(config("rotated-username is no name of an IAM user", "set rotated-username to its name, without a path"))
}

/// A password that IAM counts as the policy means it.
pub(super) fn generate(call: &Call<'_>, policy: &PasswordPolicy, entropy: &dyn Entropy) -> Result<Credential, Failure> {
    for _ in 0..DRAWS {
        let password = password::generate(policy, entropy)
            .map_err(|error| config(error.to_string(), "change the password policy"))?;
        if !policy.special || password.expose().iter().any(|byte| SYMBOLS.contains(byte)) {
            return Ok(Credential::user_password(user(call), password));
        }
    }
    Err(config("no password with a symbol that IAM counts was drawn", "make the password longer"))
}

fn user<'a>(call: &Call<'a>) -> &'a str {
    call.current.expose_text("username").unwrap_or_default()
}

fn without_profile(user: &str) -> Failure {
    config(
        format!("there is no IAM user {user} with a console password"),
        format!("give the user one first: aws iam create-login-profile --user-name {user} --password …"),
    )
}

fn nobody_to_ask() -> Failure {
    let message = "IAM tells nobody whether a console password opens: the stored one is what IAM took last, or what a person told";
    Failure::new(FailureClass::Protocol, message, "sign in with it to be sure")
}

fn made_anew() -> Failure {
    let message =
        "the login profile was made anew since the last rotation, so that somebody else has set the console password";
    Failure::new(FailureClass::Protocol, message, "rotate the secret, which sets another one")
}

impl Visit<'_> {
    /// When the user's login profile was made; `None` without one.
    async fn profile(&self, acting: &Key, user: &str) -> Result<Option<String>, Failure> {
        let pairs = [("Action", "GetLoginProfile"), ("UserName", user)];
        match self.ask(acting, Service::Iam, &pairs).await {
            Ok(xml) => {
                let made = xml::text(&xml, "CreateDate").filter(|date| !date.is_empty());
                made.map(Some).ok_or_else(|| protocol("GetLoginProfile"))
            }
            Err(trouble) if trouble.is("NoSuchEntity") => Ok(None),
            Err(trouble) => Err(trouble.failure()),
        }
    }

    /// What the account asks of passwords, as XML; `None` without a policy of its own.
    async fn account_policy(&self, acting: &Key) -> Result<Option<String>, Trouble> {
        match self.ask(acting, Service::Iam, &[("Action", "GetAccountPasswordPolicy")]).await {
            Ok(xml) => Ok(Some(xml)),
            Err(trouble) if trouble.is("NoSuchEntity") => Ok(None),
            Err(trouble) => Err(trouble),
        }
    }
}

/// The acting key may read the login profile, there is one, and the policy is made as strict as the account's.
pub(super) async fn preflight(visit: &Visit<'_>, policy: &PasswordPolicy) -> Result<Preflight, Failure> {
    let (acting, user) = (visit.acting().await?, user(visit.call));
    let made = visit.profile(&acting, user).await?.ok_or_else(|| without_profile(user))?;
    let mut notes = vec![format!(
        "a new console password of {user} is set by UpdateLoginProfile; IAM's answer to it is all that can be known of it"
    )];
    let stored = visit.call.memory.get(PROFILE).filter(|_| visit.call.current.field("password").is_some());
    if stored.is_some_and(|stored| *stored != made) {
        notes.push(made_anew().message);
    }
    let asked = match visit.account_policy(&acting).await {
        Ok(Some(xml)) => stricter(policy, &xml),
        Ok(None) => usual(policy),
        Err(trouble) if trouble.is("AccessDenied") => {
            notes
                .push("allow iam:GetAccountPasswordPolicy, so that passwords are as the account wants them".to_owned());
            usual(policy)
        }
        Err(trouble) => return Err(trouble.failure()),
    };
    let policy = (asked != *policy).then_some(asked);
    Ok(Preflight { memory: BTreeMap::from([(PROFILE.to_owned(), made)]), policy, witness_read: true, notes })
}

/// The policy under the account's own.
fn stricter(policy: &PasswordPolicy, xml: &str) -> PasswordPolicy {
    let asked = |name: &str| xml::text(xml, name).is_some_and(|text| text == "true");
    let least = xml::text(xml, "MinimumPasswordLength").and_then(|text| text.parse::<u16>().ok()).unwrap_or(0);
    PasswordPolicy {
        length: policy.length.max(least.min(LONGEST)),
        lower: policy.lower || asked("RequireLowercaseCharacters"),
        upper: policy.upper || asked("RequireUppercaseCharacters"),
        digits: policy.digits || asked("RequireNumbers"),
        special: policy.special || asked("RequireSymbols"),
    }
}

/// The policy in an account that has none.
fn usual(policy: &PasswordPolicy) -> PasswordPolicy {
    let kinds = [policy.lower, policy.upper, policy.digits, policy.special].into_iter().filter(|kind| *kind).count();
    let few = kinds < USUAL_KINDS;
    PasswordPolicy {
        length: policy.length.max(USUAL_LENGTH),
        lower: policy.lower || few,
        upper: policy.upper || few,
        digits: policy.digits || few,
        special: policy.special,
    }
}

/// Sets the password, if the login profile is the one that preflight saw. Once more with the same one changes nothing.
pub(super) async fn apply(visit: &Visit<'_>, candidate: &Credential) -> ApplyOutcome {
    let Some(password) = candidate.field("password").and_then(Secret::expose_str) else {
        return ApplyOutcome::Rejected(config("the candidate has no password", "rotate again"));
    };
    let user = user(visit.call);
    let acting = match ready(visit, user).await {
        Ok(acting) => acting,
        Err(failure) if matches!(failure.class, FailureClass::Unreachable | FailureClass::Timeout) => {
            return ApplyOutcome::NotReached(failure);
        }
        Err(failure) => return ApplyOutcome::Rejected(failure),
    };
    // Said explicitly: a password that has to be changed at the next sign-in would not stay the stored one.
    let pairs = [
        ("Action", "UpdateLoginProfile"),
        ("UserName", user),
        ("Password", password),
        ("PasswordResetRequired", "false"),
    ];
    visit.sent.mark();
    match visit.ask(&acting, Service::Iam, &pairs).await {
        Ok(_) => ApplyOutcome::Applied,
        Err(Trouble::Refused(_, failure)) => ApplyOutcome::Rejected(failure),
        Err(Trouble::NotDone(failure)) => ApplyOutcome::NotReached(failure),
        Err(Trouble::Unclear(failure)) => ApplyOutcome::Ambiguous(failure),
    }
}

async fn ready(visit: &Visit<'_>, user: &str) -> Result<Key, Failure> {
    let acting = visit.acting().await?;
    let made = visit.profile(&acting, user).await?.ok_or_else(|| without_profile(user))?;
    match visit.call.memory.get(PROFILE) {
        Some(seen) if *seen != made => Err(made_anew()),
        _ => Ok(acting),
    }
}

/// What can be seen of the login profile: without one no password opens, and with one nobody knows which.
pub(super) async fn probe(visit: &Visit<'_>) -> ProbeOutcome {
    let seen = async {
        let acting = visit.acting().await?;
        visit.profile(&acting, user(visit.call)).await
    };
    match seen.await {
        Ok(None) => ProbeOutcome::Refused(Evidence::WitnessRead),
        Ok(Some(made)) if visit.call.memory.get(PROFILE).is_some_and(|seen| *seen != made) => {
            ProbeOutcome::Unknown(made_anew())
        }
        Ok(Some(_)) => ProbeOutcome::Unknown(nobody_to_ask()),
        Err(failure) => ProbeOutcome::Unknown(failure),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accounts_policy_only_ever_adds() {
        let weak = PasswordPolicy { length: 6, lower: true, upper: false, digits: false, special: false };
        let xml = "<R><MinimumPasswordLength>14</MinimumPasswordLength><RequireSymbols>true</RequireSymbols>\
                   <RequireNumbers>false</RequireNumbers></R>";
        let asked = stricter(&weak, xml);
        assert_eq!(asked, PasswordPolicy { length: 14, special: true, ..weak.clone() });
        assert_eq!(stricter(&PasswordPolicy::default(), xml), PasswordPolicy::default());
        assert_eq!(usual(&weak), PasswordPolicy { length: 8, upper: true, digits: true, ..weak });
        assert_eq!(usual(&PasswordPolicy::default()), PasswordPolicy::default());
    }

    #[test]
    fn names_of_users_are_what_iam_takes() {
        check_user("ann.b+c@example.com").expect("fine");
        for wrong in ["", "a/b", "a b", "ü", &"a".repeat(65)] {
            assert!(check_user(wrong).is_err(), "{wrong}");
        }
    }
}
