//! Kerberos 5 of a domain (RFC 4120): whether a password is an account's present one, and a login at a service (RFC 4121).
//!
//! A domain lets the previous password in for an hour over NTLM and simple bind; Kerberos does not. What must stay true: a positive
//! answer is believed only if it was made with the account's key, so that nobody on the way can invent one; a service is believed
//! only after it proved that it could open the ticket; only AES is spoken.
//!
//! Why this is no library: docs/adr/0005-kerberos.md.

mod cts;
pub(crate) mod der;
mod gss;
mod kdc;
mod key;
mod question;
mod ticket;

pub(crate) use gss::{Context, Handshake};
pub(crate) use question::{Question, Verdict};
