//! A liar at every position, on reading and on sealing, of three and of five holders: the right value comes, and the liar is named.

use std::time::Duration;

use volvelle_holder::Quorum;

use crate::{Process, place, replace_fragment, start_of, until_up};

async fn a_liar_at_every_position(n: u8, t: u8) {
    let folder = tempfile::tempdir().expect("a folder");
    let (setup, mut processes, quorum) = start_of(folder.path(), n, t).await;
    let other = tempfile::tempdir().expect("a folder");
    let (other_setup, others, _) = start_of(other.path(), n, t).await;
    drop(others);
    let record = quorum.seal(&place("/a"), b"v").await.expect("seals");
    for (liar, config) in setup.holder_configs.iter().enumerate() {
        processes[liar] = None;
        replace_fragment(&setup, &other_setup, liar);
        processes[liar] = Some(Process::start(config));
        tokio::time::sleep(Duration::from_millis(500)).await;
        // New gateways, which trust everybody; one reads first, the other seals first.
        let (reading, sealing) = (gateway(&setup), gateway(&setup));
        for round in 0..usize::from(n) {
            assert_eq!(reading.open(&place("/a"), &record).await.expect("opens").as_slice(), b"v");
            let path = format!("/{liar}/{round}");
            let sealed = sealing.seal(&place(&path), b"w").await.expect("seals");
            assert_eq!(reading.open(&place(&path), &sealed).await.expect("opens").as_slice(), b"w");
        }
        for gateway in [&reading, &sealing] {
            for holder in gateway.status().await {
                let lies = usize::from(holder.index) == liar + 1;
                assert_eq!(holder.state, if lies { "quarantined" } else { "up" }, "{holder:?}");
            }
        }
        let index = u8::try_from(liar).expect("small") + 1;
        let repaired = reading.repair(index).await.expect("repairs");
        assert_eq!((repaired.restored, repaired.failed.len()), (1, 0), "{repaired:?}");
        until_up(&reading).await;
    }
}

fn gateway(setup: &volvelle_holder::local::LocalSetup) -> Quorum {
    Quorum::new(&setup.quorum).expect("a gateway")
}

#[tokio::test(flavor = "multi_thread")]
async fn of_three_holders_each_may_lie() {
    a_liar_at_every_position(3, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_five_holders_each_may_lie() {
    a_liar_at_every_position(5, 3).await;
}
