//! The suite that every connector passes, whatever it speaks: what it answers is what really happened, at every place at which a
//! conversation can break.
//!
//! A kind brings a [`Subject`]: one account on a real peer, and the truth about it asked past the connector. Cases that the peer
//! cannot play (no policy, no identity) answer `false` in the subject and are counted as left out, never as passed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use volvelle_domain::connector::{Connector, INTENT, IssueOutcome};

use super::proxy::{Break, Mode, Proxy};
use super::*;

/// Most pieces of one change.
const MOST_PIECES: i64 = 60;
/// After this a broken conversation has no effect on the peer any more.
const QUIET: Duration = Duration::from_millis(900);

/// One account on a real peer.
#[async_trait]
pub trait Subject: Send + Sync {
    /// The connector under test.
    fn connector(&self) -> Arc<dyn Connector>;
    /// What the engine would hold.
    fn case(&self) -> &Case;
    /// The same, to be changed.
    fn case_mut(&mut self) -> &mut Case;
    /// Where the real peer listens.
    fn peer(&self) -> SocketAddr;
    /// Whether the conversation is made of datagrams.
    fn sends_datagrams(&self) -> bool {
        false
    }
    /// Makes the case reach its peer at this address; it remains the pinned one.
    fn reach(&mut self, address: SocketAddr);
    /// The truth, asked past the connector and without a login that may fail.
    async fn opens(&mut self, credential: &Credential) -> bool;
    /// Makes the acting credential a wrong one.
    fn spoil(&mut self);
    /// Makes the acting credential one that works and lacks the right; `false` if there is none.
    async fn demote(&mut self) -> bool {
        false
    }
    /// A credential that the target's policy refuses, if it has a policy.
    fn weak(&self) -> Option<Credential> {
        None
    }
    /// Whether this way to the peer has an identity, where the kind has one.
    fn has_identity(&self) -> bool {
        true
    }
    /// Puts another machine at the peer's address; `false` if the kind has no identity.
    async fn swap(&mut self) -> bool {
        false
    }
    /// Keeps the peer's state; `false` if it cannot.
    async fn save(&mut self) -> bool {
        false
    }
    /// Puts the kept state back.
    async fn restore(&mut self) {}
    /// Credentials on the target beside the current one and those that were there at the beginning (targets that issue).
    async fn beside(&mut self) -> usize {
        0
    }
    /// Failed logins that the peer counted, if it counts.
    async fn failures(&mut self) -> Option<usize> {
        None
    }
}

/// Runs every case, each on a fresh subject, and tells how many were played.
pub async fn passes<S: Subject>(label: &str, fresh: impl AsyncFn() -> S) {
    let (mut played, mut left_out) = (0, Vec::new());
    for name in CASES {
        let mut subject = fresh().await;
        let began = Instant::now();
        if play(name, &mut subject).await {
            played += 1;
        } else {
            left_out.push(*name);
        }
        assert!(began.elapsed() < Duration::from_secs(600), "{label}: {name} took too long");
    }
    let text = format!("conformance {label}: {played} of {} cases, left out: {left_out:?}\n", CASES.len());
    let _ = std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes());
}

const CASES: &[&str] =
    &["straight", "breaks", "down", "silent", "slow", "wrong", "powerless", "weak", "swapped", "restored", "unspent"];

async fn play(name: &str, subject: &mut dyn Subject) -> bool {
    match name {
        "straight" => straight(subject).await,
        "breaks" => breaks(subject).await,
        "down" => down(subject).await,
        "silent" => silent(subject).await,
        "slow" => slow(subject).await,
        "wrong" => wrong(subject).await,
        "powerless" => powerless(subject).await,
        "weak" => weak(subject).await,
        "swapped" => swapped(subject).await,
        "restored" => restored(subject).await,
        "unspent" => unspent(subject).await,
        other => panic!("no case {other}"),
    }
}

/// What the engine does first; tells whether the peer can be read, so that asking costs no login.
async fn preflight(subject: &mut dyn Subject) -> bool {
    let connector = subject.connector();
    let done = connector.preflight(&subject.case().call(), &PasswordPolicy::default()).await.expect("preflight");
    subject.case_mut().memory = done.memory;
    done.witness_read
}

fn issues(subject: &dyn Subject) -> bool {
    subject.connector().issues(subject.case().rotator_type)
}

/// Whether nobody can be asked what opens.
fn blind(subject: &dyn Subject) -> bool {
    subject.connector().declaration().capabilities.blind.contains(&subject.case().rotator_type)
}

/// A candidate, or the intent of one where the target issues.
async fn draft(subject: &dyn Subject) -> Credential {
    let (call, connector) = (subject.case().call(), subject.connector());
    if issues(subject) {
        return connector.intend(&call).await.expect("intends").with(INTENT, "yes".into());
    }
    connector.generate(&call, &PasswordPolicy::default(), &Os).expect("generates")
}

/// Applies a draft; what was issued takes its place.
async fn apply(subject: &dyn Subject, draft: &mut Credential) -> ApplyOutcome {
    let (call, connector) = (subject.case().call(), subject.connector());
    if !issues(subject) {
        return connector.apply(&call, draft).await;
    }
    match connector.issue(&call, draft).await {
        IssueOutcome::Issued(issued) => {
            *draft = issued;
            ApplyOutcome::Applied
        }
        IssueOutcome::Rejected(failure) => ApplyOutcome::Rejected(failure),
        IssueOutcome::NotReached(failure) => ApplyOutcome::NotReached(failure),
        IssueOutcome::Ambiguous(failure) => ApplyOutcome::Ambiguous(failure),
    }
}

/// Where the target issues: a new credential takes the former one's place, and what an attempt left behind is cleared away.
async fn clear(subject: &mut dyn Subject, draft: &Credential, when: &str) {
    if !issues(subject) {
        return;
    }
    let superseded = if draft.is_intent() {
        draft.clone()
    } else {
        std::mem::replace(&mut subject.case_mut().current, draft.clone())
    };
    for _ in 0..2 {
        subject.connector().revoke(&subject.case().call(), &superseded).await.expect("once and again");
    }
    let current = subject.case().current.clone();
    assert!(subject.opens(&current).await, "{when}: the current credential was taken off");
    assert_eq!(subject.beside().await, 0, "{when}: something was left behind");
    assert!(draft.is_intent() || !subject.opens(&superseded).await, "{when}: the former one opens");
}

/// Asks about the candidate and the current value, in this order.
async fn asked(subject: &dyn Subject, candidate: &Credential) -> Vec<ProbeOutcome> {
    let case = subject.case();
    if candidate.is_intent() {
        let mut outcomes = subject.connector().probe(&case.call(), &[&case.current]).await.outcomes;
        outcomes.insert(0, ProbeOutcome::Refused(Evidence::WitnessRead));
        return outcomes;
    }
    subject.connector().probe(&case.call(), &[candidate, &case.current]).await.outcomes
}

/// Puts a proxy between.
async fn between(subject: &mut dyn Subject) -> Proxy {
    let proxy = if subject.sends_datagrams() {
        Proxy::start_for_datagrams(subject.peer()).await
    } else {
        Proxy::start(subject.peer()).await
    };
    subject.reach(proxy.address);
    proxy
}

/// The target answers, and says exactly what is true of both.
async fn tells_the_truth(subject: &mut dyn Subject, candidate: &Credential, when: &str) -> bool {
    let current = subject.case().current.clone();
    let (new, old) = (subject.opens(candidate).await, subject.opens(&current).await);
    let outcomes = asked(subject, candidate).await;
    if blind(subject) {
        for (truth, outcome) in [new, old].into_iter().zip(&outcomes) {
            let sound =
                matches!(outcome, ProbeOutcome::Unknown(_)) || (!truth && matches!(outcome, ProbeOutcome::Refused(_)));
            assert!(sound, "{when}: nobody can be asked, yet the probe says {outcomes:?}");
        }
        return new;
    }
    for (truth, outcome) in [new, old].into_iter().zip(&outcomes) {
        let said = match outcome {
            ProbeOutcome::Opens(_) => true,
            ProbeOutcome::Refused(_) => false,
            // Another one opens, and asking for this one would cost a failed login.
            ProbeOutcome::Unknown(failure) if failure.class == FailureClass::LoginBudget => false,
            ProbeOutcome::Unknown(failure) => panic!("{when}: a peer that answers leaves nothing unknown: {failure:?}"),
        };
        assert_eq!(said, truth, "{when}: the probe says {outcomes:?}, but new opens: {new}, old opens: {old}");
    }
    new
}

/// A definite answer is a true one.
async fn sound(subject: &mut dyn Subject, candidate: &Credential, outcome: &ApplyOutcome, when: &str) {
    let current = subject.case().current.clone();
    match outcome {
        ApplyOutcome::Applied => assert!(subject.opens(candidate).await, "{when}: applied, but it does not open"),
        ApplyOutcome::Rejected(failure) | ApplyOutcome::NotReached(failure) => {
            assert!(!subject.opens(candidate).await, "{when}: {failure:?}, but the target changed");
            assert!(subject.opens(&current).await, "{when}: {failure:?}, but the former value is gone");
            assert_eq!(subject.beside().await, 0, "{when}: {failure:?}, but something was issued");
        }
        ApplyOutcome::Ambiguous(_) => {}
    }
}

async fn straight(subject: &mut dyn Subject) -> bool {
    let reads = preflight(subject).await;
    let mut candidate = draft(subject).await;
    let before = subject.failures().await;
    assert_eq!(apply(subject, &mut candidate).await, ApplyOutcome::Applied);
    assert!(tells_the_truth(subject, &candidate, "straight").await, "the candidate opens the account");
    if issues(subject) {
        clear(subject, &candidate, "straight").await;
    } else {
        assert_eq!(apply(subject, &mut candidate).await, ApplyOutcome::Applied, "once more changes nothing");
        assert!(tells_the_truth(subject, &candidate, "again").await);
    }
    if reads {
        assert_eq!(subject.failures().await, before, "reading costs no failed login");
    }
    true
}

/// At every piece that we send, it breaks once before and once after the peer got it.
async fn breaks(subject: &mut dyn Subject) -> bool {
    let proxy = between(subject).await;
    for number in 0..MOST_PIECES {
        let mut reached = true;
        for place in [Break::Before(number), Break::After(number)] {
            let when = format!("{place:?}");
            proxy.set(Mode::Pass);
            preflight(subject).await;
            let mut candidate = draft(subject).await;
            proxy.break_at(place);
            let outcome = apply(subject, &mut candidate).await;
            reached = proxy.broke();
            if reached {
                tokio::time::sleep(QUIET).await;
            }
            proxy.set(Mode::Pass);
            sound(subject, &candidate, &outcome, &when).await;
            assert!(reached || outcome == ApplyOutcome::Applied, "{when}: nothing broke, yet {outcome:?}");
            if tells_the_truth(subject, &candidate, &when).await && !issues(subject) {
                subject.case_mut().current = candidate.clone();
            }
            clear(subject, &candidate, &when).await;
        }
        if !reached {
            assert!(number > 0, "a change sends something");
            return true;
        }
    }
    panic!("a change takes more than {MOST_PIECES} pieces");
}

async fn down(subject: &mut dyn Subject) -> bool {
    let proxy = between(subject).await;
    preflight(subject).await;
    let (mut candidate, connector) = (draft(subject).await, subject.connector());
    proxy.set(Mode::Cut);
    let outcome = apply(subject, &mut candidate).await;
    assert!(!matches!(outcome, ApplyOutcome::Applied | ApplyOutcome::Rejected(_)), "{outcome:?}");
    sound(subject, &candidate, &outcome, "down").await;
    let failure = connector.preflight(&subject.case().call(), &PasswordPolicy::default()).await.expect_err("down");
    assert!(matches!(failure.class, FailureClass::Unreachable | FailureClass::Timeout), "{failure:?}");
    let case = subject.case();
    let report = connector.probe(&case.call(), &[&case.current]).await;
    assert!(report.outcomes.iter().all(|o| matches!(o, ProbeOutcome::Unknown(_))), "{report:?}");
    assert_eq!(report.failed_logins, 0, "nobody counted a login");
    proxy.set(Mode::Pass);
    assert_eq!(apply(subject, &mut candidate).await, ApplyOutcome::Applied, "the same candidate, later");
    true
}

async fn silent(subject: &mut dyn Subject) -> bool {
    let proxy = between(subject).await;
    preflight(subject).await;
    let mut candidate = draft(subject).await;
    proxy.set(Mode::Hole);
    let (connector, began) = (subject.connector(), Instant::now());
    subject.case_mut().timeout = Duration::from_secs(4);
    let outcome = apply(subject, &mut candidate).await;
    // Four seconds, several times over for a machine that is busy.
    assert!(began.elapsed() < Duration::from_secs(30), "the time allowed is kept");
    assert!(!matches!(outcome, ApplyOutcome::Applied | ApplyOutcome::Rejected(_)), "{outcome:?}");
    let failure = connector.preflight(&subject.case().call(), &PasswordPolicy::default()).await.expect_err("silence");
    assert_eq!(failure.class, FailureClass::Timeout, "{failure:?}");
    sound(subject, &candidate, &outcome, "silent").await;
    true
}

async fn slow(subject: &mut dyn Subject) -> bool {
    let proxy = between(subject).await;
    proxy.set(Mode::Slow);
    preflight(subject).await;
    let mut candidate = draft(subject).await;
    assert_eq!(apply(subject, &mut candidate).await, ApplyOutcome::Applied);
    assert!(tells_the_truth(subject, &candidate, "slow").await);
    true
}

/// A wrong acting credential is told, changes nothing, and is no answer about the account.
async fn wrong(subject: &mut dyn Subject) -> bool {
    preflight(subject).await;
    let (mut candidate, right) = (draft(subject).await, subject.case().current.clone());
    subject.spoil();
    let connector = subject.connector();
    let failure = connector.preflight(&subject.case().call(), &PasswordPolicy::default()).await.expect_err("wrong");
    assert_eq!(failure.class, FailureClass::Auth, "{failure:?}");
    let outcome = apply(subject, &mut candidate).await;
    assert_ne!(outcome, ApplyOutcome::Applied);
    assert!(!subject.opens(&candidate).await && subject.opens(&right).await, "{outcome:?}, but the target changed");
    let report = connector.probe(&subject.case().call(), &[&right]).await;
    assert!(!matches!(report.outcomes[0], ProbeOutcome::Refused(_)), "the right value was refused: {report:?}");
    true
}

async fn powerless(subject: &mut dyn Subject) -> bool {
    if !subject.demote().await {
        return false;
    }
    let connector = subject.connector();
    let failure = connector.preflight(&subject.case().call(), &PasswordPolicy::default()).await.expect_err("no right");
    assert_eq!(failure.class, FailureClass::Privilege, "{failure:?}");
    true
}

async fn weak(subject: &mut dyn Subject) -> bool {
    let Some(mut weak) = subject.weak() else { return false };
    preflight(subject).await;
    let outcome = apply(subject, &mut weak).await;
    assert!(matches!(&outcome, ApplyOutcome::Rejected(f) if f.class == FailureClass::Policy), "{outcome:?}");
    sound(subject, &weak, &outcome, "weak").await;
    true
}

async fn swapped(subject: &mut dyn Subject) -> bool {
    if !subject.connector().declaration().capabilities.pinned_identity || !subject.has_identity() {
        return false;
    }
    preflight(subject).await;
    let mut candidate = draft(subject).await;
    assert!(subject.swap().await, "a kind that pins its peer is tested with another peer");
    let connector = subject.connector();
    let failure = connector.preflight(&subject.case().call(), &PasswordPolicy::default()).await.expect_err("another");
    assert_eq!(failure.class, FailureClass::PeerIdentity, "{failure:?}");
    let outcome = apply(subject, &mut candidate).await;
    assert!(!matches!(outcome, ApplyOutcome::Applied | ApplyOutcome::Ambiguous(_)), "{outcome:?}");
    assert_eq!(subject.failures().await.unwrap_or(0), 0, "no password went to another machine");
    true
}

/// A peer put back to an older state is seen as it is.
async fn restored(subject: &mut dyn Subject) -> bool {
    if !subject.save().await {
        return false;
    }
    preflight(subject).await;
    let mut candidate = draft(subject).await;
    assert_eq!(apply(subject, &mut candidate).await, ApplyOutcome::Applied);
    subject.restore().await;
    assert!(!tells_the_truth(subject, &candidate, "restored").await, "the older value is back");
    true
}

/// Without budget no login fails.
async fn unspent(subject: &mut dyn Subject) -> bool {
    preflight(subject).await;
    let Some(before) = subject.failures().await else { return false };
    let (wrong, connector) = (draft(subject).await, subject.connector());
    let none = Call { login_budget: 0, ..subject.case().call() };
    let report = connector.probe(&none, &[&wrong]).await;
    assert_eq!(report.failed_logins, 0, "{report:?}");
    assert_eq!(subject.failures().await, Some(before), "{report:?}");
    true
}
