//! HTTPS with one controller: one connection, opened anew if the controller closed it.
//!
//! What must stay true: the certificate is always checked, redirects are not followed, and a request is never sent twice.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request, header};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use volvelle_domain::Secret;
use volvelle_domain::connector::{Failure, FailureClass};
use zeroize::Zeroizing;

use super::strange;
use super::visit::Visit;
use crate::ldap::tls;
use crate::parameters::{config, text};

/// How long a connection may take to open.
pub(super) const CONNECT: Duration = Duration::from_secs(10);
/// Longest answer that is read.
const LONGEST: usize = 1 << 20;

/// How a request proves who sends it.
pub(super) enum Proof {
    /// Not at all.
    None,
    /// The token of a session.
    Token(Secret),
    /// The name and the password in base64.
    Basic(Secret),
}

/// A request.
pub(super) struct Ask<'a> {
    pub(super) method: Method,
    pub(super) path: &'a str,
    /// The state that the resource must be in.
    pub(super) if_match: Option<&'a str>,
    pub(super) body: Option<Zeroizing<Vec<u8>>>,
}

/// An answer.
pub(super) struct Answer {
    pub(super) status: u16,
    /// The state that the resource is in.
    pub(super) tag: Option<String>,
    pub(super) token: Option<Secret>,
    pub(super) location: Option<String>,
    /// Null if it is no JSON.
    pub(super) body: Value,
}

/// A connection.
pub(super) struct Client {
    http: Option<SendRequest<Full<Bytes>>>,
    host: String,
    port: u16,
    tls: TlsConnector,
    pub(super) proof: Proof,
}

fn broken(error: &hyper::Error) -> Failure {
    Failure::new(FailureClass::Unreachable, format!("the connection to the BMC broke: {error}"), "try again")
}

impl Client {
    /// Connects, and checks the certificate.
    pub(super) async fn open(visit: &Visit<'_>) -> Result<Self, Failure> {
        let given = tls::certificates(text(visit.call.target, "certificate"), "certificate")?;
        let tls = TlsConnector::from(tls::client_config(&given)?);
        let address = &visit.address;
        let mut client = Self { http: None, host: address.host.clone(), port: address.port, tls, proof: Proof::None };
        client.http = Some(client.connect().await?);
        Ok(client)
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, Failure> {
        let (host, port) = (self.host.as_str(), self.port);
        let away = |said: String| {
            let message = format!("the BMC at {host}:{port} cannot be reached: {said}");
            Failure::new(FailureClass::Unreachable, message, "check host and port, and that Redfish is switched on")
        };
        let connect = tokio::time::timeout(CONNECT, TcpStream::connect((host, port))).await;
        let stream = connect.map_err(|_| away("no answer".into()))?.map_err(|error| away(error.kind().to_string()))?;
        let _ = stream.set_nodelay(true);
        let name =
            ServerName::try_from(self.host.clone()).map_err(|_| config("host is no name for TLS", "set host"))?;
        let stream = self.tls.connect(name, stream).await.map_err(|error| {
            let cause = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
            let distrust = cause.and_then(|cause| tls::distrust(cause, "certificate"));
            distrust.unwrap_or_else(|| away(format!("no TLS ({error})")))
        })?;
        let (http, driver) = handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
        tokio::spawn(driver);
        Ok(http)
    }

    /// Sends a request and reads its answer.
    pub(super) async fn ask(&mut self, ask: Ask<'_>) -> Result<Answer, Failure> {
        let mut kept = self.http.take();
        if let Some(http) = &mut kept
            && http.ready().await.is_err()
        {
            // The controller has closed it after its last answer; nothing of this request was sent.
            kept = None;
        }
        let mut http = match kept {
            Some(http) => http,
            None => self.connect().await?,
        };
        let mut request = Request::builder()
            .method(ask.method)
            .uri(ask.path)
            .header(header::HOST, format!("{}:{}", self.host, self.port))
            .header(header::ACCEPT, "application/json")
            .header("OData-Version", "4.0");
        request = match &self.proof {
            Proof::None => request,
            Proof::Token(token) => request.header("X-Auth-Token", sensitive(token)?),
            Proof::Basic(basic) => request.header(header::AUTHORIZATION, sensitive(basic)?),
        };
        if let Some(tag) = ask.if_match {
            request = request.header(header::IF_MATCH, tag);
        }
        if ask.body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let body = ask.body.map(|mut body| Bytes::from(std::mem::take(&mut *body))).unwrap_or_default();
        let request = request.body(Full::new(body)).map_err(|_| strange("it gave a path that is none"))?;
        let response = http.send_request(request).await.map_err(|error| broken(&error))?;
        let shown = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let (status, tag, location) = (response.status().as_u16(), shown("etag"), shown("location"));
        let token = shown("x-auth-token").map(Secret::from);
        let body = Limited::new(response.into_body(), LONGEST).collect().await;
        let body = body.map_err(|_| {
            Failure::new(FailureClass::Unreachable, "the BMC's answer breaks off or is too long", "try again")
        })?;
        self.http = Some(http);
        let body = serde_json::from_slice(&body.to_bytes()).unwrap_or(Value::Null);
        Ok(Answer { status, tag, token, location, body })
    }
}

fn sensitive(value: &Secret) -> Result<header::HeaderValue, Failure> {
    let mut value = header::HeaderValue::from_bytes(value.expose()).map_err(|_| strange("its token is no text"))?;
    value.set_sensitive(true);
    Ok(value)
}
