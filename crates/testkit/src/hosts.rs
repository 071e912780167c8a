//! Real SSH hosts, each with its own `/etc/shadow`, host key, process tree and loopback address.
//! A host is gone, with all its processes, when its [`Host`] is dropped or the test process ends.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, ChildStdin, Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::install;

const SCRIPT: &str = include_str!("hosts/host.sh");
const START_LIMIT: Duration = Duration::from_secs(60);

/// The password of every account of a new host.
pub const INITIAL_PASSWORD: &str = "Init-Passw0rd!1";

/// The accounts of every host; `ops` may sudo with its password, `rot` without one.
pub const ACCOUNTS: &[&str] = &["root", "ops", "rot", "app1", "app2"];

/// What a host runs and how strict it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HostKind {
    /// OpenSSH, PAM and shadow as Debian ships them.
    Debian,
    /// Password quality and history, enforced for root too.
    Strict,
    /// `app1` and `app2` must change their password at the next login.
    ExpiredForce,
    /// Root cannot log in; `ops` and `rot` may sudo.
    Sudo,
    /// Password logins are off; [`Host::private_key`] opens every account.
    KeyOnly,
    /// Dropbear, without PAM.
    Dropbear,
    /// tinysshd: public keys and modern algorithms only.
    Tinyssh,
    /// OpenSSH over a busybox userland without chpasswd.
    Busybox,
    /// Only SHA-1 key exchange, CBC ciphers and ssh-rsa.
    Legacy,
    /// Three wrong passwords lock an account, root included.
    Faillock,
}

impl HostKind {
    /// Every kind, in the order of the table.
    pub const ALL: [HostKind; 10] = [
        HostKind::Debian,
        HostKind::Strict,
        HostKind::ExpiredForce,
        HostKind::Sudo,
        HostKind::KeyOnly,
        HostKind::Dropbear,
        HostKind::Tinyssh,
        HostKind::Busybox,
        HostKind::Legacy,
        HostKind::Faillock,
    ];

    fn word(self) -> &'static str {
        match self {
            HostKind::Debian => "debian",
            HostKind::Strict => "strict",
            HostKind::ExpiredForce => "expired-force",
            HostKind::Sudo => "sudo",
            HostKind::KeyOnly => "key-only",
            HostKind::Dropbear => "dropbear",
            HostKind::Tinyssh => "tinyssh",
            HostKind::Busybox => "busybox",
            HostKind::Legacy => "legacy",
            HostKind::Faillock => "faillock",
        }
    }
}

/// One running host.
pub struct Host {
    /// Where its SSH server listens: port 22 on an address of its own.
    pub addr: SocketAddr,
    /// What it runs.
    pub kind: HostKind,
    unshare: Child,
    init: u32,
    dir: TempDir,
    private_key: String,
    /// Closing it ends the host, also when this process is killed.
    _lifeline: ChildStdin,
    _address: File,
}

impl Host {
    /// Starts a host on a free address and waits until it answers.
    pub fn start(kind: HostKind) -> Result<Host> {
        install::ensure(install::For::Hosts)?;
        let (address, claim) = claim_address()?;
        Host::start_at(kind, address, claim)
    }

    /// Ends this host and starts a new one of the same kind at the same address: another machine with another key.
    pub fn replace(self) -> Result<Host> {
        let SocketAddr::V4(addr) = self.addr else { bail!("hosts live on IPv4") };
        let claim = self._address.try_clone().context("keeping the address")?;
        let kind = self.kind;
        drop(self);
        Host::start_at(kind, *addr.ip(), claim)
    }

    fn start_at(kind: HostKind, address: Ipv4Addr, claim: File) -> Result<Host> {
        let dir = tempfile::Builder::new().prefix("volvelle-host-").tempdir().context("a folder for the host")?;
        let script = dir.path().join("host.sh");
        std::fs::write(&script, SCRIPT)?;
        let (private_key, public_key) = generate_key(&dir, if kind == HostKind::Legacy { "rsa" } else { "ed25519" })?;
        let root = dir.path().join("fs");
        std::fs::create_dir(&root)?;
        let name = format!("{}-{}", kind.word(), address.octets()[3]);
        let mut unshare = Command::new("unshare")
            .args(["--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child", "bash"])
            .arg(&script)
            .args([kind.word(), &address.to_string(), &name])
            .arg(&root)
            .env("PASSWORD", INITIAL_PASSWORD)
            .env("AUTHORIZED_KEY", public_key)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("starting unshare")?;
        let lifeline = unshare.stdin.take().context("the host's standard input")?;
        let stdout = unshare.stdout.take().context("the host's standard output")?;
        let stderr = unshare.stderr.take().context("the host's standard error")?;
        let mut line = String::new();
        let read = BufReader::new(stdout).read_line(&mut line);
        if read.is_err() || line.trim() != "ready" {
            drop(lifeline);
            let mut text = String::new();
            let _ = BufReader::new(stderr).read_to_string(&mut text);
            let _ = unshare.wait();
            bail!("host {} did not start: {}", kind.word(), text.trim());
        }
        let init = child_of(unshare.id()).context("finding the first process of the host")?;
        let addr = SocketAddr::V4(SocketAddrV4::new(address, 22));
        let host = Host { addr, kind, unshare, init, dir, private_key, _lifeline: lifeline, _address: claim };
        host.wait_until_it_answers()?;
        Ok(host)
    }

    /// Runs a shell command as root inside the host: the ground truth of every test.
    pub fn exec(&self, command: &str) -> Result<Output> {
        Command::new("nsenter")
            .args(["-t", &self.init.to_string(), "-m", "-p", "-u", "-i", "--", "/bin/sh", "-c", command])
            .stdin(Stdio::null())
            .output()
            .context("entering the host")
    }

    /// What [`Host::exec`] printed, when it succeeded.
    pub fn read(&self, command: &str) -> Result<String> {
        let output = self.exec(command)?;
        if !output.status.success() {
            bail!("{command}: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// A file of the host as this machine sees it, without entering the host.
    #[must_use]
    pub fn file(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.init))
    }

    /// Processor time of everything that ever ran in the host, in ticks of the kernel.
    pub fn ticks(&self) -> u64 {
        ticks_below(self.init)
    }

    /// The hash field of an account in the host's own shadow file.
    pub fn shadow(&self, user: &str) -> Result<String> {
        self.read("cat /etc/shadow")?
            .lines()
            .find_map(|line| line.strip_prefix(user)?.strip_prefix(':')?.split(':').next().map(str::to_owned))
            .with_context(|| format!("{user} is not in the shadow file"))
    }

    /// Whether the shadow file's hash is that of this password; no login, no delay, no failure counted.
    pub fn shadow_is(&self, user: &str, password: &str) -> Result<bool> {
        let shadow = self.shadow(user)?;
        let output = Command::new("perl")
            .args(["-e", "exit(crypt($ENV{P}, $ENV{H}) eq $ENV{H} ? 0 : 1)"])
            .env("P", password)
            .env("H", &shadow)
            .stdin(Stdio::null())
            .status()
            .context("starting perl")?;
        Ok(output.success())
    }

    /// Sets a password from outside, as a careless colleague would.
    pub fn set_password(&self, user: &str, password: &str) -> Result<()> {
        let mut child = Command::new("nsenter")
            .args(["-t", &self.init.to_string(), "-m", "-p", "-u", "-i", "--"])
            .args(if self.kind == HostKind::Busybox { ["passwd", user] } else { ["chpasswd", "-c"] })
            .args((self.kind != HostKind::Busybox).then_some("SHA512"))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("entering the host")?;
        let text = match self.kind {
            HostKind::Busybox => format!("{password}\n{password}\n"),
            _ => format!("{user}:{password}\n"),
        };
        std::io::Write::write_all(child.stdin.as_mut().context("standard input")?, text.as_bytes())?;
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!("setting a password: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }

    /// The host key as one line, `ssh-ed25519 AAAA…` (`ssh-rsa` for the legacy kind).
    pub fn host_key(&self) -> Result<String> {
        let algorithm = if self.kind == HostKind::Legacy { "rsa" } else { "ed25519" };
        let text = self.read(&format!("cat /etc/ssh/ssh_host_{algorithm}_key.pub"))?;
        Ok(text.split_whitespace().take(2).collect::<Vec<_>>().join(" "))
    }

    /// An unencrypted OpenSSH key that every account accepts.
    pub fn private_key(&self) -> &str {
        &self.private_key
    }

    /// Whether an independent client, OpenSSH's own, can log in with this password.
    pub fn opens(&self, user: &str, password: &str) -> bool {
        let status = self.ssh(user).args(["-o", "PubkeyAuthentication=no", "true"]).env("SSHPASS", password).status();
        status.is_ok_and(|status| status.success())
    }

    /// Whether an independent client can log in with this private key (OpenSSH format).
    pub fn opens_with_key(&self, user: &str, private_key: &str) -> Result<bool> {
        let file = tempfile::NamedTempFile::new_in(self.dir.path())?;
        std::fs::write(file.path(), private_key)?;
        let mut command = self.ssh(user);
        command.args(["-o", "PasswordAuthentication=no", "-o", "IdentitiesOnly=yes", "-i"]).arg(file.path());
        let status = command.arg("true").env("SSHPASS", "none").status()?;
        Ok(status.success())
    }

    /// The lines that the SSH server has logged.
    pub fn server_log(&self) -> Result<String> {
        self.read("cat /var/log/host-sshd.log")
    }

    fn ssh(&self, user: &str) -> Command {
        let mut command = Command::new("sshpass");
        command.args([
            "-e",
            "ssh",
            "-F",
            "none",
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "UserKnownHostsFile=/dev/null",
        ]);
        command.args(["-o", "LogLevel=ERROR", "-o", "NumberOfPasswordPrompts=1", "-o", "ConnectTimeout=20"]);
        if self.kind == HostKind::Legacy {
            command.args(["-o", "KexAlgorithms=+diffie-hellman-group14-sha1", "-o", "HostKeyAlgorithms=+ssh-rsa"]);
            command.args(["-o", "Ciphers=+aes128-cbc", "-o", "PubkeyAcceptedAlgorithms=ssh-rsa"]);
        }
        command.args(["-l", user, &self.addr.ip().to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    fn wait_until_it_answers(&self) -> Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            if let Ok(mut stream) = TcpStream::connect_timeout(&self.addr, Duration::from_secs(2)) {
                stream.set_read_timeout(Some(Duration::from_secs(5)))?;
                let mut banner = [0_u8; 4];
                if stream.read_exact(&mut banner).is_ok() && &banner == b"SSH-" {
                    return Ok(());
                }
            }
            if Instant::now() > deadline {
                bail!("host {} does not answer: {}", self.kind.word(), self.server_log().unwrap_or_default());
            }
            thread::sleep(Duration::from_millis(15));
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // The first process of the namespace takes every other one with it; unshare itself ignores TERM.
        if let Some(init) = rustix::process::Pid::from_raw(self.init.cast_signed()) {
            let _ = rustix::process::kill_process(init, rustix::process::Signal::KILL);
        }
        let _ = self.unshare.wait();
    }
}

/// Takes an address of 127.77.0.0/16 that no other test process holds and nothing listens on.
pub(crate) fn claim_address() -> Result<(Ipv4Addr, File)> {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let folder = std::env::temp_dir().join("volvelle-testkit-addresses");
    std::fs::create_dir_all(&folder)?;
    let start = std::process::id().wrapping_mul(97);
    for _ in 0..4096 {
        let number = start.wrapping_add(COUNTER.fetch_add(1, Ordering::Relaxed)) % (254 * 254);
        let address = Ipv4Addr::new(127, 77, octet(number / 254), octet(number % 254));
        let file = File::create(folder.join(address.to_string()))?;
        if file.try_lock().is_ok() && TcpListener::bind((address, 22)).is_ok() {
            return Ok((address, file));
        }
    }
    bail!("no free address in 127.77.0.0/16")
}

fn octet(value: u32) -> u8 {
    u8::try_from(value + 1).unwrap_or(254)
}

fn generate_key(dir: &TempDir, algorithm: &str) -> Result<(String, String)> {
    let path = dir.path().join("key");
    let output = Command::new("ssh-keygen")
        .args(["-q", "-t", algorithm, "-N", "", "-C", "testkit", "-f"])
        .arg(&path)
        .output()?;
    if !output.status.success() {
        bail!("ssh-keygen: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let public = std::fs::read_to_string(path.with_extension("pub"))?;
    Ok((std::fs::read_to_string(&path)?, public.trim().to_owned()))
}

/// A process that has ended and was waited for counts in its parent's time, so nothing is lost or counted twice.
fn ticks_below(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let own: u64 = after_name.split_whitespace().skip(11).take(4).filter_map(|field| field.parse::<u64>().ok()).sum();
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    own + children.split_whitespace().filter_map(|child| child.parse().ok()).map(ticks_below).sum::<u64>()
}

pub(crate) fn child_of(parent: u32) -> Option<u32> {
    let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}
