//! The audit chain and the questions asked of it.

use crate::*;

fn entry(object: &str) -> Entry {
    Entry {
        at: Micros(1),
        actor: "p-admin".into(),
        action: "get_item".into(),
        object: object.into(),
        outcome: "ok".into(),
        remote: "127.0.0.1".into(),
        detail: String::new(),
        request: String::new(),
    }
}

#[tokio::test]
async fn the_chain_tells_what_was_tampered_with() {
    both(|store| async move {
        let id = with_account(&store, "one", 1).await;
        let other = with_account(&store, "two", 2).await;
        let entries: Vec<Entry> = (0..1203).map(|n| entry(&format!("/item/{n}"))).collect();
        let mut tx = store.begin().await.expect("begins");
        audit::append(&mut tx, &id, &entries).await.expect("appends");
        audit::append(&mut tx, &other, &entries[..1]).await.expect("appends");
        tx.commit().await.expect("commits");
        let mut tx = store.begin().await.expect("begins");
        assert_eq!(audit::verify(&mut tx, &id).await.expect("verifies"), Verdict::Whole(1203));
        assert_eq!(audit::verify(&mut tx, &other).await.expect("verifies"), Verdict::Whole(1));
        let filter = Filter { after: 1200, limit: 10, ..Filter::default() };
        let page = audit::list(&mut tx, &id, &filter).await.expect("lists").entries;
        assert_eq!(page.iter().map(|c| c.seq).collect::<Vec<_>>(), [1201, 1202, 1203]);
        assert_eq!(page[2].entry.object, "/item/1202");
        tx.danger_execute("UPDATE audit SET entries = REPLACE(entries, '/item/700', '/item/701') WHERE seq = 768")
            .await
            .expect("tampers");
        assert_eq!(audit::verify(&mut tx, &id).await.expect("verifies"), Verdict::BrokenAt(768));
        drop(tx);
        let mut tx = store.begin().await.expect("begins");
        tx.danger_execute("DELETE FROM audit WHERE seq = 1203").await.expect("tampers");
        assert_eq!(audit::verify(&mut tx, &id).await.expect("verifies"), Verdict::BrokenAt(1025));
    })
    .await;
}

#[tokio::test]
async fn who_remembers_the_end_appends_behind_it_and_behind_nothing_else() {
    both(|store| async move {
        let id = with_account(&store, "one", 1).await;
        let lines = |n: usize| (0..n).map(|n| entry(&format!("/{n}")).line()).collect::<Vec<_>>();
        let mut tx = store.begin().await.expect("begins");
        let stamp = accounts::stamp(&mut tx, &id).await.expect("stamps");
        let first = audit::append_lines(&mut tx, &id, &lines(3)).await.expect("appends");
        let second = audit::append_behind(&mut tx, &id, (first, stamp), &lines(600)).await.expect("appends");
        let second = second.expect("the end is known");
        for (end, stamp) in [(first, stamp), (second, (stamp.0 + 1, stamp.1)), (second, (stamp.0, stamp.1 + 1))] {
            let told = audit::append_behind(&mut tx, &id, (end, stamp), &lines(1)).await.expect("asks");
            assert_eq!(told, None, "{end:?} {stamp:?}");
        }
        tx.commit().await.expect("commits");
        let mut tx = store.begin().await.expect("begins");
        let third = audit::append_behind(&mut tx, &id, (second, stamp), &lines(2)).await.expect("appends");
        assert!(third.is_some());
        audit::append(&mut tx, &id, &[entry("/last")]).await.expect("appends");
        assert_eq!(audit::verify(&mut tx, &id).await.expect("verifies"), Verdict::Whole(606));
    })
    .await;
}

#[tokio::test]
async fn chains_grow_under_many_writers() {
    both(|store| async move {
        let id = with_account(&store, "one", 1).await;
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..8 {
            let (store, id) = (store.clone(), id.clone());
            writers.spawn(async move {
                for n in 0..20 {
                    let mut tx = store.begin().await.expect("begins");
                    audit::append(&mut tx, &id, &[entry(&format!("/{writer}/{n}"))]).await.expect("appends");
                    tx.commit().await.expect("commits");
                }
            });
        }
        while let Some(done) = writers.join_next().await {
            done.expect("no panic");
        }
        let mut tx = store.read().await.expect("reads");
        assert_eq!(audit::verify(&mut tx, &id).await.expect("verifies"), Verdict::Whole(160));
    })
    .await;
}

fn seqs(page: &audit::Page) -> Vec<i64> {
    page.entries.iter().map(|chained| chained.seq).collect()
}

#[tokio::test]
async fn filters_find_entries_from_either_end() {
    both(|store| async move {
        let id = with_account(&store, "one", 1).await;
        let mut tx = store.begin().await.expect("begins");
        let mut entries: Vec<Entry> = (1..=2500).map(|n| entry(&format!("/item/{n}"))).collect();
        for n in [7, 1500, 2400] {
            entries[n - 1].actor = "p-other".into();
            entries[n - 1].action = "rotate_item".into();
        }
        audit::append(&mut tx, &id, &entries).await.expect("appends");
        let other = Filter { actor: "p-other".into(), limit: 2, ..Filter::default() };
        let page = audit::list(&mut tx, &id, &other).await.expect("lists");
        assert_eq!((seqs(&page), page.next), (vec![7, 1500], Some(1500)));
        let rest = Filter { after: 1500, ..other.clone() };
        let page = audit::list(&mut tx, &id, &rest).await.expect("lists");
        assert_eq!((seqs(&page), page.next), (vec![2400], None));
        let newest = Filter { order: Order::NewestFirst, ..other.clone() };
        let page = audit::list(&mut tx, &id, &newest).await.expect("lists");
        assert_eq!((seqs(&page), page.next), (vec![2400, 1500], Some(1500)));
        let page = audit::list(&mut tx, &id, &Filter { after: 1500, ..newest }).await.expect("lists");
        assert_eq!((seqs(&page), page.next), (vec![7], None));
        let both = Filter { object: "/item/24".into(), action: "rotate_item".into(), limit: 9, ..Filter::default() };
        assert_eq!(seqs(&audit::list(&mut tx, &id, &both).await.expect("lists")), [2400]);
        let begins = Filter { object: "/item/249".into(), limit: 99, ..Filter::default() };
        assert_eq!(audit::list(&mut tx, &id, &begins).await.expect("lists").entries.len(), 11);
        let none = Filter { actor: "p-oth".into(), limit: 9, ..Filter::default() };
        assert_eq!(audit::list(&mut tx, &id, &none).await.expect("lists").entries, []);
        let last = Filter { order: Order::NewestFirst, limit: 2, ..Filter::default() };
        assert_eq!(seqs(&audit::list(&mut tx, &id, &last).await.expect("lists")), [2500, 2499]);
    })
    .await;
}

#[tokio::test]
async fn one_question_looks_at_a_bounded_number_of_entries_and_says_where_to_go_on() {
    both(|store| async move {
        let id = with_account(&store, "one", 1).await;
        let mut tx = store.begin().await.expect("begins");
        let mut entries = vec![entry("/a"); 50_001];
        entries[50_000].object = "/wanted".into();
        audit::append(&mut tx, &id, &entries).await.expect("appends");
        let wanted = Filter { object: "/wanted".into(), limit: 9, ..Filter::default() };
        let page = audit::list(&mut tx, &id, &wanted).await.expect("lists");
        assert_eq!((seqs(&page), page.next), (vec![], Some(50_000)));
        let page = audit::list(&mut tx, &id, &Filter { after: 50_000, ..wanted }).await.expect("lists");
        assert_eq!((seqs(&page), page.next), (vec![50_001], None));
    })
    .await;
}

#[tokio::test]
async fn the_height_grows_with_every_audit_entry_of_any_account() {
    both(|store| async move {
        let mut tx = store.begin().await.expect("begins");
        assert_eq!(audit::height(&mut tx).await.expect("measures"), 0);
        for (name, n) in [("one", 1), ("two", 2)] {
            let account = account(name, n);
            accounts::add(&mut tx, &account).await.expect("adds");
            audit::append(&mut tx, &account.id, &[entry("a"), entry("b")]).await.expect("appends");
        }
        assert_eq!(audit::height(&mut tx).await.expect("measures"), 4);
    })
    .await;
}
