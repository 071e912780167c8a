//! IPMI 2.0 over the network (RMCP+): a session with cipher suite 17 or 3, always authenticated, checked and encrypted.
//!
//! What must stay true: the controller shows first that it knows the password (message 2 of the key exchange), and only a password that
//! agrees with what it showed is ever used to answer. So a wrong password is found out here, and is no failed login there.

use std::time::Duration;

use aes::Aes128;
use aes::cipher::{Block, BlockCipherDecrypt as _, BlockCipherEncrypt as _, KeyInit as _};
use aws_lc_rs::hmac;
use tokio::net::UdpSocket;
use volvelle_domain::Secret;
use volvelle_domain::connector::{Failure, FailureClass};
use zeroize::Zeroizing;

use super::strange;
use crate::parameters::config;

/// Longest name of a user.
pub(super) const LONGEST_NAME: usize = 16;
/// Longest password that a key is made of.
const LONGEST_PASSWORD: usize = 20;

/// How long an answer is waited for before the question is put again.
const PATIENCE: [Duration; 4] = [
    Duration::from_millis(1000),
    Duration::from_millis(1000),
    Duration::from_millis(2000),
    Duration::from_millis(3000),
];
/// Most datagrams that are looked at for one answer.
const MOST_DATAGRAMS: usize = 64;

/// The address of the controller and ours, in its messages.
const BMC: u8 = 0x20;
const CONSOLE: u8 = 0x81;
/// Requests of the application.
const APP: u8 = 0x06;
/// The user is looked up by name alone.
const BY_NAME: u8 = 0x10;

/// The privilege that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// The least that can log in.
    User = 2,
    /// What may manage users.
    Administrator = 4,
}

/// A cipher suite; both encrypt with AES-128.
#[derive(Debug)]
struct Suite {
    authentication: u8,
    integrity: u8,
    algorithm: hmac::Algorithm,
    /// Bytes of a checksum of a message.
    tag: usize,
}

static SUITE_17: Suite = Suite { authentication: 3, integrity: 4, algorithm: hmac::HMAC_SHA256, tag: 16 };
static SUITE_3: Suite =
    Suite { authentication: 1, integrity: 1, algorithm: hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, tag: 12 };

impl Suite {
    fn sign(&self, key: &[u8], parts: &[&[u8]]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&hmac::Key::new(self.algorithm, key));
        parts.iter().for_each(|part| context.update(part));
        context.sign()
    }

    fn agrees(&self, key: &[u8], parts: &[&[u8]], shown: &[u8]) -> bool {
        let own = self.sign(key, parts);
        let own = own.as_ref().get(..shown.len());
        own.is_some_and(|own| !own.is_empty() && aws_lc_rs::constant_time::verify_slices_are_equal(own, shown).is_ok())
    }
}

/// What one datagram carries.
struct Parcel<'a> {
    kind: u8,
    session: [u8; 4],
    payload: &'a [u8],
}

impl<'a> Parcel<'a> {
    fn of(datagram: &'a [u8]) -> Option<Self> {
        let rest = datagram.strip_prefix(&[0x06, 0x00, 0xff, 0x07, 0x06])?;
        let (kind, rest) = rest.split_first()?;
        let (session, rest) = rest.split_first_chunk::<4>()?;
        let (_number, rest) = rest.split_first_chunk::<4>()?;
        let (length, rest) = rest.split_first_chunk::<2>()?;
        let payload = rest.get(..usize::from(u16::from_le_bytes(*length)))?;
        Some(Self { kind: *kind, session: *session, payload })
    }
}

fn parcel(kind: u8, session: [u8; 4], number: u32, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).expect("payloads are made here and are short");
    let mut out = vec![0x06, 0x00, 0xff, 0x07, 0x06, kind];
    out.extend_from_slice(&session);
    out.extend_from_slice(&number.to_le_bytes());
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(payload);
    out
}

/// A way to a controller.
struct Line {
    socket: UdpSocket,
    shown: String,
}

impl Line {
    async fn open(host: &str, port: u16) -> Result<Self, Failure> {
        let shown = format!("{host}:{port}");
        let away = |error: std::io::Error| away(&shown, &error);
        let mut found = tokio::net::lookup_host((host, port)).await.map_err(away)?;
        let peer = found.next().ok_or_else(|| config("host has no address", "check host"))?;
        let own = if peer.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(own).await.map_err(away)?;
        socket.connect(peer).await.map_err(away)?;
        Ok(Self { socket, shown })
    }

    async fn send(&self, datagram: &[u8]) -> Result<(), Failure> {
        self.socket.send(datagram).await.map(|_| ()).map_err(|error| away(&self.shown, &error))
    }

    /// Puts a question, again if need be, until an answer fits.
    async fn ask<T>(
        &self,
        mut question: impl FnMut() -> Vec<u8>,
        fits: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<T, Failure> {
        let mut buffer = Zeroizing::new([0_u8; 1024]);
        let mut datagrams = 0;
        for patience in PATIENCE {
            self.send(&Zeroizing::new(question())).await?;
            let until = tokio::time::Instant::now() + patience;
            while let Ok(received) = tokio::time::timeout_at(until, self.socket.recv(buffer.as_mut_slice())).await {
                let length = received.map_err(|error| away(&self.shown, &error))?;
                if let Some(answer) = fits(&buffer[..length]) {
                    return Ok(answer);
                }
                datagrams += 1;
                if datagrams > MOST_DATAGRAMS {
                    return Err(strange("it sends what was not asked for"));
                }
            }
        }
        Err(super::timed_out())
    }
}

fn away(shown: &str, error: &std::io::Error) -> Failure {
    let message = format!("the BMC at {shown} cannot be reached: {}", error.kind());
    Failure::new(FailureClass::Unreachable, message, "check host and port, and that IPMI over LAN is switched on")
}

/// What the status of a key exchange means.
fn told(status: u8, user: &str) -> Failure {
    let (class, message, hint) = match status {
        0x01 | 0x0b => (FailureClass::Unreachable, "the BMC has no session free".to_owned(), "try again later"),
        // An answer was lost, and what was asked again came too late.
        0x02 | 0x08 => (FailureClass::Unreachable, "the BMC has given up the session".to_owned(), "try again"),
        0x09 | 0x0a => (
            FailureClass::Privilege,
            format!("the BMC does not give {user} the privilege that is needed"),
            "make the user an administrator of the LAN channel",
        ),
        0x0c | 0x0d => (
            FailureClass::Auth,
            format!("the BMC has no user {user} that may log in over the network"),
            "check the name, and that the user is enabled for IPMI",
        ),
        0x0f => (FailureClass::Auth, format!("the BMC refused the credential of {user}"), "correct the credential"),
        other => (FailureClass::Protocol, format!("the BMC ends the key exchange with status {other:#04x}"), ""),
    };
    Failure::new(class, message, hint)
}

const fn is_about_algorithms(status: u8) -> bool {
    matches!(status, 0x04..=0x07 | 0x10 | 0x11)
}

fn random<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| config("the machine gives no randomness", "look at its system log"))?;
    Ok(bytes)
}

/// Where a controller listens, and whether suite 3 will do.
pub(super) struct Place<'a> {
    pub(super) host: &'a str,
    pub(super) port: u16,
    pub(super) legacy: bool,
}

/// A key exchange half made: the controller has shown that it knows the user's password, whatever it is.
pub(super) struct Challenge {
    line: Line,
    suite: &'static Suite,
    user: Vec<u8>,
    role: u8,
    console: [u8; 4],
    managed: [u8; 4],
    ours: [u8; 16],
    theirs: [u8; 16],
    guid: [u8; 16],
    shown: Vec<u8>,
}

impl Challenge {
    /// Lets the controller show that it knows the user's password. No login, whatever comes of it.
    pub(super) async fn of(place: &Place<'_>, user: &str, role: Role) -> Result<Self, Failure> {
        let line = Line::open(place.host, place.port).await?;
        let mut console = random::<4>()?;
        console[0] |= 1;
        let (mut suite, mut opened) = (&SUITE_17, open(&line, &SUITE_17, console).await?);
        if let Err(status) = opened
            && is_about_algorithms(status)
        {
            if !place.legacy {
                return Err(config(
                    "the BMC does not know cipher suite 17 (SHA-256)",
                    "update its firmware, or set allow-legacy-algorithms for suite 3 (SHA-1)",
                ));
            }
            (suite, opened) = (&SUITE_3, open(&line, &SUITE_3, console).await?);
        }
        let managed = opened.map_err(|status| told(status, user))?;
        let (ours, role) = (random::<16>()?, BY_NAME | role as u8);
        let length = u8::try_from(user.len()).ok().filter(|length| usize::from(*length) <= LONGEST_NAME);
        let length = length.ok_or_else(|| config(format!("names have at most {LONGEST_NAME} bytes"), "correct it"))?;
        let mut first = vec![0, 0, 0, 0];
        first.extend_from_slice(&managed);
        first.extend_from_slice(&ours);
        first.extend_from_slice(&[role, 0, 0, length]);
        first.extend_from_slice(user.as_bytes());
        let answer = line.ask(|| parcel(0x12, [0; 4], 0, &first), |datagram| unsealed(datagram, 0x13, console)).await?;
        if answer[1] != 0 {
            return Err(told(answer[1], user));
        }
        let rest = answer.get(8..).unwrap_or_default();
        let parts = rest.split_first_chunk::<16>().and_then(|(theirs, rest)| {
            let (guid, shown) = rest.split_first_chunk::<16>()?;
            Some((*theirs, *guid, shown.to_vec()))
        });
        let (theirs, guid, shown) = parts.ok_or_else(|| strange("the key exchange is too short"))?;
        if shown.len() != suite.sign(&[], &[]).as_ref().len() {
            return Err(strange("the key exchange has a code of the wrong length"));
        }
        Ok(Self { line, suite, user: user.as_bytes().to_vec(), role, console, managed, ours, theirs, guid, shown })
    }

    fn name(&self) -> [u8; 2] {
        [self.role, u8::try_from(self.user.len()).unwrap_or(u8::MAX)]
    }

    /// Whether this is the user's password.
    pub(super) fn holds(&self, password: &Secret) -> bool {
        let name = self.name();
        let parts: [&[u8]; 7] = [&self.console, &self.managed, &self.ours, &self.theirs, &self.guid, &name, &self.user];
        password.len() <= LONGEST_PASSWORD && self.suite.agrees(password.expose(), &parts, &self.shown)
    }

    /// Goes on with a password that agrees.
    pub(super) async fn log_in(self, password: &Secret) -> Result<Session, Failure> {
        let user = String::from_utf8_lossy(&self.user).into_owned();
        if !self.holds(password) {
            return Err(Failure::new(
                FailureClass::Auth,
                format!("the BMC knows another password of {user}"),
                "run `volvelle rotated-secret verify`, or correct the credential of the target",
            ));
        }
        let (key, name) = (password.expose(), self.name());
        let mut third = vec![0, 0, 0, 0];
        third.extend_from_slice(&self.managed);
        third.extend_from_slice(self.suite.sign(key, &[&self.theirs, &self.console, &name, &self.user]).as_ref());
        let asked =
            self.line.ask(|| parcel(0x14, [0; 4], 0, &third), |datagram| unsealed(datagram, 0x15, self.console));
        let answer = asked.await?;
        if answer[1] != 0 {
            return Err(told(answer[1], &user));
        }
        let secret = self.suite.sign(key, &[&self.ours, &self.theirs, &name, &self.user]);
        let shown = answer.get(8..).unwrap_or_default();
        let proven = shown.len() == self.suite.tag
            && self.suite.agrees(secret.as_ref(), &[&self.ours, &self.managed, &self.guid], shown);
        if !proven {
            let message = "the BMC has not proven the session's key";
            return Err(Failure::new(
                FailureClass::Config,
                message,
                "take the BMC's own key (K_g) off its LAN channel",
            ));
        }
        let check = Zeroizing::new(self.suite.sign(secret.as_ref(), &[&[1; 20]]).as_ref().to_vec());
        let hide = Zeroizing::new(self.suite.sign(secret.as_ref(), &[&[2; 20]]).as_ref()[..16].to_vec());
        let cipher = Aes128::new_from_slice(&hide).map_err(|_| strange("no key"))?;
        let (line, suite, console, managed) = (self.line, self.suite, self.console, self.managed);
        Ok(Session { line, suite, console, managed, check, cipher, number: 0, request: 0 })
    }
}

/// Asks for a session: the controller's number of it, or the status it refuses with.
async fn open(line: &Line, suite: &Suite, console: [u8; 4]) -> Result<Result<[u8; 4], u8>, Failure> {
    let mut question = vec![0, 0, 0, 0];
    question.extend_from_slice(&console);
    for (kind, algorithm) in [(0, suite.authentication), (1, suite.integrity), (2, 1)] {
        question.extend_from_slice(&[kind, 0, 0, 8, algorithm, 0, 0, 0]);
    }
    let answer = line.ask(|| parcel(0x10, [0; 4], 0, &question), |datagram| unsealed(datagram, 0x11, console)).await?;
    if answer[1] != 0 {
        return Ok(Err(answer[1]));
    }
    let chosen = [answer.get(16), answer.get(24), answer.get(32)];
    if chosen != [Some(&suite.authentication), Some(&suite.integrity), Some(&1)] {
        return Err(strange("it chooses algorithms that were not offered"));
    }
    let managed = answer.get(8..12).and_then(|bytes| bytes.try_into().ok());
    Ok(Ok(managed.ok_or_else(|| strange("it names no session"))?))
}

/// The payload of a message of the key exchange, if it is of this kind and for this session.
fn unsealed(datagram: &[u8], kind: u8, console: [u8; 4]) -> Option<Vec<u8>> {
    let parcel = Parcel::of(datagram).filter(|parcel| parcel.kind == kind && parcel.payload.len() >= 2)?;
    // A refusal may lack the rest.
    let ours = parcel.payload[1] != 0 || parcel.payload.get(4..8) == Some(&console);
    ours.then(|| parcel.payload.to_vec())
}

/// What the controller answers to a command.
#[derive(Debug)]
pub(super) struct Reply {
    /// 0 if it was done.
    pub(super) code: u8,
    pub(super) data: Vec<u8>,
}

/// An open session.
pub(super) struct Session {
    line: Line,
    suite: &'static Suite,
    console: [u8; 4],
    managed: [u8; 4],
    check: Zeroizing<Vec<u8>>,
    cipher: Aes128,
    number: u32,
    request: u8,
}

impl Session {
    /// Puts a command (of the application's) and waits for its answer.
    pub(super) async fn ask(&mut self, command: u8, data: &[u8]) -> Result<Reply, Failure> {
        self.request = (self.request + 1) % 64;
        let message = Zeroizing::new(message(self.request, command, data));
        let (mut number, request) = (self.number, self.request);
        let this = &*self;
        let question = || {
            number += 1;
            this.sealed(number, &message)
        };
        let reply = this.line.ask(question, |datagram| this.reply(datagram, request, command)).await;
        self.number = number;
        reply
    }

    /// Ends the session; nobody waits for the answer.
    pub(super) async fn close(mut self) {
        self.request = (self.request + 1) % 64;
        let datagram = self.sealed(self.number + 1, &message(self.request, 0x3c, &self.managed));
        let _ = self.line.send(&datagram).await;
    }

    fn sealed(&self, number: u32, message: &[u8]) -> Vec<u8> {
        let start = random::<16>().unwrap_or_default();
        let mut text = Zeroizing::new(message.to_vec());
        let padding = u8::try_from(15 - message.len() % 16).unwrap_or_default();
        text.extend(1..=padding);
        text.push(padding);
        let mut payload = start.to_vec();
        let mut last = Block::<Aes128>::from(start);
        for piece in text.chunks_exact(16) {
            last.iter_mut().zip(piece).for_each(|(a, b)| *a ^= b);
            self.cipher.encrypt_block(&mut last);
            payload.extend_from_slice(&last);
        }
        let mut out = parcel(0xc0, self.managed, number, &payload);
        // What is checked ends at a multiple of four bytes.
        let pad = (4 - (out.len() - 4 + 2) % 4) % 4;
        out.extend(std::iter::repeat_n(0xff, pad));
        out.extend_from_slice(&[u8::try_from(pad).unwrap_or_default(), 0x07]);
        let tag = self.suite.sign(&self.check, &[&out[4..]]);
        out.extend_from_slice(&tag.as_ref()[..self.suite.tag]);
        out
    }

    fn reply(&self, datagram: &[u8], request: u8, command: u8) -> Option<Reply> {
        let parcel = Parcel::of(datagram).filter(|parcel| parcel.kind == 0xc0 && parcel.session == self.console)?;
        let (covered, tag) = datagram.split_at_checked(datagram.len().checked_sub(self.suite.tag)?)?;
        if !self.suite.agrees(&self.check, &[covered.get(4..)?], tag) {
            return None;
        }
        let text = self.opened(parcel.payload)?;
        let (head, rest) = text.split_first_chunk::<7>()?;
        let (_sum, data) = rest.split_last()?;
        let fits = head[1] >> 2 == APP | 1 && head[4] >> 2 == request && head[5] == command;
        fits.then(|| Reply { code: head[6], data: data.to_vec() })
    }

    fn opened(&self, payload: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (mut last, sealed) = payload.split_first_chunk::<16>()?;
        if sealed.is_empty() || sealed.len() % 16 != 0 {
            return None;
        }
        let mut text = Zeroizing::new(Vec::with_capacity(sealed.len()));
        for piece in sealed.as_chunks::<16>().0 {
            let mut block = Block::<Aes128>::from(*piece);
            self.cipher.decrypt_block(&mut block);
            text.extend(block.iter().zip(last).map(|(a, b)| a ^ b));
            last = piece;
        }
        let padding = usize::from(text.pop()?);
        let left = text.len().checked_sub(padding)?;
        text.truncate(left);
        Some(text)
    }
}

/// A command as the controller's bus knows it.
fn message(request: u8, command: u8, data: &[u8]) -> Vec<u8> {
    let sum = |bytes: &[u8]| bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)).wrapping_neg();
    let head = [BMC, APP << 2];
    let mut rest = vec![CONSOLE, request << 2, command];
    rest.extend_from_slice(data);
    rest.push(sum(&rest));
    let mut out = vec![head[0], head[1], sum(&head)];
    out.append(&mut rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_both_checksums() {
        // Get Device ID as other implementations send it.
        assert_eq!(message(1, 0x01, &[]), [0x20, 0x18, 0xc8, 0x81, 0x04, 0x01, 0x7a]);
    }

    #[test]
    fn datagrams_that_are_cut_are_no_parcels() {
        let whole = parcel(0x11, [1, 2, 3, 4], 7, b"payload");
        assert_eq!(Parcel::of(&whole).map(|p| (p.kind, p.session, p.payload.len())), Some((0x11, [1, 2, 3, 4], 7)));
        for length in 0..whole.len() {
            assert!(Parcel::of(&whole[..length]).is_none(), "{length}");
        }
    }
}
