//! One file per kind of target; the only crate that speaks vendor protocols.
//!
//! A new kind is a file, a `mod` line and a line in [`registry`]. `kerberos` is no kind: directories and Windows share it.

pub mod aws;
pub mod bmc;
pub mod custom;
mod kerberos;
pub mod ldap;
mod parameters;
mod sent;
pub mod ssh;
pub mod windows;

use std::sync::Arc;

use volvelle_domain::connector::Connector;

/// The connectors by kind.
#[derive(Clone)]
pub struct Registry(Vec<Arc<dyn Connector>>);

/// Every kind there is.
#[must_use]
pub fn registry() -> Registry {
    Registry(vec![
        Arc::new(ssh::Ssh::default()),
        Arc::new(aws::Aws::default()),
        Arc::new(bmc::Bmc::default()),
        Arc::new(custom::Custom::default()),
        Arc::new(ldap::Ldap::default()),
        Arc::new(windows::Windows::default()),
    ])
}

impl Registry {
    /// The connector of a kind.
    #[must_use]
    pub fn get(&self, kind: &str) -> Option<Arc<dyn Connector>> {
        self.0.iter().find(|connector| connector.declaration().kind == kind).cloned()
    }

    /// Every connector.
    #[must_use]
    pub fn all(&self) -> &[Arc<dyn Connector>] {
        &self.0
    }
}
