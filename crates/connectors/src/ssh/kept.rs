//! Sessions kept for a few seconds, so that preflight, apply and the reading of one rotation share one handshake.
//!
//! What must stay true: a session serves only the address, host key, user and credential it was opened with; it is used by
//! one call at a time, never after [`IDLE`], and is closed by everything that went wrong. A login that is to be evidence is
//! always a new one.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use volvelle_domain::connector::Call;
use volvelle_domain::{Credential, Secret};

use super::session::{Address, Session};

/// How long an unused session is kept.
const IDLE: Duration = Duration::from_secs(10);
/// Most sessions kept.
const MOST: usize = 64;

struct Idle {
    key: [u8; 32],
    since: Instant,
    session: Session,
}

/// The sessions that wait for the next stage of their rotation.
pub(super) struct Kept {
    /// Makes the digests of credentials worthless outside this process.
    salt: [u8; 32],
    idle: Mutex<Vec<Idle>>,
    sweeping: AtomicBool,
}

impl Default for Kept {
    fn default() -> Self {
        let mut salt = [0; 32];
        getrandom::fill(&mut salt).expect("the system has randomness");
        Self { salt, idle: Mutex::new(Vec::new()), sweeping: AtomicBool::new(false) }
    }
}

impl Kept {
    fn key(&self, call: &Call<'_>, credential: &Credential) -> Option<[u8; 32]> {
        let mut digest = Sha256::new_with_prefix(self.salt);
        let mut add = |part: &[u8]| {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        };
        add(Address::of(call.target).ok()?.shown().as_bytes());
        for name in credential.names() {
            add(name.as_bytes());
            add(credential.field(name).map_or(&[][..], Secret::expose));
        }
        Some(digest.finalize().into())
    }

    /// A session of this credential on the call's target, if one waits and its host key is still pinned.
    pub(super) fn take(&self, call: &Call<'_>, credential: &Credential) -> Option<Session> {
        let key = self.key(call, credential)?;
        let user = call.current.expose_text("username").unwrap_or_default();
        let mut idle = self.lock();
        let fits = |i: &Idle| i.key == key && call.pinned.iter().any(|p| p.public_key == i.session.host_key);
        let same_account = |i: &Idle| i.session.seen.as_ref().is_some_and(|seen| seen.user == user);
        let at = idle.iter().position(|i| fits(i) && same_account(i)).or_else(|| idle.iter().position(fits))?;
        Some(idle.swap_remove(at).session)
    }

    /// Keeps a session that has done its work well.
    pub(super) fn keep(self: &Arc<Self>, call: &Call<'_>, credential: &Credential, session: Session) {
        let Some(key) = self.key(call, credential) else { return };
        let mut idle = self.lock();
        if idle.len() >= MOST
            && let Some(oldest) = idle.iter().enumerate().min_by_key(|(_, i)| i.since).map(|(at, _)| at)
        {
            idle.swap_remove(oldest);
        }
        idle.push(Idle { key, since: Instant::now(), session });
        drop(idle);
        if !self.sweeping.swap(true, Ordering::AcqRel) {
            tokio::spawn(sweep(Arc::downgrade(self)));
        }
    }

    /// The sessions still alive, without those that are too old.
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Idle>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|i| i.since.elapsed() < IDLE && !i.session.handle.is_closed());
        idle
    }
}

/// Closes old sessions until there are none.
async fn sweep(kept: Weak<Kept>) {
    loop {
        tokio::time::sleep(IDLE / 4).await;
        let Some(kept) = kept.upgrade() else { return };
        let idle = kept.lock();
        if idle.is_empty() {
            kept.sweeping.store(false, Ordering::Release);
            return;
        }
    }
}
