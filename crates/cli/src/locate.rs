//! Which gateway is asked, and as whom. An access id and its key always come from the same place: a key is never sent
//! together with an id, or to a gateway, that was found somewhere else and not asked for.

use std::path::{Path, PathBuf};

use clap::ArgMatches;
use serde_json::Value;

use crate::failure::{DENIED, Failed};
use crate::{profile, secrets, serve};

/// Folder of a `volvelle dev`.
pub const DATA_DIR: &[&str] = &["VOLVELLE_DATA_DIR"];
/// Environment variables in the order in which they are looked at: own names first.
pub const URL: &[&str] = &["VOLVELLE_GATEWAY_URL", "AKEYLESS_GATEWAY_URL", "AKEYLESS_GATEWAY"];
/// Access id.
pub const ACCESS_ID: &[&str] = &["VOLVELLE_ACCESS_ID", "AKEYLESS_ACCESS_ID"];
/// Access key.
pub const ACCESS_KEY: &[&str] = &["VOLVELLE_ACCESS_KEY", "AKEYLESS_ACCESS_KEY"];
/// A token that was got elsewhere.
pub const TOKEN: &[&str] = &["VOLVELLE_TOKEN", "AKEYLESS_AUTH_TOKEN"];
/// Name of the profile.
pub const PROFILE: &[&str] = &["VOLVELLE_PROFILE", "AKEYLESS_DEFAULT_PROFILE"];
/// An additional trusted root.
pub const CA_CERT: &[&str] = &["VOLVELLE_CA_CERT", "AKEYLESS_TRUSTED_TLS_CERTIFICATE_FILE"];

/// A gateway and an identity.
#[derive(Clone, Default)]
pub struct Login {
    /// Base address.
    pub url: String,
    /// Access id; empty when there is none.
    pub id: String,
    /// Access key.
    pub key: String,
    /// A ready token, which is used as it is.
    pub token: Option<String>,
    /// Where this was found, for messages.
    pub from: String,
}

/// A global flag.
pub fn flag(leaf: &ArgMatches, name: &str) -> Option<String> {
    leaf.get_one::<String>(&format!("g:{name}")).cloned()
}

/// The first of these variables that is set and not empty.
pub fn env(names: &[&str]) -> Option<String> {
    names.iter().find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
}

/// The user's home folder.
pub fn home() -> PathBuf {
    etcetera::home_dir().unwrap_or_default()
}

/// Finds the gateway and the identity: the data folder, a profile that was named, the environment, the default profile, and at
/// last the folder of `volvelle dev`.
pub fn login(leaf: &ArgMatches) -> Result<Login, Failed> {
    let mut login = found(leaf)?;
    if let Some(url) = flag(leaf, "gateway-url") {
        login.url = url;
    }
    if let Some(token) =
        flag(leaf, "token").map(|given| secrets::read("token", &given)).transpose()?.or_else(|| env(TOKEN))
    {
        login.token = Some(token);
    }
    if login.url.is_empty() {
        return Err(Failed::with(
            DENIED,
            "no gateway is known",
            "give --data-dir DIR of a running `volvelle dev`, run `volvelle configure`, or set VOLVELLE_GATEWAY_URL, \
             VOLVELLE_ACCESS_ID and VOLVELLE_ACCESS_KEY",
        ));
    }
    login.url = base(&login.url)?;
    Ok(login)
}

fn found(leaf: &ArgMatches) -> Result<Login, Failed> {
    // A profile that was named on the command line counts more than a folder in the environment.
    let dir = flag(leaf, "data-dir").or_else(|| env(DATA_DIR).filter(|_| flag(leaf, "profile").is_none()));
    if let Some(dir) = dir {
        return admin(Path::new(&dir));
    }
    if let Some(name) = flag(leaf, "profile").or_else(|| env(PROFILE)) {
        let mut login = profile::load(&name)?.ok_or_else(|| {
            Failed::new(format!("there is no profile {name}"), "`volvelle configure --profile NAME` writes one")
        })?;
        if login.url.is_empty() {
            login.url = env(URL).unwrap_or_default();
        }
        return Ok(login);
    }
    let mut login = match (env(ACCESS_ID), env(TOKEN).or_else(|| flag(leaf, "token"))) {
        (None, None) => profile::load(&profile::default_name())?.unwrap_or_default(),
        (id, _) => Login {
            id: id.unwrap_or_default(),
            key: env(ACCESS_KEY).unwrap_or_default(),
            from: "the environment".to_owned(),
            ..Login::default()
        },
    };
    if let Some(url) = env(URL) {
        login.url = url;
    }
    let local = serve::default_dir();
    if login.id.is_empty() && login.url.is_empty() && local.join("admin.json").exists() {
        return admin(&local);
    }
    if login.url.is_empty() && !login.id.is_empty() {
        login.url = "http://127.0.0.1:8080".to_owned();
    }
    Ok(login)
}

/// The administrator of a `volvelle dev` on this machine.
fn admin(dir: &Path) -> Result<Login, Failed> {
    let file = dir.join("admin.json");
    let text = std::fs::read_to_string(&file).map_err(|e| {
        let shown = dir.display();
        let hint = match e.kind() {
            std::io::ErrorKind::PermissionDenied => "it belongs to the user who runs `volvelle dev`".to_owned(),
            _ => format!("start `volvelle dev --data-dir {shown}` first"),
        };
        Failed::new(format!("cannot read {}: {}", file.display(), plain(&e)), hint)
    })?;
    let admin: Value = serde_json::from_str(&text)
        .map_err(|_| Failed::new(format!("{} is not the file of a gateway", file.display()), ""))?;
    let field = |name: &str| admin[name].as_str().unwrap_or_default().to_owned();
    Ok(Login {
        url: field("url"),
        id: field("access_id"),
        key: field("access_key"),
        token: None,
        from: dir.display().to_string(),
    })
}

/// An error of the file system without its number.
pub fn plain(error: &std::io::Error) -> String {
    error.to_string().split(" (os error").next().unwrap_or_default().to_lowercase()
}

/// The address without what other clients append to it.
fn base(url: &str) -> Result<String, Failed> {
    if !url.starts_with("http://") && !url.starts_with("https://") {
        return Err(Failed::usage(
            format!("{url} is no address of a gateway"),
            "it begins with https:// (or http:// on this machine)",
        ));
    }
    let url = url.trim_end_matches('/');
    Ok(url.strip_suffix("/api/v1").unwrap_or(url).to_owned())
}

/// Whether what is sent there can be read on the way.
pub fn is_open(url: &str) -> bool {
    let Some(rest) = url.strip_prefix("http://") else { return false };
    let authority = rest.split('/').next().unwrap_or_default();
    let host = match authority.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => authority.rsplit_once(':').map_or(authority, |(host, _)| host),
    };
    host != "localhost" && !host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::{base, is_open};

    #[test]
    fn addresses_of_other_clients_are_understood() {
        assert_eq!(base("https://gw:8000/api/v1").expect("an address"), "https://gw:8000");
        assert_eq!(base("https://gw:8000/api/v2/").expect("an address"), "https://gw:8000/api/v2");
        assert!(base("gw:8000").is_err());
    }

    #[test]
    fn plain_http_beyond_this_machine_is_open() {
        assert!(is_open("http://gw:8080"));
        assert!(!is_open("https://gw"));
        assert!(!is_open("http://127.0.0.1:8080/v2"));
        assert!(!is_open("http://[::1]:8080"));
    }
}
