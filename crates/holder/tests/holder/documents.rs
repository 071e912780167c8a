//! Runs docs/operate/holders.md: each block on its machine, which is a folder here; systemd is played by a script that starts
//! what the unit says.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use volvelle_fragments::Suite;
use volvelle_holder::Quorum;
use volvelle_holder::quorum::QuorumConfig;
use volvelle_holder::roster::IdentityFiles;

use crate::{REALM, place, until_up};

const MACHINES: [&str; 7] = ["holder-1", "holder-2", "holder-3", "gateway", "admin-1", "admin-2", "admin-3"];

/// Starts what the unit says, with the paths of this machine and the credential as systemd would show it; the process ends with
/// the file `stop`.
const SYSTEMCTL: &str = r#"#!/bin/bash
set -eu
unit="$UNITS/volvelle-holder.service"
case "$1" in
  daemon-reload) ;;
  enable)
    test "$2 $3" = "--now volvelle-holder"
    grep -qx 'DynamicUser=yes' "$unit"
    credential=$(sed -n 's/^LoadCredential=key.der://p' "$unit")
    mkdir -p "$(dirname "$KEY")"
    cp "${credential/#\/etc\/volvelle-holder/$DIR}" "$KEY"
    chmod 440 "$KEY"
    program=$(sed -n 's/^ExecStart=//p' "$unit")
    program=${program/\/usr\/local\/bin/$BIN}
    program=${program/\/etc\/volvelle-holder/$DIR}
    cd /
    CREDENTIALS_DIRECTORY=$(dirname "$KEY") setsid $program 2>"$HOME/log" >/dev/null </dev/null &
    echo $! > "$HOME/pid"
    ;;
  stop) kill "$(cat "$HOME/pid")"; while kill -0 "$(cat "$HOME/pid")" 2>/dev/null; do sleep 0.05; done ;;
  start) "$0" enable --now volvelle-holder ;;
  is-active) kill -0 "$(cat "$HOME/pid")" && echo active ;;
  *) exit 1 ;;
esac
"#;

struct Machines {
    root: PathBuf,
    values: BTreeMap<String, String>,
}

impl Drop for Machines {
    fn drop(&mut self) {
        for machine in MACHINES {
            let Ok(pid) = fs::read_to_string(self.root.join(machine).join("pid")) else { continue };
            Command::new("kill").arg(pid.trim()).status().ok();
        }
    }
}

impl Machines {
    /// Folders with what an operator finds in the repository, and the script that plays systemd.
    fn new(root: &Path) -> Self {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("a folder");
        for machine in MACHINES {
            let home = root.join(machine);
            for folder in ["bin", "units", "target/release", "deploy"] {
                fs::create_dir_all(home.join(folder)).expect("makes a folder");
            }
            fs::copy(env!("CARGO_BIN_EXE_volvelle-holder"), home.join("target/release/volvelle-holder"))
                .expect("copies");
            let unit = "deploy/volvelle-holder.service";
            fs::copy(repository.join(unit), home.join(unit)).expect("copies");
            let script = home.join("bin/systemctl");
            fs::write(&script, SYSTEMCTL).expect("writes");
            fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("sets the mode");
        }
        for machine in &MACHINES[3..] {
            let program = root.join(machine).join("bin/volvelle-holder");
            fs::copy(env!("CARGO_BIN_EXE_volvelle-holder"), program).expect("copies");
        }
        let ports: Vec<_> = (0..3).map(|_| volvelle_testkit::port::free().expect("a port")).collect();
        let values = ["ONE", "TWO", "THREE"]
            .iter()
            .zip(&ports)
            .map(|(name, port)| ((*name).to_owned(), port.to_string()))
            .collect();
        Self { root: root.to_path_buf(), values }
    }

    fn run(&self, machine: &str, script: &str) {
        let home = self.root.join(machine);
        let within = |path: &str| home.join(path).display().to_string();
        let output = Command::new("bash")
            .args(["-euc", script])
            .current_dir(&home)
            .env("HOME", &home)
            .env("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", within("bin")))
            .envs(&self.values)
            .env("DIR", within("etc"))
            .env("STATE", within("state"))
            .env("KEY", within("credentials/key.der"))
            .env("GATEWAY", within("identity"))
            .env("ADMIN", within("admin"))
            .env("BIN", within("bin"))
            .env("UNITS", within("units"))
            .output()
            .expect("bash runs");
        assert!(output.status.success(), "on {machine}:\n{script}\n{}", String::from_utf8_lossy(&output.stderr));
    }

    /// What the operator brings from one machine to another by hand.
    fn bring(&self) {
        for n in 1..=3 {
            let file = format!("member-{n}");
            let from = self.root.join(format!("holder-{n}")).join(&file);
            if from.exists() {
                fs::copy(from, self.root.join("gateway").join(&file)).expect("copies");
            }
            let key = self.root.join(format!("admin-{n}/admin-key"));
            if key.exists() {
                fs::copy(key, self.root.join(format!("holder-{n}/admin-key"))).expect("copies");
            }
        }
        // Whoever changed it last gives it to the others.
        let written = |file: &PathBuf| fs::metadata(file).and_then(|metadata| metadata.modified()).ok();
        let rosters = MACHINES.map(|machine| self.root.join(machine).join("roster.toml"));
        let Some(newest) = rosters.iter().filter(|file| file.exists()).max_by_key(|file| written(file)) else { return };
        let text = fs::read(newest).expect("reads");
        for roster in rosters.iter().filter(|roster| *roster != newest) {
            fs::write(roster, &text).expect("writes");
        }
    }
}

/// The blocks of shell in the document: where each is to be run, and what.
fn blocks(text: &str) -> Vec<(String, String)> {
    text.split("\n```sh ")
        .skip(1)
        .map(|block| {
            let (place, rest) = block.split_once('\n').expect("a block has lines");
            (place.to_owned(), rest.split("\n```").next().expect("a block ends").to_owned())
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_three_machines_of_the_document_work_as_written() {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/operate/holders.md");
    let text = fs::read_to_string(document).expect("reads");
    let examples = text.matches("\n```toml example").count();
    let fences = text.matches("\n```").count();
    assert_eq!(fences, 2 * (blocks(&text).len() + examples), "every block of commands is run");
    let folder = tempfile::tempdir().expect("a folder");
    let machines = Machines::new(folder.path());
    for (place, script) in blocks(&text) {
        machines.bring();
        match place.as_str() {
            "values" => {
                for line in script.lines() {
                    let name = line.split('=').next().expect("a name");
                    assert!(text.contains(&format!("${name}")), "{name} is used");
                }
            }
            "administrators" => (1..=3).for_each(|n| machines.run(&format!("admin-{n}"), &script)),
            "holders" => (1..=3).for_each(|n| machines.run(&format!("holder-{n}"), &script)),
            machine => machines.run(machine, &script),
        }
    }
    let identity = folder.path().join("gateway/identity");
    let quorum = Quorum::new(&QuorumConfig {
        roster: identity.join("roster.toml"),
        identity: IdentityFiles { certificate: identity.join("certificate.der"), key: identity.join("key.der") },
        kek_cache_seconds: 0,
        refresh_hours: 0,
        suite: Suite::default(),
    })
    .expect("a quorum");
    until_up(&quorum).await;
    quorum.create_key(REALM, 1).await.expect("makes a key");
    let record = quorum.seal(&place("/a"), b"v").await.expect("seals");
    assert_eq!(quorum.open(&place("/a"), &record).await.expect("opens").as_slice(), b"v");
    let state = fs::read_dir(folder.path().join("holder-1/state")).expect("lists");
    assert_eq!(
        state.count(),
        7,
        "a fragment, its file key, the key that seals them, the log, two files of tombstones, and when a backup was made"
    );
}
