//! Profiles: a gateway and an identity under a name, one file each, readable by their owner only.

use std::io::{IsTerminal, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use clap::{Arg, ArgMatches, Command};

use crate::failure::{DENIED, Failed, UNREACHABLE};
use crate::locate::{Login, flag, home, plain};
use crate::{print, secrets, session};

/// The commands.
pub fn commands() -> Vec<Command> {
    let name =
        || Arg::new("name").long("name").short('n').value_name("NAME").required(true).help("name of the profile");
    vec![
        Command::new("configure")
            .about("Writes a profile: which gateway, and who you are there")
            .long_about(
                "Writes a profile: which gateway, and who you are there. What is not given is asked for. The identity is tried \
                 before it is written.",
            )
            .arg(Arg::new("access-id").long("access-id").value_name("ID").help("access id, p-…"))
            .arg(
                Arg::new("access-key")
                    .long("access-key")
                    .value_name("SECRET")
                    .help("access key: - reads standard input, @FILE a file; asked for when left out"),
            )
            .arg(Arg::new("access-type").long("access-type").value_name("TEXT").help("how to sign in: access_key")),
        Command::new("unconfigure").about("Deletes a profile and the tokens kept for it"),
        Command::new("set-default-profile").about("Chooses the profile used when none is named").arg(name()),
        Command::new("get-default-profile").about("Shows the profile used when none is named"),
    ]
}

/// The folder of everything the client keeps.
pub fn folder() -> PathBuf {
    home().join(".volvelle")
}

fn file(name: &str) -> Result<PathBuf, Failed> {
    let good =
        !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || "-_.".contains(c)) && !name.starts_with('.');
    if !good {
        return Err(Failed::usage(
            format!("{name:?} cannot be the name of a profile"),
            "use letters, digits, '-', '_' and '.'",
        ));
    }
    Ok(folder().join("profiles").join(format!("{name}.toml")))
}

/// The name of the profile used when none is named.
pub fn default_name() -> String {
    [".volvelle", ".akeyless"]
        .iter()
        .find_map(|d| std::fs::read_to_string(home().join(d).join("settings")).ok()?.parse::<toml::Table>().ok())
        .and_then(|settings| settings.get("default_profile").and_then(toml::Value::as_str).map(str::to_owned))
        .unwrap_or_else(|| "default".to_owned())
}

/// The profile of that name, own ones before those of the vendor's command line.
pub fn load(name: &str) -> Result<Option<Login>, Failed> {
    let own = file(name)?;
    let theirs = home().join(".akeyless").join("profiles").join(format!("{name}.toml"));
    for file in [own, theirs] {
        let text = match std::fs::read_to_string(&file) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            Err(e) => return Err(Failed::new(format!("cannot read {}: {}", file.display(), plain(&e)), "")),
        };
        let table: toml::Table = text.parse().map_err(|e: toml::de::Error| {
            Failed::new(
                format!("{} is no profile: {}", file.display(), e.message()),
                "`volvelle configure` writes a new one",
            )
        })?;
        let own = table.get(name).and_then(toml::Value::as_table).unwrap_or(&table);
        let field = |name: &str| {
            let value = own.get(name).or_else(|| own.get(&name.replace('_', "-")));
            value.and_then(toml::Value::as_str).unwrap_or_default().to_owned()
        };
        return Ok(Some(Login {
            url: field("gateway_url"),
            id: field("access_id"),
            key: field("access_key"),
            token: None,
            from: format!("profile {name}"),
        }));
    }
    Ok(None)
}

fn chosen(leaf: &ArgMatches) -> String {
    flag(leaf, "profile").unwrap_or_else(|| "default".to_owned())
}

fn asked(what: &str, default: &str) -> Result<String, Failed> {
    if !std::io::stdin().is_terminal() {
        return Err(Failed::usage(format!("--{what} is required"), "without a terminal nothing can be asked for"));
    }
    let question = inquire::Text::new(&format!("{what}:")).with_default(default).prompt();
    question.map_err(|e| Failed::new(format!("{what} was not given: {e}"), ""))
}

/// Runs `volvelle configure`.
pub fn configure(leaf: &ArgMatches) -> Result<(), Failed> {
    let name = chosen(leaf);
    let file = file(&name)?;
    let before = load(&name)?.unwrap_or_default();
    let known = |text: &str, other: &str| if text.is_empty() { other.to_owned() } else { text.to_owned() };
    let url = match flag(leaf, "gateway-url") {
        Some(url) => url,
        None if std::io::stdin().is_terminal() => asked("gateway-url", &known(&before.url, "http://127.0.0.1:8080"))?,
        None => known(&before.url, ""),
    };
    let id = leaf.get_one::<String>("access-id").cloned().map_or_else(|| asked("access-id", &before.id), Ok)?;
    let key = secrets::read("access-key", leaf.get_one::<String>("access-key").map_or("?", String::as_str))?;
    if !url.is_empty() {
        tried(
            leaf,
            &Login { url: url.clone(), id: id.clone(), key: key.clone(), token: None, from: format!("profile {name}") },
        )?;
    }
    let mut table = toml::Table::new();
    for (field, value) in
        [("access_id", id), ("access_key", key), ("access_type", "access_key".to_owned()), ("gateway_url", url)]
    {
        if !value.is_empty() {
            table.insert(field.to_owned(), value.into());
        }
    }
    let mut outer = toml::Table::new();
    outer.insert(name.clone(), table.into());
    private(&file, &outer.to_string())
        .map_err(|e| Failed::new(format!("cannot write {}: {}", file.display(), plain(&e)), ""))?;
    print::line(&format!("Profile {name} successfully configured in {}", file.display()));
    Ok(())
}

/// A wrong key is told at once; a gateway that cannot be reached now may be there later.
fn tried(leaf: &ArgMatches, login: &Login) -> Result<(), Failed> {
    let session = session::Session::new(leaf, login.clone())?;
    match crate::runtime()?.block_on(session.sign_in()) {
        Ok(_) => Ok(()),
        Err(failed) if failed.code == UNREACHABLE => {
            print::warning(&format!("{}; the profile is written without having been tried", failed.message));
            Ok(())
        }
        Err(failed) => Err(Failed::with(
            if failed.code == DENIED { DENIED } else { failed.code },
            format!("{} does not admit {}: {}", login.url, login.id, failed.message),
            "nothing was written; check the access id and the access key",
        )),
    }
}

/// Runs `volvelle unconfigure`.
pub fn unconfigure(leaf: &ArgMatches) -> Result<(), Failed> {
    let name = chosen(leaf);
    let file = file(&name)?;
    let login = load(&name)?.unwrap_or_default();
    std::fs::remove_file(&file)
        .map_err(|e| Failed::new(format!("cannot delete {}: {}", file.display(), plain(&e)), ""))?;
    session::forget(&login.id);
    print::line(&format!("Profile {name} was deleted"));
    Ok(())
}

/// Runs `volvelle set-default-profile`.
pub fn set_default(leaf: &ArgMatches) -> Result<(), Failed> {
    let name = leaf.get_one::<String>("name").map_or("default", String::as_str);
    if load(name)?.is_none() {
        return Err(Failed::with(crate::failure::NOT_FOUND, format!("there is no profile {name}"), ""));
    }
    let mut table = toml::Table::new();
    table.insert("default_profile".to_owned(), name.into());
    let file = folder().join("settings");
    private(&file, &table.to_string())
        .map_err(|e| Failed::new(format!("cannot write {}: {}", file.display(), plain(&e)), ""))?;
    print::line(&format!("Profile {name} is the default now"));
    Ok(())
}

/// Runs `volvelle get-default-profile`.
pub fn show_default() {
    print::line(&default_name());
}

/// Writes a file that nobody else can read, whole or not at all.
pub fn private(file: &Path, text: &str) -> std::io::Result<()> {
    if let Some(dir) = file.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    }
    let part = file.with_extension(format!("{}.part", std::process::id()));
    let written = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&part)
        .and_then(|mut open| open.write_all(text.as_bytes()))
        .and_then(|()| std::fs::rename(&part, file));
    if written.is_err() {
        let _ = std::fs::remove_file(&part);
    }
    written
}
