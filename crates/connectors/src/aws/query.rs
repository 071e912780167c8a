//! One signed call of IAM or STS, and what its answer means.
//!
//! What must stay true: a call is told to be without effect only if the service said so or nothing was sent.

use std::time::Duration;

use volvelle_domain::connector::{Failure, FailureClass};
use volvelle_domain::{Credential, Secret};

use super::own::Own;
use super::place::{Given, Place, Service, place};
use super::sign::{self, Signer};
use super::{config, xml};

/// Longest answer.
const LONGEST: usize = 1 << 20;
/// Calls in all when the service asks to slow down: such a call has no effect, so that it may be made again.
const ATTEMPTS: u32 = 4;
/// First pause after that; each further one is twice as long, and up to as much again is added by chance.
const PAUSE: Duration = Duration::from_millis(250);

/// An access key that signs calls.
#[derive(Clone)]
pub(super) struct Key {
    pub(super) id: String,
    pub(super) secret: Secret,
    pub(super) token: Option<Secret>,
}

impl Key {
    /// The key that a version holds.
    pub(super) fn of(credential: &Credential) -> Option<Self> {
        let id = credential.expose_text("username")?.to_owned();
        Some(Self { id, secret: credential.field("password")?.clone(), token: None })
    }
}

/// Why a call gave no answer that can be used.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Nothing was sent, or the service did nothing for now.
    NotDone(Failure),
    /// The service refused, by this code.
    Refused(String, Failure),
    /// It may have been done.
    Unclear(Failure),
}

impl Trouble {
    pub(super) fn failure(self) -> Failure {
        match self {
            Self::NotDone(failure) | Self::Refused(_, failure) | Self::Unclear(failure) => failure,
        }
    }

    pub(super) fn is(&self, code: &str) -> bool {
        matches!(self, Self::Refused(own, _) if own == code)
    }
}

/// Calls the services.
#[derive(Clone)]
pub(super) struct Client {
    http: reqwest::Client,
    given: Given,
    own: Own,
}

impl Client {
    pub(super) fn new(given: Given, own: Own) -> Result<Self, Failure> {
        // Every call has a connection of its own: one that was closed while it waited would leave it open whether a call arrived.
        let http = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(5))
            .redirect(reqwest::redirect::Policy::none())
            .pool_max_idle_per_host(0)
            .build();
        let http = http.map_err(|_| config("no HTTPS client can be made", "install the package ca-certificates"))?;
        Ok(Self { http, given, own })
    }

    /// The key of the gateway itself.
    pub(super) async fn own_key(&self) -> Result<Key, Failure> {
        self.own.key(&self.http).await
    }

    /// Calls an action; the answer is the XML.
    pub(super) async fn call(
        &self,
        key: &Key,
        (service, region): (Service, &str),
        pairs: &[(&str, &str)],
    ) -> Result<String, Trouble> {
        let place = place(&self.given, service, region);
        let (name, version) = match service {
            Service::Iam => ("iam", "2010-05-08"),
            Service::Sts => ("sts", "2011-06-15"),
        };
        let body = sign::form(&[pairs, &[("Version", version)]].concat());
        let action = pairs.first().map_or("", |(_, action)| action);
        let mut pause = PAUSE;
        for attempt in 1.. {
            let answer =
                self.once(key, &place, name, &body).await.and_then(|(status, xml)| judged(action, status, xml));
            match answer {
                Err(Trouble::NotDone(failure)) if failure.class == FailureClass::Timeout && attempt < ATTEMPTS => {
                    tokio::time::sleep(pause + jitter(pause)).await;
                    pause *= 2;
                }
                other => return other,
            }
        }
        Err(Trouble::NotDone(slow_down(action)))
    }

    async fn once(&self, key: &Key, place: &Place, service: &str, body: &str) -> Result<(u16, String), Trouble> {
        let url = reqwest::Url::parse(&place.url)
            .map_err(|_| Trouble::NotDone(config("the endpoint is no URL", "correct AWS_ENDPOINT_URL")))?;
        let host = match (url.host_str(), url.port()) {
            (Some(host), Some(port)) => format!("{host}:{port}"),
            (Some(host), None) => host.to_owned(),
            (None, _) => return Err(Trouble::NotDone(config("the endpoint has no host", "correct AWS_ENDPOINT_URL"))),
        };
        let signer = Signer {
            key_id: &key.id,
            secret: key.secret.expose(),
            session_token: key.token.as_ref().and_then(Secret::expose_str),
            region: &place.region,
            service,
        };
        let stamp = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
        let headers = sign::headers(&signer, &host, url.path(), body.as_bytes(), &stamp);
        let mut request = self.http.post(url).body(body.to_owned());
        for (name, value) in headers.iter().filter(|(name, _)| name != "host") {
            request = request.header(name, value);
        }
        let mut response = request.send().await.map_err(|error| unreached(&host, &error))?;
        let status = response.status().as_u16();
        let mut xml = Vec::new();
        let broken = || Trouble::Unclear(unreachable(format!("{host} did not finish its answer")));
        while let Some(piece) = response.chunk().await.map_err(|_| broken())? {
            if xml.len() + piece.len() > LONGEST {
                return Err(Trouble::Unclear(Failure::new(
                    FailureClass::Protocol,
                    "the answer of AWS is too long",
                    "",
                )));
            }
            xml.extend_from_slice(&piece);
        }
        Ok((status, String::from_utf8_lossy(&xml).into_owned()))
    }
}

fn jitter(most: Duration) -> Duration {
    let mut byte = [0];
    // Without randomness the pause is merely the same for everybody.
    let _ = getrandom::fill(&mut byte);
    most * u32::from(byte[0]) / 255
}

fn unreachable(message: String) -> Failure {
    Failure::new(FailureClass::Unreachable, message, "check the network, and AWS_ENDPOINT_URL if it is set")
}

fn unreached(host: &str, error: &reqwest::Error) -> Trouble {
    if error.is_connect() {
        Trouble::NotDone(unreachable(format!("{host} cannot be reached")))
    } else {
        Trouble::Unclear(unreachable(format!("the connection to {host} broke before the answer came")))
    }
}

fn slow_down(action: &str) -> Failure {
    Failure::new(FailureClass::Timeout, format!("AWS asks to slow down ({action})"), "it is tried again later")
}

/// What a status and an error code mean.
fn judged(action: &str, status: u16, xml: String) -> Result<String, Trouble> {
    if (200..300).contains(&status) {
        return Ok(xml);
    }
    let code = xml::text(&xml, "Code").unwrap_or_default();
    let message = xml::text(&xml, "Message").unwrap_or_default();
    let failure = |class, text: String, hint: &str| Failure::new(class, text, hint);
    let shown: String = code.chars().filter(char::is_ascii_alphanumeric).take(64).collect();
    Err(match code.as_str() {
        "Throttling"
        | "ThrottlingException"
        | "RequestLimitExceeded"
        | "TooManyRequestsException"
        | "RequestThrottled" => Trouble::NotDone(slow_down(action)),
        "SignatureDoesNotMatch" | "RequestExpired" | "RequestTimeTooSkewed" if skewed(&code, &message) => {
            Trouble::Refused(code, config("the gateway's clock differs from that of AWS", "set the gateway's clock"))
        }
        "InvalidClientTokenId"
        | "SignatureDoesNotMatch"
        | "UnrecognizedClientException"
        | "InvalidAccessKeyId"
        | "IncompleteSignature"
        | "MissingAuthenticationToken"
        | "ExpiredToken"
        | "ExpiredTokenException" => {
            let text = format!("AWS refuses the access key ({shown})");
            Trouble::Refused(code, failure(FailureClass::Auth, text, "check access key id and secret key"))
        }
        "AccessDenied" | "AccessDeniedException" | "UnauthorizedOperation" => {
            let text = format!("the access key works but may not call {action}");
            let hint = format!("allow {action} in its policy (docs/targets/aws.md has one)");
            Trouble::Refused(code, Failure::new(FailureClass::Privilege, text, hint))
        }
        "EntityTemporarilyUnmodifiable" => {
            let text = format!("AWS cannot change this for a moment ({action})");
            Trouble::NotDone(failure(FailureClass::Timeout, text, "it is tried again later"))
        }
        "LimitExceeded" => {
            let text = "the user has two access keys already, which is the most that AWS admits".to_owned();
            Trouble::Refused(code, failure(FailureClass::Config, text, "delete the one that nobody uses"))
        }
        "NoSuchEntity" => {
            let text = format!("AWS knows no such user or key ({action})");
            Trouble::Refused(code, failure(FailureClass::Config, text, "check aws-user-name"))
        }
        "PasswordPolicyViolation" => {
            let text = "the account's password policy refuses the password".to_owned();
            Trouble::Refused(code, failure(FailureClass::Policy, text, "make the secret's password policy stricter"))
        }
        _ if status >= 500 => Trouble::Unclear(unreachable(format!("AWS answers with status {status}"))),
        _ => {
            let text = format!("AWS refuses {action} ({status} {shown})");
            Trouble::Refused(code, failure(FailureClass::Protocol, text, ""))
        }
    })
}

/// A wrong clock says nothing about a key.
fn skewed(code: &str, message: &str) -> bool {
    code != "SignatureDoesNotMatch" || message.contains("expired") || message.contains("not yet current")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, code: &str, message: &str) -> Trouble {
        let xml = format!("<E><Error><Code>{code}</Code><Message>{message}</Message></Error></E>");
        judged("CreateAccessKey", status, xml).expect_err("an error")
    }

    #[test]
    fn codes_are_told_apart() {
        let class = |status, code, message| answer(status, code, message).failure().class;
        assert_eq!(class(403, "InvalidClientTokenId", ""), FailureClass::Auth);
        assert_eq!(class(403, "SignatureDoesNotMatch", "The request signature we calculated …"), FailureClass::Auth);
        assert_eq!(
            class(403, "SignatureDoesNotMatch", "Signature expired: 2026… is now earlier"),
            FailureClass::Config
        );
        assert_eq!(class(403, "AccessDenied", ""), FailureClass::Privilege);
        assert_eq!(class(409, "LimitExceeded", ""), FailureClass::Config);
        assert!(matches!(answer(400, "Throttling", ""), Trouble::NotDone(_)));
        assert!(matches!(answer(500, "ServiceFailure", ""), Trouble::Unclear(_)));
        assert!(matches!(answer(503, "", ""), Trouble::Unclear(_)));
    }
}
