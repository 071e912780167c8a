//! The data directory's lock, and the holders that a development set-up runs as child processes: restarted
//! when they die, stopped with the gateway, and gone by themselves when it is killed, because the standard
//! input they watch closes.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
const GOOD_LIFE: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(3);

/// Holds the data directory for this process alone, until dropped.
#[derive(Debug)]
pub struct DirLock(#[expect(dead_code, reason = "the open file is the lock")] File);

impl DirLock {
    /// Takes the lock.
    ///
    /// # Errors
    /// If another process has it, or the directory cannot be written.
    pub fn take(dir: &Path) -> Result<Self> {
        let path = dir.join("lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("cannot write {}", path.display()))?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)
            .with_context(|| format!("another gateway is running on {}", dir.display()))?;
        Ok(Self(file))
    }
}

/// Runs one holder per configuration file until `shutdown`; returns when all are gone.
pub async fn supervise(binary: PathBuf, configs: Vec<PathBuf>, shutdown: CancellationToken) {
    let tasks = TaskTracker::new();
    for config in configs {
        tasks.spawn(keep_running(binary.clone(), config, shutdown.clone()));
    }
    tasks.close();
    tasks.wait().await;
}

async fn keep_running(binary: PathBuf, config: PathBuf, shutdown: CancellationToken) {
    let mut pause = FIRST_PAUSE;
    while !shutdown.is_cancelled() {
        let born = Instant::now();
        match start(&binary, &config) {
            Ok(mut child) => {
                // `wait` would close the pipe, which tells the holder that the gateway is gone.
                let pipe = child.stdin.take();
                tokio::select! {
                    ended = child.wait() => {
                        tracing::warn!(config = %config.display(), ?ended, "a holder ended; it is started again");
                    }
                    () = shutdown.cancelled() => return stop(child).await,
                }
                drop(pipe);
            }
            Err(error) => tracing::error!(binary = %binary.display(), %error, "cannot start a holder"),
        }
        pause = if born.elapsed() > GOOD_LIFE { FIRST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
        tokio::select! {
            () = sleep(pause) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

fn start(binary: &Path, config: &Path) -> std::io::Result<Child> {
    Command::new(binary)
        .arg("--config")
        .arg(config)
        .arg("--exit-on-stdin-close")
        .stdin(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
}

async fn stop(mut child: Child) {
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(Err(error)) = pid.map(|pid| kill_process(pid, Signal::TERM)) {
        tracing::debug!(%error, "cannot ask a holder to stop");
    }
    if timeout(PATIENCE, child.wait()).await.is_err()
        && let Err(error) = child.kill().await
    {
        tracing::warn!(%error, "cannot stop a holder");
    }
}
