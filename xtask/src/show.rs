//! What a demo puts on the screen: titles, commands with what they print, and checks.
//!
//! What must stay true: a command is printed as it is run, and what it prints is shown unchanged.

use std::io::IsTerminal as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

const NEXT: &str = "What to try next:
  target/debug/volvelle dev                             a gateway of your own at http://127.0.0.1:8080
  export VOLVELLE_DATA_DIR=~/.volvelle/dev              in another shell; then, for a host of yours:
  target/debug/volvelle target create ssh --help
  cargo xtask test                                      every test, against real servers
  docs/concepts/rotation.md                             why no password is ever lost";

/// What a command printed, on both streams, and whether it succeeded.
pub struct Printed {
    /// Whether its exit code was 0.
    pub ok: bool,
    /// Standard output, then standard error.
    pub text: String,
}

/// The screen, and the folder in which commands run.
pub struct Show {
    folder: PathBuf,
    path: String,
    colour: bool,
    chapter: u32,
    held: u32,
    failed: u32,
}

impl Show {
    /// Commands run in `folder` and find `program` by its name.
    pub fn new(folder: PathBuf, program: &Path) -> Result<Self> {
        let programs = program.parent().context("a program has a folder")?;
        let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap_or_default());
        let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Ok(Self { folder, path, colour, chapter: 0, held: 0, failed: 0 })
    }

    /// Where commands run.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Begins a chapter.
    pub fn title(&mut self, text: &str) {
        self.chapter += 1;
        println!("\n{}", self.painted("1", &format!("{}. {text}", self.chapter)));
    }

    /// Shows a command that the demo runs by other means than [`Self::command`].
    pub fn printed(&self, line: &str) {
        println!("{}", self.painted("36", &format!("$ {line}")));
    }

    /// Writes a file for the commands, readable by nobody else.
    pub fn file(&self, name: &str, text: &str) -> Result<()> {
        let path = self.folder.join(name);
        std::fs::write(&path, text)?;
        Ok(std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?)
    }

    /// Prints a command, runs it, and prints what it prints.
    pub async fn command(&self, line: &str) -> Result<Printed> {
        let child = self.start(line)?;
        self.finish(child).await
    }

    /// Prints a command and starts it.
    pub fn start(&self, line: &str) -> Result<tokio::process::Child> {
        self.printed(line);
        self.shell(line).spawn().context("starting bash")
    }

    /// Waits for a started command and prints what it printed.
    pub async fn finish(&self, child: tokio::process::Child) -> Result<Printed> {
        let printed = printed(child.wait_with_output().await?);
        if !printed.text.is_empty() {
            println!("{}", printed.text);
        }
        Ok(printed)
    }

    /// Runs a command without showing it.
    pub async fn quietly(&self, line: &str) -> Result<Printed> {
        Ok(printed(self.shell(line).output().await?))
    }

    /// Shows whether something holds.
    pub fn check(&mut self, text: &str, holds: bool) {
        *(if holds { &mut self.held } else { &mut self.failed }) += 1;
        let mark = if holds { self.painted("32", "✓") } else { self.painted("31", "✗ NOT SO:") };
        println!("  {mark} {text}");
    }

    /// The summary; an error unless every check held.
    pub fn end(self, took: Duration) -> Result<()> {
        let all = self.held + self.failed;
        println!(
            "\n{}",
            self.painted("1", &format!("{} of {all} checks held, in {:.0} s.", self.held, took.as_secs_f64()))
        );
        println!("The host, the gateway, the holders and their files are gone again. {NEXT}");
        ensure!(self.failed == 0, "{} of {all} checks of the demo did not hold", self.failed);
        Ok(())
    }

    fn shell(&self, line: &str) -> tokio::process::Command {
        let mut command = tokio::process::Command::new("bash");
        command.args(["-c", line]).current_dir(&self.folder).kill_on_drop(true);
        command.env("PATH", &self.path).env("HOME", &self.folder).env("VOLVELLE_DATA_DIR", self.folder.join("data"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn painted(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

fn printed(output: std::process::Output) -> Printed {
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Printed { ok: output.status.success(), text: text.trim_end().to_owned() }
}
