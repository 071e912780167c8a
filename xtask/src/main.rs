//! Developer commands: `cargo xtask demo | test | bench | tidy`.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a developer command talks to a terminal")]

mod bench;
mod demo;
mod host;
mod install;
mod show;
mod test;
mod tidy;

use std::process::ExitCode;

use anyhow::{Result, bail};

const USAGE: &str = "usage: cargo xtask <command>

  demo              shows the main job on a throw-away host of this machine
  test              installs what the tests need, then runs all of them
  bench [NAME ...]  measures and prints a table; `bench list` names what can be measured
  tidy              checks the crates' arrows, the documents' paths and the licences
";

fn main() -> ExitCode {
    match command() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn command() -> Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("demo") => demo::run(),
        Some("test") => test::run(),
        Some("bench") => bench::run(&std::env::args().skip(2).collect::<Vec<_>>()),
        Some("tidy") => tidy::run(),
        other => {
            eprint!("{USAGE}");
            bail!("no command {:?}", other.unwrap_or(""))
        }
    }
}
