//! Ports for servers that are told theirs before they start, and keep it when they start again.
//!
//! What must stay true: none of them is one that the kernel gives to outgoing connections (32768 and up on Linux, see
//! `ip_local_port_range` in ip-sysctl), so that nothing takes it while its server is down.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use anyhow::{Context, Result};

const LOWEST: u16 = 12_000;
const COUNT: u16 = 20_000;
const ATTEMPTS: usize = 200;

/// An address of this machine at which nobody listens.
///
/// # Errors
/// None was found.
pub fn free() -> Result<SocketAddr> {
    let found = (0..ATTEMPTS).find_map(|_| {
        let mut random = [0; 2];
        getrandom::fill(&mut random).ok()?;
        let port = LOWEST + u16::from_be_bytes(random) % COUNT;
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()?.local_addr().ok()
    });
    found.context("no free port was found")
}
