//! Access keys of one IAM user: what is there, one more, which of them open, one less.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;
use volvelle_domain::Credential;
use volvelle_domain::connector::{
    ActingAs, Evidence, Failure, FailureClass, IssueOutcome, Preflight, ProbeOutcome, ProbeReport,
};

use super::place::Service;
use super::query::{Key, Trouble};
use super::visit::{Visit, protocol};
use super::{config, xml};

/// Field of an intent: the key ids that were there, separated by commas.
const BEFORE: &str = "before";
/// Fact of a slot: whose keys they are.
pub(super) const USER: &str = "user";
/// Pause between two looks at what AWS has not yet spread everywhere.
const LOOK: Duration = Duration::from_millis(500);

impl Visit<'_> {
    /// Whose keys they are: as was said, as an earlier preflight found, or the owner of the present key.
    async fn user(&self, acting: &Key) -> Result<String, Failure> {
        let said = self.param("aws-user-name");
        if !said.is_empty() {
            return Ok(said.to_owned());
        }
        if let Some(known) = self.call.memory.get(USER) {
            return Ok(known.clone());
        }
        let present = self.call.current.expose_text("username").filter(|_| self.call.acting == ActingAs::Target);
        if let Some(id) = present {
            let pairs = [("Action", "GetAccessKeyLastUsed"), ("AccessKeyId", id)];
            let xml = self.ask(acting, Service::Iam, &pairs).await.map_err(Trouble::failure)?;
            return xml::text(&xml, "UserName").ok_or_else(|| protocol("GetAccessKeyLastUsed"));
        }
        let arn = self.identity(acting).await.map_err(Trouble::failure)?;
        let user = arn.split_once(":user/").and_then(|(_, path)| path.rsplit('/').next());
        user.map(str::to_owned).ok_or_else(|| config("the access key belongs to no IAM user", "set aws-user-name"))
    }

    /// The user's keys: id and whether it is active.
    async fn list(&self, key: &Key, user: &str) -> Result<BTreeMap<String, bool>, Trouble> {
        let xml = self.ask(key, Service::Iam, &[("Action", "ListAccessKeys"), ("UserName", user)]).await?;
        let members = xml::all(&xml, "member");
        let read = |member: &str| Some((xml::text(member, "AccessKeyId")?, xml::text(member, "Status")? == "Active"));
        Ok(members.into_iter().filter_map(read).collect())
    }

    async fn remove(&self, acting: &Key, user: &str, id: &str) -> Result<(), Failure> {
        // Made inactive first: if the deletion fails, it opens nothing all the same.
        for pairs in [
            vec![("Action", "UpdateAccessKey"), ("UserName", user), ("AccessKeyId", id), ("Status", "Inactive")],
            vec![("Action", "DeleteAccessKey"), ("UserName", user), ("AccessKeyId", id)],
        ] {
            match self.ask(acting, Service::Iam, &pairs).await {
                Ok(_) => {}
                Err(trouble) if trouble.is("NoSuchEntity") => return Ok(()),
                Err(trouble) => return Err(trouble.failure()),
            }
        }
        Ok(())
    }

    /// Whether somebody has used the key. Nobody knows the secret of a key that a crash left behind.
    async fn was_used(&self, acting: &Key, id: &str) -> Result<bool, Failure> {
        let pairs = [("Action", "GetAccessKeyLastUsed"), ("AccessKeyId", id)];
        match self.ask(acting, Service::Iam, &pairs).await {
            Ok(xml) => Ok(xml::text(&xml, "LastUsedDate").is_some_and(|date| !date.is_empty())),
            Err(trouble) if trouble.is("AccessDenied") || trouble.is("NoSuchEntity") => Ok(false),
            Err(trouble) => Err(trouble.failure()),
        }
    }
}

/// The acting key works, the user is known, and his keys can be listed.
pub(super) async fn preflight(visit: &Visit<'_>) -> Result<Preflight, Failure> {
    let acting = visit.acting().await?;
    visit.identity(&acting).await.map_err(Trouble::failure)?;
    let user = visit.user(&acting).await?;
    let keys = visit.list(&acting, &user).await.map_err(Trouble::failure)?;
    let own = visit.call.current.expose_text("username").unwrap_or_default();
    let others = keys.keys().filter(|id| *id != own).count();
    if others >= 2 {
        let message = format!("the user {user} has two access keys of others, so that AWS admits no further one");
        return Err(config(message, "delete the one that nobody uses"));
    }
    let mut notes =
        vec![format!("a new access key of {user} is made beside the present one, which is deleted afterwards")];
    if others == 1 && keys.len() == 2 {
        notes.push(format!(
            "{user} has a second access key: unless it is in its grace, delete it, or nothing can be rotated"
        ));
    }
    Ok(Preflight { memory: BTreeMap::from([(USER.to_owned(), user)]), policy: None, witness_read: true, notes })
}

/// The keys that are there now.
pub(super) async fn intend(visit: &Visit<'_>) -> Result<Credential, Failure> {
    let acting = visit.acting().await?;
    let user = visit.user(&acting).await?;
    let keys = visit.list(&acting, &user).await.map_err(Trouble::failure)?;
    let ids: Vec<&str> = keys.keys().map(String::as_str).collect();
    Ok(Credential::default().with(BEFORE, ids.join(",").as_str().into()))
}

/// Makes one more key.
pub(super) async fn issue(visit: &Visit<'_>) -> IssueOutcome {
    let ready = async {
        let acting = visit.acting().await?;
        let user = visit.user(&acting).await?;
        Ok((acting, user))
    };
    let (acting, user) = match ready.await {
        Ok(ready) => ready,
        Err(failure) => return IssueOutcome::NotReached(failure),
    };
    visit.sent.mark();
    let answer = visit.ask(&acting, Service::Iam, &[("Action", "CreateAccessKey"), ("UserName", &user)]).await;
    let xml = match answer {
        Ok(xml) => zeroize::Zeroizing::new(xml),
        Err(Trouble::Refused(_, failure)) => return IssueOutcome::Rejected(failure),
        Err(Trouble::NotDone(failure)) => return IssueOutcome::NotReached(failure),
        Err(Trouble::Unclear(failure)) => return IssueOutcome::Ambiguous(failure),
    };
    match (xml::text(&xml, "AccessKeyId"), xml::text(&xml, "SecretAccessKey").map(zeroize::Zeroizing::new)) {
        (Some(id), Some(secret)) if !id.is_empty() && !secret.is_empty() => {
            IssueOutcome::Issued(Credential::user_password(&id, secret.as_str().into()))
        }
        _ => IssueOutcome::Ambiguous(protocol("CreateAccessKey")),
    }
}

/// Takes a key off, or, of an intent, every key that came after it, is not the current one and was never used.
pub(super) async fn revoke(visit: &Visit<'_>, superseded: &Credential) -> Result<(), Failure> {
    let acting = visit.acting().await?;
    let user = visit.user(&acting).await?;
    let current = visit.call.current.expose_text("username").unwrap_or_default();
    if let Some(id) = superseded.expose_text("username") {
        if id == current {
            return Err(config("the current access key is not taken off", ""));
        }
        return visit.remove(&acting, &user, id).await;
    }
    // Without the list it would seem that nothing was there before.
    if !superseded.names().any(|name| name == BEFORE) {
        return Err(config("the version holds neither an access key nor an intent", ""));
    }
    let before = superseded.expose_text(BEFORE).unwrap_or_default();
    let keys = visit.list(&acting, &user).await.map_err(Trouble::failure)?;
    for id in keys.keys().filter(|id| *id != current && !before.split(',').any(|known| known == *id)) {
        if visit.was_used(&acting, id).await? {
            tracing::warn!(key = %id, user = %user, "an access key that others made meanwhile is left alone");
            continue;
        }
        visit.remove(&acting, &user, id).await?;
    }
    Ok(())
}

/// Asks about each key: by its own identity, and by the user's list.
pub(super) async fn probe(visit: &Visit<'_>, credentials: &[&Credential], patience: Duration) -> ProbeReport {
    let began = Instant::now();
    let mut outcomes = Vec::with_capacity(credentials.len());
    for (position, credential) in credentials.iter().enumerate() {
        // Only the newest one may not have spread everywhere yet.
        let fresh = position == 0 && !credential.ct_eq(visit.call.current);
        let patience = if fresh { patience.min(visit.call.timeout / 2) } else { Duration::ZERO };
        outcomes.push(one(visit, credential, credentials, began + patience).await);
    }
    ProbeReport { outcomes, failed_logins: 0 }
}

async fn one(visit: &Visit<'_>, credential: &Credential, all: &[&Credential], deadline: Instant) -> ProbeOutcome {
    let Some(key) = Key::of(credential) else {
        return ProbeOutcome::Unknown(config("the version holds no access key", ""));
    };
    loop {
        let refused = match visit.identity(&key).await {
            Ok(_) => return ProbeOutcome::Opens(Evidence::Login),
            Err(trouble) if trouble.is("SignatureDoesNotMatch") => trouble.failure(),
            Err(trouble) if trouble.is("InvalidClientTokenId") => trouble.failure(),
            Err(trouble) => return ProbeOutcome::Unknown(trouble.failure()),
        };
        if refused.class != FailureClass::Auth {
            return ProbeOutcome::Unknown(refused);
        }
        if Instant::now() + LOOK >= deadline {
            return verdict(visit, credential, &key, all).await;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// AWS refuses the key itself; its list says whether it is so for good.
async fn verdict(visit: &Visit<'_>, credential: &Credential, key: &Key, all: &[&Credential]) -> ProbeOutcome {
    match listed(visit, all).await {
        Ok(keys) => match keys.get(&key.id) {
            None | Some(false) => ProbeOutcome::Refused(Evidence::WitnessRead),
            // The key is there: so its secret is another one, or AWS has not spread it yet.
            Some(true) => match visit.identity(key).await {
                Err(trouble) if trouble.is("SignatureDoesNotMatch") => ProbeOutcome::Refused(Evidence::Login),
                Err(trouble) => ProbeOutcome::Unknown(trouble.failure()),
                Ok(_) => ProbeOutcome::Opens(Evidence::Login),
            },
        },
        // Nobody can list. A key that was witnessed before is not new, so AWS knows by now that it is gone.
        Err(_) if credential.ct_eq(visit.call.current) => ProbeOutcome::Refused(Evidence::Login),
        Err(failure) => ProbeOutcome::Unknown(failure),
    }
}

/// The user's keys, asked with whatever key may ask.
async fn listed(visit: &Visit<'_>, all: &[&Credential]) -> Result<BTreeMap<String, bool>, Failure> {
    let acting = async {
        let acting = visit.acting().await?;
        let user = visit.user(&acting).await?;
        visit.list(&acting, &user).await.map_err(Trouble::failure)
    };
    let failure = match acting.await {
        Ok(keys) => return Ok(keys),
        Err(failure) => failure,
    };
    let Some(user) = visit.call.memory.get(USER) else { return Err(failure) };
    for key in all.iter().take(3).filter_map(|credential| Key::of(credential)) {
        if let Ok(keys) = visit.list(&key, user).await {
            return Ok(keys);
        }
    }
    Err(failure)
}
