//! The server: config, authentication, routes, errors.
