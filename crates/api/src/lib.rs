//! Wire types of the operations, OpenAPI and the client.
#![forbid(unsafe_code)]

mod client;
mod error;
mod help;
mod openapi;
mod operation;
pub mod quirks;
mod table;

pub use client::{Client, ClientError};
pub use error::ErrorBody;
pub use help::{Group, group_of};
pub use openapi::openapi;
pub use operation::{Operation, find, operations};
pub use volvelle_domain::connector::Declaration;
