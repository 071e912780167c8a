//! A local program in the place of a hook: the request on standard input, the answer on standard output.
//!
//! What must stay true: only programs that the gateway's own configuration names are started, without arguments, and nothing secret
//! is in their environment.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use volvelle_domain::connector::{Failure, FailureClass, IssueOutcome};

use super::{LONGEST, config, payload, unreadable};

/// Names the programs that may be started, absolute paths separated by colons.
const VARIABLE: &str = "VOLVELLE_ALLOW_EXEC";

/// The programs that may be started.
#[derive(Clone, Debug, Default)]
pub(super) struct Allowed(Vec<PathBuf>);

impl Allowed {
    pub(super) fn from_environment() -> Self {
        Self::parse(&std::env::var(VARIABLE).unwrap_or_default())
    }

    pub(super) fn parse(text: &str) -> Self {
        Self(text.split(':').map(PathBuf::from).filter(|path| path.is_absolute()).collect())
    }

    /// The program, if it is one of these, to the letter.
    pub(super) fn check(&self, path: &str) -> Result<&Path, Failure> {
        let found = self.0.iter().find(|allowed| allowed.as_os_str() == path);
        found.map(PathBuf::as_path).ok_or_else(|| {
            config(
                format!("the gateway does not allow the program {path:?}"),
                format!("start the gateway with {VARIABLE}=/absolute/path[:/another]"),
            )
        })
    }
}

/// Runs the program once.
pub(super) async fn run(path: &Path, timeout: Duration, body: &[u8]) -> IssueOutcome {
    let mut command = tokio::process::Command::new(path);
    command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin").current_dir("/");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            let message = format!("the program cannot be started: {}", error.kind());
            return IssueOutcome::NotReached(config(message, "check that it is there and executable"));
        }
    };
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let talk = async {
        if let Some(mut stdin) = stdin {
            // A program that does not read its input may have its reasons; what it answers counts.
            let _ = stdin.write_all(body).await;
        }
        let mut answer = zeroize::Zeroizing::new(Vec::new());
        if let Some(stdout) = stdout {
            stdout.take(LONGEST as u64 + 1).read_to_end(&mut answer).await?;
        }
        Ok::<_, std::io::Error>((answer, child.wait().await?))
    };
    let (answer, status) = match tokio::time::timeout(timeout, talk).await {
        Ok(Ok(done)) => done,
        Ok(Err(_)) => {
            return IssueOutcome::Ambiguous(Failure::new(
                FailureClass::Protocol,
                "the program's answer cannot be read",
                "",
            ));
        }
        Err(_) => {
            let message = format!("the program did not end within {} s and was killed", timeout.as_secs());
            return IssueOutcome::Ambiguous(Failure::new(FailureClass::Timeout, message, "raise timeout-sec"));
        }
    };
    match status.code() {
        Some(0) => {
            payload(&answer).map_or_else(|| IssueOutcome::Ambiguous(unreadable("the program")), IssueOutcome::Issued)
        }
        Some(code) => {
            let message = format!("the program ended with status {code}");
            IssueOutcome::Rejected(Failure::new(FailureClass::Protocol, message, "run it by hand"))
        }
        None => IssueOutcome::Ambiguous(Failure::new(FailureClass::Protocol, "the program was killed", "")),
    }
}
