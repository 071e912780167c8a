//! Developer commands: `cargo xtask demo | test | bench | tidy`.

#![expect(clippy::print_stderr, clippy::print_stdout, reason = "a developer command talks to a terminal")]

mod demo;
mod host;
mod install;
mod test;
mod tidy;

use anyhow::{Result, bail};

const USAGE: &str = "usage: cargo xtask <command>

  demo   builds Volvelle and shows its main job on a real sshd
  test   installs what the tests need, then runs all of them
  tidy   checks the crates' arrows, the documents' paths and the licences
";

fn main() -> Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("demo") => demo::run(),
        Some("test") => test::run(),
        Some("tidy") => tidy::run(),
        other => {
            eprint!("{USAGE}");
            bail!("no command {:?}", other.unwrap_or(""))
        }
    }
}
