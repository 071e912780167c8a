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
