//! Virtual environments with packages from PyPI, made once in the target folder and shared by all test binaries.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};

/// The Python of an environment of this name with these packages; `import` proves that they are there.
pub fn venv(name: &str, packages: &[&str], import: &str) -> Result<PathBuf> {
    made(name, &[packages], import)
}

/// The same, where what the first package says it needs cannot be installed: the others are what it really needs.
pub fn venv_without_deps(name: &str, packages: &[&str], import: &str) -> Result<PathBuf> {
    let (first, others) = packages.split_first().context("a package")?;
    made(name, &[&["--no-deps", first], others], import)
}

/// An environment with Playwright and axe, for Debian's Chromium.
pub fn playwright() -> Result<PathBuf> {
    let packages = ["playwright==1.65.2", "axe-playwright-python==0.1.8"];
    venv("console-venv", &packages, "import playwright.sync_api, axe_playwright_python")
}

/// The environments that this process has seen whole: the proof costs a second.
static SEEN: Mutex<BTreeMap<String, PathBuf>> = Mutex::new(BTreeMap::new());

fn made(name: &str, calls: &[&[&str]], import: &str) -> Result<PathBuf> {
    if let Some(python) = SEEN.lock().unwrap_or_else(PoisonError::into_inner).get(name) {
        return Ok(python.clone());
    }
    let python = make(name, calls, import)?;
    SEEN.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), python.clone());
    Ok(python)
}

fn make(name: &str, calls: &[&[&str]], import: &str) -> Result<PathBuf> {
    let program = std::env::current_exe().context("where this program is")?;
    // target/debug/deps/TEST, or target/release/PROGRAM.
    let depth = if program.parent().is_some_and(|folder| folder.ends_with("deps")) { 3 } else { 2 };
    let target = program.ancestors().nth(depth).context("the target folder")?;
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
        for packages in calls {
            run(Command::new(folder.join("bin/pip")).args(["install", "-q"]).args(*packages))?;
        }
        ensure!(installed(), "what {name} is made of was installed but cannot be imported");
    }
    Ok(python)
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("starting {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
