//! A PKCS#11 token in software: SoftHSM in a folder of its own, with keys that do not leave it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

/// The module of Debian's package.
const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";
/// The user's PIN of every token.
pub const PIN: &str = "471108";

/// One token with the label `volvelle`.
pub struct Token {
    folder: TempDir,
}

impl Token {
    /// Makes a token without keys.
    pub fn start() -> Result<Token> {
        let folder = tempfile::Builder::new().prefix("volvelle-token-").tempdir()?;
        let token = Token { folder };
        std::fs::create_dir(token.folder.path().join("tokens"))?;
        let text = format!("directories.tokendir = {}\n", token.folder.path().join("tokens").display());
        std::fs::write(token.configuration(), format!("{text}objectstore.backend = file\nlog.level = ERROR\n"))?;
        private(&token.pin_file(), PIN)?;
        token
            .run("softhsm2-util", &["--init-token", "--free", "--label", "volvelle", "--pin", PIN, "--so-pin", PIN])?;
        Ok(token)
    }

    /// What the environment variable `SOFTHSM2_CONF` of a process that uses the token must say.
    pub fn configuration(&self) -> PathBuf {
        self.folder.path().join("softhsm2.conf")
    }

    /// The module to load.
    pub fn module(&self) -> &'static Path {
        Path::new(MODULE)
    }

    /// A file with the PIN.
    pub fn pin_file(&self) -> PathBuf {
        self.folder.path().join("pin")
    }

    /// Makes a key for HMAC with this label in the token.
    pub fn make_key(&self, label: &str) -> Result<()> {
        let login = ["--module", MODULE, "--token-label", "volvelle", "--login", "--pin", PIN];
        let key = ["--keygen", "--key-type", "GENERIC:32", "--label", label, "--usage-sign", "--sensitive"];
        self.run("pkcs11-tool", &[login.as_slice(), &key].concat())
    }

    /// Destroys a key.
    pub fn destroy_key(&self, label: &str) -> Result<()> {
        let login = ["--module", MODULE, "--token-label", "volvelle", "--login", "--pin", PIN];
        self.run(
            "pkcs11-tool",
            &[login.as_slice(), &["--delete-object", "--type", "secrkey", "--label", label]].concat(),
        )
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Result<()> {
        let mut command = Command::new(program);
        let output = command.args(arguments).env("SOFTHSM2_CONF", self.configuration()).output();
        let output = output.with_context(|| format!("{program} is missing: install softhsm2 and opensc"))?;
        ensure!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }
}

/// Writes a file that only its owner may read.
fn private(path: &Path, text: &str) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path, text)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).context("protecting a file")
}
