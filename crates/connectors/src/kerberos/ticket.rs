//! A ticket for a service: the password opens the ticket of the domain, and that one gets the ticket of the service.

use std::time::SystemTime;

use volvelle_domain::Secret;
use volvelle_domain::connector::{Failure, FailureClass};

use super::cts::Key;
use super::der;
use super::kdc::{self, Answer, Part, Reply, Told};
use super::question::Question;

/// The KDC may correct names: a domain's short name, another spelling of the user.
const CANONICALIZE: u32 = 0x1_0000;

/// A ticket for a service, and the key that is shared with it.
pub(crate) struct Ticket {
    realm: Vec<u8>,
    client: Vec<u8>,
    sealed: Vec<u8>,
    pub(super) key: Key,
}

impl Ticket {
    fn of(reply: Reply, key: Key) -> Self {
        Self { realm: reply.realm, client: reply.client, sealed: reply.ticket, key }
    }

    /// An `Authenticator` with `extra` fields, whose numbers are above 2.
    fn authenticator(&self, extra: &[Vec<u8>]) -> Vec<u8> {
        let mut parts =
            vec![der::explicit(0, &der::integer(5)), der::explicit(1, &self.realm), der::explicit(2, &self.client)];
        parts.extend_from_slice(extra);
        der::element(0x62, &der::sequence(&parts))
    }

    /// An `AP-REQ` whose authenticator has these fields and is sealed for this usage.
    pub(super) fn request(&self, options: u32, usage: u32, extra: &[Vec<u8>]) -> Vec<u8> {
        let options = der::element(0x03, &[&[0], &options.to_be_bytes()[..]].concat());
        let parts = [
            der::explicit(0, &der::integer(5)),
            der::explicit(1, &der::integer(14)),
            der::explicit(2, &options),
            der::explicit(3, &self.sealed),
            der::explicit(4, &self.key.sealed(usage, &self.authenticator(extra))),
        ];
        der::element(0x6e, &der::sequence(&parts))
    }
}

/// The fields of an authenticator that tell the time: microseconds and seconds.
pub(super) fn moment(at: SystemTime) -> (u32, String) {
    let micros = at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.subsec_micros());
    (micros, kdc::written(at))
}

impl Question<'_> {
    /// A ticket for the service `HTTP/host`. Costs a failed login if the password is wrong.
    pub(crate) async fn ticket(&self, password: &Secret, host: &str, now: SystemTime) -> Result<Ticket, Failure> {
        let clock = kdc::written(now);
        let granting = ["krbtgt", self.realm];
        let (reply, part) = self
            .first(CANONICALIZE, &granting, password, &clock)
            .await
            .map_err(ajar)?
            .map_err(|told| self.refused(&told, &clock))?;
        let realm = part.realm.clone();
        let granting = Ticket::of(reply, part.key);
        let nonce = kdc::nonce();
        let service = ["HTTP", host];
        let body = kdc::body(0, None, &realm, &service, nonce);
        let (micros, time) = moment(now);
        let proof = granting.request(
            0,
            7,
            &[
                der::explicit(3, &granting.key.vouched(6, &body)),
                der::explicit(4, &der::integer(micros)),
                der::explicit(5, &der::time(&time)),
            ],
        );
        match kdc::exchange(self.host, &kdc::request(0x6c, 12, Some((1, &proof)), &body)).await.map_err(ajar)? {
            Answer::Error(told) => Err(self.no_service(&told, host, &clock)),
            Answer::Reply(reply) => {
                let part = granting.key.open(8, &reply.sealed).and_then(|plain| Part::read(&plain));
                let part = part.filter(|part| part.nonce == nonce);
                let part = part.ok_or_else(|| kdc::strange("it is not made with the key of the domain's ticket"))?;
                if part.service.first().is_some_and(|word| word == "krbtgt") {
                    return Err(Failure::new(
                        FailureClass::Config,
                        format!("{host} belongs to another domain than {}", self.realm),
                        "use an account of the host's own domain",
                    ));
                }
                // A ticket for somebody else would let that one prove itself instead of the host.
                let same = part.service.iter().map(String::as_str).zip(service).all(|(a, b)| a.eq_ignore_ascii_case(b));
                if !same || part.service.len() != service.len() {
                    return Err(kdc::strange("it is a ticket for another service"));
                }
                Ok(Ticket::of(reply, part.key))
            }
        }
    }

    /// Why the domain's ticket was not given.
    fn refused(&self, told: &Told, clock: &str) -> Failure {
        match told.code {
            24 => Failure::new(
                FailureClass::Auth,
                format!("the domain refuses the password of {} (Kerberos error 24)", self.user),
                "correct the credential of the target",
            ),
            37 => skewed("the domain controller", clock, &told.server_time),
            code @ (6 | 18) => Failure { class: FailureClass::Auth, ..self.told(code) },
            code @ 68 => Failure { class: FailureClass::Config, ..self.told(code) },
            code => self.told(code),
        }
    }

    /// Why the service's ticket was not given.
    fn no_service(&self, told: &Told, host: &str, clock: &str) -> Failure {
        match told.code {
            7 => Failure::new(
                FailureClass::Config,
                format!("the domain {} knows no service HTTP/{host} (Kerberos error 7)", self.realm),
                "set hostname or kerberos-hostname to the host's name in the domain, or register the name there: \
                 setspn -S HTTP/name computer",
            ),
            14 => Failure::new(
                FailureClass::Config,
                format!("HTTP/{host} has no AES key in the domain (Kerberos error 14)"),
                "allow AES in msDS-SupportedEncryptionTypes of the computer's account",
            ),
            37 => skewed("the domain controller", clock, &told.server_time),
            code => self.told(code),
        }
    }
}

/// Over WinRM there is another login, which the user may choose; none is made of itself.
fn ajar(failure: Failure) -> Failure {
    if failure.class != FailureClass::Unreachable {
        return failure;
    }
    Failure::new(
        failure.class,
        failure.message,
        "set kdc-host to a domain controller that can be reached, or winrm-auth to ntlm",
    )
}

/// Kerberos admits five minutes.
pub(super) fn skewed(whose: &str, ours: &str, theirs: &str) -> Failure {
    let shown = |time: &str| {
        let clock: String = time.chars().filter(char::is_ascii_digit).take(14).collect();
        match clock.get(8..10).zip(clock.get(10..12)).zip(clock.get(12..14)) {
            Some(((hours, minutes), seconds)) => format!("{hours}:{minutes}:{seconds}"),
            None => "an unknown time".to_owned(),
        }
    };
    Failure::new(
        FailureClass::Config,
        format!(
            "the clocks differ by more than Kerberos admits: here it is {} UTC, {whose} says {}",
            shown(ours),
            shown(theirs)
        ),
        "set the clocks right (NTP) on both",
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use volvelle_testkit::samba::{Domain, INITIAL_PASSWORD};

    use super::*;

    /// A clock that is wrong cannot be set on a machine of tests, so that this is asked below the connector.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_real_controller_refuses_a_wrong_clock_and_both_times_are_told() {
        let domain = Domain::start().expect("starts");
        domain.join("WIN1", "HTTP/win1.corp.test").expect("joins");
        let host = domain.address().to_string();
        let question = Question { host: &host, realm: "CORP.TEST", user: "app1" };
        let (password, now) = (Secret::from(INITIAL_PASSWORD), SystemTime::now());
        question.ticket(&password, "win1.corp.test", now).await.expect("a ticket");
        for wrong in [now - Duration::from_secs(3600), now + Duration::from_secs(3600)] {
            let failure = question.ticket(&password, "win1.corp.test", wrong).await.err().expect("another clock");
            assert_eq!(failure.class, FailureClass::Config, "{failure:?}");
            assert!(
                failure.message.contains("the domain controller says") && failure.hint.contains("NTP"),
                "{failure:?}"
            );
        }
        assert_eq!(domain.failures("app1").expect("counts"), 0, "a clock costs no failed login");
    }
}
