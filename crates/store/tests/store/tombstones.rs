//! Deleted versions on their way to the holders.

use crate::*;

#[tokio::test]
async fn a_tombstone_goes_when_every_holder_has_it() {
    both(|store| async move {
        let one = with_account(&store, "one", 1).await;
        let two = with_account(&store, "two", 2).await;
        let mut tx = store.begin().await.expect("begins");
        tombstones::add(&mut tx, &one, &[vec![1], vec![2]], Micros(10)).await.expect("adds");
        tombstones::add(&mut tx, &two, &[vec![3]], Micros(20)).await.expect("adds");
        tx.commit().await.expect("commits");
        // A deletion that is not committed leaves nothing.
        let mut tx = store.begin().await.expect("begins");
        tombstones::add(&mut tx, &two, &[vec![4]], Micros(20)).await.expect("adds");
        drop(tx);
        let mut tx = store.begin().await.expect("begins");
        let waiting = tombstones::waiting(&mut tx, Micros(15), ("", 0), 10).await.expect("asks");
        assert_eq!(
            waiting.iter().map(|w| w.input.clone()).collect::<Vec<_>>(),
            [vec![1], vec![2]],
            "not the later one"
        );
        let mut all = tombstones::waiting(&mut tx, Micros(99), ("", 0), 2).await.expect("asks");
        let last = all.last().expect("two").clone();
        all.extend(tombstones::waiting(&mut tx, Micros(99), (&last.account.0, last.id), 2).await.expect("asks"));
        assert_eq!(all.iter().map(|w| w.input[0]).collect::<Vec<_>>(), [1, 2, 3], "page by page");
        all[0].holders = 0b1110;
        all[1].holders = 0b0110;
        for tombstone in &all {
            tombstones::note(&mut tx, tombstone, 0b1110).await.expect("notes");
        }
        let left = tombstones::count(&mut tx).await.expect("counts");
        assert_eq!((left.count, left.oldest), (2, Some(Micros(10))));
        let lacking = [
            tombstones::lacking(&mut tx, 1).await.expect("counts"),
            tombstones::lacking(&mut tx, 3).await.expect("counts"),
        ];
        assert_eq!(lacking, [1, 2]);
    })
    .await;
}
