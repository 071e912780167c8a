//! A login at a service and what is said afterwards: GSS-API with Kerberos and AES (RFC 4121), inside SPNEGO (RFC 4178).
//!
//! What must stay true: one mechanism is offered, so that nobody can bargain it down; without the service's own proof there is no
//! context; what arrives is sealed by the other side, in order, and nothing is repeated.

use std::time::SystemTime;

use volvelle_domain::connector::{Failure, FailureClass};
use zeroize::Zeroizing;

use super::cts::Key;
use super::key::{CONFOUNDER, MAC};
use super::ticket::{Ticket, moment, skewed};
use super::{der, kdc};

/// 1.2.840.113554.1.2.2.
const KERBEROS: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x12, 1, 2, 2];
/// 1.3.6.1.5.5.2.
const SPNEGO: &[u8] = &[0x2b, 6, 1, 5, 5, 2];
/// The service is to prove itself.
const MUTUAL: u32 = 0x2000_0000;
/// Mutual, no replay, in sequence, confidential, integrity.
const FLAGS: u32 = 2 | 4 | 8 | 16 | 32;
const HEADER: usize = 16;
/// How far a sealed message is turned, so that what stands in front of it is all in one piece.
const TURN: usize = HEADER + MAC;

const BY_ACCEPTOR: u8 = 1;
const SEALED: u8 = 2;
const ACCEPTORS_KEY: u8 = 4;

fn strange(what: &str) -> Failure {
    Failure::new(FailureClass::Protocol, format!("the host's Kerberos answer cannot be used: {what}"), "")
}

/// A login under way.
pub(crate) struct Handshake {
    key: Key,
    own: Key,
    micros: u32,
    time: String,
    number: u32,
}

impl Handshake {
    /// The token for the service; `bindings` ties it to the connection that it travels in.
    pub(crate) fn begin(ticket: Ticket, bindings: Option<[u8; 16]>, now: SystemTime) -> (Self, Vec<u8>) {
        let (micros, time) = moment(now);
        let (own, number) = (ticket.key.another(), kdc::nonce());
        let sum = [&16_u32.to_le_bytes()[..], &bindings.unwrap_or_default(), &FLAGS.to_le_bytes()].concat();
        let sum = der::sequence(&[der::explicit(0, &der::integer(0x8003)), der::explicit(1, &der::octets(&sum))]);
        let request = ticket.request(
            MUTUAL,
            11,
            &[
                der::explicit(3, &sum),
                der::explicit(4, &der::integer(micros)),
                der::explicit(5, &der::time(&time)),
                der::explicit(6, &own.written()),
                der::explicit(7, &der::integer(number)),
            ],
        );
        let inner = [&der::element(0x06, KERBEROS)[..], &[1, 0], &request].concat();
        let mechanisms = der::sequence(&[der::element(0x06, KERBEROS)]);
        let token = der::octets(&der::element(0x60, &inner));
        let init = der::sequence(&[der::explicit(0, &mechanisms), der::explicit(2, &token)]);
        let whole = [der::element(0x06, SPNEGO), der::explicit(0, &init)].concat();
        (Self { key: ticket.key, own, micros, time, number }, der::element(0x60, &whole))
    }

    /// Reads the service's proof.
    pub(crate) fn finish(self, answer: &[u8]) -> Result<Context, Failure> {
        let (state, token) = unwrapped(answer).ok_or_else(|| strange("it is no SPNEGO"))?;
        let (kind, message) = token.map(unframed).unwrap_or_default();
        if let Some(told) = kdc::error(message) {
            return Err(self.told(told.code, &told.server_time));
        }
        if state != Some(0) {
            return Err(strange("the login is not complete"));
        }
        let proof = if kind == [2, 0] { self.proof(message) } else { None };
        let (acceptors, received) = proof.ok_or_else(|| {
            Failure::new(
                FailureClass::PeerIdentity,
                "the host did not prove that it is the one the ticket is for",
                "find out who answers at that address",
            )
        })?;
        let flags = if acceptors.is_some() { ACCEPTORS_KEY } else { 0 };
        let key = acceptors.unwrap_or(self.own);
        Ok(Context { key, flags, sent: u64::from(self.number), received: u64::from(received) })
    }

    /// The acceptor's key and its first number, out of an `AP-REP` that answers this very request.
    fn proof(&self, message: &[u8]) -> Option<(Option<Key>, u32)> {
        let fields = der::content(der::content(message, 0x6f)?, 0x30)?;
        let sealed = der::content(der::field(der::content(der::field(fields, 2)?, 0x30)?, 2)?, 0x04)?;
        let plain = self.key.open(12, sealed)?;
        let part = der::content(der::content(&plain, 0x7b)?, 0x30)?;
        let time = der::content(der::field(part, 0)?, 0x18)?;
        if time != self.time.as_bytes() || der::number(der::field(part, 1)?)? != self.micros {
            return None;
        }
        let key = match der::field(part, 2) {
            Some(encoded) => Some(Key::read(encoded)?),
            None => None,
        };
        Some((key, der::number(der::field(part, 3)?)?))
    }

    fn told(&self, code: u32, server_time: &str) -> Failure {
        let fail = |said: &str, hint: &str| Failure::new(FailureClass::Config, said, hint);
        match code {
            37 => skewed("the host", &self.time, server_time),
            35 | 41 => fail(
                "the host cannot open the ticket that the domain made for it",
                "its name in the domain belongs to another computer (setspn -Q), or the host has to join the domain anew",
            ),
            code => strange(&format!("Kerberos error {code}")),
        }
    }
}

/// State and token of a `NegTokenResp`.
fn unwrapped(answer: &[u8]) -> Option<(Option<u8>, Option<&[u8]>)> {
    let fields = der::content(der::content(answer, 0xa1)?, 0x30)?;
    let state = der::field(fields, 0).and_then(|state| der::content(state, 0x0a)).and_then(|state| state.first());
    Some((state.copied(), der::field(fields, 2).and_then(|token| der::content(token, 0x04))))
}

/// What kind of token it is, and the message in it; nothing if it is not of this mechanism.
fn unframed(token: &[u8]) -> ([u8; 2], &[u8]) {
    let read = || {
        let (tag, mechanism, rest) = der::read(der::content(token, 0x60)?)?;
        let (kind, message) = rest.split_at_checked(2)?;
        (tag == 0x06 && mechanism == KERBEROS).then_some((kind.try_into().ok()?, message))
    };
    read().unwrap_or(([0, 0], token))
}

/// A conversation with a service that is who it should be.
pub(crate) struct Context {
    key: Key,
    flags: u8,
    sent: u64,
    received: u64,
}

fn header(flags: u8, extra: u16, turned: u16, number: u64) -> [u8; HEADER] {
    let mut out = [0; HEADER];
    out[..4].copy_from_slice(&[5, 4, flags, 0xff]);
    out[4..6].copy_from_slice(&extra.to_be_bytes());
    out[6..8].copy_from_slice(&turned.to_be_bytes());
    out[8..].copy_from_slice(&number.to_be_bytes());
    out
}

impl Context {
    /// A sealed message, in two pieces: what Windows calls its header, and as many bytes as `plain` has.
    pub(crate) fn seal(&mut self, plain: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let flags = SEALED | self.flags;
        let text = Zeroizing::new([plain, &header(flags, 0, 0, self.sent)].concat());
        let mut sealed = self.key.seal(24, &text);
        sealed.rotate_right(TURN);
        let turned = u16::try_from(TURN).expect("28 is a turn");
        let mut whole = header(flags, 0, turned, self.sent).to_vec();
        whole.append(&mut sealed);
        self.sent = self.sent.wrapping_add(1);
        let data = whole.split_off(HEADER + TURN + CONFOUNDER);
        (whole, data)
    }

    /// The message, if the other side sealed it and it is the next one.
    pub(crate) fn open(&mut self, head: &[u8], data: &[u8]) -> Option<Vec<u8>> {
        let whole = [head, data].concat();
        let (top, body) = whole.split_at_checked(HEADER)?;
        let short = |at: usize| u16::from_be_bytes([top[at], top[at + 1]]);
        let (extra, turned) = (short(4), short(6));
        let flags = BY_ACCEPTOR | SEALED | self.flags;
        if top != header(flags, extra, turned, self.received) || body.is_empty() {
            return None;
        }
        // Windows turns by the filling too, where there is one.
        let turns = [usize::from(turned), usize::from(turned) + usize::from(extra)];
        let mut plain = turns.iter().take(if extra == 0 { 1 } else { 2 }).find_map(|turn| {
            let mut body = body.to_vec();
            let by = turn % body.len();
            body.rotate_left(by);
            self.key.open(22, &body)
        })?;
        let length = plain.len().checked_sub(HEADER)?;
        if plain[length..] != header(flags, extra, 0, self.received) {
            return None;
        }
        plain.truncate(length.checked_sub(usize::from(extra))?);
        self.received = self.received.wrapping_add(1);
        Some(std::mem::take(&mut *plain))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Context, Context) {
        let key = || Key::new(&[7; 32]);
        (
            Context { key: key(), flags: ACCEPTORS_KEY, sent: 5, received: 9 },
            Context { key: key(), flags: ACCEPTORS_KEY, sent: 9, received: 5 },
        )
    }

    /// What an acceptor would send, with a filling.
    fn answered(context: &mut Context, plain: &[u8], extra: u16, turn: usize) -> Vec<u8> {
        let flags = BY_ACCEPTOR | SEALED | context.flags;
        let filling = vec![0xff; usize::from(extra)];
        let text = [plain, &filling, &header(flags, extra, 0, context.sent)].concat();
        let mut body = context.key.seal(22, &text);
        body.rotate_right(turn);
        let whole = [&header(flags, extra, 28, context.sent)[..], &body].concat();
        context.sent += 1;
        whole
    }

    #[test]
    fn a_sealed_message_has_its_own_length_behind_a_header_of_sixty_bytes() {
        let (mut client, _) = pair();
        for length in [1, 15, 16, 17, 1000] {
            let (head, data) = client.seal(&vec![1; length]);
            assert_eq!((head.len(), data.len()), (60, length));
        }
        assert_eq!(client.sent, 10);
    }

    #[test]
    fn only_the_next_message_of_the_other_side_opens() {
        let (mut client, mut server) = pair();
        for (extra, turn) in [(0, 28), (16, 28), (16, 44)] {
            let whole = answered(&mut server, b"hello", extra, turn);
            let (head, data) = whole.split_at(60);
            assert_eq!(client.open(head, data).as_deref(), Some(&b"hello"[..]), "{extra} {turn}");
            assert_eq!(client.open(head, data), None, "twice");
        }
        let (head, data) = client.seal(b"mine");
        assert_eq!(client.open(&head, &data), None, "our own");
        let mut whole = answered(&mut server, b"hello", 0, 28);
        *whole.last_mut().expect("has one") ^= 1;
        assert_eq!(client.open(&whole, &[]), None, "changed");
        for cut in 0..whole.len() {
            assert_eq!(client.open(&whole[..cut], &[]), None, "{cut}");
        }
    }

    #[test]
    fn an_answer_that_proves_nothing_makes_no_context() {
        let fresh = || Handshake {
            key: Key::new(&[7; 32]),
            own: Key::new(&[8; 32]),
            micros: 3,
            time: "20261125235959Z".to_owned(),
            number: 1,
        };
        let answer = |state: u8, kind: [u8; 2], message: &[u8]| {
            let inner = [&der::element(0x06, KERBEROS)[..], &kind, message].concat();
            let token = der::octets(&der::element(0x60, &inner));
            let fields = [der::explicit(0, &der::element(0x0a, &[state])), der::explicit(2, &token)];
            der::element(0xa1, &der::sequence(&fields))
        };
        let proof = |key: &Key, micros: u32| {
            let part = [
                der::explicit(0, &der::time("20261125235959Z")),
                der::explicit(1, &der::integer(micros)),
                der::explicit(2, &Key::new(&[9; 32]).written()),
                der::explicit(3, &der::integer(77)),
            ];
            let sealed = key.sealed(12, &der::element(0x7b, &der::sequence(&part)));
            let fields =
                [der::explicit(0, &der::integer(5)), der::explicit(1, &der::integer(15)), der::explicit(2, &sealed)];
            der::element(0x6f, &der::sequence(&fields))
        };
        let right = proof(&Key::new(&[7; 32]), 3);
        let context = fresh().finish(&answer(0, [2, 0], &right)).expect("proves");
        assert_eq!((context.flags, context.received, context.sent), (ACCEPTORS_KEY, 77, 1));
        for wrong in [
            answer(0, [2, 0], &proof(&Key::new(&[6; 32]), 3)),
            answer(0, [2, 0], &proof(&Key::new(&[7; 32]), 4)),
            answer(0, [2, 0], b""),
            answer(0, [1, 0], &right),
            answer(1, [2, 0], &right),
            Vec::new(),
        ] {
            assert!(fresh().finish(&wrong).is_err());
        }
        let fields = [
            der::explicit(0, &der::integer(5)),
            der::explicit(1, &der::integer(30)),
            der::explicit(4, &der::time("20261126015959Z")),
            der::explicit(5, &der::integer(0)),
            der::explicit(6, &der::integer(37)),
        ];
        let skew = der::element(0x7e, &der::sequence(&fields));
        let failure = fresh().finish(&answer(2, [3, 0], &skew)).err().expect("an error");
        assert!(failure.message.contains("23:59:59 UTC, the host says 01:59:59"), "{failure:?}");
    }
}
