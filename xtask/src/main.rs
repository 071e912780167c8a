//! Developer commands: `cargo xtask test | tidy`.

#![expect(clippy::print_stderr, reason = "a developer command talks to a terminal")]

mod host;
mod install;
mod test;
mod tidy;

use anyhow::{Result, bail};

const USAGE: &str = "usage: cargo xtask <command>

  test   installs what the tests need, then runs all of them
  tidy   checks the crates' arrows, the documents' paths and the licences
";

fn main() -> Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("test") => test::run(),
        Some("tidy") => tidy::run(),
        other => {
            eprint!("{USAGE}");
            bail!("no command {:?}", other.unwrap_or(""))
        }
    }
}
