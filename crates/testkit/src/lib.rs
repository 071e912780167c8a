//! Throw-away hosts, databases and gateways for tests: everything started here is real software on
//! loopback addresses and disappears with the value that stands for it, or with the test process.

pub mod aws;
pub mod bmc;
pub mod frr;
pub mod gateway;
pub mod hook;
pub mod hosts;
pub mod install;
pub mod namespace;
pub mod port;
pub mod postgres;
pub mod python;
pub mod samba;
pub mod slapd;
pub mod softhsm;
pub mod switch;
pub mod winrm;
