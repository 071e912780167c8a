//! The server: configuration, accept loop, routes, errors, credentials, the operations, and the holders a development
//! set-up runs as children.

pub mod app;
pub mod burial;
pub mod children;
pub mod committer;
pub mod config;
pub mod console;
pub mod credentials;
pub mod ctx;
pub mod customer;
pub mod dev;
pub mod error;
pub mod ops;
pub mod params;
pub mod reading;
mod refusals;
pub mod run;
pub mod server;
pub mod shape;
pub mod throttle;
pub mod trail;
pub mod watermark;

pub use error::ApiError;
pub use volvelle_holder::log as holder_log;

use volvelle_domain::connector::Declaration;

/// What every kind of target is called and which parameters it takes: the command line and the API are drawn from it.
#[must_use]
pub fn declarations() -> Vec<Declaration> {
    volvelle_connectors::registry().all().iter().map(|connector| connector.declaration().clone()).collect()
}
