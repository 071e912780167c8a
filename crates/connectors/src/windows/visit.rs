//! One call of the connector: where the host is, which way leads there, whose account it is and who acts.

use std::sync::atomic::{AtomicBool, Ordering};

use volvelle_domain::connector::{ActingAs, Call, Failure, TargetParams};
use volvelle_domain::{Credential, Secret};

use crate::ldap::{config, flag, text};

/// The ways to a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// The account database over SMB.
    Samr,
    /// The directory of a domain.
    Ldap,
    /// Scripts over Windows Remote Management.
    WinRm,
    /// Scripts over OpenSSH for Windows.
    Ssh,
}

impl Route {
    /// What it is called.
    pub(super) const fn shown(self) -> &'static str {
        match self {
            Self::Samr => "SMB",
            Self::Ldap => "LDAP",
            Self::WinRm => "WinRM",
            Self::Ssh => "SSH",
        }
    }
}

/// Where a host is and how it is reached.
#[derive(Debug)]
pub(super) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) route: Route,
}

impl Address {
    pub(super) fn of(target: &TargetParams) -> Result<Self, Failure> {
        // Of a linked target, the host of the slot comes as `host`.
        let host = Some(text(target, "host").trim()).filter(|host| !host.is_empty());
        let host = host.unwrap_or_else(|| text(target, "hostname").trim());
        if host.is_empty() || host.contains(['/', '\\', ' ', '@']) {
            return Err(config("hostname is empty or no name of a host", "set hostname to the host's name or address"));
        }
        let given = match target.plain.get("port") {
            None => None,
            Some(value) => value
                .as_u64()
                .or_else(|| value.as_str().and_then(|text| if text.is_empty() { Some(0) } else { text.parse().ok() }))
                .and_then(|port| u16::try_from(port).ok())
                .map(|port| (port != 0).then_some(port))
                .ok_or_else(|| config("port must be between 1 and 65535", "set port"))?,
        };
        let (route, usual) = match text(target, "transport") {
            // Through a parent: where nothing else was said, accounts of the domain change.
            "" if target.parent.is_some() => (Route::Ldap, 636),
            "" => by_port(given.unwrap_or(super::USUAL_PORT))?,
            "samr" => (Route::Samr, 445),
            "ldap" => (Route::Ldap, 636),
            "ssh" => (Route::Ssh, 22),
            "winrm" => (Route::WinRm, if uses_tls(target) { 5986 } else { 5985 }),
            other => {
                return Err(config(format!("transport {other:?} is not one of {}", super::ROUTES), "set transport"));
            }
        };
        Ok(Self { host: host.to_owned(), port: given.unwrap_or(usual), route })
    }
}

fn by_port(port: u16) -> Result<(Route, u16), Failure> {
    match port {
        445 | 139 => Ok((Route::Samr, 445)),
        389 | 636 | 3268 | 3269 => Ok((Route::Ldap, 636)),
        22 => Ok((Route::Ssh, 22)),
        5985 | 5986 => Ok((Route::WinRm, port)),
        other => Err(config(
            format!("nobody knows what is spoken at port {other}"),
            format!("set transport to one of {}", super::ROUTES),
        )),
    }
}

/// A call.
pub(super) struct Visit<'a> {
    pub(super) call: &'a Call<'a>,
    pub(super) address: Address,
    sent: AtomicBool,
}

/// Who logs in.
pub(super) struct Who<'a> {
    /// `None`: an account of the host itself.
    pub(super) domain: Option<&'a str>,
    pub(super) user: &'a str,
    pub(super) password: Option<&'a Secret>,
}

impl<'a> Visit<'a> {
    pub(super) fn new(call: &'a Call<'a>) -> Result<Self, Failure> {
        Ok(Self { call, address: Address::of(call.target)?, sent: AtomicBool::new(false) })
    }

    /// From here on the change may arrive at the host.
    pub(super) fn sending(&self) {
        self.sent.store(true, Ordering::Release);
    }

    /// Whether the change may have arrived at the host.
    pub(super) fn has_sent(&self) -> bool {
        self.sent.load(Ordering::Acquire)
    }

    pub(super) fn is_target(&self) -> bool {
        self.call.rotator_type == "target"
    }

    /// The account acts for itself.
    pub(super) fn own(&self) -> bool {
        self.is_target() || self.call.acting == ActingAs::User
    }

    /// The account whose password changes.
    pub(super) fn user(&self) -> &'a str {
        self.call.current.expose_text("username").unwrap_or_default()
    }

    /// Who logs in to make the change.
    pub(super) fn acting(&self) -> Who<'a> {
        if self.own() { self.as_account(self.call.current.field("password")) } else { self.privileged() }
    }

    /// The account itself with this password.
    pub(super) fn as_account(&self, password: Option<&'a Secret>) -> Who<'a> {
        Who { domain: None, user: self.user(), password }
    }

    /// The target's account.
    pub(super) fn privileged(&self) -> Who<'a> {
        let target = self.call.target;
        let (domain, user) = split(text(target, "username"), text(target, "domain"));
        Who { domain, user, password: target.secret.field("password") }
    }
}

/// A credential's password, if there is one.
pub(super) fn password(credential: &Credential) -> Option<&Secret> {
    credential.field("password").filter(|password| !password.is_empty())
}

/// `DOMAIN\user`, `user@domain`, or a user beside a domain; a dot stands for the host itself.
pub(super) fn split<'a>(name: &'a str, domain: &'a str) -> (Option<&'a str>, &'a str) {
    let (domain, user) = match name.split_once('\\') {
        Some((domain, user)) => (domain, user),
        None => match name.split_once('@') {
            Some((user, domain)) => (domain, user),
            None => (domain, name),
        },
    };
    (Some(domain.trim()).filter(|domain| !domain.is_empty() && *domain != "."), user)
}

/// Whether WinRM goes over HTTPS: as `use-tls` says, and if it says nothing, everywhere but at the port for HTTP.
pub(super) fn uses_tls(target: &TargetParams) -> bool {
    if target.plain.contains_key("use-tls") {
        return flag(target, "use-tls");
    }
    !target.plain.get("port").is_some_and(|port| port.as_str() == Some("5985") || port.as_u64() == Some(5985))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_windows_writes_them() {
        assert_eq!(split("CORP\\bob", ""), (Some("CORP"), "bob"));
        assert_eq!(split("bob@corp.test", "x"), (Some("corp.test"), "bob"));
        assert_eq!(split("bob", "CORP"), (Some("CORP"), "bob"));
        assert_eq!(split(".\\bob", "CORP"), (None, "bob"));
        assert_eq!(split("bob", ""), (None, "bob"));
    }

    #[test]
    fn the_way_follows_the_port_and_an_explicit_one_wins() {
        let of = |plain: serde_json::Value| {
            let plain = plain.as_object().expect("an object").clone();
            Address::of(&TargetParams { plain, ..TargetParams::default() }).map(|a| (a.route, a.port))
        };
        let json = |text: &str| serde_json::from_str(text).expect("json");
        assert_eq!(of(json(r#"{"hostname": "h", "port": "445"}"#)), Ok((Route::Samr, 445)));
        assert_eq!(of(json(r#"{"hostname": "h", "port": 636}"#)), Ok((Route::Ldap, 636)));
        assert_eq!(of(json(r#"{"hostname": "h", "port": 4450, "transport": "samr"}"#)), Ok((Route::Samr, 4450)));
        assert_eq!(of(json(r#"{"hostname": "h", "transport": "ldap"}"#)), Ok((Route::Ldap, 636)));
        assert_eq!(of(json(r#"{"hostname": "h", "port": "22"}"#)), Ok((Route::Ssh, 22)));
        assert_eq!(of(json(r#"{"hostname": "h", "port": 2222, "transport": "ssh"}"#)), Ok((Route::Ssh, 2222)));
        assert!(of(json(r#"{"hostname": "h", "port": "1"}"#)).is_err());
        assert!(of(json(r#"{"hostname": "h", "transport": "telnet"}"#)).is_err());
        assert!(of(json(r#"{"port": "445"}"#)).is_err());
    }
}
