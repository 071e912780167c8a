//! Logging in over Windows Remote Management: by NTLM, or by Kerberos.
//!
//! What must stay true: which of the two it is follows from the target and the account alone, never from what a host or a network
//! refuses, so that nobody on the way can choose NTLM.

use std::time::SystemTime;

use hyper::StatusCode;
use volvelle_domain::Secret;
use volvelle_domain::connector::{Failure, FailureClass, TargetParams};

use super::http::{Http, Place, Sealing, strange};
use super::ntlm::{self, Challenge, Logon};
use super::visit::Who;
use super::winrm::Session;
use crate::kerberos::{Handshake, Question};
use crate::ldap::{config, text};

/// The values of `winrm-auth`.
const WAYS: &str = "negotiate, kerberos, ntlm";

/// What came of a login.
pub(super) enum Login<S> {
    In(Box<S>),
    /// The host said no more than that; the password may be wrong, or the account locked, barred or without the right.
    Denied,
}

/// How somebody logs in.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Way<'a> {
    Ntlm,
    /// With the controller that is asked, and the realm.
    Kerberos {
        kdc: &'a str,
        realm: String,
    },
}

impl<'a> Way<'a> {
    /// How an account of this domain (`None`: of the host itself) logs in.
    pub(super) fn of(target: &'a TargetParams, domain: Option<&'a str>) -> Result<Self, Failure> {
        let given = text(target, "kdc-host").trim();
        let kdc = Some(given).filter(|host| !host.is_empty()).or(domain.filter(|domain| domain.contains('.')));
        let kerberos = domain.zip(kdc).map(|(domain, kdc)| Self::Kerberos { kdc, realm: domain.to_uppercase() });
        match text(target, "winrm-auth") {
            "" | "negotiate" => Ok(kerberos.unwrap_or(Self::Ntlm)),
            "ntlm" => Ok(Self::Ntlm),
            "kerberos" => kerberos.ok_or_else(|| match domain {
                None => config(
                    "winrm-auth kerberos is for accounts of a domain, and the acting account is one of the host itself",
                    "set domain, or winrm-auth to negotiate",
                ),
                Some(domain) => config(
                    format!("nobody knows which host is the Kerberos server of the domain {domain}"),
                    "set kdc-host to a domain controller, or domain to its full name",
                ),
            }),
            other => Err(config(format!("winrm-auth {other:?} is not one of {WAYS}"), "set winrm-auth")),
        }
    }

    /// What it is called.
    pub(super) const fn shown(&self) -> &'static str {
        match self {
            Self::Ntlm => "NTLM",
            Self::Kerberos { .. } => "Kerberos",
        }
    }
}

fn offers_no_ntlm() -> Failure {
    config(
        "the host offers no NTLM login (Negotiate)",
        "allow it: winrm set winrm/config/service/auth @{Negotiate=\"true\"}",
    )
}

/// Logs in.
pub(super) async fn log_in(place: &Place<'_>, who: &Who<'_>) -> Result<Login<Session>, Failure> {
    let Some(password) = who.password.filter(|password| !password.is_empty()) else {
        return Err(config(format!("there is no password of {}", who.user), "give it"));
    };
    match Way::of(place.target, who.domain)? {
        Way::Ntlm => by_ntlm(place, who, password).await,
        Way::Kerberos { kdc, realm } => {
            let question = Question { host: kdc, realm: &realm, user: who.user };
            by_kerberos(place, &question, password).await.map(|session| Login::In(Box::new(session)))
        }
    }
}

async fn by_ntlm(place: &Place<'_>, who: &Who<'_>, password: &Secret) -> Result<Login<Session>, Failure> {
    let (mut http, bindings) = Http::open(place).await?;
    let first = ntlm::negotiate();
    let answer = http.authorize(&first).await?;
    let offered = answer.token.filter(|_| answer.status == StatusCode::UNAUTHORIZED);
    let challenge = Challenge::parse(&offered.ok_or_else(offers_no_ntlm)?)?;
    let computer = challenge.computer();
    let domain = who.domain.unwrap_or(&computer);
    let logon = Logon { domain, user: who.user, password, bindings };
    let (third, key) = logon.authenticate(&first, &challenge)?;
    let answer = http.authorize(&third).await?;
    if answer.status == StatusCode::UNAUTHORIZED {
        return Ok(Login::Denied);
    }
    if !place.tls {
        http.sealing = Some(Sealing::Ntlm(Box::new(ntlm::Sealing::new(&key))));
    }
    Ok(Login::In(Box::new(Session { http })))
}

/// The host is reached first, so that a password is spent only on one that is there.
async fn by_kerberos(place: &Place<'_>, question: &Question<'_>, password: &Secret) -> Result<Session, Failure> {
    let (mut http, bindings) = Http::open(place).await?;
    let now = SystemTime::now();
    let ticket = question.ticket(password, place.known_as, now).await?;
    let (handshake, token) = Handshake::begin(ticket, bindings, now);
    let answer = http.authorize(&token).await?;
    let refused = answer.status == StatusCode::UNAUTHORIZED;
    let context = match answer.token {
        Some(token) => handshake.finish(&token)?,
        None if refused => {
            return Err(Failure::new(
                FailureClass::Auth,
                format!(
                    "{} has a ticket of the domain, and the host refuses it (WinRM does not tell why)",
                    question.user
                ),
                "check that the account may use WinRM there, that the clocks agree, and that the host's name in the domain \
                 is its own (setspn -Q)",
            ));
        }
        None => return Err(strange("the host did not prove itself")),
    };
    if refused {
        return Err(Failure::new(
            FailureClass::Privilege,
            format!("the host knows {} by Kerberos, and does not let it use WinRM", question.user),
            "make it a member of Remote Management Users, or of Administrators",
        ));
    }
    if !place.tls {
        http.sealing = Some(Sealing::Kerberos(context));
    }
    Ok(Session { http })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn the_login_follows_from_the_target_and_the_account_alone() {
        let target =
            |plain: Value| TargetParams { plain: plain.as_object().expect("an object").clone(), ..Default::default() };
        let kerberos = |kdc, realm: &str| Ok(Way::Kerberos { kdc, realm: realm.to_owned() });
        let none = target(json!({}));
        assert_eq!(Way::of(&none, None), Ok(Way::Ntlm));
        assert_eq!(Way::of(&none, Some("CORP")), Ok(Way::Ntlm), "nobody knows its controller");
        assert_eq!(Way::of(&none, Some("corp.test")), kerberos("corp.test", "CORP.TEST"));
        let known = target(json!({"kdc-host": "dc1", "winrm-auth": "negotiate"}));
        assert_eq!(Way::of(&known, Some("CORP")), kerberos("dc1", "CORP"));
        assert_eq!(Way::of(&known, None), Ok(Way::Ntlm));
        let ntlm = target(json!({"kdc-host": "dc1", "winrm-auth": "ntlm"}));
        assert_eq!(Way::of(&ntlm, Some("corp.test")), Ok(Way::Ntlm));
        let strict = target(json!({"winrm-auth": "kerberos"}));
        assert_eq!(Way::of(&strict, Some("corp.test")), kerberos("corp.test", "CORP.TEST"));
        for domain in [None, Some("CORP")] {
            assert_eq!(Way::of(&strict, domain).map_err(|failure| failure.class), Err(FailureClass::Config));
        }
        assert!(Way::of(&target(json!({"winrm-auth": "basic"})), None).is_err());
    }
}
