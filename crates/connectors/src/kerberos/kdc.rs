//! A domain's KDC over TCP: one request, one answer, and what its errors mean (RFC 4120).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use volvelle_domain::connector::{Failure, FailureClass};

use super::cts::Key;
use super::der;
use super::key::ETYPES;

/// Longest answer that is read.
const LONGEST: usize = 64 * 1024;
/// How long the KDC may take to be reached.
const CONNECT: Duration = Duration::from_secs(5);
/// The end of a ticket's life: as late as the KDC admits.
const TILL: &str = "20370913024805Z";

/// An error's code, with what else is used of it.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) code: u32,
    pub(super) server_time: String,
    pub(super) data: Vec<u8>,
}

/// A ticket, still sealed, with what the client needs to use it. Names are kept as they are encoded.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) realm: Vec<u8>,
    pub(super) client: Vec<u8>,
    pub(super) ticket: Vec<u8>,
    pub(super) sealed: Vec<u8>,
}

/// A KDC's answer.
#[derive(Debug)]
pub(super) enum Answer {
    /// `KRB-ERROR`.
    Error(Told),
    /// `AS-REP` or `TGS-REP`.
    Reply(Reply),
}

/// The part of a reply that was sealed for the client.
pub(super) struct Part {
    pub(super) key: Key,
    pub(super) nonce: u32,
    pub(super) realm: String,
    /// The words of the service's name.
    pub(super) service: Vec<String>,
}

impl Part {
    /// Some KDCs tag the part of an `AS-REP` as that of a `TGS-REP`.
    pub(super) fn read(plain: &[u8]) -> Option<Self> {
        let inner = der::content(plain, 0x79).or_else(|| der::content(plain, 0x7a))?;
        let fields = der::content(inner, 0x30)?;
        let name = der::content(der::field(fields, 10)?, 0x30)?;
        let words = der::content(der::field(name, 1)?, 0x30)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Some(Self {
            key: Key::read(der::field(fields, 0)?)?,
            nonce: der::number(der::field(fields, 2)?)?,
            realm: text(der::content(der::field(fields, 9)?, 0x1b)?),
            service: der::elements(words).map(|(_, word)| text(word)).collect(),
        })
    }
}

/// Sends a request to port 88 of `host`.
pub(super) async fn exchange(host: &str, request: &[u8]) -> Result<Answer, Failure> {
    let away = |error: std::io::Error| {
        Failure::new(
            FailureClass::Unreachable,
            format!("the domain's Kerberos service (port 88 of {host}) does not answer: {}", error.kind()),
            "open port 88, which alone tells a domain's present password from its previous one",
        )
    };
    let connect = tokio::time::timeout(CONNECT, TcpStream::connect((host, 88))).await;
    let mut stream = connect.map_err(|_| away(std::io::ErrorKind::TimedOut.into()))?.map_err(away)?;
    let length = u32::try_from(request.len()).unwrap_or(0).to_be_bytes();
    stream.write_all(&[&length, request].concat()).await.map_err(away)?;
    let mut length = [0_u8; 4];
    stream.read_exact(&mut length).await.map_err(away)?;
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > LONGEST {
        return Err(strange("it is too long"));
    }
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer).await.map_err(away)?;
    parse(&answer).ok_or_else(|| strange("it cannot be read"))
}

pub(super) fn strange(what: &str) -> Failure {
    Failure::new(FailureClass::Protocol, format!("the KDC's answer cannot be used: {what}"), "")
}

fn parse(answer: &[u8]) -> Option<Answer> {
    let (tag, content, _) = der::read(answer)?;
    let fields = der::content(content, 0x30)?;
    match tag {
        0x6b | 0x6d => {
            let part = der::content(der::field(fields, 6)?, 0x30)?;
            Some(Answer::Reply(Reply {
                realm: der::field(fields, 3)?.to_vec(),
                client: der::field(fields, 4)?.to_vec(),
                ticket: der::field(fields, 5)?.to_vec(),
                sealed: der::content(der::field(part, 2)?, 0x04)?.to_vec(),
            }))
        }
        0x7e => error(answer).map(Answer::Error),
        _ => None,
    }
}

/// Reads a `KRB-ERROR`, of a KDC or of a service.
pub(super) fn error(message: &[u8]) -> Option<Told> {
    let fields = der::content(der::content(message, 0x7e)?, 0x30)?;
    let code = der::number(der::field(fields, 6)?)?;
    let time = der::content(der::field(fields, 4)?, 0x18)?;
    let data = der::field(fields, 12).and_then(|data| der::content(data, 0x04)).unwrap_or_default();
    Some(Told { code, server_time: String::from_utf8_lossy(time).into_owned(), data: data.to_vec() })
}

/// A `PrincipalName`.
pub(super) fn name(kind: u32, parts: &[&str]) -> Vec<u8> {
    let strings: Vec<Vec<u8>> = parts.iter().map(|part| der::general_string(part)).collect();
    der::sequence(&[der::explicit(0, &der::integer(kind)), der::explicit(1, &der::sequence(&strings))])
}

/// A `KDC-REQ-BODY`: a ticket for `service` of `realm`, for `client` if the ticket that is shown does not tell.
pub(super) fn body(options: u32, client: Option<&str>, realm: &str, service: &[&str], nonce: u32) -> Vec<u8> {
    let etypes: Vec<Vec<u8>> = ETYPES.iter().map(|etype| der::integer(*etype)).collect();
    let mut parts = vec![der::explicit(0, &der::element(0x03, &[&[0], &options.to_be_bytes()[..]].concat()))];
    if let Some(client) = client {
        parts.push(der::explicit(1, &name(1, &[client])));
    }
    parts.extend([
        der::explicit(2, &der::general_string(realm)),
        der::explicit(3, &name(2, service)),
        der::explicit(5, &der::time(TILL)),
        der::explicit(7, &der::integer(nonce)),
        der::explicit(8, &der::sequence(&etypes)),
    ]);
    der::sequence(&parts)
}

/// A `KDC-REQ` of this tag and number, with one piece of preceding data.
pub(super) fn request(tag: u8, number: u32, data: Option<(u32, &[u8])>, body: &[u8]) -> Vec<u8> {
    let mut parts = vec![der::explicit(1, &der::integer(5)), der::explicit(2, &der::integer(number))];
    if let Some((kind, data)) = data {
        let data = der::sequence(&[der::explicit(1, &der::integer(kind)), der::explicit(2, &der::octets(data))]);
        parts.push(der::explicit(3, &der::sequence(&[data])));
    }
    parts.push(der::explicit(4, body));
    der::element(tag, &der::sequence(&parts))
}

pub(super) fn nonce() -> u32 {
    let mut bytes = [0_u8; 4];
    getrandom::fill(&mut bytes).expect("the system gives randomness");
    // Some KDCs read it as a signed number.
    u32::from_be_bytes(bytes) >> 1
}

/// An instant as `YYYYMMDDHHMMSSZ`.
pub(super) fn written(at: SystemTime) -> String {
    let seconds = at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Years that begin in March, in eras of 400.
    let day = days + 719_468;
    let (era, of_era) = (day / 146_097, day % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let date = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    format!("{year:04}{month:02}{date:02}{:02}{:02}{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_the_protocol_has_them() {
        let written = |seconds| written(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(written(0), "19700101000000Z");
        assert_eq!(written(951_782_399), "20000228235959Z");
        assert_eq!(written(951_868_800), "20000301000000Z");
        assert_eq!(written(1_795_651_199), "20261125235959Z");
    }

    #[test]
    fn an_answer_that_is_cut_is_none_and_no_panic() {
        let fields = [
            der::explicit(0, &der::integer(5)),
            der::explicit(1, &der::integer(30)),
            der::explicit(4, &der::time("20261125235959Z")),
            der::explicit(5, &der::integer(0)),
            der::explicit(6, &der::integer(37)),
        ];
        let whole = der::element(0x7e, &der::sequence(&fields));
        assert!(
            matches!(parse(&whole), Some(Answer::Error(told)) if told.code == 37 && told.server_time.ends_with("59Z"))
        );
        for cut in 0..whole.len() {
            assert!(parse(&whole[..cut]).is_none(), "{cut}");
        }
    }
}
