//! Windows Remote Management (MS-WSMV): a command on a host over HTTP or HTTPS, with NTLM.
//!
//! What must stay true: over HTTP every message is sealed with the session's key, and an answer that is not sealed is not believed;
//! over HTTPS the login is bound to the host's certificate. Secrets travel on standard input only.

use std::time::Duration;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use volvelle_domain::connector::{Failure, FailureClass, TargetParams};
use volvelle_domain::{Credential, Secret};
use zeroize::Zeroizing;

use super::ntlm::{self, Challenge, Logon, Sealing};
use super::visit::{Visit, Who, uses_tls};
use super::xml;
use crate::kerberos::der;
use crate::ldap::{config, text, tls};

const CONNECT: Duration = Duration::from_secs(10);
/// Longest answer that is read.
const LONGEST: usize = 512 * 1024;
/// Most times that output is asked for.
const MOST_RECEIVES: usize = 60;
const SHELL: &str = "http://schemas.microsoft.com/wbem/wsman/1/windows/shell";
const TRANSFER: &str = "http://schemas.xmlsoap.org/ws/2004/09/transfer";
const PROTOCOL: &str = "application/HTTP-SPNEGO-session-encrypted";
const BOUNDARY: &str = "--Encrypted Boundary";
/// The code of a fault that only says that there is no output yet.
const NOTHING_YET: &str = "2150858793";

/// What came of a login.
pub(super) enum Login {
    In(Box<Session>),
    /// The host said no more than that; the password may be wrong, or the account locked, barred or without the right.
    Denied,
}

fn strange(what: &str) -> Failure {
    Failure::new(FailureClass::Protocol, format!("the host's WinRM answer cannot be used: {what}"), "")
}

fn broken(error: &hyper::Error) -> Failure {
    Failure::new(FailureClass::Unreachable, format!("the WinRM connection broke: {error}"), "try again")
}

/// Somebody who is logged in.
pub(super) struct Session {
    http: SendRequest<Full<Bytes>>,
    host: String,
    /// Over HTTP.
    sealing: Option<Sealing>,
}

/// An answer of the host.
struct Answer {
    status: StatusCode,
    kind: String,
    token: Option<Vec<u8>>,
    body: Bytes,
}

/// Where a host listens.
pub(super) struct Place<'a> {
    /// Whose certificates count.
    pub(super) target: &'a TargetParams,
    pub(super) host: &'a str,
    pub(super) port: u16,
    pub(super) tls: bool,
}

impl<'a> Place<'a> {
    /// The place of the target itself.
    pub(super) fn of(visit: &'a Visit<'_>) -> Self {
        let target = visit.call.target;
        Self { target, host: &visit.address.host, port: visit.address.port, tls: uses_tls(target) }
    }
}

async fn open(place: &Place<'_>) -> Result<(SendRequest<Full<Bytes>>, Option<Vec<u8>>), Failure> {
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
        let (http, driver) = handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
        tokio::spawn(driver);
        return Ok((http, None));
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
    let shown = stream.get_ref().1.peer_certificates().and_then(|all| all.first()).map(|leaf| endpoint(leaf));
    let (http, driver) = handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
    tokio::spawn(driver);
    Ok((http, shown))
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

/// Logs in.
pub(super) async fn log_in(place: &Place<'_>, who: &Who<'_>) -> Result<Login, Failure> {
    let Some(password) = who.password.filter(|password| !password.is_empty()) else {
        return Err(config(format!("there is no password of {}", who.user), "give it"));
    };
    let (http, certificate) = open(place).await?;
    let mut session = Session { http, host: place.host.to_owned(), sealing: None };
    let first = ntlm::negotiate();
    let answer = session.post(Some(&first), "application/soap+xml;charset=UTF-8", Vec::new()).await?;
    let offered = answer.token.filter(|_| answer.status == StatusCode::UNAUTHORIZED);
    let token = offered.ok_or_else(|| {
        config(
            "the host offers no NTLM login (Negotiate)",
            "allow it: winrm set winrm/config/service/auth @{Negotiate=\"true\"}",
        )
    })?;
    let challenge = Challenge::parse(&token)?;
    let computer = challenge.computer();
    let domain = who.domain.unwrap_or(&computer);
    let logon = Logon { domain, user: who.user, password, certificate: certificate.as_deref() };
    let (third, key) = logon.authenticate(&first, &challenge)?;
    let answer = session.post(Some(&third), "application/soap+xml;charset=UTF-8", Vec::new()).await?;
    if answer.status == StatusCode::UNAUTHORIZED {
        return Ok(Login::Denied);
    }
    if certificate.is_none() {
        session.sealing = Some(Sealing::new(&key));
    }
    Ok(Login::In(Box::new(session)))
}

/// The name of a message: a random one.
fn message_id() -> String {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes).expect("the system gives randomness");
    let hex: String = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
    format!("uuid:{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// A SOAP message.
fn envelope(host: &str, action: &str, shell: Option<&str>, options: &str, body: &str) -> String {
    let selector = shell
        .map(|id| format!("<w:SelectorSet><w:Selector Name=\"ShellId\">{id}</w:Selector></w:SelectorSet>"))
        .unwrap_or_default();
    format!(
        "<s:Envelope xmlns:s=\"http://www.w3.org/2003/05/soap-envelope\" \
         xmlns:a=\"http://schemas.xmlsoap.org/ws/2004/08/addressing\" \
         xmlns:w=\"http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd\" xmlns:rsp=\"{SHELL}\"><s:Header>\
         <a:To>http://{host}/wsman</a:To><w:ResourceURI s:mustUnderstand=\"true\">{SHELL}/cmd</w:ResourceURI>\
         <a:ReplyTo><a:Address s:mustUnderstand=\"true\">\
         http://schemas.xmlsoap.org/ws/2004/08/addressing/role/anonymous</a:Address></a:ReplyTo>\
         <a:Action s:mustUnderstand=\"true\">{action}</a:Action>\
         <w:MaxEnvelopeSize s:mustUnderstand=\"true\">153600</w:MaxEnvelopeSize><a:MessageID>{}</a:MessageID>\
         <w:OperationTimeout>PT10S</w:OperationTimeout>{selector}{options}</s:Header><s:Body>{body}</s:Body></s:Envelope>",
        message_id()
    )
}

impl Session {
    async fn post(&mut self, token: Option<&[u8]>, kind: &str, body: Vec<u8>) -> Result<Answer, Failure> {
        self.http.ready().await.map_err(|error| broken(&error))?;
        let mut request = Request::post("/wsman")
            .header(header::HOST, &self.host)
            .header(header::CONTENT_TYPE, kind)
            .header(header::CONTENT_LENGTH, body.len());
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Negotiate {}", BASE64.encode(token)));
        }
        let request = request.body(Full::new(Bytes::from(body))).map_err(|_| strange("no request"))?;
        let response = self.http.send_request(request).await.map_err(|error| broken(&error))?;
        let shown = |name| response.headers().get_all(name).iter().filter_map(|value| value.to_str().ok());
        let kind = shown(header::CONTENT_TYPE).next().unwrap_or_default().to_owned();
        let token = shown(header::WWW_AUTHENTICATE)
            .find_map(|value| BASE64.decode(value.trim().strip_prefix("Negotiate ")?.trim()).ok());
        let status = response.status();
        let body = Limited::new(response.into_body(), LONGEST).collect().await;
        let body = body.map_err(|_| strange("it breaks off or is too long"))?.to_bytes();
        Ok(Answer { status, kind, token, body })
    }

    /// One message and its answer; a fault is an answer.
    async fn ask(&mut self, message: &str) -> Result<String, Failure> {
        let Some(sealing) = &mut self.sealing else {
            let answer = self.post(None, "application/soap+xml;charset=UTF-8", message.as_bytes().to_vec()).await?;
            return readable(&answer, answer.body.to_vec());
        };
        let (signature, sealed) = sealing.seal(message.as_bytes());
        let mut body = format!(
            "{BOUNDARY}\r\n\tContent-Type: {PROTOCOL}\r\n\tOriginalContent: type=application/soap+xml;charset=UTF-8;Length={}\r\n\
             {BOUNDARY}\r\n\tContent-Type: application/octet-stream\r\n",
            message.len()
        )
        .into_bytes();
        body.extend_from_slice(&16_u32.to_le_bytes());
        body.extend_from_slice(&signature);
        body.extend_from_slice(&sealed);
        body.extend_from_slice(format!("{BOUNDARY}--\r\n").as_bytes());
        let kind = format!("multipart/encrypted;protocol=\"{PROTOCOL}\";boundary=\"Encrypted Boundary\"");
        let answer = self.post(None, &kind, body).await?;
        if !answer.kind.starts_with("multipart/encrypted") {
            return Err(strange(&format!("it is not sealed (HTTP {})", answer.status.as_u16())));
        }
        let plain = sealed_part(&answer.body)
            .and_then(|(signature, sealed)| self.sealing.as_mut()?.open(signature, sealed))
            .ok_or_else(|| strange("it is not sealed with the session's key"))?;
        readable(&answer, plain)
    }

    async fn must(&mut self, message: &str, what: &str) -> Result<String, Failure> {
        let answer = self.ask(message).await?;
        match fault(&answer) {
            None => Ok(answer),
            Some((code, _)) if code == "5" => Err(Failure::new(
                FailureClass::Privilege,
                format!("the host does not let the acting account {what}: access denied"),
                "make it a member of Remote Management Users, or of Administrators",
            )),
            Some((code, said)) => Err(strange(&format!("it will not {what} (fault {code}: {said})"))),
        }
    }

    /// Runs a script with arguments; both travel on standard input. `sending` is called just before. Gives its lines `name=value`.
    pub(super) async fn run(
        &mut self,
        script: &str,
        arguments: &[&Secret],
        sending: &(dyn Fn() + Sync),
    ) -> Result<Vec<(String, String)>, Failure> {
        let host = self.host.clone();
        let options = "<w:OptionSet><w:Option Name=\"WINRS_NOPROFILE\">TRUE</w:Option>\
                       <w:Option Name=\"WINRS_CODEPAGE\">65001</w:Option></w:OptionSet>";
        let body = "<rsp:Shell><rsp:InputStreams>stdin</rsp:InputStreams><rsp:OutputStreams>stdout stderr</rsp:OutputStreams></rsp:Shell>";
        let answer =
            self.must(&envelope(&host, &format!("{TRANSFER}/Create"), None, options, body), "open a shell").await?;
        let shell = xml::text(&answer, "ShellId").or_else(|| {
            let named = |e: &xml::Element<'_>| e.attribute("Name") == Some("ShellId");
            xml::elements(&answer, "Selector").find(named).map(|e| e.text.trim())
        });
        let shell = shell.filter(|id| id.len() <= 64).ok_or_else(|| strange("no shell"))?.to_owned();
        let options = "<w:OptionSet><w:Option Name=\"WINRS_CONSOLEMODE_STDIN\">FALSE</w:Option>\
                       <w:Option Name=\"WINRS_SKIP_CMD_SHELL\">TRUE</w:Option></w:OptionSet>";
        let body = format!(
            "<rsp:CommandLine><rsp:Command>powershell.exe</rsp:Command><rsp:Arguments>-NoProfile -NonInteractive \
             -ExecutionPolicy Bypass -EncodedCommand {}</rsp:Arguments></rsp:CommandLine>",
            BASE64.encode(ntlm::utf16(START))
        );
        let message = envelope(&host, &format!("{SHELL}/Command"), Some(&shell), options, &body);
        let answer = self.must(&message, "run a command").await?;
        let command =
            xml::text(&answer, "CommandId").filter(|id| id.len() <= 64).ok_or_else(|| strange("no command"))?;
        let input = input(script, arguments);
        let body = Zeroizing::new(format!(
            "<rsp:Send><rsp:Stream Name=\"stdin\" CommandId=\"{command}\" End=\"true\">{}</rsp:Stream></rsp:Send>",
            BASE64.encode(input.as_bytes())
        ));
        let message = Zeroizing::new(envelope(&host, &format!("{SHELL}/Send"), Some(&shell), "", &body));
        sending();
        self.must(&message, "give a command its input").await?;
        let output = self.receive(&host, &shell, command).await?;
        let farewell = envelope(&host, &format!("{TRANSFER}/Delete"), Some(&shell), "", "");
        let _ = self.ask(&farewell).await;
        Ok(output
            .lines()
            .filter_map(|line| line.trim().split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect())
    }

    async fn receive(&mut self, host: &str, shell: &str, command: &str) -> Result<String, Failure> {
        let mut output = Vec::new();
        let body = format!(
            "<rsp:Receive><rsp:DesiredStream CommandId=\"{command}\">stdout stderr</rsp:DesiredStream></rsp:Receive>"
        );
        for _ in 0..MOST_RECEIVES {
            let answer = self.ask(&envelope(host, &format!("{SHELL}/Receive"), Some(shell), "", &body)).await?;
            match fault(&answer) {
                Some((code, _)) if code == NOTHING_YET => continue,
                Some((code, said)) => return Err(strange(&format!("it gives no output (fault {code}: {said})"))),
                None => {}
            }
            for stream in xml::elements(&answer, "Stream").filter(|e| e.attribute("Name") == Some("stdout")) {
                let piece = BASE64.decode(stream.text.trim()).map_err(|_| strange("its output is broken"))?;
                output.extend_from_slice(&piece);
                if output.len() > LONGEST {
                    return Err(strange("its output is too long"));
                }
            }
            let state = xml::elements(&answer, "CommandState").next();
            if state.is_some_and(|state| state.attribute("State").is_some_and(|state| state.ends_with("/Done"))) {
                return Ok(String::from_utf8_lossy(&output).into_owned());
            }
        }
        Err(strange("its output never ends"))
    }
}

/// Reads the number of lines, then each line; the first is the script, the others are its arguments.
const START: &str = "$ProgressPreference='SilentlyContinue';$i=[Console]::In;$n=[int]$i.ReadLine();\
    $a=@(1..$n|%{[Text.Encoding]::UTF8.GetString([Convert]::FromBase64String($i.ReadLine()))});\
    $r=@($a[1..($n-1)]);& ([scriptblock]::Create($a[0])) @r";

fn input(script: &str, arguments: &[&Secret]) -> Zeroizing<String> {
    let mut out = Zeroizing::new(format!("{}\n{}\n", arguments.len() + 1, BASE64.encode(script)));
    for argument in arguments {
        out.push_str(&Zeroizing::new(BASE64.encode(argument.expose())));
        out.push('\n');
    }
    out
}

/// The signature and the sealed message of a multipart body.
fn sealed_part(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let mark = b"Content-Type: application/octet-stream\r\n";
    let start = body.windows(mark.len()).position(|window| window == mark)? + mark.len();
    let inner = body.get(start..)?.strip_suffix(format!("{BOUNDARY}--\r\n").as_bytes())?;
    let length = usize::try_from(u32::from_le_bytes(inner.get(..4)?.try_into().ok()?)).ok()?;
    Some((inner.get(4..4 + length)?, inner.get(4 + length..)?))
}

fn readable(answer: &Answer, plain: Vec<u8>) -> Result<String, Failure> {
    let text = String::from_utf8(plain).map_err(|_| strange("it is no text"))?;
    let good = answer.status.is_success() || fault(&text).is_some();
    if good { Ok(text) } else { Err(strange(&format!("HTTP {}", answer.status.as_u16()))) }
}

/// The code and the words of a fault.
fn fault(answer: &str) -> Option<(String, String)> {
    let fault = xml::elements(answer, "Fault").next()?;
    let code = xml::elements(fault.text, "WSManFault").next().and_then(|e| e.attribute("Code").map(str::to_owned));
    let said =
        xml::text(fault.text, "Text").unwrap_or_default().chars().filter(|c| !c.is_control()).take(160).collect();
    Some((code.unwrap_or_else(|| "unknown".to_owned()), said))
}

/// A credential's password, for a script.
pub(super) fn password(credential: &Credential) -> Option<&Secret> {
    credential.field("password").filter(|password| !password.is_empty())
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
        let answer = "<s:Fault><s:Reason><s:Text xml:lang=\"\">No</s:Text></s:Reason><s:Detail>\
                      <f:WSManFault Code=\"5\" Machine=\"x\"/></s:Detail></s:Fault>";
        assert_eq!(fault(answer), Some(("5".into(), "No".into())));
    }
}
