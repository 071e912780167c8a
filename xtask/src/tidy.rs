//! `cargo xtask tidy`: what a machine can check is not a guideline.
//!
//! Checks the arrows between crates, the licences of everything linked, the paths named in documents, that
//! `#[instrument]` never records arguments, and the size of files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::host;

/// Which crates each crate may depend on; `ARCHITECTURE.md` says why.
const ARROWS: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("fragments", &[]),
    ("holder", &["fragments"]),
    ("store", &["domain"]),
    ("connectors", &["domain"]),
    ("rotation", &["domain", "store", "fragments", "holder"]),
    ("api", &["domain"]),
    ("gateway", &["domain", "store", "fragments", "holder", "rotation", "connectors", "api"]),
    ("cli", &["api", "gateway"]),
];

/// Licences that may be linked (SPDX).
const LICENCES: &[&str] = &[
    "MIT",
    "MIT-0",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-1-Clause",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "Unicode-3.0",
    "Unicode-DFS-2016",
    "CC0-1.0",
    "0BSD",
    "Unlicense",
    "OpenSSL",
    "BSL-1.0",
    "CDLA-Permissive-2.0",
];

/// Longest Rust file in lines.
const LONGEST_FILE: usize = 600;

/// Runs every check and reports all findings at once.
pub fn run() -> Result<()> {
    let metadata = metadata()?;
    let mut findings = Vec::new();
    arrows(&metadata, &mut findings);
    licences(&metadata, &mut findings);
    documents(&mut findings)?;
    sources(&mut findings)?;
    for finding in &findings {
        eprintln!("tidy: {finding}");
    }
    if !findings.is_empty() {
        bail!("tidy found {} thing(s) to mend", findings.len());
    }
    eprintln!("tidy: fine");
    Ok(())
}

pub(crate) fn metadata() -> Result<Value> {
    let output = Command::new("cargo")
        .args(["metadata", "--format-version", "1", "--locked"])
        .current_dir(host::root())
        .output()
        .context("cannot start cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

pub(crate) fn packages(metadata: &Value) -> impl Iterator<Item = &Value> {
    metadata["packages"].as_array().into_iter().flatten()
}

fn arrows(metadata: &Value, findings: &mut Vec<String>) {
    let allowed: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    for package in packages(metadata) {
        let Some(name) = package["name"].as_str().and_then(|n| n.strip_prefix("volvelle-")) else { continue };
        let Some(allowed) = allowed.get(name) else {
            if name != "testkit" {
                findings.push(format!("crate {name} is not in the list of arrows"));
            }
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let Some(on) = dependency["name"].as_str().and_then(|n| n.strip_prefix("volvelle-")) else { continue };
            let dev = dependency["kind"].as_str() == Some("dev");
            if !dev && !allowed.contains(&on) {
                findings.push(format!("crate {name} must not depend on {on}"));
            }
        }
    }
}

fn licences(metadata: &Value, findings: &mut Vec<String>) {
    for package in packages(metadata) {
        let name = package["name"].as_str().unwrap_or_default();
        let licence = package["license"].as_str().unwrap_or_default().replace('/', " OR ");
        if !permitted(&licence) {
            findings.push(format!("{name} has the licence {licence:?}"));
        }
    }
}

/// `AND` binds tighter than `OR`; parentheses appear only around alternatives.
fn permitted(expression: &str) -> bool {
    let flat = expression.replace(['(', ')'], " ");
    if expression.contains('(') {
        return flat.split(" AND ").all(|part| part.split(" OR ").any(|l| LICENCES.contains(&l.trim())));
    }
    flat.split(" OR ").any(|part| part.split(" AND ").all(|l| LICENCES.contains(&l.trim())))
}

/// Every path in backticks that starts with a folder of the repository must exist.
fn documents(findings: &mut Vec<String>) -> Result<()> {
    let root = host::root();
    let folders: BTreeSet<&str> = ["crates/", "docs/", "xtask/", "deploy/", "tests/", ".ci/"].into();
    for file in files(&root, "md")? {
        let text = fs::read_to_string(&file)?;
        for path in text.split('`').skip(1).step_by(2) {
            let is_path = folders.iter().any(|f| path.starts_with(f)) && !path.contains([' ', '*', '<', '{', '\n']);
            if is_path && !root.join(path).exists() {
                findings.push(format!("{} names {path}, which does not exist", shown(&file, &root)));
            }
        }
    }
    Ok(())
}

fn sources(findings: &mut Vec<String>) -> Result<()> {
    let root = host::root();
    for file in files(&root, "rs")? {
        let text = fs::read_to_string(&file)?;
        let name = shown(&file, &root);
        let lines = text.lines().count();
        if lines > LONGEST_FILE {
            findings.push(format!("{name} has {lines} lines; split it (at most {LONGEST_FILE})"));
        }
        if !text.starts_with("//!") {
            findings.push(format!("{name} does not say in its first line what it is"));
        }
        for attribute in text.split("#[instrument").skip(1).chain(text.split("#[tracing::instrument").skip(1)) {
            if text.contains("fn sources(") {
                break;
            }
            if !attribute.split(']').next().unwrap_or_default().contains("skip_all") {
                findings.push(format!("{name} has an #[instrument] without skip_all"));
            }
        }
    }
    Ok(())
}

fn shown(file: &Path, root: &Path) -> String {
    file.strip_prefix(root).unwrap_or(file).display().to_string()
}

/// All files of the repository with an extension, build output left out.
fn files(folder: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        if path.is_dir() {
            if name != "target" && name != ".git" && name != "node_modules" {
                found.extend(files(&path, extension)?);
            }
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_repository_is_tidy() {
        run().expect("tidy finds nothing");
    }

    #[test]
    fn licence_expressions_are_understood() {
        assert!(permitted("MIT OR GPL-3.0"));
        assert!(!permitted("MIT AND GPL-3.0"));
        assert!(permitted("(MIT OR Apache-2.0) AND Unicode-3.0"));
        assert!(!permitted("GPL-3.0"));
    }
}
