//! After an older backup of the database was put back: nothing stored is believed before the targets were asked.

use volvelle_domain::account::Account;
use volvelle_domain::connector::ProbeOutcome;
use volvelle_domain::item::{Item, RotatorStatus};
use volvelle_store::{accounts, audit, items};

use crate::engine::Engine;
use crate::{EngineError, books, work};

/// Items looked at in one transaction.
const PAGE: u32 = 500;
/// The kind of work this is.
const WORK: &str = "restore";
/// What is shown while nobody has asked the target.
const RESTORED: &str = "the database was restored from an older backup; the target is being asked which value it has";

impl Engine {
    /// Takes away the mark "verified" from every rotated secret, and tells so in the audit log.
    ///
    /// # Errors
    /// The store failed; what was done stays done, and doing it again is harmless.
    pub async fn doubt_everything(&self) -> Result<u64, EngineError> {
        let mut doubted = 0;
        for (account, item) in self.rotated().await? {
            let now = self.now();
            let mut tx = self.parts().store.begin().await?;
            let mut item = items::lock(&mut tx, &account.id, item.id).await?;
            if let Some(rotator) = item.rotator.as_mut() {
                rotator.last_verified_at = None;
                rotator.status = RotatorStatus::RotationInDoubt;
                RESTORED.clone_into(&mut rotator.last_error);
                items::update(&mut tx, &item).await?;
                audit::append(&mut tx, &account.id, &[entry(&item, "failed", RESTORED, now)]).await?;
                doubted += 1;
            }
            tx.commit().await?;
        }
        Ok(doubted)
    }

    /// Asks the targets of all secrets in doubt whether the current value is valid, and writes down what they say. Changes
    /// nothing on a target.
    ///
    /// # Errors
    /// The store failed.
    pub async fn ask_everything(&self) -> Result<(), EngineError> {
        for (account, item) in self.rotated().await? {
            let in_doubt = item.rotator.as_ref().is_some_and(|r| r.status == RotatorStatus::RotationInDoubt);
            if !in_doubt {
                continue;
            }
            let work = work::of(WORK, &item.account, item.id.0);
            let outcomes = match work.scope(self.verify(&account, &item)).await {
                Ok(reports) => reports.into_iter().map(|report| report.outcome).collect(),
                Err(error) => {
                    tracing::warn!(%error, item = %item.name, "a secret cannot be verified after the restore");
                    Vec::new()
                }
            };
            self.write_verdict(&account, &item, &outcomes).await?;
        }
        Ok(())
    }

    async fn write_verdict(
        &self,
        account: &Account,
        item: &Item,
        outcomes: &[ProbeOutcome],
    ) -> Result<(), EngineError> {
        let opens = !outcomes.is_empty() && outcomes.iter().all(|o| matches!(o, ProbeOutcome::Opens(_)));
        let refused = outcomes.iter().any(|o| matches!(o, ProbeOutcome::Refused(_)));
        if !opens && !refused {
            return Ok(());
        }
        let now = self.now();
        let mut tx = self.parts().store.begin().await?;
        let mut item = items::lock(&mut tx, &account.id, item.id).await?;
        let seed = books::seed(&item.uid.0);
        let Some(rotator) = item.rotator.as_mut().filter(|r| r.status == RotatorStatus::RotationInDoubt) else {
            return Ok(());
        };
        let (outcome, detail) = if opens {
            rotator.status = RotatorStatus::RotationSucceeded;
            rotator.last_verified_at = Some(now);
            ("ok", "verified after a restore")
        } else {
            rotator.status = RotatorStatus::OutOfSync;
            ("failed", "the target has another value than the restored database; run rotated-secret repair")
        };
        detail.clone_into(&mut rotator.last_error);
        books::plan_next(rotator, seed, now);
        items::update(&mut tx, &item).await?;
        audit::append(&mut tx, &account.id, &[entry(&item, outcome, detail, now)]).await?;
        Ok(tx.commit().await?)
    }

    /// Every rotated secret of every account.
    async fn rotated(&self) -> Result<Vec<(Account, Item)>, EngineError> {
        let mut tx = self.parts().store.read().await?;
        let mut found = Vec::new();
        for account in accounts::list(&mut tx).await? {
            let mut after = String::new();
            loop {
                let page = items::list(&mut tx, &account.id, &after, PAGE).await?;
                let Some(last) = page.last() else { break };
                after = last.name.to_string();
                found.extend(page.into_iter().filter(|i| i.rotator.is_some()).map(|item| (account.clone(), item)));
            }
        }
        Ok(found)
    }
}

fn entry(item: &Item, outcome: &str, detail: &str, now: volvelle_domain::ids::Micros) -> audit::Entry {
    audit::Entry {
        at: now,
        actor: "volvelle".to_owned(),
        action: "restore_detected".to_owned(),
        object: item.name.to_string(),
        outcome: outcome.to_owned(),
        remote: String::new(),
        detail: detail.to_owned(),
        request: work::name(WORK, &item.account, item.id.0),
    }
}
