//! The server: configuration, accept loop, routes, errors, credentials, and the holders a development
//! set-up runs as children. Operations plug in through [`server::Operations`].

pub mod children;
pub mod committer;
pub mod config;
pub mod credentials;
pub mod error;
pub mod server;
pub mod throttle;
pub mod trail;

pub use error::ApiError;

use volvelle_domain::connector::Declaration;

/// What every kind of target is called and which parameters it takes: the command line and the API are drawn from it.
#[must_use]
pub fn declarations() -> Vec<Declaration> {
    volvelle_connectors::registry().all().iter().map(|connector| connector.declaration().clone()).collect()
}
