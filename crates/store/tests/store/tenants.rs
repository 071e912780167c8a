//! Accounts, transactions and what a restart finds.

use crate::*;

#[tokio::test]
async fn accounts_are_kept_and_found() {
    both(|store| async move {
        let id = with_account(&store, "one", 1).await;
        let mut tx = store.begin().await.expect("begins");
        assert!(matches!(accounts::add(&mut tx, &account("one", 2)).await, Err(StoreError::Conflict(_))));
        drop(tx);
        let mut tx = store.begin().await.expect("begins");
        let settings = AccountSettings { max_versions: 3, ..AccountSettings::default() };
        accounts::update_settings(&mut tx, &id, &settings).await.expect("updates");
        tx.commit().await.expect("commits");
        let mut tx = store.read().await.expect("reads");
        let found = accounts::find(&mut tx, &id).await.expect("finds").expect("is there");
        assert_eq!((found.settings.max_versions, found.generation, found.realm), (3, 1, Uid([1; 16])));
        assert_eq!(accounts::list(&mut tx).await.expect("lists").len(), 1);
    })
    .await;
}

#[tokio::test]
async fn what_is_not_committed_is_not_there() {
    both(|store| async move {
        let mut tx = store.begin().await.expect("begins");
        accounts::add(&mut tx, &account("gone", 1)).await.expect("adds");
        drop(tx);
        let mut tx = store.read().await.expect("reads");
        assert!(accounts::find(&mut tx, &AccountId("acc-gone".into())).await.expect("asks").is_none());
    })
    .await;
}

#[tokio::test]
async fn a_restart_finds_everything() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("store.db");
    let url = format!("sqlite://{}", file.display());
    let store = Store::open(&url).await.expect("opens");
    let slot = slot(&with_account(&store, "one", 1).await, 1);
    enqueue(&store, &slot, 1).await;
    drop(store);
    let store = Store::open(&url).await.expect("opens again");
    assert_eq!(claim(&store, 20, (10, 1)).await.len(), 1);
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).expect("is there").permissions());
    assert_eq!(mode & 0o777, 0o600);
    assert!(matches!(Store::open("mysql://x").await, Err(StoreError::Address)));
}

#[tokio::test]
async fn an_operators_account_is_known_as_one() {
    both(|store| async move {
        let mut tx = store.begin().await.expect("begins");
        let operator = Account { operator: true, content: 4, generation: 3, ..account("one", 1) };
        accounts::add(&mut tx, &operator).await.expect("adds");
        accounts::add(&mut tx, &account("two", 2)).await.expect("adds");
        let all = accounts::list(&mut tx).await.expect("lists");
        assert_eq!(all.iter().map(|account| account.operator).collect::<Vec<_>>(), [true, false]);
        accounts::bump_content(&mut tx, &operator.id).await.expect("bumps");
        assert_eq!(accounts::stamp(&mut tx, &operator.id).await.expect("stamps"), (3, 5));
        let nowhere = AccountId("acc-none".into());
        assert!(matches!(accounts::stamp(&mut tx, &nowhere).await, Err(StoreError::NotFound(_))));
        assert!(matches!(accounts::bump_content(&mut tx, &nowhere).await, Err(StoreError::NotFound(_))));
    })
    .await;
}

#[tokio::test]
async fn a_reader_sees_one_moment() {
    both(|store| async move {
        let id = with_account(&store, "one", 1).await;
        let mut reader = store.read().await.expect("reads");
        let before = accounts::stamp(&mut reader, &id).await.expect("stamps");
        let mut tx = store.begin().await.expect("begins");
        items::add(&mut tx, &item(&id, "/a", None)).await.expect("adds");
        tx.commit().await.expect("commits");
        assert_eq!(accounts::stamp(&mut reader, &id).await.expect("stamps"), before);
        assert!(items::list(&mut reader, &id, "", 9).await.expect("lists").is_empty());
        drop(reader);
        assert_ne!(stamp(&store, &id).await, before);
    })
    .await;
}
