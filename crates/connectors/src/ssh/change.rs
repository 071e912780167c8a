//! The ways of changing a password: chosen by preflight, recorded in the slot's memory, used by apply.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use volvelle_domain::connector::{ApplyOutcome, Failure, FailureClass, PasswordPolicy, Preflight};
use volvelle_domain::{Credential, Secret};

use super::login::{Changed, Login};
use super::policy::{REFUSALS, sentence};
use super::session::{Ran, Seen, Session};
use super::shadow::{self, Scheme, Verdict};
use super::survey::{Chpasswd, PROLOGUE, Rise, Survey, one_line};
use super::visit::{Entry, Inside, Visit, expired, locked};
use super::{broken, config, custom, runs_nothing};

/// Sets the password in one command, so that nothing can come between its steps.
///
/// Two actors must not interleave: where the host has `flock`, one waits for the other (a lock on the folder `/etc`, which
/// leaves nothing behind; after five seconds it goes on, because a lock may be held out of malice). The change is made only if
/// the field is still the one that was read a moment ago on the same session. With no such reading it is made anyway: to
/// replace whatever is there is what a rotation with a privileged credential is for. Afterwards the field is read back.
const CHANGE: &str = r#"
IFS= read -r x; IFS= read -r m; IFS= read -r L;
exec 9</etc; command -v flock >/dev/null 2>&1 && { flock -w 5 9 || flock -n 9; } 2>/dev/null;
f=$(field); f=${f#*:}; f=${f%%:*};
case $f in '!'*'$'*) exit 93 ;; esac;
if [ -n "$x" ] && [ "$x" != "$f" ]; then exit 92; fi;
say "$u:$L" | as chpasswd $m || exit;
f=$(field); f=${f#*:}; f=${f%%:*}; say "after=$f"
"#;
/// Exit status of [`CHANGE`]: the field is not the one that was read.
const MOVED: u32 = 92;
/// Exit status of [`CHANGE`]: the account is locked, and a new password would unlock it.
const LOCKED: u32 = 93;

/// Proves that the change can be made, and how.
pub(super) async fn preflight(visit: &Visit<'_>, policy: &PasswordPolicy) -> Result<Preflight, Failure> {
    let acting = visit.acting();
    if acting.expose_text("username").is_none() {
        return Err(config("ssh-username is empty", "set ssh-username and a credential on the target"));
    }
    let inside = match visit.enter(&acting, visit.call.login_budget).await? {
        Entry::Inside(inside) => *inside,
        Entry::Expired => return at_login(visit, &acting),
    };
    let (survey, session) = Survey::make(visit, &acting, inside).await?;
    let method = method(visit, &acting, &survey)?;
    let scheme = survey.hashes_with(visit.user()).unwrap_or(Scheme::Sha512);
    if !survey.change_demanded {
        visit.leave(&acting, session);
    }
    let rise = if survey.change_demanded { Rise::Never } else { survey.rise };
    Ok(Preflight {
        memory: memory(method, rise, scheme),
        policy: survey.demands.tighten(policy),
        witness_read: survey.line.is_some(),
        notes: notes(visit.user(), method, &survey),
    })
}

fn memory(method: &str, rise: Rise, scheme: Scheme) -> BTreeMap<String, String> {
    [("method", method), ("rise", rise.as_str()), ("scheme", scheme.as_str())]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
}

/// The account's own password has expired, and the host lets it be changed at login.
fn at_login(visit: &Visit<'_>, acting: &Credential) -> Result<Preflight, Failure> {
    if !visit.own() || custom::command(visit).is_some() {
        return Err(expired(acting));
    }
    Ok(Preflight {
        memory: memory("login-change", Rise::Never, Scheme::Sha512),
        notes: vec!["the password has expired: the change is made at login, where the host demands it".to_owned()],
        ..Preflight::default()
    })
}

fn method(visit: &Visit<'_>, acting: &Credential, survey: &Survey) -> Result<&'static str, Failure> {
    let (user, who) = (visit.user(), acting.expose_text("username").unwrap_or_default());
    let field = survey.field(user);
    if survey.change_demanded {
        return if visit.own() && acting.field("password").is_some() { Ok("passwd") } else { Err(expired(acting)) };
    }
    if survey.rise == Rise::Root && field.is_none() || survey.rise != Rise::Never && field.is_none() && !survey.local {
        return Err(config(format!("the host has no account {user} with a password"), "check rotated-username"));
    }
    if field.as_ref().is_some_and(shadow::is_locked) {
        return Err(locked_by_hand(user));
    }
    if custom::command(visit).is_some() {
        return Ok("custom");
    }
    if survey.rise == Rise::Never && !visit.own() {
        return Err(Failure::new(
            FailureClass::Privilege,
            format!("{who} may not change the password of {user}"),
            "give the target root, or a user with `NOPASSWD: /usr/sbin/chpasswd` in sudoers",
        ));
    }
    if survey.rise == Rise::Never && acting.field("password").is_none() {
        return Err(config(
            format!("{who} is not root and needs its present password to change it"),
            "give the password beside the key, or let a privileged credential act",
        ));
    }
    Ok(match survey.chpasswd {
        _ if survey.rise == Rise::Never => "passwd",
        Chpasswd::Absent => "passwd",
        Chpasswd::Hashes if survey.hashes_with(user).is_some() => "chpasswd-e",
        Chpasswd::Hashes | Chpasswd::Passwords => "chpasswd",
    })
}

fn locked_by_hand(user: &str) -> Failure {
    config(
        format!("the account {user} is locked ('!' in /etc/shadow), and a new password would unlock it"),
        format!("unlock it with `usermod -U {user}` if it is to be used, or stop rotating it"),
    )
}

/// What a person may want to know of the host and the account.
fn notes(user: &str, method: &str, survey: &Survey) -> Vec<String> {
    let reads = match survey.line {
        Some(_) => "the outcome is read from /etc/shadow",
        None => "the outcome is found out by logging in",
    };
    let mut notes = vec![format!("the change is made with {method} ({}); {reads}", survey.rise.as_str())];
    if survey.is_locked_by_failures() {
        notes.push(format!(
            "{user} is locked after {} failed logins and stays so: `faillock --user {user} --reset` unlocks it",
            survey.failed
        ));
    }
    if survey.demands.history > 0 {
        notes.push(format!("the host refuses the last {} passwords", survey.demands.history));
    }
    if survey.field(user).and_then(|f| f.expose_str().map(|t| t.starts_with(['!', '*']))).unwrap_or(false) {
        notes.push(format!("{user} has no password yet; it will have one"));
    }
    notes.extend(survey.line.as_ref().and_then(Secret::expose_str).map(|line| ages(user, line)).unwrap_or_default());
    notes
}

/// Expiry, as `passwd -S` and `chage -l` tell it.
fn ages(user: &str, line: &str) -> Vec<String> {
    let day = |n: usize| line.split(':').nth(n).and_then(|text| text.parse::<i64>().ok());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() / 86_400);
    let today = i64::try_from(now).unwrap_or(i64::MAX);
    let mut notes = Vec::new();
    match (day(2), day(4)) {
        (Some(0), _) => notes.push(format!("{user} must change the password at the next login; this change counts")),
        (Some(last), Some(max)) if max < 99_999 && last + max < today => {
            notes.push(format!("the password of {user} is older than the host allows ({max} days)"));
        }
        (Some(_), Some(max)) if max < 99_999 => notes.push(format!("the host lets a password live {max} days")),
        _ => {}
    }
    if day(7).is_some_and(|end| end <= today) {
        notes.push(format!("the account {user} itself has expired: no password opens it"));
    }
    notes
}

/// Makes `candidate` the password. Everything before the sending of it is `NotReached` or `Rejected`.
pub(super) async fn apply(visit: &Visit<'_>, candidate: &Credential) -> ApplyOutcome {
    let Some(password) = candidate.field("password") else {
        return ApplyOutcome::Rejected(config("the candidate has no password", ""));
    };
    if password.expose().iter().any(|byte| matches!(byte, b'\n' | b'\r' | 0)) {
        return ApplyOutcome::Rejected(config("a password must be one line", "rotate again"));
    }
    let memory = &visit.call.memory;
    let method = memory.get("method").map_or("", String::as_str);
    let acting = visit.acting();
    if method == "login-change" {
        return change_at_login(visit, &acting, candidate, password).await;
    }
    let scheme = memory.get("scheme").and_then(|name| Scheme::named(name)).unwrap_or(Scheme::Sha512);
    let hashing = async { if method == "chpasswd-e" { shadow::hash_aside(scheme, password).await } else { None } };
    let (hash, entry) = tokio::join!(hashing, visit.enter_unexpired(&acting, visit.call.login_budget));
    let inside = match entry {
        Ok(inside) => inside,
        Err(failure) => return before_sending(visit, candidate, failure).await,
    };
    let Some(rise) = memory.get("rise").and_then(|name| Rise::named(name)) else {
        return ApplyOutcome::NotReached(config("no preflight was made for this secret", "rotate again"));
    };
    let change = Change { visit, acting: &acting, rise, password };
    match (method, hash) {
        ("chpasswd-e", Some(hash)) => change.by_chpasswd(inside, Some(&hash)).await,
        ("chpasswd-e", None) => {
            ApplyOutcome::NotReached(Failure::new(FailureClass::Protocol, "the password cannot be hashed", ""))
        }
        ("chpasswd", _) => change.unless_there(inside, "chpasswd").await,
        ("custom", _) => change.unless_there(inside, "custom").await,
        _ => change.unless_there(inside, "passwd").await,
    }
}

/// Where the acting credential is the account's own, a refused login may mean that the candidate is in force already.
pub(super) async fn before_sending(visit: &Visit<'_>, candidate: &Credential, failure: Failure) -> ApplyOutcome {
    if failure.class == FailureClass::Auth
        && visit.own()
        && visit.log_in(candidate, visit.call.login_budget.saturating_sub(1)).await.is_ok()
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

async fn change_at_login(
    visit: &Visit<'_>,
    acting: &Credential,
    candidate: &Credential,
    password: &Secret,
) -> ApplyOutcome {
    let mut session = match Session::connect(visit.call).await {
        Ok(session) => session,
        Err(failure) => return before_sending(visit, candidate, failure).await,
    };
    let who = acting.expose_text("username").unwrap_or_default();
    match session.change_at_login(acting, password, &|| visit.sending()).await {
        Ok(Changed::Done) => ApplyOutcome::Applied,
        Ok(Changed::Rejected(said)) => ApplyOutcome::Rejected(refused_by_policy(&said)),
        Ok(Changed::Unclear) => ApplyOutcome::Ambiguous(broken("while the host took the new password at login")),
        Ok(Changed::Unchanged(Login::Locked(said))) => ApplyOutcome::NotReached(locked(who, &said)),
        Ok(Changed::Unchanged(Login::Refused)) => {
            let failure = Failure::new(FailureClass::Auth, format!("the host refused the password of {who}"), "");
            before_sending(visit, candidate, failure).await
        }
        Ok(Changed::Unchanged(_)) => ApplyOutcome::NotReached(config(
            format!("the host no longer demands a new password of {who} at login"),
            "rotate again",
        )),
        Err(failure) if visit.has_sent() => ApplyOutcome::Ambiguous(failure),
        Err(failure) => before_sending(visit, candidate, failure).await,
    }
}

/// Reads the account's shadow field on its own channel, if the acting user may.
pub(super) async fn read_field(
    visit: &Visit<'_>,
    acting: &Credential,
    rise: Rise,
    inside: Inside,
) -> Result<(Option<Secret>, Session), Failure> {
    let mut session = inside.session;
    if rise == Rise::Never {
        return Ok((None, session));
    }
    let (script, user) = (one_line(&[PROLOGUE, "field"]), visit.user());
    let heading = heading(visit, acting, rise);
    let lines: Vec<&[u8]> = heading.iter().map(|line| line.as_slice()).collect();
    let ran = session.run(inside.channel, &script, &lines).await?;
    if ran.refused {
        return Err(runs_nothing());
    }
    if ran.status.is_none() {
        return Err(broken("while /etc/shadow was being read"));
    }
    let field = shadow::field(&ran.stdout, user);
    let known = session
        .seen
        .take()
        .filter(|seen| seen.user == user && field.as_ref().is_some_and(|field| field.ct_eq(&seen.field)));
    session.seen = known.or_else(|| field.clone().map(|field| Seen { user: user.to_owned(), field, password: None }));
    Ok((field, session))
}

/// What every script reads first.
pub(super) fn heading(visit: &Visit<'_>, acting: &Credential, rise: Rise) -> [zeroize::Zeroizing<Vec<u8>>; 4] {
    let user = visit.user();
    let password = acting.field("password").filter(|_| rise == Rise::SudoPassword).map_or(&[][..], Secret::expose);
    [user.as_bytes(), user.replace('.', "\\.").as_bytes(), password, rise.as_str().as_bytes()]
        .map(|line| zeroize::Zeroizing::new(line.to_vec()))
}

/// One change on its way.
struct Change<'a> {
    visit: &'a Visit<'a>,
    acting: &'a Credential,
    rise: Rise,
    password: &'a Secret,
}

impl Change<'_> {
    /// Setting the same hash once more would change nothing, so that nothing is asked before.
    async fn by_chpasswd(&self, inside: Inside, hash: Option<&Secret>) -> ApplyOutcome {
        let (mut session, user) = (inside.session, self.visit.user());
        let expected = session.seen.take().filter(|seen| seen.user == user);
        let heading = heading(self.visit, self.acting, self.rise);
        let mut lines: Vec<&[u8]> = heading.iter().map(|line| line.as_slice()).collect();
        lines.push(expected.as_ref().map_or(&[][..], |seen| seen.field.expose()));
        lines.push(if hash.is_some() { b"-e" } else { b"" });
        lines.push(hash.unwrap_or(self.password).expose());
        self.visit.sending();
        let ran = match session.run(inside.channel, &one_line(&[PROLOGUE, CHANGE]), &lines).await {
            Ok(ran) => ran,
            Err(failure) => return ApplyOutcome::Ambiguous(failure),
        };
        let outcome = judge(&ran, user, self.password);
        if outcome != ApplyOutcome::Applied {
            return outcome;
        }
        if let Some(after) = ran.answer("after").map(Secret::from) {
            if hash.is_some_and(|hash| !hash.ct_eq(&after)) {
                return ApplyOutcome::Ambiguous(Failure::new(
                    FailureClass::Protocol,
                    format!("somebody else changed the password of {user} at the same moment"),
                    "find out who else changes it",
                ));
            }
            let password = hash.map(|_| self.password.clone());
            session.seen = Some(Seen { user: user.to_owned(), field: after, password });
        }
        self.visit.leave(self.acting, session);
        outcome
    }

    /// A host that keeps a history refuses the password it has: there the question comes first.
    async fn unless_there(&self, inside: Inside, method: &str) -> ApplyOutcome {
        let Inside { mut session, channel } = inside;
        let seen = session.seen.as_ref().filter(|seen| seen.user == self.visit.user()).map(|seen| seen.field.clone());
        let field = match seen {
            Some(field) => Some(field),
            None if self.rise == Rise::Never => None,
            None => match session.open().await {
                Ok(second) => {
                    let inside = Inside { session, channel: second };
                    match read_field(self.visit, self.acting, self.rise, inside).await {
                        Ok((field, back)) => {
                            session = back;
                            field
                        }
                        Err(failure) => return ApplyOutcome::NotReached(failure),
                    }
                }
                // A server of one channel per connection: the change itself goes first.
                Err(_) => None,
            },
        };
        if let Some(field) = field
            && shadow::verdict_aside(&field, self.password).await == Verdict::Holds
        {
            return ApplyOutcome::Applied;
        }
        let inside = Inside { session, channel };
        match method {
            "chpasswd" => self.by_chpasswd(inside, None).await,
            "custom" => custom::apply(self.visit, self.acting, self.password, inside).await,
            _ => self.by_passwd(inside).await,
        }
    }

    async fn by_passwd(&self, inside: Inside) -> ApplyOutcome {
        let user = self.visit.user();
        let old = self.acting.field("password").cloned().unwrap_or_else(|| Secret::from(""));
        let (new, again) = ((NEW, self.password), (AGAIN, self.password));
        let (command, dialogue) = match self.rise {
            Rise::Root => (passwd(user), vec![new, again]),
            Rise::Sudo => (format!("exec env LC_ALL=C sudo -n passwd {user}"), vec![new, again]),
            Rise::SudoPassword => {
                let sudo: &[&str] = &["sudo password"];
                (
                    format!("exec env LC_ALL=C sudo -k -p 'sudo password: ' passwd {user}"),
                    vec![(sudo, &old), new, again],
                )
            }
            Rise::Never => {
                let present: &[&str] = &["password"];
                (passwd(""), vec![(present, &old), new, again])
            }
        };
        self.visit.sending();
        let ran = inside.session.converse(inside.channel, &command, &dialogue).await;
        match ran {
            Ok(ran) => judge(&ran, user, self.password),
            Err(failure) => ApplyOutcome::Ambiguous(failure),
        }
    }
}

/// The command, under any login shell. By its path, because a busybox shell would run `passwd` within itself, without the
/// rights of the file.
fn passwd(user: &str) -> String {
    let run = |program: &str| format!("exec env LC_ALL=C {program} {user}");
    format!("test -x /usr/bin/passwd && {} || {}", run("/usr/bin/passwd"), run("passwd"))
}

/// What the prompt for the new password says.
const NEW: &[&str] = &["new password"];
/// What the prompt for its repetition says; the same prompt as before means that the first answer was not accepted.
const AGAIN: &[&str] = &["retype", "re-enter", "reenter", "repeat", "again", "confirm", "verify"];

fn refused_by_policy(said: &str) -> Failure {
    let message = match said {
        "" => "the host's password policy refuses the new password".to_owned(),
        said => format!("the host's password policy refuses the new password: {said}"),
    };
    Failure::new(FailureClass::Policy, message, "make password-length longer or allow more classes of characters")
}

fn judge(ran: &Ran, user: &str, password: &Secret) -> ApplyOutcome {
    if ran.refused {
        return ApplyOutcome::Rejected(runs_nothing());
    }
    match ran.status {
        Some(0) => ApplyOutcome::Applied,
        None => ApplyOutcome::Ambiguous(broken("while the password was being changed")),
        Some(MOVED) => ApplyOutcome::NotReached(Failure::new(
            FailureClass::Protocol,
            format!("somebody else changed the password of {user} between preflight and the change"),
            "find out who else changes it; the rotation tries again",
        )),
        Some(LOCKED) => ApplyOutcome::Rejected(locked_by_hand(user)),
        Some(status) => match refusal(&ran.stderr, user, password) {
            Some(failure) => ApplyOutcome::Rejected(failure),
            None => ApplyOutcome::Ambiguous(Failure::new(
                FailureClass::Protocol,
                format!("the host answered the change with exit status {status}"),
                "",
            )),
        },
    }
}

/// What the host said when it definitely changed nothing.
fn refusal(stderr: &str, user: &str, password: &Secret) -> Option<Failure> {
    let said = stderr.to_lowercase();
    let any = |words: &[&str]| words.iter().any(|word| said.contains(word));
    if any(REFUSALS) {
        return Some(refused_by_policy(&sentence(stderr, REFUSALS, password)));
    }
    if any(&["incorrect password", "authentication failure"]) {
        return Some(Failure::new(
            FailureClass::Auth,
            format!("the host refused the present password of {user}"),
            "run `volvelle rotated-secret verify`",
        ));
    }
    if any(&["sudo", "permission", "not allowed"]) {
        return Some(Failure::new(
            FailureClass::Privilege,
            format!("the acting user may not change the password of {user}"),
            "allow `chpasswd` in sudoers, or act as root",
        ));
    }
    let unchanged = &["unchanged", "not changed"];
    any(unchanged).then(|| {
        config(format!("the host made no change: {}", sentence(stderr, unchanged, password)), "look at the host's log")
    })
}
