//! Runs the built program in a home folder of its own, with nothing of the tester's environment.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// A person with a home folder.
pub struct Person {
    home: TempDir,
    environment: Vec<(String, String)>,
}

/// What a run of the program said.
pub struct Said {
    /// The exit code.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Person {
    /// Somebody who has never used the program.
    pub fn new() -> Self {
        Self { home: tempfile::tempdir().expect("a home folder"), environment: Vec::new() }
    }

    /// Sets a variable of the following runs.
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// The home folder.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Runs the program with the words of `line`.
    pub fn run(&self, line: &str) -> Said {
        self.typing(line, "")
    }

    /// Runs the program with `input` on its standard input.
    pub fn typing(&self, line: &str, input: &str) -> Said {
        let mut child = Command::new(env!("CARGO_BIN_EXE_volvelle"))
            .args(line.split_whitespace())
            .env_clear()
            .env("HOME", self.home())
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        // A program that does not want its input may have ended already.
        let _ = child.stdin.take().expect("its input").write_all(input.as_bytes());
        said(child.wait_with_output().expect("the program ends"))
    }

    /// Runs the program and expects it to succeed.
    pub fn succeeds(&self, line: &str) -> String {
        let said = self.run(line);
        assert_eq!(said.code, 0, "volvelle {line}: {}{}", said.out, said.err);
        said.out
    }
}

fn said(output: Output) -> Said {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    Said { code: output.status.code().expect("an exit code"), out: text(output.stdout), err: text(output.stderr) }
}
