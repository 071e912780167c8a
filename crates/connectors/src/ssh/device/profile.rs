//! What is different from platform to platform, one file each.

use std::sync::{Arc, LazyLock};

use regex::Regex;
use serde::Deserialize;
use volvelle_domain::Secret;
use volvelle_domain::connector::Failure;

use super::super::config;
use super::super::shadow::{self, Scheme, Verdict};
use super::cisco::{self, Kind};

/// The platforms by the name that `device-type` gives them.
const PROFILES: [(&str, &str); 5] = [
    ("cisco-ios", include_str!("cisco-ios.toml")),
    ("cisco-nxos", include_str!("cisco-nxos.toml")),
    ("arista-eos", include_str!("arista-eos.toml")),
    ("juniper-junos", include_str!("juniper-junos.toml")),
    ("frr", include_str!("frr.toml")),
];

/// How a stored password looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(super) enum Verifier {
    /// Cisco's type 8.
    #[serde(rename = "cisco-8")]
    CiscoType8,
    /// Cisco's type 9.
    #[serde(rename = "cisco-9")]
    CiscoType9,
    /// `$6$`.
    #[serde(rename = "sha512")]
    Sha512,
    /// `$5$`.
    #[serde(rename = "sha256")]
    Sha256,
}

impl Verifier {
    /// The stored form of a password, so that the password itself is never typed.
    pub(super) async fn of(self, password: &Secret) -> Option<Secret> {
        match self {
            Self::CiscoType8 => cisco::hash_aside(Kind::Eight, password).await,
            Self::CiscoType9 => cisco::hash_aside(Kind::Nine, password).await,
            Self::Sha512 => shadow::hash_aside(Scheme::Sha512, password).await,
            Self::Sha256 => shadow::hash_aside(Scheme::Sha256, password).await,
        }
    }

    /// Whether a field has a form that can be compared.
    pub(super) fn compares(field: &Secret) -> bool {
        ["$8$", "$9$", "$5$", "$6$"].iter().any(|start| field.expose().starts_with(start.as_bytes()))
    }

    /// Whether a field holds the password; other forms than these cannot be compared.
    pub(super) async fn judge(field: &Secret, password: &Secret) -> Verdict {
        match Kind::of(field) {
            Some(kind) => cisco::verdict_aside(kind, field, password).await,
            None => shadow::verdict_aside(field, password).await,
        }
    }
}

/// Longest profile of a user.
const LONGEST: usize = 16 * 1024;
/// The name of a platform whose profile the target itself brings.
const OWN: &str = "custom";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    summary: String,
    verifier: Verifier,
    prompt: String,
    enable: String,
    quiet: Vec<String>,
    running: String,
    saved: String,
    field: String,
    configure: String,
    change: String,
    leave: String,
    save: String,
    refused: String,
    kept: String,
    enable_secret: Option<PlaceFile>,
    #[serde(default = "usual_privileged")]
    privileged: String,
    #[serde(default = "usual_configuring")]
    configuring: String,
    trial: Option<Trial>,
    netconf: Option<NetconfFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PlaceFile {
    running: String,
    saved: String,
    field: String,
    change: String,
}

/// Where a stored password is in the configuration.
pub(super) struct Place {
    pub(super) running: String,
    pub(super) saved: String,
    /// Finds the stored password in a line of the configuration.
    field: Regex,
    pub(super) change: String,
}

impl Place {
    fn of(file: PlaceFile, name: &str) -> Result<Self, String> {
        if !file.change.contains("{{VERIFIER}}") {
            return Err(format!("{name}change does not use {{{{VERIFIER}}}}"));
        }
        let field = compiled(&format!("{name}field"), &file.field)?;
        Ok(Self { running: file.running, saved: file.saved, field, change: file.change })
    }

    /// The stored password in what the device showed of its configuration.
    pub(super) fn stored(&self, shown: &str) -> Option<Secret> {
        let found = self.field.captures(shown)?.get(1)?.as_str();
        Some(Secret::from(found))
    }
}

fn compiled(field: &str, text: &str) -> Result<Regex, String> {
    Regex::new(&format!("(?m){text}")).map_err(|_| format!("{field} is no regular expression"))
}

fn usual_privileged() -> String {
    "#\\s*$".to_owned()
}

fn usual_configuring() -> String {
    "\\(config".to_owned()
}

/// How a change is made that the device takes back by itself if nobody confirms it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Trial {
    /// Makes the change for a time; `save` confirms it.
    pub(super) attempt: String,
    /// Takes it back at once.
    pub(super) undo: Vec<String>,
    /// Forgets a change that was not made yet.
    pub(super) abandon: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NetconfFile {
    read: String,
    field: String,
    change: String,
}

/// The platform over NETCONF (RFC 6241).
pub(super) struct Netconf {
    /// The part of the configuration that holds the user, as a subtree filter.
    pub(super) read: String,
    /// Finds the stored password in it.
    pub(super) field: Regex,
    /// The part of the configuration with the new one.
    pub(super) change: String,
}

/// One platform.
pub(super) struct Profile {
    name: &'static str,
    pub(super) summary: String,
    pub(super) verifier: Verifier,
    /// The last line when the device waits for a command.
    pub(super) prompt: Regex,
    pub(super) enable: String,
    pub(super) quiet: Vec<String>,
    /// The password of a user.
    pub(super) user: Place,
    /// The secret of the privileged mode.
    pub(super) enable_secret: Option<Place>,
    pub(super) configure: String,
    pub(super) leave: String,
    pub(super) save: String,
    /// Finds the device's own words when it refuses.
    pub(super) refused: Regex,
    /// What the device says when the configuration is saved.
    pub(super) kept: Regex,
    /// A prompt where commands that read everything are admitted.
    pub(super) privileged: Regex,
    /// A prompt of the configuration mode.
    pub(super) configuring: Regex,
    pub(super) trial: Option<Trial>,
    pub(super) netconf: Option<Netconf>,
}

static ALL: LazyLock<Vec<Arc<Profile>>> = LazyLock::new(|| {
    let own = |(name, text): &(&'static str, &str)| {
        Arc::new(read(name, text).expect("the profiles are part of the program, and a test reads them all"))
    };
    PROFILES.iter().map(own).collect()
});

fn read(name: &'static str, text: &str) -> Result<Profile, String> {
    let file: File = toml::from_str(text).map_err(|error| error.message().to_owned())?;
    let netconf = match file.netconf {
        Some(part) if !part.change.contains("{{VERIFIER}}") => {
            return Err("netconf.change lacks {{VERIFIER}}".to_owned());
        }
        Some(part) => {
            Some(Netconf { read: part.read, field: compiled("netconf.field", &part.field)?, change: part.change })
        }
        None => None,
    };
    let user = PlaceFile { running: file.running, saved: file.saved, field: file.field, change: file.change };
    let enable_secret = file.enable_secret.map(|place| Place::of(place, "enable_secret.")).transpose()?;
    Ok(Profile {
        name,
        verifier: file.verifier,
        prompt: compiled("prompt", &file.prompt)?,
        user: Place::of(user, "")?,
        enable_secret,
        refused: compiled("refused", &file.refused)?,
        kept: compiled("kept", &file.kept)?,
        privileged: compiled("privileged", &file.privileged)?,
        configuring: compiled("configuring", &file.configuring)?,
        trial: file.trial,
        netconf,
        summary: file.summary,
        enable: file.enable,
        quiet: file.quiet,
        configure: file.configure,
        leave: file.leave,
        save: file.save,
    })
}

/// The platform called `name`; for `custom`, the one that `text` describes.
pub(super) fn named(name: &str, text: &str) -> Result<Arc<Profile>, Failure> {
    if name == OWN {
        let read = if text.len() > LONGEST { Err("it is too long".to_owned()) } else { read(OWN, text) };
        return read.map(Arc::new).map_err(|why| {
            config(format!("device-profile cannot be used: {why}"), "docs/targets/devices.md shows one")
        });
    }
    ALL.iter().find(|profile| profile.name == name).cloned().ok_or_else(|| {
        let names: Vec<&str> = PROFILES.iter().map(|(name, _)| *name).collect();
        let hint = format!("set device-type to one of {}, or to custom with device-profile", names.join(", "));
        config(format!("device-type {name:?} is unknown"), hint)
    })
}

impl Profile {
    /// Where the password is that a rotator type changes.
    pub(super) fn place(&self, rotator_type: &str) -> Result<&Place, Failure> {
        if rotator_type != "enable" {
            return Ok(&self.user);
        }
        self.enable_secret.as_ref().ok_or_else(|| {
            config(format!("{} has no enable secret that is rotated", self.summary), "use rotator-type password")
        })
    }

    /// The device's own words, if it refused.
    pub(super) fn refusal(&self, said: &str) -> Option<String> {
        let found = self.refused.captures(said)?;
        let words = found.iter().skip(1).flatten().next()?.as_str();
        Some(words.chars().filter(|c| !c.is_control()).take(120).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_profile_can_be_read_and_knows_its_prompt() {
        assert_eq!(ALL.len(), PROFILES.len());
        for profile in ALL.iter() {
            let configuring = if profile.trial.is_some() { "app1@core-1# " } else { "core-1.example(config)#" };
            assert!(profile.configuring.is_match(configuring) && !profile.configuring.is_match("sw1>"));
            for prompt in ["sw1>", "sw1# ", configuring] {
                assert!(profile.prompt.is_match(prompt), "{} {prompt}", profile.summary);
            }
            for other in ["Password: ", "100% done", "line vty 0 4", "a b#"] {
                assert!(!profile.prompt.is_match(other), "{} {other}", profile.summary);
            }
            assert!(profile.user.change.contains("{{VERIFIER}}") && !profile.user.change.contains("PASSWORD"));
        }
        assert!(named("cisco-ios", "").is_ok() && named("none", "").is_err());
        assert!(named("custom", PROFILES[0].1).is_ok());
        for wrong in ["", "x = 1", &PROFILES[0].1.replace("'^username", "'(username")] {
            let failure = named("custom", wrong).err().expect("no profile");
            assert!(failure.message.starts_with("device-profile cannot be used"), "{failure:?}");
        }
    }

    #[test]
    fn stored_passwords_are_found_in_their_lines() {
        let of = |name: &str, line: &str| {
            named(name, "")
                .ok()
                .and_then(|p| p.user.stored(line))
                .map(|s| s.expose_str().unwrap_or_default().to_owned())
        };
        let found = |text: &str| Some(text.to_owned());
        assert_eq!(of("cisco-ios", "username app1 privilege 15 secret 8 $8$a$b"), found("$8$a$b"));
        assert_eq!(of("cisco-ios", "username app1 secret 9 $9$a$b"), found("$9$a$b"));
        assert_eq!(of("cisco-nxos", "username app1 password 5 $5$a$b  role network-admin"), found("$5$a$b"));
        assert_eq!(of("arista-eos", "username app1 privilege 1 role x secret sha512 $6$a$b"), found("$6$a$b"));
        assert_eq!(of("cisco-ios", "% Invalid input"), None);
        let enable = named("cisco-ios", "").ok().and_then(|p| p.place("enable").ok()?.stored("enable secret 9 $9$a$b"));
        assert!(enable.is_some_and(|field| field.ct_eq(&"$9$a$b".into())));
        for line in ["enable password sha512 $6$a$b", "enable secret sha512 $6$a$b", "enable password 5 $6$a$b"] {
            let field = named("arista-eos", "").ok().and_then(|p| p.place("enable").ok()?.stored(line));
            assert!(field.is_some_and(|field| field.ct_eq(&"$6$a$b".into())), "{line}");
        }
        assert!(named("juniper-junos", "").is_ok_and(|p| p.place("enable").is_err()));
        let line = "set system login user app1 authentication encrypted-password \"$6$a$b\"";
        assert_eq!(of("juniper-junos", line), found("$6$a$b"));
    }
}
