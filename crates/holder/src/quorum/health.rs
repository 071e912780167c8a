//! How the holders are: questions from the outside, and upkeep in the background.
//!
//! A probe asks a holder to evaluate an input that no record has, and to prove it. Only gateways of the roster may ask. The answer
//! shows that the holder has its fragment of the key as the key was made - one that lost it, or was put back from an old copy, is
//! named before a user meets it - and reveals nothing of any record: its input is fresh, and its purpose is one that records
//! never have. What must stay true: the background work ends with the quorum.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use volvelle_fragments::place::PROBE;
use volvelle_fragments::record::fresh_salt;
use volvelle_fragments::{Input, Place};

use super::ask::{Wrong, read};
use super::{HolderStatus, Inner, KeyName, PATIENCE, Peer, Quorum};
use crate::eval::{Operation, Proving};
use crate::lock;
use crate::state::now;
use crate::wire::{Kind, Request, Response};

/// The background work's beat.
const BEAT: Duration = Duration::from_secs(5);
/// Every so many beats each holder is probed: once a minute.
const BEATS_PER_PROBE: u64 = 12;
/// Every so many beats it is looked whether a refresh is due.
const BEATS_PER_HOUR: u64 = 720;
/// Beats after a refresh that broke off, before another one is tried: a day.
const BEATS_AFTER_BREAKING: u64 = 24 * BEATS_PER_HOUR;
/// First and longest pause between probes of a holder that failed.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

impl Quorum {
    /// How the holders are, by asking each: who it is, which epoch it has of the key that was used last (or of the first one there
    /// is), and to evaluate with it and prove it.
    pub async fn status(&self) -> Vec<HolderStatus> {
        let used = *lock(&self.0.last_used);
        let mut key = match used {
            Some(key) => Some(key),
            None => self.first_key().await,
        };
        let mut statuses = join_all(self.0.peers.iter().map(|peer| self.examine(peer, key))).await;
        if used.is_some() && statuses.iter().all(|status| matches!(status.state, "lost" | "down")) {
            // Perhaps it was retired and destroyed since; whatever there is now will do.
            *lock(&self.0.last_used) = None;
            if let Some(first) = self.first_key().await.filter(|first| Some(*first) != used) {
                key = Some(first);
                statuses = join_all(self.0.peers.iter().map(|peer| self.examine(peer, key))).await;
            }
        }
        let newest = statuses.iter().filter_map(|status| status.epoch).max();
        for (status, peer) in statuses.iter_mut().zip(&self.0.peers) {
            if status.state == "up" && status.epoch < newest && newest.is_some() {
                self.is_behind(status, peer, key).await;
            }
        }
        statuses
    }

    /// Whether a holder that told an older epoch cannot answer in the newest one; one that only lacks the certificate can.
    async fn is_behind(&self, status: &mut HolderStatus, peer: &Peer, key: Option<KeyName>) {
        let Some(key) = key else { return };
        if let Err(why) = self.probe(peer, key).await {
            status.state = if peer.stale.load(Ordering::Relaxed) { "stale" } else { "down" };
            status.detail = Some(why);
        }
    }

    async fn examine(&self, peer: &Arc<Peer>, key: Option<KeyName>) -> HolderStatus {
        let mut status = HolderStatus::unknown(peer.index);
        let begun = Instant::now();
        let outcome = match peer.link.ask(&Request::Health {}, PATIENCE).await {
            Ok(Response::Health { index, software, suites, clock, backup, tombstones }) if index == peer.index => {
                status.round_trip = Some(begun.elapsed());
                status.clock_skew = Some(now().abs_diff(clock));
                status.backup_at = backup;
                status.tombstones = Some(tombstones);
                (status.software, status.suites) = (Some(software), suites);
                match key {
                    Some(key) => self.examine_key(peer, key, &mut status).await,
                    None => Ok(()),
                }
            }
            Ok(_) => Err("it is not the holder of this index".to_owned()),
            Err(failure) => Err(failure.to_string()),
        };
        match outcome {
            Ok(()) => {
                peer.down.store(false, Ordering::Relaxed);
                status.state = "up";
            }
            Err(why) => status.detail = Some(why),
        }
        if peer.is_quarantined() {
            status.state = "quarantined";
            status.detail = Some("it answered wrongly of late".to_owned());
        }
        status
    }

    /// Which epoch a holder has of a key, and whether it can evaluate in it.
    async fn examine_key(&self, peer: &Peer, key: KeyName, status: &mut HolderStatus) -> Result<(), String> {
        let (realm, key_id) = (hex::encode(key.0), key.1);
        let answer = peer.link.ask(&Request::Epochs { realm, key_id }, PATIENCE).await;
        let Response::Epochs { held, since, .. } = answer.map_err(|failure| failure.to_string())? else {
            return Err("an answer to another question".to_owned());
        };
        status.epoch = held.iter().filter(|held| held.certified).map(|held| held.epoch).max();
        status.epochs_held = held.iter().map(|held| held.epoch).collect();
        status.refreshed_at = Some(since).filter(|since| *since > 0);
        if status.epoch.is_none() {
            status.state = "lost";
            return Err("it has no fragment of this key and needs repair".to_owned());
        }
        let probed = self.probe(peer, key).await;
        if probed.is_err() && peer.stale.load(Ordering::Relaxed) {
            status.state = "stale";
        }
        probed
    }

    /// Whether a holder can evaluate with its fragment of this key. One that answers wrongly is left out from now on.
    pub(super) async fn probe(&self, peer: &Peer, key: KeyName) -> Result<(), String> {
        let mut view = self.view(key).await.map_err(|error| error.to_string())?;
        for _ in 0..2 {
            let place =
                Place { realm: key.0, key_id: key.1, purpose: PROBE, item: [0; 16], version: 0, path: String::new() };
            let salt = fresh_salt().map_err(|error| error.to_string())?;
            let x = Input { suite: view.suite(), place, salt }.encode().map_err(|error| error.to_string())?;
            let message = self.message(Operation::Probe, (key, view.epoch), &[&x], Proving::Proved);
            let body = message.map_err(|error| error.to_string())?;
            let frame = peer.link.call(Kind::Eval, body, PATIENCE).await.map_err(|failure| failure.to_string())?;
            if frame.kind == Kind::Stale {
                match self.newer(key, &view, &frame.body) {
                    Some(newer) => view = newer,
                    None => {
                        peer.falls_behind();
                        return Err("it has an older fragment only and needs repair".to_owned());
                    }
                }
                continue;
            }
            return match read(peer.index, &frame, &[&x], (&view, Proving::Proved)) {
                Ok(_) => {
                    peer.stale.store(false, Ordering::Relaxed);
                    Ok(())
                }
                Err(Wrong::Says(why)) => Err(why),
                Err(Wrong::Refuses(why)) => Err(why.to_string()),
                Err(Wrong::Lied) => {
                    if !peer.is_quarantined() {
                        peer.quarantine();
                    }
                    Err("it answered wrongly".to_owned())
                }
            };
        }
        Err("the key is being refreshed".to_owned())
    }

    /// Notes that a holder failed: others are asked first, and it is asked in the background until it answers.
    pub(super) fn fails(&self, peer: &Arc<Peer>) {
        if !peer.down.swap(true, Ordering::Relaxed) {
            tracing::warn!(holder = peer.index, "a fragment holder does not answer; others are asked first");
            tokio::spawn(until_it_answers(Arc::downgrade(peer)));
        }
    }

    /// Starts the background work if it does not run: at the first question, or after its runtime ended.
    pub(super) fn keep_up(&self) {
        let mut upkeep = lock(&self.0.upkeep);
        if upkeep.as_ref().is_none_or(tokio::task::JoinHandle::is_finished) {
            *upkeep = Some(tokio::spawn(keep_up(Arc::downgrade(&self.0))));
        }
    }
}

async fn until_it_answers(peer: Weak<Peer>) {
    let mut pause = PAUSES.0;
    loop {
        tokio::time::sleep(pause).await;
        pause = PAUSES.1.min(pause * 2);
        let Some(peer) = peer.upgrade() else { return };
        if !peer.down.load(Ordering::Relaxed) {
            return;
        }
        if peer.link.ask(&Request::Health {}, PATIENCE).await.is_ok() {
            tracing::info!(holder = peer.index, "a fragment holder answers again");
            peer.down.store(false, Ordering::Relaxed);
            return;
        }
    }
}

/// Wipes cached keys whose time is over, probes each holder once a minute, and refreshes fragments when it is time.
async fn keep_up(inner: Weak<Inner>) {
    let (mut beat, mut rest_until) = (0_u64, 0);
    loop {
        tokio::time::sleep(BEAT).await;
        let Some(quorum) = inner.upgrade().map(Quorum) else { return };
        quorum.0.cache.sweep();
        beat += 1;
        if beat.is_multiple_of(BEATS_PER_HOUR) && beat >= rest_until && !quorum.refresh_in_time().await {
            rest_until = beat + BEATS_AFTER_BREAKING;
        }
        if !beat.is_multiple_of(BEATS_PER_PROBE) {
            continue;
        }
        for status in quorum.status().await {
            if status.state != "up" {
                tracing::warn!(holder = status.index, state = status.state, detail = status.detail, "a probe failed");
            }
        }
    }
}
