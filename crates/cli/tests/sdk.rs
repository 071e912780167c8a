//! The official Python SDK drives the whole flow against a real gateway and a real host.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use volvelle_testkit::{
    gateway::{DevGateway, built_program},
    hosts::{Host, HostKind},
};

#[tokio::test(flavor = "multi_thread")]
async fn the_official_python_sdk_completes_the_flow() -> Result<()> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let python = sdk()?;
    let gateway = DevGateway::start().await?;
    let host = Host::start(HostKind::Debian)?;
    let output = Command::new(python)
        .arg(workspace.join("tests/sdk/flow.py"))
        .args([&gateway.admin.url, &host.addr.ip().to_string()])
        .arg(gateway.data_dir().join("admin.json"))
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(text.contains("flow complete"), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let output = Command::new(sdk()?).arg(workspace.join("tests/sdk/openapi.py")).arg(&gateway.admin.url).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(text.contains("openapi valid"), "{text}{}", String::from_utf8_lossy(&output.stderr));
    println!("{}", text.trim());
    Ok(())
}

/// A virtual environment with the SDK and a validator of OpenAPI documents, made once in the target folder.
fn sdk() -> Result<PathBuf> {
    let program = built_program("volvelle")?;
    let venv = program.parent().and_then(Path::parent).context("the target folder")?.join("sdk-venv");
    let python = venv.join("bin/python");
    let installed = |python: &Path| {
        Command::new(python)
            .args(["-c", "import akeyless, openapi_spec_validator"])
            .output()
            .is_ok_and(|output| output.status.success())
    };
    if !installed(&python) {
        run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
        run(Command::new(venv.join("bin/pip")).args(["install", "-q", "akeyless", "openapi-spec-validator"]))?;
        ensure!(installed(&python), "the SDK was installed but cannot be imported");
    }
    Ok(python)
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("starting {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
