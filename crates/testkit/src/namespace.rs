//! Servers that run as a script in process and mount namespaces of their own, on an address of their own.
//! Everything a script started is gone when its [`Namespace`] is dropped or the test process ends.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Write},
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::Mutex,
};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::{hosts, install};

/// One running script.
pub struct Namespace {
    /// The address that belongs to it.
    pub address: Ipv4Addr,
    unshare: Child,
    init: u32,
    dir: TempDir,
    /// Closing the input ends the script, also when this process is killed.
    talk: Mutex<(ChildStdin, BufReader<ChildStdout>)>,
    _claim: File,
}

impl Namespace {
    /// Runs `script ADDRESS DIR arguments…` and waits until it prints `ready`.
    pub fn start(script: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Result<Namespace> {
        install::ensure(install::For::Directories)?;
        let (address, claim) = hosts::claim_address()?;
        let dir = tempfile::Builder::new().prefix("volvelle-server-").tempdir().context("a folder for the server")?;
        let (file, root) = (dir.path().join("script.sh"), dir.path().join("root"));
        std::fs::write(&file, script)?;
        std::fs::create_dir(&root)?;
        let mut unshare = Command::new("unshare")
            .args(["--mount", "--pid", "--fork", "--kill-child", "bash"])
            .arg(&file)
            .arg(address.to_string())
            .arg(&root)
            .args(arguments)
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("starting unshare")?;
        let input = unshare.stdin.take().context("the script's standard input")?;
        let mut output = BufReader::new(unshare.stdout.take().context("the script's standard output")?);
        let mut errors = unshare.stderr.take().context("the script's standard error")?;
        let mut line = String::new();
        if output.read_line(&mut line).is_err() || line.trim() != "ready" {
            drop(input);
            let mut text = String::new();
            let _ = errors.read_to_string(&mut text);
            let _ = unshare.wait();
            bail!("the server did not start: {}", text.trim());
        }
        let init = hosts::child_of(unshare.id()).context("finding the first process of the namespace")?;
        Ok(Namespace { address, unshare, init, dir, talk: Mutex::new((input, output)), _claim: claim })
    }

    /// A file of the script's folder, as this process can see it.
    pub fn file(&self, name: &str) -> PathBuf {
        Path::new("/proc")
            .join(self.init.to_string())
            .join("root")
            .join(self.dir.path().join("root").join(name).strip_prefix("/").map(Path::to_path_buf).unwrap_or_default())
    }

    /// The content of a file of the script's folder.
    pub fn read(&self, name: &str) -> Result<String> {
        std::fs::read_to_string(self.file(name)).with_context(|| format!("reading {name}"))
    }

    /// Runs a command line where the script runs, with its folder as the present one; gives what it printed.
    pub fn run(&self, line: &str) -> Result<String> {
        let output = Command::new("nsenter")
            .args(["-t", &self.init.to_string(), "-m", "-p", "--", "bash", "-c"])
            .arg(format!("cd {} && {line}", self.dir.path().join("root").display()))
            .stdin(Stdio::null())
            .output()
            .context("starting nsenter")?;
        if !output.status.success() {
            bail!(
                "{line:?} failed: {}{}",
                String::from_utf8_lossy(&output.stdout).trim(),
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Sends the script a line and waits for its answer.
    pub fn tell(&self, line: &str) -> Result<String> {
        let mut talk = self.talk.lock().map_err(|_| anyhow::anyhow!("the script's lock"))?;
        writeln!(talk.0, "{line}")?;
        talk.0.flush()?;
        let mut answer = String::new();
        talk.1.read_line(&mut answer)?;
        Ok(answer.trim().to_owned())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // The first process of the namespace takes every other one with it; unshare itself ignores TERM.
        if let Some(init) = rustix::process::Pid::from_raw(self.init.cast_signed()) {
            let _ = rustix::process::kill_process(init, rustix::process::Signal::KILL);
        }
        let _ = self.unshare.wait();
    }
}
