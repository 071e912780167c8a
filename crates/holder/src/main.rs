//! `volvelle-holder --config FILE`: one fragment holder.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::{Arg, ArgAction, Command};
use tokio::io::AsyncReadExt as _;
use tokio::signal::unix::{SignalKind, signal};
use volvelle_holder::daemon::{self, HolderConfig};

fn command() -> Command {
    let config = Arg::new("config").long("config").value_name("FILE").required(true).help("The configuration file");
    let with_stdin = Arg::new("exit-on-stdin-close")
        .long("exit-on-stdin-close")
        .action(ArgAction::SetTrue)
        .help("End when standard input is closed, so that a holder started by a gateway dies with it");
    Command::new("volvelle-holder")
        .version(env!("CARGO_PKG_VERSION"))
        .about("A fragment holder: answers evaluations, never sees a value or a key")
        .arg(config.value_parser(clap::value_parser!(PathBuf)))
        .arg(with_stdin)
}

fn main() -> Result<()> {
    let arguments = command().get_matches();
    let path = arguments.get_one::<PathBuf>("config").context("--config is needed")?;
    let with_stdin = arguments.get_flag("exit-on-stdin-close");
    no_core_dumps()?;
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into()))
        .with_writer(std::io::stderr)
        .init();
    let config = HolderConfig::load(path)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(daemon::run(config, ended(with_stdin)));
    runtime.shutdown_background();
    outcome
}

/// A fragment must not reach a disk through a crash or another process.
fn no_core_dumps() -> Result<()> {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })
        .context("core dumps cannot be forbidden")?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).context("the memory cannot be protected")
}

async fn ended(with_stdin: bool) {
    let terminate = async {
        match signal(SignalKind::terminate()) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    let closed = async {
        if !with_stdin {
            return std::future::pending().await;
        }
        let mut buffer = [0; 64];
        let mut stdin = tokio::io::stdin();
        while stdin.read(&mut buffer).await.is_ok_and(|n| n > 0) {}
    };
    tokio::select! {
        () = terminate => {}
        () = closed => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
