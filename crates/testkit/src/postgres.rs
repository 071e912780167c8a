//! A throw-away PostgreSQL cluster per test process, and an empty database of its own per call.
//! The cluster ends with the process, however that ends.

use std::{
    io::{BufRead, BufReader, Read},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Mutex, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

use anyhow::{Context, Result, bail};

use crate::install;

/// Starts the cluster, says `ready`, and removes everything when standard input closes.
const SCRIPT: &str = r#"
set -e
bin=$1 port=$2
dir=$(mktemp -d /tmp/volvelle-postgres-XXXXXX)
chown postgres "$dir"
cd "$dir"
as="setpriv --reuid postgres --regid postgres --init-groups --"
trap '[ -z "$server" ] || { kill -QUIT "$server"; wait "$server"; } 2>/dev/null; rm -rf "$dir"' EXIT
$as "$bin/initdb" -D "$dir/data" -U postgres -A trust -E UTF8 --locale=C.UTF-8 --no-sync >"$dir/initdb.log" 2>&1 || { cat "$dir/initdb.log" >&2; exit 1; }
$as "$bin/postgres" -D "$dir/data" -h 127.0.0.1 -p "$port" -k "$dir" -c fsync=off -c full_page_writes=off -c synchronous_commit=off -c max_connections=400 </dev/null >"$dir/log" 2>&1 &
server=$!
for _ in $(seq 600); do
  "$bin/pg_isready" -q -h 127.0.0.1 -p "$port" && { echo ready; break; }
  kill -0 "$server" 2>/dev/null || { cat "$dir/log" >&2; exit 1; }
  sleep 0.05
done
while read -r _; do :; done
"#;

struct Cluster {
    port: u16,
    bin: PathBuf,
    /// Its standard input is the cluster's lifeline, so it must live as long as the process.
    _wrapper: Mutex<Child>,
}

/// One empty database.
pub struct Postgres {
    url: String,
}

impl Postgres {
    /// Starts the cluster of this process unless it runs, and creates a database.
    pub fn start() -> Result<Postgres> {
        static CLUSTER: OnceLock<std::result::Result<Cluster, String>> = OnceLock::new();
        static COUNTER: AtomicU32 = AtomicU32::new(1);
        let cluster = CLUSTER.get_or_init(|| Cluster::start().map_err(|error| format!("{error:#}")));
        let cluster = cluster.as_ref().map_err(|error| anyhow::anyhow!("{error}"))?;
        let name = format!("test_{}", COUNTER.fetch_add(1, Ordering::Relaxed));
        let output = Command::new(cluster.bin.join("createdb"))
            .args(["-h", "127.0.0.1", "-p", &cluster.port.to_string(), "-U", "postgres", &name])
            .output()
            .context("starting createdb")?;
        if !output.status.success() {
            bail!("createdb: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(Postgres { url: format!("postgres://postgres@127.0.0.1:{}/{name}", cluster.port) })
    }

    /// Where the database is, for a store or for `psql`.
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Cluster {
    fn start() -> Result<Cluster> {
        install::ensure(install::For::Postgres)?;
        let bin = binaries()?;
        let port = crate::port::free()?.port();
        let mut wrapper = Command::new("bash")
            .args(["-c", SCRIPT, "postgres"])
            .arg(&bin)
            .arg(port.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("starting PostgreSQL")?;
        let stdout = wrapper.stdout.take().context("standard output of PostgreSQL")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        if line.trim() != "ready" {
            let mut text = String::new();
            wrapper.stderr.take().context("standard error of PostgreSQL")?.read_to_string(&mut text)?;
            bail!("PostgreSQL did not start: {}", text.trim());
        }
        Ok(Cluster { port, bin, _wrapper: Mutex::new(wrapper) })
    }
}

fn binaries() -> Result<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .context("PostgreSQL is not installed")?
        .flatten()
        .map(|entry| entry.path().join("bin"))
        .filter(|bin| bin.join("initdb").exists())
        .collect();
    found.sort();
    found.pop().context("no server of PostgreSQL is installed")
}
