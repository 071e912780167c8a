//! One call of the connector: whose account it is, who acts, and where the account is in the directory.

use volvelle_domain::Secret;
use volvelle_domain::connector::{ActingAs, Call, Failure, FailureClass};

use super::link::{Entry, Link, Root, Server};
use super::{config, text};
use crate::sent::Sent;

/// What is read of an account; a server gives what it knows and lets see.
const ATTRIBUTES: &[&str] = &[
    "userPassword",
    "pwdAccountLockedTime",
    "pwdPolicySubentry",
    "pwdReset",
    "sAMAccountName",
    "userAccountControl",
    "msDS-User-Account-Control-Computed",
    "pwdLastSet",
    "msDS-KeyVersionNumber",
];

/// A call.
pub(super) struct Visit<'a> {
    pub(super) call: &'a Call<'a>,
    pub(super) server: Server,
    pub(super) sent: Sent,
}

/// An account in the directory.
pub(super) struct Account {
    pub(super) dn: String,
    /// Logon name in a domain.
    pub(super) logon: String,
    /// The name with which the account itself logs in.
    pub(super) bind: String,
    pub(super) entry: Option<Entry>,
    pub(super) domain: bool,
    pub(super) realm: String,
}

impl<'a> Visit<'a> {
    pub(super) fn new(call: &'a Call<'a>) -> Result<Self, Failure> {
        Ok(Self { call, server: Server::of(call.target)?, sent: Sent::default() })
    }

    /// The secret is the target's own account.
    pub(super) fn is_target(&self) -> bool {
        self.call.rotator_type == "target"
    }

    /// Who answers for Kerberos.
    pub(super) fn kdc(&self) -> &str {
        match text(self.call.target, "kdc-host") {
            "" => &self.server.host,
            given => given,
        }
    }

    /// The account acts for itself.
    pub(super) fn own(&self) -> bool {
        self.is_target() || self.call.acting == ActingAs::User
    }

    /// The account's name for people.
    pub(super) fn who(&self) -> &'a str {
        self.call.current.expose_text("username").unwrap_or_default()
    }

    /// The target's account, with the password last witnessed where that is what rotates.
    pub(super) fn privileged(&self) -> (&'a str, Option<&'a Secret>) {
        let recorded = self.call.target.secret.field("bind-dn-password");
        let witnessed = self.call.current.field("password").filter(|_| self.is_target());
        (text(self.call.target, "bind-dn"), witnessed.or(recorded))
    }

    fn param(&self, name: &str) -> &'a str {
        self.call.params.get(name).and_then(serde_json::Value::as_str).unwrap_or_default().trim()
    }

    /// Looks the account up with a connection that is logged in as somebody who may.
    pub(super) async fn locate(&self, link: &mut Link, root: &Root) -> Result<Account, Failure> {
        let (name, attribute) = if self.is_target() {
            (text(self.call.target, "bind-dn"), "")
        } else {
            (self.who(), self.param("user-attribute"))
        };
        let entry = if is_dn(name) {
            link.read(name, ATTRIBUTES).await?
        } else {
            self.search(link, root, name, attribute).await?
        };
        let entry = entry.ok_or_else(|| self.not_there(name))?;
        let logon = entry.value("sAMAccountName").unwrap_or_default().to_owned();
        let bind = if self.is_target() { name.to_owned() } else { entry.dn().to_owned() };
        Ok(Account {
            dn: entry.dn().to_owned(),
            logon,
            bind,
            domain: root.domain,
            realm: root.realm.clone(),
            entry: Some(entry),
        })
    }

    async fn search(
        &self,
        link: &mut Link,
        root: &Root,
        name: &str,
        attribute: &str,
    ) -> Result<Option<Entry>, Failure> {
        let base = match self.param("user-dn") {
            given if !given.is_empty() && !self.is_target() => given,
            _ if root.base.is_empty() => return Err(config("the directory names no base to search in", "set user-dn")),
            _ => &root.base,
        };
        let filter = if self.is_target() {
            // A logon name instead of a distinguished one: `user@domain` or `DOMAIN\user`.
            let short = name.rsplit('\\').next().unwrap_or(name);
            let short = short.split('@').next().unwrap_or(short);
            format!("(|(userPrincipalName={})(sAMAccountName={}))", ldap3::ldap_escape(name), ldap3::ldap_escape(short))
        } else {
            let attribute = if attribute.is_empty() { "cn" } else { attribute };
            format!("({attribute}={})", ldap3::ldap_escape(name))
        };
        let mut found = link.find(base, &filter, ATTRIBUTES).await?;
        if found.len() > 1 {
            return Err(config(
                format!("more than one entry below {base} answers to {filter}"),
                "set user-dn and user-attribute so that only one does",
            ));
        }
        Ok(found.pop())
    }

    fn not_there(&self, name: &str) -> Failure {
        if self.is_target() {
            return config(
                format!("{name} has no entry in the directory (the root account of slapd is in its configuration)"),
                "rotate accounts that have an entry; the target's own account must be one of them",
            );
        }
        config(
            format!("the directory shows no entry for {name}"),
            "check rotated-username, user-dn and user-attribute, and that bind-dn may read the entry",
        )
    }

    /// What an earlier preflight found.
    pub(super) fn remembered(&self) -> Option<Account> {
        let memory = |name: &str| self.call.memory.get(name).filter(|value| !value.is_empty()).cloned();
        Some(Account {
            dn: memory("dn")?,
            logon: memory("logon").unwrap_or_default(),
            bind: memory("bind")?,
            domain: memory("domain")? == "yes",
            realm: memory("realm").unwrap_or_default(),
            entry: None,
        })
    }
}

/// Whether a name is a distinguished one.
pub(crate) fn is_dn(name: &str) -> bool {
    name.split_once('=').is_some_and(|(kind, value)| {
        let kind = kind.trim();
        let named = kind.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.');
        named && !kind.is_empty() && !value.is_empty()
    })
}

impl Account {
    /// The attributes as numbers of a domain account.
    fn number(&self, name: &str) -> Option<i64> {
        self.entry.as_ref()?.number(name)
    }

    /// When a domain says that the password was last set, in units of 100 ns since 1601.
    pub(super) fn last_set(&self) -> Option<i64> {
        self.number("pwdLastSet")
    }

    /// Why no password of the account can be witnessed now.
    pub(super) fn barred(&self, who: &str) -> Option<Failure> {
        const DISABLED: i64 = 0x2;
        const LOCKED: i64 = 0x10;
        if self.number("userAccountControl").is_some_and(|flags| flags & DISABLED != 0) {
            return Some(config(
                format!("{who} is disabled in the domain, so that no password of it can be witnessed"),
                "enable the account, or stop rotating it",
            ));
        }
        if self.number("msDS-User-Account-Control-Computed").is_some_and(|flags| flags & LOCKED != 0) {
            return Some(Failure::new(
                FailureClass::LoginBudget,
                format!("{who} is locked in the domain after failed logins"),
                "unlock it in the domain, then rotate again",
            ));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::is_dn;

    #[test]
    fn distinguished_names_are_told_from_logon_names() {
        for name in ["cn=admin,dc=example,dc=org", "CN=Doe\\, Jane,OU=x,DC=corp", "uid=a"] {
            assert!(is_dn(name), "{name}");
        }
        for name in ["admin", "admin@corp.test", "CORP\\admin", "a b"] {
            assert!(!is_dn(name), "{name}");
        }
    }
}
