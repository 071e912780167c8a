//! As much of SMB 3.1.1 (MS-SMB2) as a named pipe needs: negotiate, log in with NTLM, and everything after that encrypted.
//!
//! What must stay true: older dialects, guests and unencrypted sessions are refused; every answer is opened with the session's key
//! before it is believed.

use std::time::Duration;

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::{cmac, digest, hmac};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use volvelle_domain::Secret;
use volvelle_domain::connector::{Failure, FailureClass};
use zeroize::Zeroizing;

use super::ntlm::{self, Challenge, Logon, Sealing, utf16};
use crate::kerberos::der;

const CONNECT: Duration = Duration::from_secs(10);
/// Longest message that is read.
const LONGEST: usize = 256 * 1024;
/// Most interim answers before a final one.
const MOST_PENDING: usize = 16;
const HEADER: usize = 64;
const TRANSFORM: usize = 52;

const NEGOTIATE: u16 = 0;
const SESSION_SETUP: u16 = 1;
const TREE_CONNECT: u16 = 3;
const CREATE: u16 = 5;
const IOCTL: u16 = 11;

const DIALECT: u16 = 0x0311;
const GCM: u16 = 2;
const MORE: u32 = 0xc000_0016;
const PENDING: u32 = 0x103;
const TRANSCEIVE: u32 = 0x0011_c017;

/// Logon as seen by the host.
pub(super) enum Login {
    /// In.
    In(Box<Session>),
    /// The host's status.
    Denied(u32),
}

fn broken(error: &std::io::Error) -> Failure {
    Failure::new(FailureClass::Unreachable, format!("the SMB connection broke: {}", error.kind()), "try again")
}

fn strange(what: &str) -> Failure {
    Failure::new(FailureClass::Protocol, format!("the host's SMB answer cannot be used: {what}"), "")
}

fn short(input: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(input.get(at..at + 2)?.try_into().ok()?))
}

fn long(input: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(input.get(at..at + 4)?.try_into().ok()?))
}

/// A part of a message, given by offset and length.
fn part(message: &[u8], offset: Option<usize>, length: Option<usize>) -> Option<&[u8]> {
    let (offset, length) = (offset?, length?);
    message.get(offset..offset.checked_add(length)?)
}

/// A connection before anybody has logged in.
pub(super) struct Connection {
    stream: TcpStream,
    number: u64,
    session: u64,
    tree: u32,
    /// Hash over everything said before the keys were made, so that nothing of it can be changed on the way.
    heard: [u8; 64],
}

impl Connection {
    /// Connects and agrees on 3.1.1 with encryption.
    pub(super) async fn open(host: &str, port: u16) -> Result<Self, Failure> {
        let away = |said: String| {
            let message = format!("the host at {host}:{port} cannot be reached: {said}");
            Failure::new(FailureClass::Unreachable, message, "check hostname, port and the host's firewall (SMB)")
        };
        let connect = tokio::time::timeout(CONNECT, TcpStream::connect((host, port))).await;
        let stream = connect.map_err(|_| away("no answer".into()))?.map_err(|error| away(error.kind().to_string()))?;
        let _ = stream.set_nodelay(true);
        let mut connection = Self { stream, number: 0, session: 0, tree: 0, heard: [0; 64] };
        connection.negotiate().await?;
        Ok(connection)
    }

    async fn negotiate(&mut self) -> Result<(), Failure> {
        let mut random = [0_u8; 48];
        getrandom::fill(&mut random).expect("the system gives randomness");
        let mut body = Vec::new();
        for value in [36_u16, 1, 2, 0] {
            body.extend_from_slice(&value.to_le_bytes());
        }
        body.extend_from_slice(&0x40_u32.to_le_bytes());
        body.extend_from_slice(&random[..16]);
        // Two contexts, behind the one dialect and padding to a multiple of eight.
        body.extend_from_slice(&u32::try_from(HEADER + 40).unwrap_or(0).to_le_bytes());
        for value in [2_u16, 0, DIALECT, 0] {
            body.extend_from_slice(&value.to_le_bytes());
        }
        // Preauthentication integrity with SHA-512 and a salt of 32 bytes, then AES-128-GCM.
        for value in [1_u16, 38, 0, 0, 1, 32, 1] {
            body.extend_from_slice(&value.to_le_bytes());
        }
        body.extend_from_slice(&random[16..]);
        body.extend_from_slice(&[0; 2]);
        for value in [2_u16, 4, 0, 0, 1, GCM] {
            body.extend_from_slice(&value.to_le_bytes());
        }
        let (status, answer) = self.plain(NEGOTIATE, &body).await?;
        let old = || {
            Failure::new(
                FailureClass::Config,
                "the host does not speak SMB 3.1.1 with encryption",
                "Windows 10 and Windows Server 2016 do; use another transport for older ones",
            )
        };
        if status != 0 || short(&answer, HEADER + 4) != Some(DIALECT) {
            return Err(old());
        }
        if cipher(&answer) != Some(GCM) {
            return Err(old());
        }
        self.listen(&answer);
        Ok(())
    }

    fn listen(&mut self, message: &[u8]) {
        let mut context = digest::Context::new(&digest::SHA512);
        context.update(&self.heard);
        context.update(message);
        self.heard.copy_from_slice(context.finish().as_ref());
    }

    /// Logs in; `domain` is the host's own name if not given.
    pub(super) async fn log_in(
        mut self,
        domain: Option<&str>,
        user: &str,
        password: &Secret,
    ) -> Result<Login, Failure> {
        if password.is_empty() {
            return Err(Failure::new(FailureClass::Config, format!("there is no password of {user}"), "give it"));
        }
        let first = ntlm::negotiate();
        let (status, answer) = self.setup(&first_token(&first)).await?;
        if status != MORE {
            return Ok(Login::Denied(status));
        }
        self.session = u64::from_le_bytes(answer[40..48].try_into().map_err(|_| strange("no session"))?);
        self.listen(&answer);
        let token = security(&answer).and_then(response_token).ok_or_else(|| strange("no challenge"))?;
        let challenge = Challenge::parse(token)?;
        let computer = challenge.computer();
        let logon = Logon { domain: domain.unwrap_or(&computer), user, password, bindings: None };
        let (third, key) = logon.authenticate(&first, &challenge)?;
        let vouched = Sealing::new(&key).vouch(&mechanisms());
        let (status, answer) = self.setup(&next_token(&third, &vouched)).await?;
        if status != 0 {
            return Ok(Login::Denied(status));
        }
        let flags = short(&answer, HEADER + 2).ok_or_else(|| strange("no flags"))?;
        if flags & 0x3 != 0 {
            // A host that maps unknown users to its guest has not checked anything.
            return Ok(Login::Denied(0xc000_006d));
        }
        let sign = derive(key.as_slice(), b"SMBSigningKey\0", &self.heard);
        if !signed(&answer, sign.as_slice()) {
            return Err(strange("it is not signed with the session's key"));
        }
        let (to, from) = (
            derive(key.as_slice(), b"SMBC2SCipherKey\0", &self.heard),
            derive(key.as_slice(), b"SMBS2CCipherKey\0", &self.heard),
        );
        let application = derive(key.as_slice(), b"SMBAppKey\0", &self.heard);
        let cipher = |key: &[u8]| UnboundKey::new(&AES_128_GCM, key).map(LessSafeKey::new);
        let (Ok(to), Ok(from)) = (cipher(to.as_slice()), cipher(from.as_slice())) else { return Err(strange("keys")) };
        Ok(Login::In(Box::new(Session { connection: self, to, from, nonce: 0, application, computer })))
    }

    async fn setup(&mut self, token: &[u8]) -> Result<(u32, Vec<u8>), Failure> {
        let mut body = 25_u16.to_le_bytes().to_vec();
        body.extend_from_slice(&[0, 2]);
        body.extend_from_slice(&[0; 8]);
        body.extend_from_slice(&88_u16.to_le_bytes());
        body.extend_from_slice(&u16::try_from(token.len()).unwrap_or(0).to_le_bytes());
        body.extend_from_slice(&[0; 8]);
        body.extend_from_slice(token);
        self.plain(SESSION_SETUP, &body).await
    }

    /// A request in the clear; it is part of what the keys are made of.
    async fn plain(&mut self, command: u16, body: &[u8]) -> Result<(u32, Vec<u8>), Failure> {
        let message = [&self.header(command)[..], body].concat();
        self.listen(&message);
        self.send(&message).await?;
        let answer = self.receive().await?;
        status(&answer, command).map(|status| (status, answer))
    }

    fn header(&mut self, command: u16) -> Vec<u8> {
        let mut out = b"\xfeSMB".to_vec();
        out.extend_from_slice(&64_u16.to_le_bytes());
        out.extend_from_slice(&1_u16.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&command.to_le_bytes());
        out.extend_from_slice(&8_u16.to_le_bytes());
        out.extend_from_slice(&[0; 8]);
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.tree.to_le_bytes());
        out.extend_from_slice(&self.session.to_le_bytes());
        out.extend_from_slice(&[0; 16]);
        self.number += 1;
        out
    }

    async fn send(&mut self, message: &[u8]) -> Result<(), Failure> {
        let length = u32::try_from(message.len()).unwrap_or(0).to_be_bytes();
        self.stream.write_all(&[&length, message].concat()).await.map_err(|error| broken(&error))
    }

    async fn receive(&mut self) -> Result<Vec<u8>, Failure> {
        let mut length = [0_u8; 4];
        self.stream.read_exact(&mut length).await.map_err(|error| broken(&error))?;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if !(HEADER..=LONGEST).contains(&length) {
            return Err(strange("its length"));
        }
        let mut message = vec![0; length];
        self.stream.read_exact(&mut message).await.map_err(|error| broken(&error))?;
        Ok(message)
    }
}

/// The status of an answer to this command.
fn status(answer: &[u8], command: u16) -> Result<u32, Failure> {
    let right = answer.get(..4) == Some(b"\xfeSMB") && short(answer, 12) == Some(command);
    long(answer, 8).filter(|_| right).ok_or_else(|| strange("it is another one"))
}

/// The cipher that the host chose, in the contexts of its answer to negotiate.
fn cipher(answer: &[u8]) -> Option<u16> {
    let count = short(answer, HEADER + 6)?;
    let mut at = usize::try_from(long(answer, HEADER + 60)?).ok()?;
    for _ in 0..count.min(16) {
        let (kind, length) = (short(answer, at)?, usize::from(short(answer, at + 2)?));
        if kind == 2 {
            return short(answer, at + 10);
        }
        at = (at + 8 + length).div_ceil(8) * 8;
    }
    None
}

/// The security buffer of an answer to session setup.
fn security(answer: &[u8]) -> Option<&[u8]> {
    part(answer, short(answer, HEADER + 4).map(usize::from), short(answer, HEADER + 6).map(usize::from))
}

/// The list of mechanisms that are offered: NTLM.
fn mechanisms() -> Vec<u8> {
    der::sequence(&[der::element(0x06, &[0x2b, 6, 1, 4, 1, 0x82, 0x37, 2, 2, 10])])
}

/// `NegTokenInit` (RFC 4178).
fn first_token(ntlm: &[u8]) -> Vec<u8> {
    let spnego = der::element(0x06, &[0x2b, 6, 1, 5, 5, 2]);
    let init = der::sequence(&[der::explicit(0, &mechanisms()), der::explicit(2, &der::octets(ntlm))]);
    der::element(0x60, &[spnego, der::explicit(0, &init)].concat())
}

/// `NegTokenResp` with the next message, and the signature that vouches for the list of mechanisms.
fn next_token(ntlm: &[u8], vouched: &[u8]) -> Vec<u8> {
    der::explicit(1, &der::sequence(&[der::explicit(2, &der::octets(ntlm)), der::explicit(3, &der::octets(vouched))]))
}

fn response_token(input: &[u8]) -> Option<&[u8]> {
    let fields = der::content(der::content(input, 0xa1)?, 0x30)?;
    der::content(der::field(fields, 2)?, 0x04)
}

/// The key derivation of SP 800-108 with a counter, 128 bits.
fn derive(key: &[u8], label: &[u8], context: &[u8]) -> Zeroizing<[u8; 16]> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    let mut mac = hmac::Context::with_key(&key);
    for part in [&[0, 0, 0, 1][..], label, &[0], context, &[0, 0, 0, 128]] {
        mac.update(part);
    }
    let mut out = Zeroizing::new([0; 16]);
    out.copy_from_slice(&mac.sign().as_ref()[..16]);
    out
}

/// Whether a message carries the signature of this key.
fn signed(message: &[u8], key: &[u8]) -> bool {
    let Ok(key) = cmac::Key::new(cmac::AES_128, key) else { return false };
    let mut blank = message.to_vec();
    let Some(place) = blank.get_mut(48..64) else { return false };
    let signature = place.to_vec();
    place.fill(0);
    cmac::verify(&key, &blank, &signature).is_ok()
}

/// Somebody who is logged in.
pub(super) struct Session {
    connection: Connection,
    to: LessSafeKey,
    from: LessSafeKey,
    nonce: u64,
    application: Zeroizing<[u8; 16]>,
    /// The host's own short name.
    pub(super) computer: String,
}

impl Session {
    /// The key with which passwords are sealed once more inside the calls.
    pub(super) fn key(&self) -> &[u8; 16] {
        &self.application
    }

    /// Opens a named pipe of the host.
    pub(super) async fn pipe(mut self, host: &str, name: &str) -> Result<Pipe, Failure> {
        let path = utf16(&format!("\\\\{host}\\IPC$"));
        let mut body = [9_u16, 0, 72].map(u16::to_le_bytes).concat();
        body.extend_from_slice(&u16::try_from(path.len()).unwrap_or(0).to_le_bytes());
        body.extend_from_slice(&path);
        let answer = self.ask(TREE_CONNECT, &body, "to its pipes").await?;
        self.connection.tree = long(&answer, 36).ok_or_else(|| strange("no tree"))?;
        let name = utf16(name);
        let mut body = 57_u16.to_le_bytes().to_vec();
        body.extend_from_slice(&[0; 2]);
        body.extend_from_slice(&2_u32.to_le_bytes());
        body.extend_from_slice(&[0; 16]);
        for value in [0x0012_019f_u32, 0, 7, 1, 0] {
            body.extend_from_slice(&value.to_le_bytes());
        }
        body.extend_from_slice(&120_u16.to_le_bytes());
        body.extend_from_slice(&u16::try_from(name.len()).unwrap_or(0).to_le_bytes());
        body.extend_from_slice(&[0; 8]);
        body.extend_from_slice(&name);
        let answer = self.ask(CREATE, &body, "to its account database").await?;
        let file = answer.get(HEADER + 64..HEADER + 80).and_then(|id| id.try_into().ok());
        Ok(Pipe { session: self, file: file.ok_or_else(|| strange("no file"))? })
    }

    async fn ask(&mut self, command: u16, body: &[u8], what: &str) -> Result<Vec<u8>, Failure> {
        let (status, answer) = self.call(command, body).await?;
        match status {
            0 => Ok(answer),
            0xc000_0022 => Err(Failure::new(
                FailureClass::Privilege,
                format!("the host gives the acting account no access {what}"),
                "use an account of the host's Administrators group",
            )),
            other => Err(strange(&format!("status {other:08x} {what}"))),
        }
    }

    /// One encrypted request and its answer.
    async fn call(&mut self, command: u16, body: &[u8]) -> Result<(u32, Vec<u8>), Failure> {
        let message = [&self.connection.header(command)[..], body].concat();
        let sealed = self.seal(message)?;
        self.connection.send(&sealed).await?;
        for _ in 0..MOST_PENDING {
            let sealed = self.connection.receive().await?;
            let answer = self.open(&sealed)?;
            match status(&answer, command)? {
                PENDING => {}
                status => return Ok((status, answer)),
            }
        }
        Err(strange("it never ends"))
    }

    fn seal(&mut self, mut message: Vec<u8>) -> Result<Vec<u8>, Failure> {
        let mut nonce = [0_u8; 16];
        nonce[..8].copy_from_slice(&self.nonce.to_le_bytes());
        self.nonce += 1;
        let mut about = nonce.to_vec();
        about.extend_from_slice(&u32::try_from(message.len()).unwrap_or(0).to_le_bytes());
        about.extend_from_slice(&[0, 0, 1, 0]);
        about.extend_from_slice(&self.connection.session.to_le_bytes());
        let unique = Nonce::try_assume_unique_for_key(&nonce[..12]).map_err(|_| strange("nonce"))?;
        let tag = self.to.seal_in_place_separate_tag(unique, Aad::from(&about), &mut message);
        let tag = tag.map_err(|_| strange("sealing"))?;
        Ok([&b"\xfdSMB"[..], tag.as_ref(), &about, &message].concat())
    }

    fn open(&self, sealed: &[u8]) -> Result<Vec<u8>, Failure> {
        let unreadable = || strange("it is not encrypted with the session's key");
        if sealed.get(..4) != Some(b"\xfdSMB") || sealed.len() < TRANSFORM + HEADER {
            return Err(unreadable());
        }
        let (tag, about) = (&sealed[4..20], &sealed[20..TRANSFORM]);
        let nonce = Nonce::try_assume_unique_for_key(&about[..12]).map_err(|_| unreadable())?;
        let mut message = [&sealed[TRANSFORM..], tag].concat();
        let length = self.from.open_in_place(nonce, Aad::from(about), &mut message).map_err(|_| unreadable())?.len();
        message.truncate(length);
        Ok(message)
    }
}

/// An open pipe.
pub(super) struct Pipe {
    /// Who opened it.
    pub(super) session: Session,
    file: [u8; 16],
}

impl Pipe {
    /// Writes a message and reads the answer.
    pub(super) async fn exchange(&mut self, message: &[u8]) -> Result<Vec<u8>, Failure> {
        let mut body = [57_u16, 0].map(u16::to_le_bytes).concat();
        body.extend_from_slice(&TRANSCEIVE.to_le_bytes());
        body.extend_from_slice(&self.file);
        let length = u32::try_from(message.len()).unwrap_or(0);
        for value in [120, length, 0, 0, 0, 65_536, 1, 0] {
            body.extend_from_slice(&value.to_le_bytes());
        }
        body.extend_from_slice(message);
        let answer = self.session.ask(IOCTL, &body, "to its account database").await?;
        let at = |place| long(&answer, HEADER + place).and_then(|value| usize::try_from(value).ok());
        part(&answer, at(32), at(36)).map(<[u8]>::to_vec).ok_or_else(|| strange("no data"))
    }
}
