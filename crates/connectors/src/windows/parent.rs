//! A host whose domain has a target of its own, the parent: accounts of the domain change through the parent's directory, and the parent's
//! account acts at the host.

use std::borrow::Cow;

use serde_json::Value;
use volvelle_domain::connector::{Failure, Parent, TargetParams};

use super::visit::{Address, Route, split};
use super::{Translated, config};
use crate::ldap::{is_dn, text};

/// Whether `connection-type` and the parent fit each other.
pub(super) fn check(target: &TargetParams) -> Result<(), Failure> {
    match (text(target, "connection-type"), &target.parent) {
        ("" | "credentials", None) => Ok(()),
        ("parent-target", Some(_)) => {
            let target = acting_for(target)?;
            // Where the host's own accounts change, the parent's account must have a name there.
            if Address::of(&target)?.route != Route::Ldap {
                must_have_a_name(text(&target, "username"))
            } else {
                Ok(())
            }
        }
        ("parent-target", None) => Err(config("parent-target-name is empty", "set it to the target of the domain")),
        ("" | "credentials", Some(_)) => {
            Err(config("connection-type says nothing of a parent", "set connection-type to parent-target"))
        }
        (other, _) => Err(config(
            format!("connection-type {other:?} is not one of credentials, parent-target"),
            "set connection-type",
        )),
    }
}

/// A distinguished name opens a directory and no host.
pub(super) fn must_have_a_name(user: &str) -> Result<(), Failure> {
    if !user.is_empty() {
        return Ok(());
    }
    Err(config(
        "the target's account has no name with which anybody logs in to a host",
        "set username; on a parent whose bind-dn is a distinguished name, to the logon name of that account",
    ))
}

/// The parent as the directory's connector understands it.
pub(super) fn directory(parent: &Parent) -> Result<TargetParams, Failure> {
    if parent.kind == "ldap" {
        return Ok(parent.params.clone());
    }
    let address = Address::of(&parent.params)?;
    if address.route != Route::Ldap {
        return Err(config(
            "the parent is a Windows host and no directory",
            "name a target of kind ldap, or set the parent's transport to ldap",
        ));
    }
    Ok(Translated::directory(&parent.params, &address))
}

/// The target with the account and the domain controller of its parent, if it has one.
pub(super) fn acting_for(target: &TargetParams) -> Result<Cow<'_, TargetParams>, Failure> {
    let Some(parent) = &target.parent else { return Ok(Cow::Borrowed(target)) };
    let directory = directory(parent)?;
    let (domain, user) = logon(target, parent);
    let mut acting = target.clone();
    let controller = Some(text(&directory, "kdc-host")).filter(|host| !host.is_empty());
    let controller = controller.unwrap_or_else(|| host_of(text(&directory, "ldap-url")));
    for (name, value, given) in [
        ("username", user.as_str(), ""),
        ("domain", domain.as_str(), ""),
        ("kdc-host", controller, text(target, "kdc-host")),
    ] {
        acting.plain.insert(name.to_owned(), Value::from(if given.is_empty() { value } else { given }));
    }
    if let Some(password) = directory.secret.field("bind-dn-password") {
        acting.secret = acting.secret.with("password", password.clone());
    }
    Ok(Cow::Owned(acting))
}

/// Domain and name of the parent's account as Windows knows them; the name is empty if the parent does not say.
fn logon(target: &TargetParams, parent: &Parent) -> (String, String) {
    let params = &parent.params;
    let (name, domain) = if parent.kind == "ldap" {
        let dn = text(params, "bind-dn");
        let name = match text(params, "username") {
            "" if is_dn(dn) => "",
            "" => dn,
            given => given,
        };
        (name, domain_of(dn))
    } else {
        (text(params, "username"), text(params, "domain").to_owned())
    };
    let (domain, user) = split(name, &domain);
    let given = Some(text(target, "domain")).filter(|domain| !domain.is_empty());
    (given.or(domain).unwrap_or_default().to_owned(), user.to_owned())
}

/// The domain that a distinguished name ends in.
fn domain_of(dn: &str) -> String {
    let parts = dn.split(',').filter_map(|part| part.trim().split_once('='));
    let labels: Vec<&str> = parts.filter(|(name, _)| name.eq_ignore_ascii_case("dc")).map(|(_, label)| label).collect();
    labels.join(".")
}

/// The host in the address of a directory.
fn host_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    match rest.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => rest.split([':', '/']).next().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use volvelle_domain::Credential;

    use super::*;

    fn params(plain: &Value) -> TargetParams {
        TargetParams { plain: plain.as_object().expect("an object").clone(), ..TargetParams::default() }
    }

    fn parent(kind: &str, plain: &Value) -> Option<Box<Parent>> {
        let secret = Credential::default()
            .with("password", "of the parent".into())
            .with("bind-dn-password", "of the parent".into());
        Some(Box::new(Parent { kind: kind.to_owned(), params: TargetParams { secret, ..params(plain) } }))
    }

    fn acting(own: &Value, parent: Option<Box<Parent>>) -> [String; 3] {
        let target = TargetParams { parent, ..params(own) };
        let acting = acting_for(&target).expect("a directory");
        assert_eq!(acting.secret.expose_text("password"), Some("of the parent"));
        ["domain", "username", "kdc-host"].map(|name| text(&acting, name).to_owned())
    }

    #[test]
    fn the_parents_account_acts_under_the_name_that_a_host_knows() {
        let own = json!({"hostname": "h"});
        let ldap = |more: Value| {
            let mut plain = json!({"ldap-url": "ldaps://dc1.corp.test:636"});
            plain.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
            parent("ldap", &plain)
        };
        let dn = "CN=Rotator,CN=Users,DC=corp,DC=test";
        assert_eq!(acting(&own, ldap(json!({"bind-dn": "rot@corp.test"}))), ["corp.test", "rot", "dc1.corp.test"]);
        assert_eq!(acting(&own, ldap(json!({"bind-dn": "CORP\\rot", "kdc-host": "kdc"}))), ["CORP", "rot", "kdc"]);
        assert_eq!(acting(&own, ldap(json!({"bind-dn": dn, "username": "rot"})))[..2], ["corp.test", "rot"]);
        assert_eq!(acting(&json!({"domain": "CORP"}), ldap(json!({"bind-dn": dn, "username": "rot"})))[0], "CORP");
        let other = acting(&json!({"domain": "WIN1"}), ldap(json!({"bind-dn": "rot@corp.test"})));
        assert_eq!(other[..2], ["WIN1", "rot"], "what the host's own target says counts");
        assert_eq!(acting(&own, ldap(json!({ "bind-dn": dn })))[1], "");
        assert_eq!(acting(&json!({"kdc-host": "k"}), ldap(json!({ "bind-dn": dn })))[2], "k");
        let windows = json!({"hostname": "::1", "port": "636", "username": "rot", "domain": "corp.test"});
        assert_eq!(acting(&own, parent("windows", &windows))[..2], ["corp.test", "rot"]);
        assert_eq!(host_of("ldaps://[::1]:636"), "::1");
    }

    #[test]
    fn connection_type_and_parent_go_together() {
        let target = |kind: &str, parent: Option<Box<Parent>>| TargetParams {
            parent,
            ..params(&json!({"hostname": "h", "connection-type": kind}))
        };
        let ldap = || parent("ldap", &json!({"ldap-url": "ldaps://dc", "bind-dn": "CN=a,DC=b"}));
        assert!(check(&target("credentials", None)).is_ok() && check(&target("parent-target", ldap())).is_ok());
        assert!(check(&target("parent-target", None)).is_err_and(|f| f.message.starts_with("parent-target-name")));
        assert!(check(&target("credentials", ldap())).is_err() && check(&target("magic", None)).is_err());
        let windows = |port: &str| parent("windows", &json!({"hostname": "dc", "port": port, "username": "a"}));
        assert!(check(&target("parent-target", windows("636"))).is_ok());
        assert!(check(&target("parent-target", windows("5986"))).is_err_and(|f| f.hint.contains("transport")));
        let mut local = target("parent-target", ldap());
        local.plain.insert("transport".to_owned(), "winrm".into());
        assert!(check(&local).is_err_and(|f| f.hint.contains("username")), "nobody logs in with a distinguished name");
    }
}
