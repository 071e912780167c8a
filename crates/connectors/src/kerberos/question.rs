//! Asks whether a password is an account's present one: the first exchange of Kerberos, nothing more.
//!
//! The ticket asked for is the one for changing passwords, which an expired password opens too.

use std::time::SystemTime;

use volvelle_domain::Secret;
use volvelle_domain::connector::{Failure, FailureClass};

use super::der;
use super::kdc::{self, Answer, Part, Reply, Told};
use super::key::Stretch;

/// What the KDC says.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// It is the account's password.
    Opens,
    /// It is not.
    Refused,
    /// It does not say.
    Unknown(Failure),
}

/// Whom to ask about whom.
pub(crate) struct Question<'a> {
    /// Name or address of the domain controller.
    pub(crate) host: &'a str,
    /// The realm, in capitals.
    pub(crate) realm: &'a str,
    /// The account's logon name.
    pub(crate) user: &'a str,
}

fn unknown(said: impl Into<String>, hint: &str) -> Failure {
    Failure::new(FailureClass::Protocol, said, hint)
}

impl Question<'_> {
    /// Asks. Costs at most one failed login on the account, and that only for [`Verdict::Refused`].
    pub(crate) async fn ask(&self, password: &Secret) -> Verdict {
        let mut clock = kdc::written(SystemTime::now());
        // A second time only with the KDC's own clock.
        for _ in 0..2 {
            match self.first(0, &["kadmin", "changepw"], password, &clock).await {
                Ok(Ok(_)) => return Verdict::Opens,
                Ok(Err(Told { code: 37, server_time, .. })) => clock = server_time,
                Ok(Err(Told { code: 24, .. })) => return Verdict::Refused,
                Ok(Err(Told { code, .. })) => return Verdict::Unknown(self.told(code)),
                Err(failure) => return Verdict::Unknown(failure),
            }
        }
        Verdict::Unknown(unknown("the KDC's clock cannot be followed", "set the clocks right"))
    }

    /// Whether the KDC is there and knows the account; costs nothing.
    pub(crate) async fn greet(&self) -> Result<(), Failure> {
        let body = kdc::body(0, Some(self.user), self.realm, &["kadmin", "changepw"], kdc::nonce());
        match kdc::exchange(self.host, &kdc::request(0x6a, 10, None, &body)).await? {
            Answer::Error(Told { code: code @ (6 | 18 | 68), .. }) => Err(self.told(code)),
            _ => Ok(()),
        }
    }

    /// The first exchange: proves the password with the time that `clock` shows. A positive answer is one that was made with the
    /// account's key; the other one is what the KDC says instead.
    pub(super) async fn first(
        &self,
        options: u32,
        service: &[&str],
        password: &Secret,
        clock: &str,
    ) -> Result<Result<(Reply, Part), Told>, Failure> {
        let text = password.expose_str().ok_or_else(|| unknown("the password is no text", ""))?;
        let nonce = kdc::nonce();
        let body = kdc::body(options, Some(self.user), self.realm, service, nonce);
        let told = match kdc::exchange(self.host, &kdc::request(0x6a, 10, None, &body)).await? {
            Answer::Error(told) => told,
            Answer::Reply(_) => {
                return Err(unknown(
                    format!("the domain asks {} for no proof before it answers (DONT_REQUIRE_PREAUTH)", self.user),
                    "require Kerberos pre-authentication of the account",
                ));
            }
        };
        if told.code != 25 {
            return Ok(Err(told));
        }
        let stretch = Stretch::offered(&told.data).ok_or_else(|| {
            unknown(
                format!("the domain offers no AES encryption for {}", self.user),
                "change the password once in the domain, which gives the account AES keys",
            )
        })?;
        let key = stretch.key(text);
        let time = der::sequence(&[der::explicit(0, &der::time(clock)), der::explicit(1, &der::integer(1))]);
        let proof = key.sealed(1, &time);
        match kdc::exchange(self.host, &kdc::request(0x6a, 10, Some((2, &proof)), &body)).await? {
            Answer::Error(told) => Ok(Err(told)),
            Answer::Reply(reply) => match key.open(3, &reply.sealed).and_then(|plain| Part::read(&plain)) {
                Some(part) if part.nonce == nonce && part.service.first().is_some_and(|word| word == service[0]) => {
                    Ok(Ok((reply, part)))
                }
                _ => {
                    Err(unknown("the KDC's answer is not made with the account's key", "check that it is the real one"))
                }
            },
        }
    }

    /// What an error of the KDC means.
    pub(super) fn told(&self, code: u32) -> Failure {
        let user = self.user;
        match code {
            6 => unknown(
                format!("the domain {} does not know {user} (Kerberos error 6)", self.realm),
                "check the user's name and the domain",
            ),
            12 => Failure::new(
                FailureClass::Privilege,
                format!("the domain does not let {user} log on now or from here (Kerberos error 12)"),
                "change its logon hours or the workstations it may use",
            ),
            14 => unknown(
                format!("the domain has no AES key in common with {user} (Kerberos error 14)"),
                "change the password once in the domain, which gives the account AES keys",
            ),
            18 => unknown(
                format!("{user} is disabled, expired or locked in the domain (Kerberos error 18)"),
                "enable or unlock the account, then rotate again",
            ),
            23 => Failure::new(
                FailureClass::Privilege,
                format!("the password of {user} has expired in the domain (Kerberos error 23)"),
                "change it in the domain, and correct the target's password",
            ),
            68 => {
                unknown(format!("{} is not the realm of the KDC (Kerberos error 68)", self.realm), "check the domain")
            }
            code => unknown(format!("the KDC answers with error {code}"), ""),
        }
    }
}
