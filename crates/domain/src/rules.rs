//! Who may do what: role rules matched against paths and claims. Pure; a grant needs a live matching rule,
//! and one matching `deny` takes everything away.

use std::collections::BTreeSet;

use crate::identity::{Role, RoleAssoc, RoleRule, SubClaims};
use crate::ids::{AuthMethodId, Micros};

/// Values that `rule-type` may have.
pub const RULE_TYPES: &[&str] = &[
    "item-rule",
    "target-rule",
    "role-rule",
    "auth-method-rule",
    "search-rule",
    "reports-rule",
    "gw-reports-rule",
    "sra-reports-rule",
    "ara-reports-rule",
    "sra-rule",
    "ara-rule",
    "usage-reports-rule",
    "event-rule",
    "event-forwarder-rule",
];

/// The capability that beats every grant.
pub const DENY: &str = "deny";

/// The capability that every other one implies.
pub const LIST: &str = "list";

/// Longest rule path in bytes.
pub const MAX_PATH: usize = 512;

/// Why a rule cannot be set.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RuleError {
    /// Nothing to match.
    #[error("a rule's path must not be empty")]
    EmptyPath,
    /// Longer than [`MAX_PATH`].
    #[error("a rule's path must not be longer than 512 bytes")]
    TooLong,
    /// A `*` anywhere but at the end would match nothing and surprise people.
    #[error("'*' may stand only at the end of a rule's path; '+' matches within a segment")]
    InnerStar,
    /// `{{` without `}}`, or no name between them.
    #[error("a claim in a rule's path is written {{{{name}}}}")]
    BadTemplate,
    /// Not one of [`RULE_TYPES`].
    #[error("no such rule type")]
    UnknownType,
    /// A rule without any capability.
    #[error("a rule needs at least one capability")]
    NoCapability,
    /// A word that is no capability.
    #[error("no such capability")]
    UnknownCapability,
}

/// Who asks, and when.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// The auth method of the token.
    pub auth_method: AuthMethodId,
    /// The token's claims.
    pub claims: &'a SubClaims,
    /// Whether associations without claims do not count.
    pub force_sub_claims: bool,
    /// The time by which rules have ended or not.
    pub now: Micros,
}

/// Whether `capability` on `path` is granted by `roles`.
#[must_use]
pub fn allows(roles: &[Role], asker: &Asker<'_>, rule_type: &str, path: &str, capability: &str) -> bool {
    capability != DENY && capabilities(roles, asker, rule_type, path).contains(capability)
}

/// Everything granted on `path`, sorted; empty when a rule denies or none grants.
#[must_use]
pub fn capabilities(roles: &[Role], asker: &Asker<'_>, rule_type: &str, path: &str) -> BTreeSet<String> {
    let path: Vec<char> = path.chars().collect();
    let mut granted = BTreeSet::new();
    for role in roles {
        for assoc in &role.assocs {
            if !association_applies(assoc, asker) {
                continue;
            }
            for rule in role.rules.iter().filter(|rule| rule.rule_type == rule_type && is_live(rule, asker.now)) {
                if !path_matches(&rule.path, &path, asker.claims, assoc.case_sensitive) {
                    continue;
                }
                if rule.capabilities.iter().any(|capability| capability == DENY) {
                    return BTreeSet::new();
                }
                granted.extend(rule.capabilities.iter().cloned());
            }
        }
    }
    if !granted.is_empty() {
        granted.insert(LIST.to_owned());
    }
    granted
}

/// The rules that speak about `path` to the asker, each with its role and the association that brings it: why
/// [`capabilities`] answers as it does.
#[must_use]
pub fn speaking<'r>(
    roles: &'r [Role],
    asker: &Asker<'_>,
    rule_type: &str,
    path: &str,
) -> Vec<(&'r Role, &'r RoleAssoc, &'r RoleRule)> {
    let path: Vec<char> = path.chars().collect();
    let mut found = Vec::new();
    for role in roles {
        for assoc in role.assocs.iter().filter(|assoc| association_applies(assoc, asker)) {
            let live = |rule: &&RoleRule| rule.rule_type == rule_type && is_live(rule, asker.now);
            let matching = |rule: &&RoleRule| path_matches(&rule.path, &path, asker.claims, assoc.case_sensitive);
            found.extend(role.rules.iter().filter(live).filter(matching).map(|rule| (role, assoc, rule)));
        }
    }
    found
}

/// When the rule's life ends, if it does.
#[must_use]
pub fn ends_at(rule: &RoleRule) -> Option<Micros> {
    end(rule)
}

/// Whether everything that `rule` grants, to whomever and for as long as it lives, the asker has already. Careful rather than
/// exact: it may say no to what he has, never yes to what he has not. Rights that come from his claims he cannot pass on.
#[must_use]
pub fn covers(roles: &[Role], asker: &Asker<'_>, rule: &RoleRule) -> bool {
    if denies(rule) {
        return true;
    }
    let own: Vec<(&RoleAssoc, &RoleRule)> = roles
        .iter()
        .flat_map(|role| role.assocs.iter().flat_map(move |assoc| role.rules.iter().map(move |own| (assoc, own))))
        .filter(|(_, own)| own.rule_type == rule.rule_type && is_live(own, asker.now))
        .filter(|(assoc, _)| association_applies(assoc, asker))
        .collect();
    if own
        .iter()
        .any(|(assoc, own)| denies(own) && may_overlap(&own.path, &rule.path, asker.claims, assoc.case_sensitive))
    {
        return false;
    }
    let outlasts = |own: &RoleRule| match (end(own), end(rule)) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(own), Some(wanted)) => own >= wanted,
    };
    let has = |own: &RoleRule, word: &String| word == LIST || own.capabilities.contains(word);
    let grants: Vec<&RoleRule> = own
        .into_iter()
        .map(|(_, own)| own)
        .filter(|own| !own.capabilities.is_empty() && outlasts(own) && path_covers(&own.path, &rule.path))
        .collect();
    rule.capabilities.iter().all(|word| grants.iter().any(|own| has(own, word)))
}

/// Whether the rule takes away instead of granting.
#[must_use]
pub fn denies(rule: &RoleRule) -> bool {
    rule.capabilities.iter().any(|capability| capability == DENY)
}

/// Every capability that a rule of this type can grant.
#[must_use]
pub fn grantable(rule_type: &str) -> &'static [&'static str] {
    const ACCESS: &[&str] = &[
        "create",
        "read",
        "update",
        "delete",
        LIST,
        "allow_access",
        "request_access",
        "justify_access_only",
        "approval_authority",
    ];
    if matches!(rule_type, "sra-rule" | "ara-rule") { ACCESS } else { &ACCESS[..5] }
}

/// Checks a rule before it is stored.
///
/// # Errors
/// Says what is wrong with it.
pub fn check(path: &str, rule_type: &str, capabilities: &[String]) -> Result<(), RuleError> {
    if path.trim_matches('/').is_empty() {
        return Err(RuleError::EmptyPath);
    }
    if path.len() > MAX_PATH {
        return Err(RuleError::TooLong);
    }
    if path.strip_suffix('*').unwrap_or(path).contains('*') {
        return Err(RuleError::InnerStar);
    }
    let mut rest = path;
    while let Some((_, after)) = rest.split_once("{{") {
        let (name, tail) = after.split_once("}}").ok_or(RuleError::BadTemplate)?;
        if name.trim().is_empty() {
            return Err(RuleError::BadTemplate);
        }
        rest = tail;
    }
    if !RULE_TYPES.contains(&rule_type) {
        return Err(RuleError::UnknownType);
    }
    if capabilities.is_empty() {
        return Err(RuleError::NoCapability);
    }
    capabilities.iter().try_for_each(|word| check_capability(rule_type, word))
}

fn check_capability(rule_type: &str, word: &str) -> Result<(), RuleError> {
    if word == DENY || grantable(rule_type).contains(&word) { Ok(()) } else { Err(RuleError::UnknownCapability) }
}

/// Whether the rule's life has not ended.
#[must_use]
pub fn is_live(rule: &RoleRule, now: Micros) -> bool {
    end(rule).is_none_or(|end| now < end)
}

/// When the rule's life ends, if it does.
fn end(rule: &RoleRule) -> Option<Micros> {
    (rule.ttl_minutes > 0).then(|| rule.set_at.plus_seconds(rule.ttl_minutes.saturating_mul(60)))
}

/// Whether the association is the asker's and its claims are met: every key, by any of its values.
#[must_use]
pub fn association_applies(assoc: &RoleAssoc, asker: &Asker<'_>) -> bool {
    if assoc.auth_method != asker.auth_method || (assoc.sub_claims.is_empty() && asker.force_sub_claims) {
        return false;
    }
    assoc.sub_claims.iter().all(|(key, wanted)| {
        let held = claim_values(asker.claims, key, assoc.case_sensitive);
        wanted.iter().any(|expression| expression_holds(expression, &held, assoc.case_sensitive))
    })
}

/// The caller's values of the claim `key`.
fn claim_values<'a>(claims: &'a SubClaims, key: &str, case_sensitive: bool) -> Vec<&'a str> {
    let same = |name: &str| if case_sensitive { name == key } else { fold(name) == fold(key) };
    claims.iter().filter(|(name, _)| same(name)).flat_map(|(_, values)| values.iter().map(String::as_str)).collect()
}

/// One or more patterns joined by `` `AND` `` and `` `OR` ``, taken from left to right.
fn expression_holds(expression: &str, held: &[&str], case_sensitive: bool) -> bool {
    let term = |text: &str| held.iter().any(|value| glob(text.trim(), value, case_sensitive));
    let (mut rest, mut operator, mut holds) = (expression, "`OR`", false);
    loop {
        let next = ["`AND`", "`OR`"].into_iter().filter_map(|op| rest.find(op).map(|at| (at, op))).min();
        let text = next.map_or(rest, |(at, _)| &rest[..at]);
        holds = if operator == "`AND`" { holds && term(text) } else { holds || term(text) };
        let Some((at, op)) = next else { return holds };
        rest = &rest[at + op.len()..];
        operator = op;
    }
}

/// Whether `text` matches `pattern`, in which `?` is one character and `*` any number.
fn glob(pattern: &str, text: &str, case_sensitive: bool) -> bool {
    let text: Vec<char> = if case_sensitive { text.chars().collect() } else { fold(text).chars().collect() };
    let pattern = if case_sensitive { pattern.to_owned() } else { fold(pattern) };
    if pattern.is_empty() {
        return false;
    }
    let mut reach = start(text.len());
    for part in pattern.chars() {
        reach = match part {
            '*' => spread(&reach, |_| true, &text, true),
            '?' => shift(&reach, 1, |_| true),
            literal => shift(&reach, 1, |at| text[at] == literal),
        };
    }
    reach[text.len()]
}

fn fold(text: &str) -> String {
    text.to_lowercase()
}

/// One piece of a rule's path.
enum Piece {
    Literal(char),
    WithinSegment,
    Claim(Vec<String>),
}

/// Whether a rule's path matches. A claim's value is taken letter by letter: a `*` in it is no wildcard.
fn path_matches(rule: &str, path: &[char], claims: &SubClaims, case_sensitive: bool) -> bool {
    let (body, open_end) = rule.strip_suffix('*').map_or((rule, false), |body| (body, true));
    let mut reach = start(path.len());
    for piece in pieces(body, claims, case_sensitive) {
        reach = match piece {
            Piece::Literal(letter) => shift(&reach, 1, |at| path[at] == letter),
            Piece::WithinSegment => spread(&reach, |letter| letter != '/', path, false),
            Piece::Claim(values) => one_of(&reach, &values, path, case_sensitive),
        };
        if !reach.contains(&true) {
            return false;
        }
    }
    open_end || reach[path.len()]
}

/// Whether `own` matches every path that `wanted` can match. A wildcard of `wanted` is taken as a letter that only a wildcard
/// of `own` accepts.
fn path_covers(own: &str, wanted: &str) -> bool {
    let (body, open_end) = widened(wanted);
    let letters: Vec<char> = body.chars().collect();
    // A claim of the asker could spell the very letter that stands for a wildcard.
    !own.contains("{{") && (!open_end || own.ends_with('*')) && path_matches(own, &letters, &SubClaims::new(), true)
}

/// Whether some path may be matched by both. It may say yes where there is none.
fn may_overlap(deny: &str, wanted: &str, claims: &SubClaims, case_sensitive: bool) -> bool {
    let (body, open_end) = widened(wanted);
    let (own, own_open) = widened(deny);
    let letters = |text: &str| text.chars().collect::<Vec<char>>();
    if !open_end && !body.contains('+') {
        return path_matches(deny, &letters(&body), claims, case_sensitive);
    }
    if !own_open && !own.contains('+') {
        let wanted = if open_end { format!("{body}*") } else { body };
        return path_matches(&wanted, &letters(&own), claims, case_sensitive);
    }
    let (own, body) = (fixed(&own), fixed(&body));
    own.starts_with(body) || body.starts_with(own)
}

/// A rule's path with its leading slash up to its first template or final `*`, and whether anything may follow.
fn widened(path: &str) -> (String, bool) {
    let slash = if path.starts_with('/') { "" } else { "/" };
    let (body, open_end) = match path.split_once("{{") {
        Some((body, _)) => (body, true),
        None => path.strip_suffix('*').map_or((path, false), |body| (body, true)),
    };
    (format!("{slash}{body}"), open_end)
}

/// What a path begins with for certain.
fn fixed(body: &str) -> &str {
    body.split_once('+').map_or(body, |(fixed, _)| fixed)
}

fn pieces(body: &str, claims: &SubClaims, case_sensitive: bool) -> Vec<Piece> {
    let mut pieces = Vec::new();
    if !body.starts_with('/') {
        pieces.push(Piece::Literal('/'));
    }
    let mut rest = body;
    while let Some((text, after)) = rest.split_once("{{") {
        let Some((name, tail)) = after.split_once("}}") else { break };
        pieces.extend(text.chars().map(plain));
        let values = claim_values(claims, name.trim(), case_sensitive);
        pieces.push(Piece::Claim(values.into_iter().filter(|value| !value.is_empty()).map(str::to_owned).collect()));
        rest = tail;
    }
    pieces.extend(rest.chars().map(plain));
    pieces
}

fn plain(letter: char) -> Piece {
    if letter == '+' { Piece::WithinSegment } else { Piece::Literal(letter) }
}

/// Positions of the text that the pieces so far can reach: at first only its beginning.
fn start(len: usize) -> Vec<bool> {
    let mut reach = vec![false; len + 1];
    reach[0] = true;
    reach
}

/// Every reached position moved by `by`, where `accepts` says so.
fn shift(reach: &[bool], by: usize, accepts: impl Fn(usize) -> bool) -> Vec<bool> {
    let mut next = vec![false; reach.len()];
    for at in (0..reach.len().saturating_sub(by)).filter(|&at| reach[at]) {
        next[at + by] |= accepts(at);
    }
    next
}

/// Every position reachable over letters that are `accepted`; over none at all too if `empty`.
fn spread(reach: &[bool], accepted: impl Fn(char) -> bool, text: &[char], empty: bool) -> Vec<bool> {
    let mut next = if empty { reach.to_vec() } else { vec![false; reach.len()] };
    for (at, &letter) in text.iter().enumerate() {
        next[at + 1] |= (reach[at] || next[at]) && accepted(letter);
    }
    next
}

fn one_of(reach: &[bool], values: &[String], path: &[char], case_sensitive: bool) -> Vec<bool> {
    let mut next = vec![false; reach.len()];
    for value in values {
        let letters: Vec<char> = value.chars().collect();
        let same = |at: usize| {
            path[at..at + letters.len()]
                .iter()
                .zip(&letters)
                .all(|(have, want)| have == want || (!case_sensitive && have.to_lowercase().eq(want.to_lowercase())))
        };
        for (slot, hit) in next.iter_mut().zip(shift(reach, letters.len(), same)) {
            *slot |= hit;
        }
    }
    next
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
