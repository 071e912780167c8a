//! The fragment holder daemon.
fn main() {}
