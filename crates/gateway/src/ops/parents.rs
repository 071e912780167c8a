//! Parents of targets: the target whose settings the hosts of a linked one share, and the one that another is reached through.
//!
//! What must stay true: nobody chooses where a parent's credential is used who may not read it, and no parent has a parent.

use std::collections::BTreeSet;

use serde_json::Value;
use volvelle_domain::Credential;
use volvelle_domain::connector::{Parent, TargetParams};
use volvelle_domain::ids::TargetId;
use volvelle_domain::target::{Linked, Target};
use volvelle_store::targets;

use super::settings;
use crate::ctx::{Ctx, TARGETS};
use crate::error::ApiError;
use crate::params::{Params, bad};

/// Most hosts of a linked target.
const MOST_HOSTS: usize = 1000;
/// Most children of a target that are looked at.
pub const MOST_CHILDREN: u32 = 1000;
/// Children that a sentence names.
const MOST_NAMED: usize = 10;

/// What a kind's declaration says of parents.
struct Rule<'a> {
    /// The parameter that names one.
    name: &'a str,
    /// The kinds that can be one.
    kinds: Vec<&'a str>,
    /// The parameter, and its value with which there is one.
    when: (&'a str, &'a str),
}

fn properties(schema: &schemars::Schema) -> impl Iterator<Item = (&String, &Value)> {
    schema.get("properties").and_then(Value::as_object).into_iter().flatten()
}

impl<'a> Rule<'a> {
    fn of(schema: &'a schemars::Schema) -> Option<Self> {
        let (name, rule) = properties(schema).find_map(|(name, property)| Some((name, property.get("x-parent")?)))?;
        let (word, value) = rule.get("when")?.as_object()?.iter().next()?;
        let kinds = rule.get("kinds")?.as_array()?.iter().filter_map(Value::as_str).collect();
        Some(Self { name, kinds, when: (word, value.as_str()?) })
    }
}

/// The parent of a target that is `wanted` so, which loses what belongs to the parent and learns its parameters.
///
/// # Errors
/// The caller may not, there is no such parent, it cannot be one, or a parameter is wrong.
pub async fn through(
    ctx: &Ctx<'_>,
    schema: &schemars::Schema,
    (before, wanted): (Option<&Target>, &mut TargetParams),
    params: &Params,
) -> Result<Option<TargetId>, ApiError> {
    let Some(rule) = Rule::of(schema) else { return Ok(None) };
    // The link is to the target and not to its name, so that it outlives a new name.
    wanted.plain.remove(rule.name);
    let (word, value) = rule.when;
    let named = params.opt_path(rule.name)?;
    if wanted.plain.get(word).and_then(Value::as_str) != Some(value) {
        return match named {
            Some(_) => Err(bad(rule.name, format!("goes with {word} {value}"))),
            None => Ok(None),
        };
    }
    let kept = before.and_then(|before| before.parent);
    let parent = match (named, kept) {
        (Some(name), _) => ctx.target(&name, "list").await?,
        (None, Some(kept)) => targets::load(&mut ctx.app.store.read().await?, ctx.id(), kept).await?,
        (None, None) => return Err(bad(rule.name, format!("is required with {word} {value}"))),
    };
    fits(ctx, &rule, &parent, before).await?;
    without_own(schema, wanted, params)?;
    if kept != Some(parent.id) || before.is_none_or(|before| before.params != wanted.plain) {
        // Its secret will be used at this address: who may not read it cannot choose where.
        ctx.require(TARGETS, parent.name.as_str(), "read")?;
    }
    wanted.parent = Some(plainly(&parent));
    Ok(Some(parent.id))
}

/// Whoever makes the credential of a target work for him, or that of its parent, could as well read it.
///
/// # Errors
/// The caller may not.
pub async fn require_acting(ctx: &Ctx<'_>, target: &Target) -> Result<(), ApiError> {
    ctx.require(TARGETS, target.name.as_str(), "read")?;
    let Some(parent) = target.parent.filter(|_| target.linked.is_none()) else { return Ok(()) };
    let parent = targets::load(&mut ctx.app.store.read().await?, ctx.id(), parent).await?;
    ctx.require(TARGETS, parent.name.as_str(), "read")
}

/// A parent as far as checks without I/O need it.
fn plainly(parent: &Target) -> Box<Parent> {
    let params = TargetParams { plain: parent.params.clone(), ..TargetParams::default() };
    Box::new(Parent { kind: parent.kind.clone(), params })
}

fn no_grandparent(parameter: &str, parent: &Target) -> Result<(), ApiError> {
    match parent.parent {
        Some(_) => Err(bad(parameter, format!("{} has a parent itself", parent.name))),
        None => Ok(()),
    }
}

async fn fits(ctx: &Ctx<'_>, rule: &Rule<'_>, parent: &Target, child: Option<&Target>) -> Result<(), ApiError> {
    if !rule.kinds.contains(&parent.kind.as_str()) {
        let kinds = rule.kinds.join(" or ");
        return Err(bad(rule.name, format!("must name a target of kind {kinds}; {} is {}", parent.name, parent.kind)));
    }
    no_grandparent(rule.name, parent)?;
    let Some(child) = child else { return Ok(()) };
    if child.id == parent.id {
        return Err(bad(rule.name, "a target cannot be its own parent"));
    }
    let below = targets::children(&mut ctx.app.store.read().await?, ctx.id(), child.id, MOST_CHILDREN).await?;
    if below.is_empty() {
        return Ok(());
    }
    Err(bad(rule.name, format!("{} is the parent of {}, and no parent has a parent", child.name, named(ctx, &below))))
}

/// Takes away what a target with a parent has not: a credential of its own.
fn without_own(schema: &schemars::Schema, wanted: &mut TargetParams, params: &Params) -> Result<(), ApiError> {
    let given = settings::declared(schema, params);
    let own: BTreeSet<&str> =
        properties(schema).filter(|(_, p)| p.get("x-none").is_some()).map(|(name, _)| name.as_str()).collect();
    for name in &own {
        if given.plain.contains_key(*name) || given.secret.field(name).is_some() {
            return Err(bad(name, "is that of the parent; leave it out"));
        }
        wanted.plain.remove(*name);
    }
    let kept = wanted.secret.names().filter(|name| !own.contains(name));
    wanted.secret = kept
        .filter_map(|name| Some((name, wanted.secret.field(name)?.clone())))
        .fold(Credential::default(), |secret, (name, value)| secret.with(name, value));
    Ok(())
}

/// Whether a target that changes is still one that its children can be reached through.
///
/// # Errors
/// It is not; tells the child and why.
pub async fn still_fits(ctx: &Ctx<'_>, changed: &Target) -> Result<(), ApiError> {
    let children = targets::children(&mut ctx.app.store.read().await?, ctx.id(), changed.id, MOST_CHILDREN).await?;
    for child in children.into_iter().filter(|child| child.linked.is_none()) {
        let Some(connector) = ctx.app.registry.get(&child.kind) else { continue };
        let (plain, parent) = (child.params.clone(), Some(plainly(changed)));
        let params = TargetParams { plain, parent, ..TargetParams::default() };
        if let Err(failure) = connector.check_target(&params) {
            let child = named(ctx, std::slice::from_ref(&child));
            return Err(ApiError::Conflict(format!("{} is the parent of {child}: {}", changed.name, failure.message)));
        }
    }
    Ok(())
}

/// Targets in a sentence: by name those that the caller may know of.
pub fn named(ctx: &Ctx<'_>, those: &[Target]) -> String {
    let known = those.iter().filter(|target| !ctx.capabilities(TARGETS, target.name.as_str()).is_empty());
    let names: Vec<&str> = known.map(|target| target.name.as_str()).take(MOST_NAMED).collect();
    match (names.len(), those.len() - names.len()) {
        (0, 1) => "another target".to_owned(),
        (0, others) => format!("{others} other targets"),
        (_, 0) => names.join(", "),
        (_, others) => format!("{} and {others} more", names.join(", ")),
    }
}

/// The hosts and the parent of a linked target after the parameters were applied.
///
/// # Errors
/// The caller may not, there is no such parent, it cannot be one, or a parameter is wrong.
pub async fn linked(
    ctx: &Ctx<'_>,
    before: Option<&Target>,
    params: &Params,
) -> Result<(Linked, Option<TargetId>), ApiError> {
    let mut linked = before.and_then(|before| before.linked.clone()).unwrap_or_default();
    let mut above = before.and_then(|before| before.parent);
    if let Some(name) = params.opt_path("parent-target-name")? {
        let parent = ctx.target(&name, "list").await?;
        if parent.linked.is_some() {
            return Err(bad("parent-target-name", "the parent of a linked target cannot be a linked target"));
        }
        no_grandparent("parent-target-name", &parent)?;
        above = Some(parent.id);
        linked.hosts_kind.clone_from(&parent.kind);
    } else if let Some(kind) = params.text("type") {
        kind.clone_into(&mut linked.hosts_kind);
    }
    if above.is_none() && linked.hosts_kind.is_empty() {
        return Err(bad("type", "is required without parent-target-name"));
    }
    if let Some(hosts) = params.value("hosts").and_then(Value::as_str) {
        linked.hosts = parse_hosts(hosts);
    }
    for (host, text) in parse_hosts(params.text("add-hosts").unwrap_or_default()) {
        linked.hosts.retain(|(known, _)| *known != host);
        linked.hosts.push((host, text));
    }
    let removed = parse_hosts(params.text("rm-hosts").unwrap_or_default());
    linked.hosts.retain(|(host, _)| !removed.iter().any(|(gone, _)| gone == host));
    let same = before.filter(|before| before.parent == above).and_then(|before| before.linked.as_ref());
    if let Some(parent) = above
        && !only_known_hosts(&linked, same)
    {
        let mut tx = ctx.app.store.read().await?;
        let parent = targets::load(&mut tx, ctx.id(), parent).await?;
        // Its secret will be shown to these hosts: who may not read it cannot have it sent to hosts of his choice.
        ctx.require(TARGETS, parent.name.as_str(), "read")?;
    }
    if linked.hosts.len() > MOST_HOSTS {
        return Err(bad("hosts", format!("a linked target has at most {MOST_HOSTS} hosts")));
    }
    Ok((linked, above))
}

fn only_known_hosts(after: &Linked, before: Option<&Linked>) -> bool {
    let Some(before) = before else { return false };
    after.hosts.iter().all(|(host, _)| before.hosts.iter().any(|(known, _)| known == host))
}

/// `host[:port][;description],…`; commas at the end and missing descriptions are fine.
fn parse_hosts(text: &str) -> Vec<(String, String)> {
    let mut hosts: Vec<(String, String)> = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (host, about) = part.split_once(';').unwrap_or((part, ""));
        if !host.is_empty() && !hosts.iter().any(|(known, _)| known == host) {
            hosts.push((host.to_owned(), about.trim().to_owned()));
        }
    }
    hosts
}

#[cfg(test)]
mod tests {
    use super::parse_hosts;

    #[test]
    fn hosts_are_read_as_terraform_writes_them() {
        let host = |h: &str, d: &str| (h.to_owned(), d.to_owned());
        assert_eq!(
            parse_hosts("www.test1.com;test,aaa.com;fff"),
            [host("www.test1.com", "test"), host("aaa.com", "fff")]
        );
        assert_eq!(parse_hosts("aaa.com;fff,"), [host("aaa.com", "fff")]);
        assert_eq!(parse_hosts("aaa.com;fff,www.test4:22"), [host("aaa.com", "fff"), host("www.test4:22", "")]);
        assert_eq!(parse_hosts("a,a;twice"), [host("a", "")]);
    }
}
