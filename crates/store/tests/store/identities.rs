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
        tokens::attach_statement(&mut tx, &[3; 32], b"signed").await.expect("keeps");
        assert_eq!(tokens::statement(&mut tx, &[3; 32]).await.expect("finds"), b"signed");
        assert_eq!(tokens::statement(&mut tx, &[2; 32]).await.expect("finds"), b"");
        assert_eq!(tokens::purge_expired(&mut tx, Micros(10)).await.expect("purges"), 1);
        assert!(tokens::find(&mut tx, &[1; 32]).await.expect("finds").is_none());
        tokens::revoke(&mut tx, &[2; 32]).await.expect("revokes");
        assert!(matches!(tokens::revoke(&mut tx, &[2; 32]).await, Err(StoreError::NotFound(_))));
        auth_methods::remove(&mut tx, &one, id).await.expect("removes");
        assert!(tokens::find(&mut tx, &[3; 32]).await.expect("finds").is_none());
    })
    .await;
}

fn rule(path: &str, capability: &str) -> RoleRule {
    RoleRule {
        path: path.into(),
        rule_type: "item-rule".into(),
        capabilities: vec![capability.into()],
        ttl_minutes: 5,
        set_at: Micros(2),
    }
}

fn role(account: &AccountId, name: &str) -> Role {
    Role {
        account: account.clone(),
        id: RoleId(0),
        name: path(name),
        description: "d".into(),
        delete_protection: false,
        rules: vec![rule("/b/*", "read"), rule("/a/*", "deny")],
        assocs: Vec::new(),
        created_at: Micros(1),
        modified_at: Micros(1),
    }
}

fn assoc(id: &str, method: AuthMethodId, name: &str, access_id: &str) -> RoleAssoc {
    RoleAssoc {
        id: id.into(),
        auth_method: method,
        auth_method_name: path(name),
        access_id: AccessId(access_id.into()),
        sub_claims: [("groups".to_owned(), vec!["x".to_owned(), "y".to_owned()])].into(),
        case_sensitive: true,
    }
}

#[tokio::test]
async fn roles_round_trip_with_rules_and_associations_in_the_order_made() {
    both(|store| async move {
        let (one, two) = (with_account(&store, "one", 1).await, with_account(&store, "two", 2).await);
        let mut tx = store.begin().await.expect("begins");
        let a = auth_methods::add(&mut tx, &method(&one, "/a", "p-1")).await.expect("adds");
        let b = auth_methods::add(&mut tx, &method(&one, "/b", "p-2")).await.expect("adds");
        let mut first = role(&one, "/first");
        first.assocs = vec![assoc("ass-z", b, "/b", "p-2"), assoc("ass-a", a, "/a", "p-1")];
        first.id = roles::add(&mut tx, &first).await.expect("adds");
        let mut bare = Role { rules: Vec::new(), ..role(&one, "/bare") };
        bare.id = roles::add(&mut tx, &bare).await.expect("adds");
        roles::add(&mut tx, &role(&two, "/other")).await.expect("adds");
        let all = roles::load_all(&mut tx, &one).await.expect("loads");
        assert_eq!(format!("{all:?}"), format!("{:?}", [bare.clone(), first.clone()]), "by name");
        let found = roles::find(&mut tx, &one, &first.name).await.expect("finds").expect("is there");
        assert_eq!(format!("{found:?}"), format!("{first:?}"));
        assert!(roles::find(&mut tx, &two, &first.name).await.expect("finds").is_none());
        let page = roles::list(&mut tx, &one, "/bare", 5).await.expect("lists");
        assert_eq!(format!("{page:?}"), format!("{:?}", [first.clone()]));
        assert_eq!(roles::list(&mut tx, &one, "", 1).await.expect("lists").len(), 1);
        let renamed = Role { name: path("/renamed"), description: "e".into(), delete_protection: true, ..first };
        roles::update(&mut tx, &renamed).await.expect("updates");
        let found = roles::find(&mut tx, &one, &renamed.name).await.expect("finds").expect("is there");
        assert_eq!(format!("{found:?}"), format!("{renamed:?}"));
        roles::remove(&mut tx, &one, renamed.id).await.expect("removes");
        assert!(matches!(roles::remove(&mut tx, &one, renamed.id).await, Err(StoreError::NotFound(_))));
        assert!(roles::assocs_of(&mut tx, &one, a).await.expect("asks").is_empty());
        assert_eq!(roles::load_all(&mut tx, &one).await.expect("loads").len(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_rule_set_again_keeps_its_place() {
    both(|store| async move {
        let one = with_account(&store, "one", 1).await;
        let mut tx = store.begin().await.expect("begins");
        let id = roles::add(&mut tx, &role(&one, "/r")).await.expect("adds");
        let again = RoleRule { ttl_minutes: 0, set_at: Micros(9), ..rule("/b/*", "list") };
        roles::set_rule(&mut tx, &one, id, &again).await.expect("sets");
        let other_type = RoleRule { rule_type: "target-rule".into(), ..rule("/b/*", "read") };
        roles::set_rule(&mut tx, &one, id, &other_type).await.expect("sets");
        let rules = roles::find(&mut tx, &one, &path("/r")).await.expect("finds").expect("is there").rules;
        assert_eq!(rules, [again, rule("/a/*", "deny"), other_type.clone()]);
        assert!(roles::delete_rule(&mut tx, &one, id, "/b/*", "item-rule").await.expect("deletes"));
        assert!(!roles::delete_rule(&mut tx, &one, id, "/b/*", "item-rule").await.expect("deletes"));
        let rules = roles::find(&mut tx, &one, &path("/r")).await.expect("finds").expect("is there").rules;
        assert_eq!(rules, [rule("/a/*", "deny"), other_type]);
        let nowhere = roles::set_rule(&mut tx, &one, RoleId(99), &rule("/", "read")).await;
        assert!(matches!(nowhere, Err(StoreError::NotFound(_))));
    })
    .await;
}

#[tokio::test]
async fn a_role_is_given_to_a_method_once_and_ends_with_it() {
    both(|store| async move {
        let one = with_account(&store, "one", 1).await;
        let mut tx = store.begin().await.expect("begins");
        let a = auth_methods::add(&mut tx, &method(&one, "/a", "p-1")).await.expect("adds");
        let b = auth_methods::add(&mut tx, &method(&one, "/b", "p-2")).await.expect("adds");
        let first = roles::add(&mut tx, &role(&one, "/z")).await.expect("adds");
        let second = roles::add(&mut tx, &role(&one, "/y")).await.expect("adds");
        for (id, role) in [("ass-1", first), ("ass-2", second)] {
            roles::add_assoc(&mut tx, &one, role, &assoc(id, a, "/a", "p-1")).await.expect("adds");
        }
        roles::add_assoc(&mut tx, &one, first, &assoc("ass-3", b, "/b", "p-2")).await.expect("adds");
        tx.commit().await.expect("commits");
        let mut tx = store.begin().await.expect("begins");
        let twice = roles::add_assoc(&mut tx, &one, first, &assoc("ass-4", a, "/a", "p-1")).await;
        assert!(matches!(twice, Err(StoreError::Conflict(_))));
        drop(tx);
        let mut tx = store.begin().await.expect("begins");
        let claims = SubClaims::default();
        roles::update_assoc(&mut tx, &one, "ass-1", &claims, false).await.expect("updates");
        let missing = roles::update_assoc(&mut tx, &one, "ass-9", &claims, false).await;
        assert!(matches!(missing, Err(StoreError::NotFound(_))));
        let changed = RoleAssoc { sub_claims: claims, case_sensitive: false, ..assoc("ass-1", a, "/a", "p-1") };
        let found = roles::find_assoc(&mut tx, &one, "ass-1").await.expect("finds");
        assert_eq!(found, Some((first, changed.clone())));
        let given = roles::assocs_of(&mut tx, &one, a).await.expect("asks");
        assert_eq!(given, [(first, path("/z"), changed), (second, path("/y"), assoc("ass-2", a, "/a", "p-1"))]);
        roles::delete_assoc(&mut tx, &one, "ass-2").await.expect("deletes");
        assert!(matches!(roles::delete_assoc(&mut tx, &one, "ass-2").await, Err(StoreError::NotFound(_))));
        auth_methods::remove(&mut tx, &one, a).await.expect("removes");
        let left = roles::find(&mut tx, &one, &path("/z")).await.expect("finds").expect("is there").assocs;
        assert_eq!(left, [assoc("ass-3", b, "/b", "p-2")]);
    })
    .await;
}

#[tokio::test]
async fn every_change_of_rules_is_told_apart_from_a_change_of_content() {
    both(|store| async move {
        let one = with_account(&store, "one", 1).await;
        let mut before = stamp(&store, &one).await;
        for change in 0..12 {
            let mut tx = store.begin().await.expect("begins");
            let (a, id) = (AuthMethodId(1), RoleId(1));
            match change {
                0 => drop(auth_methods::add(&mut tx, &method(&one, "/a", "p-1")).await.expect("adds")),
                1 => drop(roles::add(&mut tx, &Role { rules: Vec::new(), ..role(&one, "/r") }).await.expect("adds")),
                2 => roles::set_rule(&mut tx, &one, id, &rule("/a", "read")).await.expect("sets"),
                3 => assert!(roles::delete_rule(&mut tx, &one, id, "/a", "item-rule").await.expect("deletes")),
                4 => roles::add_assoc(&mut tx, &one, id, &assoc("ass", a, "/a", "p-1")).await.expect("adds"),
                5 => roles::update_assoc(&mut tx, &one, "ass", &SubClaims::new(), true).await.expect("updates"),
                6 => roles::delete_assoc(&mut tx, &one, "ass").await.expect("deletes"),
                7 => roles::update(&mut tx, &Role { id, ..role(&one, "/s") }).await.expect("updates"),
                8 => roles::remove(&mut tx, &one, id).await.expect("removes"),
                9 => auth_methods::set_key_hash(&mut tx, (&one, a), &[1; 32], Micros(2)).await.expect("sets"),
                10 => {
                    let renamed = AuthMethod { id: a, ..method(&one, "/b", "p-1") };
                    auth_methods::update(&mut tx, &renamed).await.expect("updates");
                }
                _ => auth_methods::remove(&mut tx, &one, a).await.expect("removes"),
            }
            tx.commit().await.expect("commits");
            let after = stamp(&store, &one).await;
            assert_eq!((after.0 > before.0, after.1), (true, before.1), "change {change}");
            before = after;
        }
    })
    .await;
}

#[tokio::test]
async fn one_purge_of_tokens_is_bounded() {
    both(|store| async move {
        let one = with_account(&store, "one", 1).await;
        let mut tx = store.begin().await.expect("begins");
        let id = auth_methods::add(&mut tx, &method(&one, "/a", "p-1")).await.expect("adds");
        let count = tokens::PURGED + 10;
        for n in 0..count {
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&n.to_be_bytes());
            let sub_claims = SubClaims::default();
            let expires_at = Micros(i64::try_from(n).expect("small"));
            let token =
                Token { hash, account: one.clone(), auth_method: id, sub_claims, issued_at: Micros(0), expires_at };
            tokens::add(&mut tx, &token).await.expect("adds");
        }
        let now = Micros(i64::try_from(count).expect("small") - 2);
        assert_eq!(tokens::purge_expired(&mut tx, now).await.expect("purges"), tokens::PURGED);
        assert_eq!(tokens::purge_expired(&mut tx, now).await.expect("purges"), 9, "one is still good");
        assert_eq!(tokens::purge_expired(&mut tx, now).await.expect("purges"), 0);
    })
    .await;
}
