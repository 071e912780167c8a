//! Throw-away hosts, databases and gateways for tests.
