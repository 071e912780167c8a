//! The program volvelle.
fn main() {}
