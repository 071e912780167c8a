//! Virtual environments with packages from PyPI, made once in the target folder and shared by all test binaries.

use std::fs::File;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// The Python of an environment of this name with these packages; `import` proves that they are there.
pub fn venv(name: &str, packages: &[&str], import: &str) -> Result<PathBuf> {
    let test = std::env::current_exe().context("where the test is")?;
    let target = test.ancestors().nth(3).context("the target folder")?;
    let folder = target.join(name);
    let python = folder.join("bin/python");
    let installed = || Command::new(&python).args(["-c", import]).output().is_ok_and(|output| output.status.success());
    if installed() {
        return Ok(python);
    }
    let lock = File::create(target.join(format!("{name}.lock"))).context("opening the install lock")?;
    lock.lock().context("waiting for another installation")?;
    if !installed() {
        run(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
        run(Command::new(folder.join("bin/pip")).args(["install", "-q"]).args(packages))?;
        ensure!(installed(), "{} was installed but cannot be imported", packages.join(" "));
    }
    Ok(python)
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("starting {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
