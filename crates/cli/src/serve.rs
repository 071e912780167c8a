//! `volvelle dev` and `volvelle gateway`: the commands that start processes.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, ArgMatches, Command, value_parser};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use volvelle_gateway::dev::{self, Suite};
use volvelle_gateway::run::{self, Settings};

use crate::failure::Failed;
use crate::{locate, print};

/// The commands.
pub fn commands() -> [Command; 2] {
    [
        Command::new("dev")
            .about("Starts a gateway with three holders on this machine, for trying out")
            .long_about(
                "Starts a gateway with three fragment holders on this machine, for trying things out. Everything is kept in one \
                 folder (--data-dir, or ~/.volvelle/dev); starting again on it finds everything as it was. SIGTERM and Ctrl-C \
                 stop it.",
            )
            .arg(
                Arg::new("listen")
                    .long("listen")
                    .value_name("ADDR")
                    .default_value("127.0.0.1:8080")
                    .value_parser(value_parser!(SocketAddr))
                    .help("address and port on this machine to listen on"),
            )
            .arg(
                Arg::new("login-tries")
                    .long("login-tries")
                    .value_name("N")
                    .default_value("2")
                    .value_parser(value_parser!(u32).range(1..=1000))
                    .help("failed logins that may be caused on one account within half an hour; raise it only where nothing locks accounts"),
            )
            .arg(
                Arg::new("suite")
                    .long("suite")
                    .value_name("SUITE")
                    .env("VOLVELLE_SUITE")
                    .hide_env_values(true)
                    .default_value("ristretto255")
                    .value_parser(value_parser!(Suite))
                    .help("cryptographic suite of the keys of new accounts: ristretto255, or p256 where NIST's curves are required"),
            )
            .arg(
                Arg::new("customer-fragments")
                    .long("customer-fragments")
                    .value_name("FILE")
                    .value_parser(value_parser!(PathBuf))
                    .help("the customer's fragments; customer_fragments.json in the folder if it is there"),
            ),
        Command::new("gateway")
            .about("Starts a gateway for production")
            .arg(
                Arg::new("config")
                    .long("config")
                    .value_name("FILE")
                    .required(true)
                    .value_parser(value_parser!(PathBuf))
                    .help("the configuration file"),
            )
            .arg(
                Arg::new("first-account")
                    .long("first-account")
                    .value_name("FILE")
                    .value_parser(value_parser!(PathBuf))
                    .help("make the first account if there is none, and write its administrator's key to this file"),
            ),
    ]
}

/// Where `volvelle dev` keeps everything when nobody says.
pub fn default_dir() -> PathBuf {
    etcetera::home_dir().unwrap_or_default().join(".volvelle").join("dev")
}

/// Runs `volvelle dev`.
pub fn dev(leaf: &ArgMatches) -> Result<(), Failed> {
    let dir = locate::flag(leaf, "data-dir")
        .or_else(|| locate::env(locate::DATA_DIR))
        .map_or_else(default_dir, PathBuf::from);
    let listen = leaf.get_one::<SocketAddr>("listen").copied();
    let login_tries = leaf.get_one::<u32>("login-tries").copied().unwrap_or(2);
    let settings = Settings { login_tries, ..Settings::default() };
    let Some(listen) = listen else { return Err(Failed::new("--listen is no address", "")) };
    let customer_fragments = leaf.get_one::<PathBuf>("customer-fragments").cloned();
    let suite = leaf.get_one::<Suite>("suite").copied().unwrap_or_default();
    serve(|shutdown| async move {
        let shown = dir.display().to_string();
        let ready = move |url: &str| {
            print::note(&format!("volvelle is ready at {url}"));
            print::note(&format!("the console is at {url}/console"));
            print::note(&format!("the administrator's key is in {shown}/admin.json; in another terminal:"));
            print::note(&format!("  volvelle --data-dir {shown} target list"));
        };
        Box::pin(dev::run(dev::Dev { dir, listen, settings, suite, customer_fragments }, shutdown, ready)).await
    })
}

/// Runs `volvelle gateway`.
pub fn gateway(leaf: &ArgMatches) -> Result<(), Failed> {
    let Some(config) = leaf.get_one::<PathBuf>("config").cloned() else {
        return Err(Failed::new("--config is needed", ""));
    };
    let first = leaf.get_one::<PathBuf>("first-account").cloned();
    serve(|shutdown| async move { Box::pin(run::production(&config, first.as_deref(), shutdown)).await })
}

fn serve<F: Future<Output = anyhow::Result<()>>>(work: impl FnOnce(CancellationToken) -> F) -> Result<(), Failed> {
    let failed = |error: anyhow::Error| Failed::new(format!("{error:#}"), "");
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into()))
        .with_writer(std::io::stderr)
        .with_ansi(print::colours(&std::io::stderr()))
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|e| failed(e.into()))?;
    let shutdown = CancellationToken::new();
    let outcome = runtime.block_on(async {
        let told = shutdown.clone();
        tokio::spawn(async move {
            ended().await;
            told.cancel();
        });
        work(shutdown).await
    });
    runtime.shutdown_timeout(Duration::from_millis(200));
    outcome.map_err(failed)
}

/// Values must not reach a disk through a crash or another process of the same user.
pub fn no_core_dumps() -> Result<(), Failed> {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })
        .and_then(|()| set_dumpable_behavior(DumpableBehavior::NotDumpable))
        .map_err(|e| Failed::new(format!("core files cannot be forbidden: {e}"), ""))
}

async fn ended() {
    let terminated = async {
        match signal(SignalKind::terminate()) {
            Ok(mut signal) => drop(signal.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = terminated => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
