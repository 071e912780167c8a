//! Auth methods, tokens and roles.

use crate::*;

fn method(account: &AccountId, name: &str, access_id: &str) -> AuthMethod {
    AuthMethod {
        account: account.clone(),
        id: AuthMethodId(0),
        access_id: AccessId(access_id.into()),
        name: ItemPath::parse(name).expect("a path"),
        kind: "api_key".into(),
        description: String::new(),
        key_hash: [7; 32],
        key_changed_at: Micros(1),
        limits: AuthLimits { jwt_ttl: 5, ..AuthLimits::default() },
        delete_protection: true,
        created_at: Micros(1),
        modified_at: Micros(1),
    }
}

#[tokio::test]
async fn auth_methods_are_kept_apart_and_numbers_are_never_used_again() {
    both(|store| async move {
        let (one, two) = (with_account(&store, "one", 1).await, with_account(&store, "two", 2).await);
        let mut tx = store.begin().await.expect("begins");
        let first = auth_methods::add(&mut tx, &method(&one, "/a", "p-1")).await.expect("adds");
        auth_methods::add(&mut tx, &method(&one, "/b", "p-2")).await.expect("adds");
        auth_methods::add(&mut tx, &method(&two, "/a", "p-3")).await.expect("the other account has its own names");
        tx.commit().await.expect("commits");
        let mut tx = store.begin().await.expect("begins");
        let taken = auth_methods::add(&mut tx, &method(&two, "/c", "p-1")).await;
        assert!(matches!(taken, Err(StoreError::Conflict(_))), "access ids are unique over all accounts");
        drop(tx);
        let mut tx = store.begin().await.expect("begins");
        let page = auth_methods::list(&mut tx, &one, "/a", 10).await.expect("lists");
        assert_eq!(page.iter().map(|m| m.name.as_str()).collect::<Vec<_>>(), ["/b"]);
        let last = page[0].id;
        assert!(matches!(auth_methods::remove(&mut tx, &two, last).await, Err(StoreError::NotFound(_))));
        auth_methods::remove(&mut tx, &one, last).await.expect("removes");
        let next = auth_methods::add(&mut tx, &method(&one, "/d", "p-4")).await.expect("adds");
        assert!(next > last, "a removed method's number is not given to another");
        auth_methods::set_key_hash(&mut tx, (&one, first), &[8; 32], Micros(3)).await.expect("sets");
        let found = auth_methods::find_by_access_id(&mut tx, &AccessId("p-1".into())).await.expect("finds");
        let found = found.expect("is there");
        assert_eq!((found.key_hash, found.limits.jwt_ttl, found.delete_protection), ([8; 32], 5, true));
        let generation = accounts::find(&mut tx, &one).await.expect("finds").expect("is there").generation;
        assert_eq!(generation, 5, "each of five changes raised it");
    })
    .await;
}

#[tokio::test]
async fn tokens_end_by_time_by_revocation_and_with_their_method() {
    both(|store| async move {
        let one = with_account(&store, "one", 1).await;
        let mut tx = store.begin().await.expect("begins");
        let id = auth_methods::add(&mut tx, &method(&one, "/a", "p-1")).await.expect("adds");
        for n in 1..=3 {
            let token = Token {
                hash: [n; 32],
                account: one.clone(),
                auth_method: id,
                sub_claims: [("groups".to_owned(), vec!["admins".to_owned()])].into(),
                issued_at: Micros(0),
                expires_at: Micros(i64::from(n) * 10),
            };
            tokens::add(&mut tx, &token).await.expect("adds");
        }
        let found = tokens::find(&mut tx, &[3; 32]).await.expect("finds").expect("is there");
        assert_eq!(found.sub_claims["groups"], ["admins"]);
        assert_eq!(tokens::purge_expired(&mut tx, Micros(10)).await.expect("purges"), 1);
        assert!(tokens::find(&mut tx, &[1; 32]).await.expect("finds").is_none());
        tokens::revoke(&mut tx, &[2; 32]).await.expect("revokes");
        assert!(matches!(tokens::revoke(&mut tx, &[2; 32]).await, Err(StoreError::NotFound(_))));
        auth_methods::remove(&mut tx, &one, id).await.expect("removes");
        assert!(tokens::find(&mut tx, &[3; 32]).await.expect("finds").is_none());
    })
    .await;
}
