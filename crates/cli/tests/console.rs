//! The console in a real browser, Debian's Chromium, against a real gateway and real hosts. Each case is a function of
//! `console/cases.py`, which fails with a sentence; every case counts what the browser forbade and what else was wrong with the pages.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use volvelle_testkit::{
    gateway::{DevGateway, built_program},
    hosts::{Host, HostKind},
    python,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_first_time_visitor_gets_to_a_rotated_root_password() -> Result<()> {
    case("first_use").await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_out_of_sync_secret_is_repaired() -> Result<()> {
    case("repair").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_protection_key_is_chosen_in_the_forms_and_a_missing_fragment_is_told() -> Result<()> {
    case("keys").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_change_takes_effect() -> Result<()> {
    case("roles").await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_is_accessible_and_small_in_both_colours() -> Result<()> {
    case("tour").await
}

/// One browser at a time: two are too many for a small machine.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

async fn case(name: &str) -> Result<()> {
    let _alone = ALONE.lock().await;
    let python = python::playwright()?;
    let gateway = DevGateway::start().await?;
    let host = Host::start(HostKind::Debian)?;
    // Logging in takes a second, so that a rotation lasts long enough to be watched.
    host.exec("echo 'session optional pam_exec.so /bin/sleep 1' >> /etc/pam.d/sshd")?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/console/cases.py");
    let output = Command::new(python)
        .arg(script)
        .args([name, &gateway.admin.url, &host.addr.ip().to_string()])
        .arg(gateway.data_dir())
        .arg(target_folder()?.join("console-screenshots"))
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{text}");
    let end = text.trim_end().ends_with("the case is complete");
    ensure!(output.status.success() && end, "{text}{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn target_folder() -> Result<PathBuf> {
    let program = built_program("volvelle")?;
    Ok(program.parent().and_then(Path::parent).context("the target folder")?.to_owned())
}
