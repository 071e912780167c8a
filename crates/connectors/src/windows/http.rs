//! The HTTP under Windows Remote Management: one connection, a login's tokens, and messages that are sealed where TLS does not.
//!
//! What must stay true: an answer that should be sealed and is not is not believed.

use std::time::Duration;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use md5::{Digest as _, Md5};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use volvelle_domain::connector::{Failure, FailureClass, TargetParams};

use super::ntlm;
use super::visit::{Visit, uses_tls};
use crate::kerberos::{self, der};
use crate::ldap::{config, text, tls};

const CONNECT: Duration = Duration::from_secs(10);
/// Longest answer that is read.
pub(super) const LONGEST: usize = 512 * 1024;
const SOAP: &str = "application/soap+xml;charset=UTF-8";
const BOUNDARY: &str = "--Encrypted Boundary";

pub(super) fn strange(what: &str) -> Failure {
    Failure::new(FailureClass::Protocol, format!("the host's WinRM answer cannot be used: {what}"), "")
}

fn broken(error: &hyper::Error) -> Failure {
    Failure::new(FailureClass::Unreachable, format!("the WinRM connection broke: {error}"), "try again")
}

/// Where a host listens.
pub(super) struct Place<'a> {
    /// Whose certificates count.
    pub(super) target: &'a TargetParams,
    pub(super) host: &'a str,
    pub(super) port: u16,
    pub(super) tls: bool,
    /// The host's name in its domain.
    pub(super) known_as: &'a str,
}

impl<'a> Place<'a> {
    /// The place of the target itself.
    pub(super) fn of(visit: &'a Visit<'_>) -> Self {
        let (target, host) = (visit.call.target, visit.address.host.as_str());
        // Of a linked target, which has many hosts, each has its own name.
        let given = if text(target, "host").is_empty() { text(target, "kerberos-hostname").trim() } else { "" };
        let known_as = if given.is_empty() { host } else { given };
        Self { target, host, port: visit.address.port, tls: uses_tls(target), known_as }
    }
}

/// How messages are sealed over HTTP.
pub(super) enum Sealing {
    Ntlm(Box<ntlm::Sealing>),
    Kerberos(kerberos::Context),
}

impl Sealing {
    const fn protocol(&self) -> &'static str {
        match self {
            Self::Ntlm(_) => "application/HTTP-SPNEGO-session-encrypted",
            Self::Kerberos(_) => "application/HTTP-Kerberos-session-encrypted",
        }
    }

    fn seal(&mut self, plain: &[u8]) -> (Vec<u8>, Vec<u8>) {
        match self {
            Self::Ntlm(sealing) => {
                let (signature, sealed) = sealing.seal(plain);
                (signature.to_vec(), sealed)
            }
            Self::Kerberos(context) => context.seal(plain),
        }
    }

    fn open(&mut self, head: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::Ntlm(sealing) => sealing.open(head, sealed),
            Self::Kerberos(context) => context.open(head, sealed),
        }
    }
}

/// An answer of the host.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    kind: String,
    /// What the host answers to a login's token.
    pub(super) token: Option<Vec<u8>>,
    body: Bytes,
}

/// A connection.
pub(super) struct Http {
    inner: SendRequest<Full<Bytes>>,
    pub(super) host: String,
    /// Over HTTP, after the login.
    pub(super) sealing: Option<Sealing>,
}

impl Http {
    /// Connects; over HTTPS also gives what a login is bound to.
    pub(super) async fn open(place: &Place<'_>) -> Result<(Self, Option<[u8; 16]>), Failure> {
        let (host, port) = (place.host, place.port);
        let away = |said: String| {
            let message = format!("the host at {host}:{port} cannot be reached: {said}");
            Failure::new(
                FailureClass::Unreachable,
                message,
                "check hostname and port, and that WinRM runs (winrm quickconfig)",
            )
        };
        let connect = tokio::time::timeout(CONNECT, TcpStream::connect((host, port))).await;
        let stream = connect.map_err(|_| away("no answer".into()))?.map_err(|error| away(error.kind().to_string()))?;
        let _ = stream.set_nodelay(true);
        if !place.tls {
            let (inner, driver) = handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
            tokio::spawn(driver);
            return Ok((Self { inner, host: host.to_owned(), sealing: None }, None));
        }
        let given = tls::certificates(text(place.target, "certificate"), "certificate")?;
        let name =
            ServerName::try_from(host.to_owned()).map_err(|_| config("hostname is no name for TLS", "set hostname"))?;
        let connector = TlsConnector::from(tls::client_config(&given)?);
        let stream = connector.connect(name, stream).await.map_err(|error| {
            let cause = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
            let distrust = cause.and_then(|cause| tls::distrust(cause, "certificate"));
            distrust.unwrap_or_else(|| away(format!("no TLS ({error}); use-tls false is for port 5985")))
        })?;
        let shown = stream.get_ref().1.peer_certificates().and_then(|all| all.first());
        let bound = shown.map(|leaf| bindings(&endpoint(leaf))).ok_or_else(|| strange("no certificate"))?;
        let (inner, driver) = handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
        tokio::spawn(driver);
        Ok((Self { inner, host: host.to_owned(), sealing: None }, Some(bound)))
    }

    /// Sends a token of a login, with no message.
    pub(super) async fn authorize(&mut self, token: &[u8]) -> Result<Answer, Failure> {
        self.post(Some(token), SOAP, Vec::new()).await
    }

    async fn post(&mut self, token: Option<&[u8]>, kind: &str, body: Vec<u8>) -> Result<Answer, Failure> {
        self.inner.ready().await.map_err(|error| broken(&error))?;
        let mut request = Request::post("/wsman")
            .header(header::HOST, &self.host)
            .header(header::CONTENT_TYPE, kind)
            .header(header::CONTENT_LENGTH, body.len());
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Negotiate {}", BASE64.encode(token)));
        }
        let request = request.body(Full::new(Bytes::from(body))).map_err(|_| strange("no request"))?;
        let response = self.inner.send_request(request).await.map_err(|error| broken(&error))?;
        let shown = |name| response.headers().get_all(name).iter().filter_map(|value| value.to_str().ok());
        let kind = shown(header::CONTENT_TYPE).next().unwrap_or_default().to_owned();
        let token = shown(header::WWW_AUTHENTICATE)
            .find_map(|value| BASE64.decode(value.trim().strip_prefix("Negotiate ")?.trim()).ok());
        let status = response.status();
        let body = Limited::new(response.into_body(), LONGEST).collect().await;
        let body = body.map_err(|_| strange("it breaks off or is too long"))?.to_bytes();
        Ok(Answer { status, kind, token, body })
    }

    /// One message and its answer, with the answer's status.
    pub(super) async fn ask(&mut self, message: &str) -> Result<(StatusCode, String), Failure> {
        let readable = |plain| String::from_utf8(plain).map_err(|_| strange("it is no text"));
        let Some(sealing) = &mut self.sealing else {
            let answer = self.post(None, SOAP, message.as_bytes().to_vec()).await?;
            return Ok((answer.status, readable(answer.body.to_vec())?));
        };
        let protocol = sealing.protocol();
        let (head, sealed) = sealing.seal(message.as_bytes());
        let mut body = format!(
            "{BOUNDARY}\r\n\tContent-Type: {protocol}\r\n\tOriginalContent: type={SOAP};Length={}\r\n\
             {BOUNDARY}\r\n\tContent-Type: application/octet-stream\r\n",
            message.len()
        )
        .into_bytes();
        body.extend_from_slice(&u32::try_from(head.len()).unwrap_or(0).to_le_bytes());
        body.extend_from_slice(&head);
        body.extend_from_slice(&sealed);
        body.extend_from_slice(format!("{BOUNDARY}--\r\n").as_bytes());
        let kind = format!("multipart/encrypted;protocol=\"{protocol}\";boundary=\"Encrypted Boundary\"");
        let answer = self.post(None, &kind, body).await?;
        if !answer.kind.starts_with("multipart/encrypted") {
            return Err(strange(&format!("it is not sealed (HTTP {})", answer.status.as_u16())));
        }
        let plain = sealed_part(&answer.body)
            .and_then(|(head, sealed)| self.sealing.as_mut()?.open(head, sealed))
            .ok_or_else(|| strange("it is not sealed with the session's key"))?;
        Ok((answer.status, readable(plain)?))
    }
}

/// The hash of a certificate that a login is bound to (RFC 5929): the one of its signature, SHA-256 at least.
fn endpoint(certificate: &[u8]) -> Vec<u8> {
    let algorithm = der::content(certificate, 0x30)
        .and_then(|inner| der::elements(inner).nth(1))
        .and_then(|(_, algorithm)| der::content(algorithm, 0x06))
        .unwrap_or_default();
    let (rsa, ecdsa) = ([0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1], [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3]);
    let is = |prefix: &[u8], last: u8| algorithm.strip_prefix(prefix) == Some(&[last]);
    let hash = if is(&rsa, 12) || is(&ecdsa, 3) {
        &digest::SHA384
    } else if is(&rsa, 13) || is(&ecdsa, 4) {
        &digest::SHA512
    } else {
        &digest::SHA256
    };
    digest::digest(hash, certificate).as_ref().to_vec()
}

/// Channel bindings (RFC 5929, `tls-server-end-point`) as both logins carry them.
fn bindings(hash: &[u8]) -> [u8; 16] {
    let data = [b"tls-server-end-point:", hash].concat();
    let length = u32::try_from(data.len()).unwrap_or(0).to_le_bytes();
    Md5::new().chain_update([0; 16]).chain_update(length).chain_update(&data).finalize().into()
}

/// What stands in front of a sealed message, and the sealed message, of a multipart body.
fn sealed_part(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let mark = b"Content-Type: application/octet-stream\r\n";
    let start = body.windows(mark.len()).position(|window| window == mark)? + mark.len();
    let inner = body.get(start..)?.strip_suffix(format!("{BOUNDARY}--\r\n").as_bytes())?;
    let length = usize::try_from(u32::from_le_bytes(inner.get(..4)?.try_into().ok()?)).ok()?;
    let end = length.checked_add(4)?;
    Some((inner.get(4..end)?, inner.get(end..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_part_is_found_and_a_broken_one_is_not() {
        let mut body = b"--Encrypted Boundary\r\n\tContent-Type: x\r\n--Encrypted Boundary\r\n\tContent-Type: application/octet-stream\r\n".to_vec();
        body.extend_from_slice(&[2, 0, 0, 0, 7, 8, 9, 10]);
        assert_eq!(sealed_part(&body), None);
        body.extend_from_slice(b"--Encrypted Boundary--\r\n");
        assert_eq!(sealed_part(&body), Some((&[7, 8][..], &[9, 10][..])));
    }
}
