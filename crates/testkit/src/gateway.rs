//! A whole Volvelle as its users start it: the built program `volvelle dev` with its holders, in a
//! folder of its own. It can be killed and started again on the same folder; dropping it ends every
//! process that was started on that folder.

use std::{
    fs::{File, OpenOptions},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

const READY_LIMIT: Duration = Duration::from_secs(60);
const CLEAN_STOP_LIMIT: Duration = Duration::from_secs(5);
const REQUEST_LIMIT: Duration = Duration::from_secs(120);

/// What `volvelle dev` writes for the administrator.
#[derive(Clone, Deserialize)]
pub struct Admin {
    /// Base address of the API.
    pub url: String,
    /// Who the administrator is.
    pub access_id: String,
    /// The administrator's secret; never printed by the testkit.
    pub access_key: String,
}

/// One development gateway.
pub struct DevGateway {
    /// The administrator's login.
    pub admin: Admin,
    program: PathBuf,
    listen: String,
    folder: TempDir,
    environment: Vec<(String, String)>,
    child: Child,
    client: reqwest::Client,
    token: Option<String>,
}

impl DevGateway {
    /// Starts the program that was built next to the running test.
    pub async fn start() -> Result<DevGateway> {
        let program = built_program("volvelle")?;
        built_program("volvelle-holder")?;
        DevGateway::start_program(program, &[]).await
    }

    /// Starts a given program, with more environment variables.
    pub async fn start_program(program: PathBuf, environment: &[(&str, &str)]) -> Result<DevGateway> {
        let folder = tempfile::Builder::new().prefix("volvelle-dev-").tempdir()?;
        let listen = crate::port::free()?.to_string();
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let child = spawn(&program, folder.path(), &listen, &environment)?;
        let client = reqwest::Client::builder().timeout(REQUEST_LIMIT).build().context("an HTTP client")?;
        let admin = Admin { url: format!("http://{listen}"), access_id: String::new(), access_key: String::new() };
        let mut gateway = DevGateway { admin, program, listen, folder, environment, child, client, token: None };
        gateway.wait_until_ready().await?;
        Ok(gateway)
    }

    /// Where this gateway keeps everything.
    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Sets or, with `None`, removes an environment variable of the following starts.
    pub fn set_env(&mut self, name: &str, value: Option<&str>) {
        self.environment.retain(|(known, _)| known != name);
        if let Some(value) = value {
            self.environment.push((name.to_owned(), value.to_owned()));
        }
    }

    /// Calls one operation as the administrator; logs in first when necessary.
    pub async fn post(&mut self, operation: &str, body: Value) -> Result<(u16, Value)> {
        let Value::Object(mut body) = body else { bail!("the body of an operation is an object") };
        if self.token.is_none() {
            self.token = Some(self.log_in().await?);
        }
        body.entry("token").or_insert_with(|| json!(self.token));
        self.post_as_is(operation, body).await
    }

    /// Calls one operation with exactly this body.
    pub async fn post_as_is(&self, operation: &str, body: Map<String, Value>) -> Result<(u16, Value)> {
        let url = format!("{}/{operation}", self.admin.url);
        let answer = self.client.post(url).json(&body).send().await.context("calling the gateway")?;
        let status = answer.status().as_u16();
        let text = answer.text().await.context("reading the answer")?;
        Ok((status, serde_json::from_str(&text).unwrap_or(Value::String(text))))
    }

    /// Reads a page such as `health` or `metrics`.
    pub async fn get(&self, page: &str) -> Result<(u16, String)> {
        let answer = self.client.get(format!("{}/{page}", self.admin.url)).send().await?;
        Ok((answer.status().as_u16(), answer.text().await?))
    }

    /// The process id of the gateway.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The process ids of the holders that run on this folder.
    pub fn holders(&self) -> Vec<u32> {
        processes_on(self.folder.path())
            .into_iter()
            .filter(|pid| {
                *pid != self.child.id() && name_of(*pid).is_some_and(|name| name.starts_with("volvelle-holder"))
            })
            .collect()
    }

    /// Everything the gateway and its holders wrote to their standard streams.
    pub fn log(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&std::fs::read(self.folder.path().join("log"))?).into_owned())
    }

    /// Whether the gateway has ended by itself, and how.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Kills the gateway process, and only that, without warning.
    pub fn kill9(&mut self) -> Result<()> {
        self.child.kill().context("killing the gateway")?;
        self.child.wait().context("waiting for the killed gateway")?;
        Ok(())
    }

    /// Starts the gateway again on the same folder after it has ended, and waits until it is ready.
    pub async fn restart(&mut self) -> Result<()> {
        if self.ended()?.is_none() {
            bail!("the gateway still runs: stop or kill it first");
        }
        self.child = spawn(&self.program, self.folder.path(), &self.listen, &self.environment)?;
        self.wait_until_ready().await
    }

    /// Asks the gateway to end and fails when it needs more than five seconds or does not end cleanly.
    pub async fn stop(&mut self) -> Result<()> {
        let pid = Pid::from_raw(self.child.id().cast_signed()).context("a process id")?;
        kill_process(pid, Signal::TERM).context("asking the gateway to end")?;
        let deadline = Instant::now() + CLEAN_STOP_LIMIT;
        while Instant::now() < deadline {
            if let Some(status) = self.ended()? {
                if !status.success() {
                    bail!("the gateway ended with {:?}, signal {:?}", status.code(), status.signal());
                }
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        bail!("the gateway did not end within {} s", CLEAN_STOP_LIMIT.as_secs())
    }

    async fn log_in(&self) -> Result<String> {
        let body = json!({"access-id": self.admin.access_id, "access-key": self.admin.access_key, "access-type": "access_key"});
        let Value::Object(body) = body else { bail!("the body of an operation is an object") };
        let (status, answer) = self.post_as_is("auth", body).await?;
        match answer.get("token").and_then(Value::as_str) {
            Some(token) if (200..300).contains(&status) => Ok(token.to_owned()),
            _ => bail!("the administrator cannot log in: status {status}"),
        }
    }

    async fn wait_until_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + READY_LIMIT;
        while Instant::now() < deadline {
            if let Some(status) = self.ended()? {
                bail!("the gateway ended with {status} before it was ready: {}", self.log()?);
            }
            if self.get("health").await.is_ok_and(|(status, _)| status == 200) {
                let text = std::fs::read(self.data_dir().join("admin.json")).context("reading admin.json")?;
                self.admin = serde_json::from_slice(&text).context("understanding admin.json")?;
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        bail!("the gateway was not ready after {} s: {}", READY_LIMIT.as_secs(), self.log()?)
    }
}

impl Drop for DevGateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        for pid in processes_on(self.folder.path()) {
            if let Some(pid) = Pid::from_raw(pid.cast_signed()) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }
}

/// Finds a program of this workspace next to the running test.
pub fn built_program(name: &str) -> Result<PathBuf> {
    let test = std::env::current_exe().context("where the test is")?;
    let folder = test.parent().and_then(Path::parent).context("the folder of built programs")?;
    let program = folder.join(name);
    if !program.exists() {
        bail!("{} is missing: run `cargo build --workspace` first", program.display());
    }
    Ok(program)
}

fn spawn(program: &Path, folder: &Path, listen: &str, environment: &Vec<(String, String)>) -> Result<Child> {
    let log: File = OpenOptions::new().create(true).append(true).open(folder.join("log"))?;
    let mut command = Command::new(program);
    command.args(["dev", "--listen", listen, "--data-dir"]).arg(folder.join("data"));
    for (name, value) in environment {
        command.env(name, value);
    }
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    command.spawn().with_context(|| format!("starting {}", program.display()))
}

/// Processes with this folder on their command line; the folder's random name belongs to one gateway only.
fn processes_on(folder: &Path) -> Vec<u32> {
    let needle = folder.as_os_str().as_encoded_bytes();
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| {
            std::fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| line.windows(needle.len()).any(|window| window == needle))
        })
        .collect()
}

fn name_of(pid: u32) -> Option<String> {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let program = String::from_utf8_lossy(line.split(|byte| *byte == 0).next()?).into_owned();
    Some(Path::new(&program).file_name()?.to_string_lossy().into_owned())
}
