//! `volvelle-holder`: one fragment holder, and what an operator needs to set holders up.

mod signing;

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use tokio::io::AsyncReadExt as _;
use tokio::signal::unix::{SignalKind, signal};
use volvelle_holder::Roster;
use volvelle_holder::authorization::make_key;
use volvelle_holder::daemon::{self, HolderConfig, Unlock};
use volvelle_holder::roster::{Member, Policy};
use volvelle_holder::setup::{
    HolderPlan, RosterChange, changed_roster, init_gateway, init_holder, member_line, parse_member, roster_text,
};

const ABOUT: &str = "A fragment holder: answers evaluations, never sees a value or a key";
const AFTER: &str = "\
Setting up:
  on each holder's machine     volvelle-holder init --dir DIR --index N --listen HOST:PORT
  on the gateway's machine     volvelle-holder gateway-identity --dir DIR
  once, from what these print  volvelle-holder roster --threshold T --member LINE ... --gateway-pin PIN > roster.toml
  copy roster.toml into each DIR, then on each holder's machine
                               volvelle-holder --config DIR/holder.toml

So that no single administrator can change who takes part:
  on each administrator's own  volvelle-holder admin-key --dir ADMIN
  machine                      (its line goes to `init --administrator`)
  on T of them, in turn        volvelle-holder sign-roster --dir ADMIN --roster roster.toml
  on each machine              volvelle-holder accept-roster --dir DIR --roster roster.toml

Signals: TERM and INT end it. Set RUST_LOG=debug to see more.";

fn command() -> Command {
    let config = Arg::new("config").long("config").value_name("FILE").required(true).help("The configuration file");
    let with_stdin = Arg::new("exit-on-stdin-close")
        .long("exit-on-stdin-close")
        .action(ArgAction::SetTrue)
        .help("End when standard input is closed, so that a holder started by a gateway dies with it");
    Command::new("volvelle-holder")
        .version(env!("CARGO_PKG_VERSION"))
        .about(ABOUT)
        .after_help(AFTER)
        .subcommand_negates_reqs(true)
        .args_conflicts_with_subcommands(true)
        .arg(config.value_parser(value_parser!(PathBuf)))
        .arg(with_stdin)
        .subcommand(init_command())
        .subcommand(
            Command::new("gateway-identity")
                .about("Make a gateway's certificate and key, and print its pin")
                .arg(path("dir", "Where to put certificate.der and key.der").required(true)),
        )
        .subcommand(roster_command())
        .subcommand(change_command())
        .subcommands(signing::commands())
        .subcommand(
            Command::new("check-log")
                .about("Check the chain of a holder's log, and print how long it is and where it ends")
                .after_help("Keep what it prints somewhere else: a log that was cut then no longer has that line.")
                .arg(path("dir", "The folder of the log").required(true)),
        )
        .subcommand(
            Command::new("authorization-key")
                .about("Make the key that signs clients' authorizations at the gateway, and print its public half")
                .after_help(
                    "The public half goes into `signing-keys` of `authorization` in each holder's configuration.",
                )
                .arg(path("file", "Where the key is, or is to be").required(true)),
        )
        .subcommand(
            Command::new("log")
                .about("A holder's log")
                .subcommand_required(true)
                .arg_required_else_help(true)
                .subcommand(
                Command::new("export")
                    .about("Write the log to standard output, for `volvelle audit reconcile`; its chain is checked")
                    .after_help(
                        "The holder may run. Send the file by a way that the gateway's administrator does not control.",
                    )
                    .arg(path("dir", "The folder of the log").required(true)),
            ),
        )
}

fn init_command() -> Command {
    Command::new("init")
        .about("Make a holder's identity and configuration, and print its line for the roster")
        .after_help("A second time it changes nothing and prints the same line.")
        .arg(path("dir", "The holder's folder").required(true))
        .arg(
            word("index", "N", "Its index: 1 for the first holder, at most 9")
                .required(true)
                .value_parser(value_parser!(u8)),
        )
        .arg(word("listen", "IP:PORT", "Where it listens").required(true).value_parser(value_parser!(SocketAddr)))
        .arg(word("address", "HOST:PORT", "How gateways and holders reach it, if not as it listens"))
        .arg(word("administrator", "KEY", "Who signs rosters for it, as `admin-key` printed it on his machine"))
        .arg(word("name", "NAME", "What people call it"))
        .arg(path("state", "Where it keeps its fragments [default: DIR/state]"))
        .arg(path(
            "key-at",
            "Where the service finds the private key, e.g. as a systemd credential [default: DIR/key.der]",
        ))
        .arg(path(
            "unlock-key-file",
            "A file of 32 random bytes that opens the fragments' key, e.g. as a systemd credential",
        ))
        .arg(path(
            "unlock-passphrase-file",
            "A file with a passphrase that opens the fragments' key, e.g. as a systemd credential",
        ))
}

fn roster_command() -> Command {
    Command::new("roster")
        .about("Print the roster of these holders and gateways; every party needs the same one")
        .arg(
            word("threshold", "T", "Holders needed for an answer, at least 2")
                .required(true)
                .value_parser(value_parser!(u8)),
        )
        .arg(
            word("member", "LINE", "A holder, as `init` printed it; once for each")
                .required(true)
                .action(ArgAction::Append),
        )
        .arg(
            word("gateway-pin", "PIN", "A gateway, as `gateway-identity` printed it")
                .required(true)
                .action(ArgAction::Append),
        )
}

fn change_command() -> Command {
    let many = |name, value, help| word(name, value, help).action(ArgAction::Append);
    Command::new("change-roster")
        .about("Print a roster with other holders or gateways; every party needs the same one, and a restart")
        .after_help(
            "A --member with the index of another one takes its place. Then, with the new roster everywhere:\n  \
             volvelle fragments add-holder --holder N    for each new one\n  \
             volvelle fragments drop-holder --holder N   for one that was left out\n\
             A key keeps the threshold it was made with. With a new one everywhere:\n  \
             volvelle fragments rekey                    makes new keys and wraps every record anew",
        )
        .arg(path("from", "The roster as it is").value_name("FILE").required(true))
        .arg(many("member", "LINE", "A holder that is new or takes another's place, as `init` printed it"))
        .arg(many("drop", "N", "The index of a holder to leave out").value_parser(value_parser!(u8)))
        .arg(many("gateway-pin", "PIN", "A new gateway, as `gateway-identity` printed it"))
        .arg(many("drop-gateway", "PIN", "A gateway to leave out"))
        .arg(
            word("threshold", "T", "Holders needed for an answer with keys that are made from now on")
                .value_parser(value_parser!(u8)),
        )
        .arg(many("administrator", "N=KEY", "The administrator of holder N, as `admin-key` printed his key"))
        .arg(path("policies", "What gateways may ask for, in place of what was said before").value_name("FILE"))
        .arg(many("forget-threshold", "T", "A threshold that no key has any more").value_parser(value_parser!(u8)))
}

fn check_log(arguments: &ArgMatches) -> Result<String> {
    let dir = arguments.get_one::<PathBuf>("dir").context("--dir is needed")?;
    let checked = volvelle_holder::log::read(dir, |_| ())?;
    Ok(format!("{} entries, the last one is {}", checked.entries, checked.head))
}

fn export_log(arguments: &ArgMatches) -> Result<()> {
    let arguments = arguments.subcommand().context("`log export` is what there is")?.1;
    let dir = arguments.get_one::<PathBuf>("dir").context("--dir is needed")?;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let exported = volvelle_holder::log::export(dir, &mut out)?;
    out.flush()?;
    writeln!(std::io::stderr(), "{} entries, the last one is {}", exported.entries, exported.head)?;
    Ok(())
}

fn changed(arguments: &ArgMatches) -> Result<String> {
    let texts = |name: &str| arguments.get_many::<String>(name).into_iter().flatten();
    let change = RosterChange {
        members: texts("member").map(|line| parse_member(line)).collect::<Result<_>>()?,
        drop: arguments.get_many("drop").into_iter().flatten().copied().collect(),
        gateways: texts("gateway-pin").cloned().collect(),
        drop_gateways: texts("drop-gateway").cloned().collect(),
        threshold: arguments.get_one("threshold").copied(),
        administrators: texts("administrator").map(|text| parse_administrator(text)).collect::<Result<_>>()?,
        policies: arguments.get_one::<PathBuf>("policies").map(|file| parse_policies(file)).transpose()?,
        forget_thresholds: arguments.get_many("forget-threshold").into_iter().flatten().copied().collect(),
    };
    let from = arguments.get_one::<PathBuf>("from").context("--from is needed")?;
    changed_roster(Roster::load(from)?, change)
}

fn parse_administrator(text: &str) -> Result<(u8, String)> {
    let (index, key) = text.split_once('=').context("an administrator is N=KEY")?;
    Ok((index.parse().context("an administrator is N=KEY")?, key.to_owned()))
}

fn parse_policies(file: &Path) -> Result<Vec<Policy>> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Policies {
        policies: Vec<Policy>,
    }
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let read: Policies = toml::from_str(&text).with_context(|| format!("{} has no policies", file.display()))?;
    Ok(read.policies)
}

fn member(arguments: &ArgMatches) -> Result<String> {
    let (administrator, name) = (arguments.get_one::<String>("administrator"), arguments.get_one::<String>("name"));
    let member = init_holder(&plan(arguments)?)?;
    let line = member_line(&Member { administrator: administrator.cloned(), name: name.cloned(), ..member });
    parse_member(&line)?;
    Ok(line)
}

fn word(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value).help(help)
}

fn path(name: &'static str, help: &'static str) -> Arg {
    word(name, if name.contains("key") || name.contains("file") { "FILE" } else { "DIR" }, help)
        .value_parser(value_parser!(PathBuf))
}

fn main() -> Result<()> {
    let arguments = command().get_matches();
    no_core_dumps()?;
    let printed = match arguments.subcommand() {
        Some(("init", arguments)) => member(arguments)?,
        Some(("gateway-identity", arguments)) => {
            init_gateway(arguments.get_one::<PathBuf>("dir").context("--dir is needed")?)?
        }
        Some(("change-roster", arguments)) => changed(arguments)?,
        Some(("check-log", arguments)) => check_log(arguments)?,
        Some(("admin-key", arguments)) => signing::admin_key(arguments)?,
        Some(("sign-roster", arguments)) => signing::sign(arguments)?,
        Some(("show-roster", arguments)) => signing::show(arguments)?,
        Some(("accept-roster", arguments)) => signing::accept(arguments)?,
        Some(("authorization-key", arguments)) => {
            make_key(arguments.get_one::<PathBuf>("file").context("--file is needed")?)?
        }
        Some(("log", arguments)) => return export_log(arguments),
        Some((_, arguments)) => roster(arguments)?,
        None => return serve(&arguments),
    };
    writeln!(std::io::stdout(), "{}", printed.trim_end())?;
    Ok(())
}

fn plan(arguments: &ArgMatches) -> Result<HolderPlan> {
    Ok(HolderPlan {
        dir: arguments.get_one::<PathBuf>("dir").context("--dir is needed")?.clone(),
        index: *arguments.get_one("index").context("--index is needed")?,
        listen: *arguments.get_one("listen").context("--listen is needed")?,
        address: arguments.get_one::<String>("address").cloned(),
        state: arguments.get_one::<PathBuf>("state").cloned(),
        key_at: arguments.get_one::<PathBuf>("key-at").cloned(),
        unlock: unlock(arguments),
    })
}

fn unlock(arguments: &ArgMatches) -> Option<Unlock> {
    let file = |name: &str| arguments.get_one::<PathBuf>(name).cloned();
    let (key_file, passphrase_file) = (file("unlock-key-file"), file("unlock-passphrase-file"));
    let any = key_file.is_some() || passphrase_file.is_some();
    any.then_some(Unlock { key_file, passphrase_file, ..Unlock::default() })
}

fn roster(arguments: &ArgMatches) -> Result<String> {
    let threshold = *arguments.get_one("threshold").context("--threshold is needed")?;
    let members = arguments.get_many::<String>("member").into_iter().flatten().map(|line| parse_member(line));
    let gateways = arguments.get_many::<String>("gateway-pin").into_iter().flatten().cloned();
    roster_text(threshold, members.collect::<Result<_>>()?, gateways.collect())
}

fn serve(arguments: &ArgMatches) -> Result<()> {
    let path = arguments.get_one::<PathBuf>("config").context("--config is needed")?;
    let with_stdin = arguments.get_flag("exit-on-stdin-close");
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into()))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
    if rustix::process::geteuid().is_root() {
        tracing::warn!("this holder runs as root: give it a user of its own");
    }
    lock_memory();
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

/// Keeps fragments off the swap. Under a limit a later allocation could fail, so that nothing is locked then.
fn lock_memory() {
    use rustix::mm::{MlockAllFlags, mlockall};
    use rustix::process::{Resource, getrlimit};
    let flags = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    let limited = getrlimit(Resource::Memlock).current.is_some() && !may_lock();
    if limited || mlockall(flags).is_err() {
        tracing::warn!("memory is not locked and may reach the swap: give this service LimitMEMLOCK=infinity");
    }
}

/// Whether the process has `CAP_IPC_LOCK`, for which there is no limit.
fn may_lock() -> bool {
    const IPC_LOCK: u64 = 1 << 14;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & IPC_LOCK != 0)
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
