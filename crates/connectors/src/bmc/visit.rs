//! One call of the connector: where the controller is, what it speaks, whose account it is and who acts.

use volvelle_domain::Secret;
use volvelle_domain::connector::{ActingAs, ApplyOutcome, Call, Failure, FailureClass, TargetParams};

use crate::parameters::{config, text};
use crate::sent::Sent;

/// What a controller speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// JSON over HTTPS.
    Redfish,
    /// IPMI 2.0 over UDP.
    Ipmi,
}

/// Where a controller is.
#[derive(Debug)]
pub(super) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) protocol: Protocol,
}

impl Address {
    pub(super) fn of(target: &TargetParams) -> Result<Self, Failure> {
        let host = text(target, "host").trim();
        if host.is_empty() || host.contains(['/', '\\', ' ', '@']) {
            return Err(config("host is empty or no name of a host", "set host to the BMC's name or address"));
        }
        let (protocol, usual) = match text(target, "protocol") {
            "" | "redfish" => (Protocol::Redfish, 443),
            "ipmi" => (Protocol::Ipmi, 623),
            other => {
                return Err(config(format!("protocol {other:?} is not one of redfish, ipmi"), "set protocol"));
            }
        };
        let port = match target.plain.get("port") {
            None => usual,
            Some(value) => value
                .as_u64()
                .or_else(|| {
                    value.as_str().and_then(|text| if text.is_empty() { Some(usual.into()) } else { text.parse().ok() })
                })
                .and_then(|port| u16::try_from(port).ok())
                .filter(|port| *port != 0)
                .ok_or_else(|| config("port must be between 1 and 65535", format!("set port, usually {usual}")))?,
        };
        Ok(Self { host: host.to_owned(), port, protocol })
    }
}

/// A call.
pub(super) struct Visit<'a> {
    pub(super) call: &'a Call<'a>,
    pub(super) address: Address,
    pub(super) sent: Sent,
}

/// Who logs in.
#[derive(Clone, Copy)]
pub(super) struct Who<'a> {
    pub(super) user: &'a str,
    pub(super) password: Option<&'a Secret>,
}

impl<'a> Who<'a> {
    /// The password, which there must be.
    pub(super) fn must(&self) -> Result<&'a Secret, Failure> {
        self.password.ok_or_else(|| config(format!("there is no password of {}", self.user), "give it"))
    }
}

impl<'a> Visit<'a> {
    pub(super) fn new(call: &'a Call<'a>) -> Result<Self, Failure> {
        Ok(Self { call, address: Address::of(call.target)?, sent: Sent::default() })
    }

    /// The account acts for itself.
    pub(super) fn own(&self) -> bool {
        self.call.rotator_type == "target"
            || self.call.acting == ActingAs::User
            || text(self.call.target, "username") == self.user()
    }

    /// The account whose password changes.
    pub(super) fn user(&self) -> &'a str {
        self.call.current.expose_text("username").unwrap_or_default()
    }

    /// Who logs in to make the change.
    pub(super) fn acting(&self) -> Who<'a> {
        if self.call.rotator_type == "target" || self.call.acting == ActingAs::User {
            return Who { user: self.user(), password: self.call.current.field("password") };
        }
        Who { user: text(self.call.target, "username"), password: self.call.target.secret.field("password") }
    }

    /// What an earlier preflight wrote down.
    pub(super) fn remembered(&self, name: &str) -> Option<&'a str> {
        self.call.memory.get(name).map(String::as_str)
    }

    /// What a failure means for a change.
    pub(super) fn outcome(&self, failure: Failure) -> ApplyOutcome {
        if self.sent.may_have_arrived() {
            return ApplyOutcome::Ambiguous(failure);
        }
        match failure.class {
            FailureClass::Unreachable | FailureClass::Timeout | FailureClass::LoginBudget => {
                ApplyOutcome::NotReached(failure)
            }
            _ => ApplyOutcome::Rejected(failure),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_follows_the_protocol_unless_it_is_given() {
        let of = |json: &str| {
            let plain = serde_json::from_str(json).expect("json");
            Address::of(&TargetParams { plain, ..TargetParams::default() }).map(|a| (a.protocol, a.port))
        };
        assert_eq!(of(r#"{"host": "h"}"#), Ok((Protocol::Redfish, 443)));
        assert_eq!(of(r#"{"host": "h", "port": "", "protocol": "ipmi"}"#), Ok((Protocol::Ipmi, 623)));
        assert_eq!(of(r#"{"host": "h", "port": "8443"}"#), Ok((Protocol::Redfish, 8443)));
        for wrong in [r#"{"port": "1"}"#, r#"{"host": "h", "port": "x"}"#, r#"{"host": "h", "protocol": "telnet"}"#] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }
}
