//! `cargo xtask demo`: the main job shown with the real programs on a real sshd.
//!
//! What must stay true: every line after a `$` is run exactly as it is printed, nothing of the demo is left on the machine, and
//! the exit code is 0 only if every check held.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::json;
use volvelle_testkit::gateway::DevGateway;
use volvelle_testkit::hosts::{Host, HostKind, INITIAL_PASSWORD};

use crate::show::Show;
use crate::{host, install};

/// Says that the programs are built and that this process was started with more rights only.
const BUILT: &str = "built";
/// Time for a rotation to reach the target, and for a restarted gateway to find out how things stand.
const PATIENCE: Duration = Duration::from_secs(30);
const SECRET: &str = "/demo/web-1/root";
const READ: &str =
    "volvelle rotated-secret get-value --name /demo/web-1/root --jsonpath '$.value.password' | tee password";

/// Installs what is missing, builds, and shows everything.
pub fn run() -> Result<()> {
    if std::env::args().nth(2).as_deref() != Some(BUILT) {
        install::ensure_for_demo()?;
        build()?;
    }
    if !install::is_root() {
        return as_root();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let shown = runtime.block_on(async {
        tokio::select! {
            shown = demo() => shown,
            _ = tokio::signal::ctrl_c() => bail!("interrupted; everything the demo started is gone"),
        }
    });
    runtime.shutdown_timeout(Duration::from_millis(500));
    shown
}

fn build() -> Result<()> {
    eprintln!("Building Volvelle without optimisation: some minutes the first time, then seconds ...");
    let began = Instant::now();
    host::run("cargo", &["build", "--locked", "--bin", "volvelle", "--bin", "volvelle-holder"])?;
    eprintln!("built in {:.0} s", began.elapsed().as_secs_f64());
    Ok(())
}

/// The throw-away host is a set of namespaces, which only root can make.
fn as_root() -> Result<()> {
    eprintln!("The throw-away host needs root; asking sudo.");
    let program = std::env::current_exe().context("where this program is")?;
    let status = Command::new("sudo")
        .arg(program)
        .args(["demo", BUILT])
        .status()
        .context("cannot start sudo; run the demo as root")?;
    ensure!(status.success(), "the demo did not succeed");
    Ok(())
}

/// What the demo runs on. Dropping it ends every process and removes every file.
struct Stage {
    gateway: DevGateway,
    host: Host,
    show: Show,
    address: String,
}

async fn demo() -> Result<()> {
    let began = Instant::now();
    let mut stage = Stage::set().await?;
    stage.target().await?;
    stage.secret().await?;
    stage.rotation().await?;
    stage.crash().await?;
    stage.proof().await?;
    let Stage { gateway, host, show, .. } = stage;
    drop((gateway, host));
    show.end(began.elapsed())
}

impl Stage {
    async fn set() -> Result<Self> {
        let program = host::built("volvelle")?;
        host::built("volvelle-holder")?;
        let began = Instant::now();
        let gateway = DevGateway::start_program(program.clone(), &[]).await?;
        let took = began.elapsed();
        let folder = gateway.data_dir().parent().map(PathBuf::from).context("the gateway has a folder")?;
        let mut show = Show::new(folder, &program)?;
        println!("\nVolvelle: every line after a $ is run just as it is printed.");
        show.title("A gateway with three fragment holders, and a throw-away Debian host");
        show.printed(&start_line(&gateway, &show));
        let holders = gateway.holders().len();
        show.check(
            &format!("ready after {:.1} s, with {holders} holders as processes of their own", took.as_secs_f64()),
            holders == 3,
        );
        let host = tokio::task::spawn_blocking(|| Host::start(HostKind::Debian)).await??;
        let address = host.addr.ip().to_string();
        show.file("initial-password", INITIAL_PASSWORD)?;
        show.file("known-hosts", &format!("{address} {}\n", host.host_key()?))?;
        let known = "UserKnownHostsFile known-hosts\nPreferredAuthentications password\nNumberOfPasswordPrompts 1\nLogLevel ERROR";
        show.file("ssh-config", &format!("Host web-1\nHostName {address}\nUser root\n{known}\n"))?;
        let opens = show.quietly(&ssh("initial-password")).await?.ok;
        show.check(&format!("{address} runs its own sshd with its own /etc/shadow; root has a known password"), opens);
        Ok(Self { gateway, host, show, address })
    }

    async fn target(&mut self) -> Result<()> {
        self.show.title("The host becomes a target");
        let create = format!(
            "volvelle target create ssh --name /demo/web-1 --host {} --ssh-username root \\\n    --ssh-password @initial-password --jsonpath '$..fingerprint'",
            self.address
        );
        let created = self.show.command(&create).await?;
        let own = self.show.quietly("ssh-keygen -lf known-hosts").await?.text;
        let fingerprint = own.split_whitespace().nth(1).unwrap_or("SHA256:").to_owned();
        let learned = created.ok && created.text.trim() == fingerprint;
        self.show.check(
            "the host key was learned once, shown, and is the host's own; from now on no other is accepted",
            learned,
        );
        Ok(())
    }

    async fn secret(&mut self) -> Result<()> {
        self.show.title("Its root password becomes a rotated secret; the preflight says what will be done");
        let create = format!(
            "volvelle rotated-secret create ssh --name {SECRET} --target-name /demo/web-1 --rotator-type target"
        );
        let created = self.show.command(&create).await?;
        self.show.check("the stored value was tried on the host", created.ok);
        Ok(())
    }

    async fn rotation(&mut self) -> Result<()> {
        self.show.title("Rotate");
        let rotated = self.show.command(&format!("volvelle rotated-secret rotate --name {SECRET}")).await?;
        self.show.check("the gateway says that the new password was verified", rotated.ok);
        let fresh = self.show.command(READ).await?;
        let opened = self.show.command(&ssh("password")).await?;
        self.show.check(
            "the new password opens the account, for OpenSSH's own client",
            fresh.ok && opened.text.starts_with("root"),
        );
        let refused = self.show.command(&ssh("initial-password")).await?;
        self.show.check("the old password is refused", !refused.ok && refused.text.contains("Permission denied"));
        Ok(())
    }

    async fn crash(&mut self) -> Result<()> {
        self.show.title("Kill the gateway while a rotation is under way");
        let shadow = self.host.file("/etc/shadow");
        let before = std::fs::read(&shadow).context("reading the host's shadow file")?;
        let client = self.show.start(&format!("volvelle rotated-secret rotate --name {SECRET}"))?;
        let deadline = Instant::now() + PATIENCE;
        while std::fs::read(&shadow).is_ok_and(|now| now == before) {
            ensure!(Instant::now() < deadline, "the rotation did not reach the host");
            tokio::time::sleep(Duration::from_micros(500)).await;
        }
        let pid = self.gateway.pid();
        self.gateway.kill9()?;
        self.show.printed(&format!("kill -9 {pid}"));
        let told = self.show.finish(client).await?;
        self.show
            .check("the host has another password by now, and the gateway died before it could tell anybody", !told.ok);
        let line = start_line(&self.gateway, &self.show);
        self.show.printed(&line);
        let began = Instant::now();
        self.gateway.restart().await?;
        let ready = began.elapsed();
        let stage = self.settled().await?;
        let text = format!(
            "ready again after {:.1} s; after {:.1} s it knows which password the host has: the rotation is {stage}",
            ready.as_secs_f64(),
            began.elapsed().as_secs_f64()
        );
        self.show.check(&text, stage == "done");
        self.show.command(READ).await?;
        let opened = self.show.command(&ssh("password")).await?;
        self.show.check("the stored value opens the account: nothing was lost", opened.text.starts_with("root"));
        Ok(())
    }

    /// Waits until no rotation is open; gives the stage of the last one.
    async fn settled(&mut self) -> Result<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (_, answer) = self.gateway.post("rotation-list", json!({"name": SECRET, "limit": 1})).await?;
            let stage = answer["rotations"][0]["stage"].as_str().unwrap_or_default().to_owned();
            if matches!(stage.as_str(), "done" | "failed") || Instant::now() > deadline {
                return Ok(stage);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn proof(&mut self) -> Result<()> {
        self.show.title("Ask the host, and the records");
        let verify = format!(
            "volvelle rotated-secret verify --name {SECRET} --jsonpath '$.hosts[*][\"status\", \"why\"]' | paste -sd' '"
        );
        let verified = self.show.command(&verify).await?;
        self.show.check("the value in the store is the one on the host", verified.text.starts_with("valid"));
        let history = format!(
            "volvelle rotated-secret history --name {SECRET} \\\n    --jsonpath '$.rotations[*][\"id\", \"cause\", \"stage\", \"ended_at\"]' | paste - - - -"
        );
        let history = self.show.command(&history).await?;
        self.show.check("both rotations are done, the interrupted one too", history.text.matches("done").count() == 2);
        let chain = self.show.command("volvelle audit verify").await?;
        self.show
            .check("no entry of the audit trail was changed or left out", chain.ok && chain.text.contains("is whole"));
        Ok(())
    }
}

fn start_line(gateway: &DevGateway, show: &Show) -> String {
    let listen = gateway.admin.url.trim_start_matches("http://");
    format!("volvelle dev --data-dir {}/data --listen {listen} &", show.folder().display())
}

/// A login by OpenSSH's own client, which knows nothing of Volvelle, with the password in a file.
fn ssh(file: &str) -> String {
    format!("sshpass -f {file} ssh -F ssh-config web-1 'echo \"$(whoami) is logged in on $(hostname)\"'")
}
