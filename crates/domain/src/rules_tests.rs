//! Tests of the rule engine: the written semantics one by one, then everything against a naive reference.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::ids::{AccessId, AccountId, RoleId};
use crate::path::ItemPath;

fn rule(path: &str, capabilities: &[&str]) -> RoleRule {
    RoleRule {
        path: path.to_owned(),
        rule_type: "item-rule".to_owned(),
        capabilities: capabilities.iter().map(|&word| word.to_owned()).collect(),
        ttl_minutes: 0,
        set_at: Micros(0),
    }
}

fn claims(pairs: &[(&str, &[&str])]) -> SubClaims {
    pairs.iter().map(|(key, values)| ((*key).to_owned(), values.iter().map(|&v| v.to_owned()).collect())).collect()
}

fn role(rules: Vec<RoleRule>, sub_claims: SubClaims, case_sensitive: bool) -> Role {
    let name = ItemPath::parse("/r").expect("valid");
    let assoc = RoleAssoc {
        id: "ass-1".to_owned(),
        auth_method: AuthMethodId(1),
        auth_method_name: name.clone(),
        access_id: AccessId("p-1".to_owned()),
        sub_claims,
        case_sensitive,
    };
    Role {
        account: AccountId("acc-1".to_owned()),
        id: RoleId(1),
        name,
        description: String::new(),
        delete_protection: false,
        rules,
        assocs: vec![assoc],
        created_at: Micros(0),
        modified_at: Micros(0),
    }
}

fn asker(claims: &SubClaims) -> Asker<'_> {
    Asker { auth_method: AuthMethodId(1), claims, force_sub_claims: false, now: Micros(0) }
}

fn reads(rule_path: &str, held: &SubClaims, case: bool, path: &str) -> bool {
    allows(&[role(vec![rule(rule_path, &["read"])], SubClaims::new(), case)], &asker(held), "item-rule", path, "read")
}

#[test]
fn wildcards_match_ends_and_segments() {
    let none = SubClaims::new();
    for (pattern, path, expected) in [
        ("/*", "/a/b", true),
        ("/a/*", "/a/b/c", true),
        ("/a/*", "/a", false),
        ("/a/*", "/ab", false),
        ("a/*", "/a/b", true),
        ("/a/dev-*", "/a/dev-1/x", true),
        ("/a/+/c", "/a/b/c", true),
        ("/a/+/c", "/a/b/b/c", false),
        ("/a/+/c", "/a//c", false),
        ("/a/b", "/a/b", true),
        ("/a/b", "/a/bc", false),
        ("/a/b", "/A/b", false),
    ] {
        assert_eq!(reads(pattern, &none, true, path), expected, "{pattern} {path}");
    }
}

#[test]
fn claims_fill_templates_and_never_become_wildcards() {
    let held = claims(&[("groups", &["dev", "ops"]), ("evil", &["*"]), ("more", &["+"])]);
    assert!(reads("/{{groups}}/*", &held, true, "/ops/x"));
    assert!(!reads("/{{groups}}/*", &held, true, "/Ops/x"));
    assert!(reads("/{{Groups}}/*", &held, false, "/Ops/x"));
    assert!(!reads("/{{Groups}}/*", &held, true, "/ops/x"));
    assert!(!reads("/{{evil}}", &held, true, "/anything"));
    assert!(!reads("/{{more}}/x", &held, true, "/any/x"));
    assert!(!reads("/{{absent}}/*", &held, true, "//x"));
}

#[test]
fn deny_wins_and_any_grant_implies_list() {
    let none = SubClaims::new();
    let roles = [
        role(vec![rule("/a/*", &["update"])], SubClaims::new(), true),
        role(vec![rule("/a/secret/*", &["deny"])], SubClaims::new(), true),
    ];
    assert!(allows(&roles, &asker(&none), "item-rule", "/a/x", "list"));
    assert!(!allows(&roles, &asker(&none), "item-rule", "/a/x", "read"));
    assert!(!allows(&roles, &asker(&none), "item-rule", "/a/secret/x", "update"));
    assert!(!allows(&roles, &asker(&none), "target-rule", "/a/x", "update"));
    assert!(!allows(&roles, &asker(&none), "item-rule", "/a/secret/x", "deny"));
}

#[test]
fn a_rule_ends_with_its_life() {
    let none = SubClaims::new();
    let mut short = rule("/*", &["read"]);
    short.ttl_minutes = 1;
    let roles = [role(vec![short], SubClaims::new(), true)];
    let at = |micros| Asker { now: Micros(micros), ..asker(&none) };
    assert!(allows(&roles, &at(59_999_999), "item-rule", "/x", "read"));
    assert!(!allows(&roles, &at(60_000_000), "item-rule", "/x", "read"));
}

#[test]
fn sub_claims_are_and_over_keys_and_or_over_values() {
    let wanted = claims(&[("groups", &["admins", "dev-?"]), ("team", &["a*"])]);
    let roles = [role(vec![rule("/*", &["read"])], wanted, true)];
    let may = |held: SubClaims| allows(&roles, &asker(&held), "item-rule", "/x", "read");
    assert!(may(claims(&[("groups", &["dev-1"]), ("team", &["alpha"])])));
    assert!(!may(claims(&[("groups", &["dev-12"]), ("team", &["alpha"])])));
    assert!(!may(claims(&[("groups", &["admins"])])));
}

#[test]
fn operators_go_from_left_to_right() {
    let held = ["a", "c"];
    assert!(expression_holds("a `AND` c", &held, true));
    assert!(!expression_holds("a `AND` b", &held, true));
    assert!(expression_holds("b `OR` a", &held, true));
    assert!(expression_holds("a `AND` b `OR` c", &held, true));
    assert!(!expression_holds("c `OR` a `AND` b", &held, true));
}

#[test]
fn force_sub_claims_ignores_open_associations_and_others_get_nothing() {
    let none = SubClaims::new();
    let roles = [role(vec![rule("/*", &["read"])], SubClaims::new(), true)];
    let forced = Asker { force_sub_claims: true, ..asker(&none) };
    let other = Asker { auth_method: AuthMethodId(2), ..asker(&none) };
    assert!(!allows(&roles, &forced, "item-rule", "/x", "read"));
    assert!(!allows(&roles, &other, "item-rule", "/x", "read"));
}

#[test]
fn bad_rules_are_named() {
    let read = ["read".to_owned()];
    assert_eq!(check("/a/*", "item-rule", &read), Ok(()));
    assert_eq!(check("/a/*/b", "item-rule", &read), Err(RuleError::InnerStar));
    assert_eq!(check("/", "item-rule", &read), Err(RuleError::EmptyPath));
    assert_eq!(check("/{{a", "item-rule", &read), Err(RuleError::BadTemplate));
    assert_eq!(check("/a", "no-rule", &read), Err(RuleError::UnknownType));
    assert_eq!(check("/a", "item-rule", &["fly".to_owned()]), Err(RuleError::UnknownCapability));
    assert_eq!(check("/a", "item-rule", &[]), Err(RuleError::NoCapability));
}

fn covered(own: &[(&str, &[&str])], wanted: (&str, &[&str])) -> bool {
    let own = own.iter().map(|(path, words)| rule(path, words)).collect();
    covers(&[role(own, SubClaims::new(), true)], &asker(&SubClaims::new()), &rule(wanted.0, wanted.1))
}

#[test]
fn nobody_covers_more_than_he_has() {
    for (own, wanted, expected) in [
        ("/*", "/a/+/{{groups}}/*", true),
        ("*", "b", true),
        ("/a/*", "/a/b", true),
        ("/a/*", "/a/+", true),
        ("/a/*", "/a/*", true),
        ("/a/*", "/a/{{groups}}", true),
        ("/a/*", "/a*", false),
        ("/a/*", "/*", false),
        ("/a/+", "/a/b", true),
        ("/a/+", "/a/b+c", true),
        ("/a/+", "/a/*", false),
        ("/a/+", "/a/{{groups}}", false),
        ("/a/+/c", "/a/+", false),
        ("/a/++", "/a/+", false),
        ("/a/++", "/a/+x", true),
        ("/a/b", "/a/+", false),
        ("/{{groups}}/*", "/x/*", false),
    ] {
        assert_eq!(covered(&[(own, &["read"])], (wanted, &["read"])), expected, "{own} covers {wanted}");
    }
    assert!(covered(&[("/*", &["read"])], ("/a", &["list"])), "any grant implies list");
    assert!(!covered(&[("/*", &["read"])], ("/a", &["read", "update"])));
    assert!(covered(&[("/*", &["read"]), ("/a/*", &["update"])], ("/a/b", &["read", "update"])));
    assert!(covered(&[], ("/*", &["deny"])), "what denies grants nothing");
    assert!(!covered(&[("/*", &["deny", "read"])], ("/a", &["read"])));
}

#[test]
fn what_is_denied_to_him_he_cannot_grant() {
    for (denied, wanted, expected) in [
        ("/s/*", "/*", false),
        ("/s/*", "/s/x", false),
        ("/s/*", "/t/*", true),
        ("/s/x", "/s/xy", true),
        ("/s/x", "/s/+", false),
        ("/s/x", "/s/y*", true),
        ("/s/+/x", "/s/a/x", false),
        ("/s/+/x", "/s/{{groups}}", false),
        ("/{{groups}}/x", "/a/x", true),
        ("/{{groups}}/x", "/a/*", false),
    ] {
        let own: [(&str, &[&str]); 2] = [("/*", &["read"]), (denied, &["deny"])];
        assert_eq!(covered(&own, (wanted, &["read"])), expected, "denied {denied}, wanted {wanted}");
    }
}

#[test]
fn a_grant_does_not_outlive_the_granters_own() {
    let none = SubClaims::new();
    let lives = |minutes, from| RoleRule { ttl_minutes: minutes, set_at: Micros(from), ..rule("/*", &["read"]) };
    let own = [role(vec![lives(10, 0)], SubClaims::new(), true)];
    let at = Asker { now: Micros(60_000_000), ..asker(&none) };
    assert!(covers(&own, &at, &lives(9, 60_000_000)));
    assert!(!covers(&own, &at, &lives(10, 60_000_000)));
    assert!(!covers(&own, &at, &lives(0, 60_000_000)));
    assert!(!covers(&own, &Asker { now: Micros(600_000_000), ..at }, &lives(1, 0)));
}

/// The reference: plain recursion over the pattern, trying every length.
fn naive_path(pattern: &[char], path: &[char]) -> bool {
    match pattern {
        [] => path.is_empty(),
        ['*'] => true,
        ['+', rest @ ..] => (1..=path.len()).take_while(|&n| path[n - 1] != '/').any(|n| naive_path(rest, &path[n..])),
        [letter, rest @ ..] => path.first() == Some(letter) && naive_path(rest, &path[1..]),
    }
}

fn naive_glob(pattern: &[char], text: &[char]) -> bool {
    match pattern {
        [] => text.is_empty(),
        ['*', rest @ ..] => (0..=text.len()).any(|n| naive_glob(rest, &text[n..])),
        ['?', rest @ ..] => !text.is_empty() && naive_glob(rest, &text[1..]),
        [letter, rest @ ..] => text.first() == Some(letter) && naive_glob(rest, &text[1..]),
    }
}

fn naive(roles: &[Role], now: Micros, held: &SubClaims, path: &str) -> BTreeSet<String> {
    let chars = |text: &str| text.chars().collect::<Vec<_>>();
    let applies = |role: &Role| {
        role.assocs.iter().any(|assoc| {
            assoc.sub_claims.iter().all(|(key, wanted)| {
                wanted.iter().any(|w| {
                    held.get(key).is_some_and(|values| values.iter().any(|v| naive_glob(&chars(w), &chars(v))))
                })
            })
        })
    };
    let words: Vec<String> = roles
        .iter()
        .filter(|role| applies(role))
        .flat_map(|role| &role.rules)
        .filter(|rule| rule.ttl_minutes == 0 || now.0 < rule.ttl_minutes * 60_000_000)
        .filter(|rule| naive_path(&chars(&rule.path), &chars(path)))
        .flat_map(|rule| rule.capabilities.clone())
        .collect();
    if words.is_empty() || words.iter().any(|word| word == "deny") {
        return BTreeSet::new();
    }
    words.into_iter().chain(["list".to_owned()]).collect()
}

fn any_rule() -> impl Strategy<Value = RoleRule> {
    let words = prop::sample::subsequence(vec!["read", "create", "update", "delete", "list", "deny"], 1..=2);
    ("/[ab/+]{0,5}[*]?", words, 0..3_i64).prop_map(|(path, words, ttl)| {
        let mut made = rule(&path, &words);
        made.ttl_minutes = ttl;
        made
    })
}

fn any_role() -> impl Strategy<Value = Role> {
    let wanted = prop::collection::btree_map("[kl]", prop::collection::vec("[xy?*]{1,3}", 1..3), 0..2);
    (prop::collection::vec(any_rule(), 0..4), wanted).prop_map(|(rules, wanted)| role(rules, wanted, true))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn agrees_with_the_reference(
        roles in prop::collection::vec(any_role(), 0..4),
        held in prop::collection::btree_map("[kl]", prop::collection::vec("[xy]{1,3}", 0..3), 0..3),
        path in "/[ab/]{0,6}",
        minutes in 0..3_i64,
    ) {
        let now = Micros(minutes * 60_000_000);
        let asker = Asker { auth_method: AuthMethodId(1), claims: &held, force_sub_claims: false, now };
        let granted = capabilities(&roles, &asker, "item-rule", &path);
        prop_assert_eq!(&granted, &naive(&roles, now, &held, &path));
        for word in ["read", "create", "update", "delete", "list"] {
            prop_assert_eq!(allows(&roles, &asker, "item-rule", &path, word), granted.contains(word));
        }
    }

    #[test]
    fn whatever_a_covered_rule_grants_the_granter_had(
        own in prop::collection::vec(any_role(), 1..4),
        mut wanted in any_rule(),
        template in prop::option::weighted(0.2, 0..3_usize),
        held in prop::collection::btree_map("[kl]", prop::collection::vec("[ab+]{1,2}", 0..3), 0..3),
        theirs in prop::collection::btree_map("[kl]", prop::collection::vec("[ab/+]{1,3}", 0..3), 0..3),
        path in "/[ab/]{0,6}",
        (minutes, later) in (0..3_i64, 0..4_i64),
    ) {
        if let Some(place) = template {
            wanted.path.insert_str((place + 1).min(wanted.path.len()), "{{k}}");
        }
        wanted.set_at = Micros(minutes * 60_000_000);
        let granter = Asker { now: wanted.set_at, ..asker(&held) };
        if covers(&own, &granter, &wanted) {
            let now = wanted.set_at.plus_seconds(later * 60);
            let given = [role(vec![wanted], SubClaims::new(), true)];
            for word in capabilities(&given, &Asker { now, ..asker(&theirs) }, "item-rule", &path) {
                prop_assert!(allows(&own, &Asker { now, ..granter }, "item-rule", &path, &word), "{word} on {path}");
            }
        }
    }

    #[test]
    fn patterns_cover_and_overlap_as_their_paths_do(
        own in "/[ab/+]{0,4}[*]?", wanted in "/[ab/+]{0,4}[*]?", path in "/[ab/]{0,6}",
    ) {
        let letters: Vec<char> = path.chars().collect();
        let matches = |pattern: &str| naive_path(&pattern.chars().collect::<Vec<_>>(), &letters);
        let none = SubClaims::new();
        if matches(&wanted) {
            prop_assert!(!path_covers(&own, &wanted) || matches(&own), "{own} does not cover {wanted}");
            prop_assert!(!matches(&own) || may_overlap(&own, &wanted, &none, true), "{own} meets {wanted}");
        }
    }
}
