//! The field of `/etc/shadow`: read it, compare it with passwords, compute a new one.

use sha_crypt::ShaCrypt;
use volvelle_domain::Secret;
use yescrypt::password_hash::Error;
use yescrypt::{PasswordHasher as _, PasswordVerifier as _, Yescrypt};

/// How a host stores passwords.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    /// `$y$`, Debian's and Fedora's default.
    Yescrypt,
    /// `$6$`, everywhere else.
    Sha512,
    /// `$5$`, on some devices.
    Sha256,
}

impl Scheme {
    /// As it is written in a slot's memory.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Yescrypt => "yescrypt",
            Self::Sha512 => "sha512",
            Self::Sha256 => "sha256",
        }
    }

    /// The scheme of a slot's memory, of a present field, or of `ENCRYPT_METHOD` in `/etc/login.defs`; `None` if it is one
    /// that we do not compute.
    pub(super) fn named(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        if text.starts_with("$y$") || text == "yescrypt" {
            return Some(Self::Yescrypt);
        }
        let foreign = ["$2", "$gy$", "$7$", "$sm3$"].iter().any(|prefix| text.starts_with(prefix));
        (!foreign && text != "bcrypt" && text != "blowfish").then_some(Self::Sha512)
    }
}

/// The password field of `user` in lines of `/etc/shadow`.
pub(super) fn field(lines: &Secret, user: &str) -> Option<Secret> {
    let text = lines.expose_str()?;
    let line = text.lines().find_map(|line| line.strip_prefix(user)?.strip_prefix(':'))?;
    Some(Secret::from(line.split(':').next().unwrap_or_default()))
}

/// Characters of a yescrypt verifier; a shorter one is damaged and would compare equal to too much.
const YESCRYPT_VERIFIER: usize = 43;

/// Most characters of salt that a host's `crypt` takes for SHA; with more in the field, no password would match there.
const SHA_SALT: usize = 16;

/// What a field says of a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is the password's.
    Holds,
    /// It is definitely not.
    Differs,
    /// It is, behind a lock that lets nobody in.
    Locked,
    /// It cannot be compared: unknown scheme or damaged.
    Unknown,
}

/// Whether the field is a verifier behind a lock (`usermod -L`), and not simply no password.
pub(super) fn is_locked(field: &Secret) -> bool {
    field.expose_str().is_some_and(|text| text.starts_with('!') && text.trim_start_matches('!').starts_with('$'))
}

/// [`verdict`] where it keeps nobody waiting: a comparison takes tens of milliseconds of processor time by design.
pub(super) async fn verdict_aside(field: &Secret, password: &Secret) -> Verdict {
    let (field, password) = (field.clone(), password.clone());
    tokio::task::spawn_blocking(move || verdict(&field, &password)).await.unwrap_or(Verdict::Unknown)
}

/// [`hash`] where it keeps nobody waiting.
pub(super) async fn hash_aside(scheme: Scheme, password: &Secret) -> Option<Secret> {
    let password = password.clone();
    tokio::task::spawn_blocking(move || hash(scheme, &password)).await.ok().flatten()
}

fn verdict(field: &Secret, password: &Secret) -> Verdict {
    let Some(text) = field.expose_str() else { return Verdict::Unknown };
    let open = text.trim_start_matches('!');
    if open.is_empty() || text.starts_with('*') {
        return Verdict::Differs;
    }
    match compare(open, password) {
        Some(true) if open.len() < text.len() => Verdict::Locked,
        Some(true) => Verdict::Holds,
        Some(false) => Verdict::Differs,
        None => Verdict::Unknown,
    }
}

fn compare(text: &str, password: &Secret) -> Option<bool> {
    if text.starts_with("$y$") {
        if text.rsplit('$').next().map(str::len) != Some(YESCRYPT_VERIFIER) {
            return None;
        }
        return definite(&Yescrypt::default().verify_password(password.expose(), text));
    }
    if text.starts_with("$5$") || text.starts_with("$6$") {
        if text.split('$').rev().nth(1).is_none_or(|salt| salt.len() > SHA_SALT) {
            return None;
        }
        return definite(&ShaCrypt::SHA512.verify_password(password.expose(), text));
    }
    None
}

/// Only a comparison that was really made says no; a field that could not be parsed says nothing.
fn definite(compared: &Result<(), Error>) -> Option<bool> {
    match compared {
        Ok(()) => Some(true),
        Err(Error::PasswordInvalid) => Some(false),
        Err(_) => None,
    }
}

/// A field for `password` with a fresh salt.
fn hash(scheme: Scheme, password: &Secret) -> Option<Secret> {
    // Twelve bytes are the sixteen characters that crypt(3) takes of a `$6$` salt; what is longer it cuts off in silence.
    let mut salt = [0_u8; 16];
    getrandom::fill(&mut salt).ok()?;
    // Four characters are made of three bytes.
    let short = &salt[..SHA_SALT / 4 * 3];
    let text = match scheme {
        Scheme::Yescrypt => Yescrypt::default().hash_password_with_salt(password.expose(), &salt).ok()?.to_string(),
        Scheme::Sha512 => ShaCrypt::SHA512.hash_password_with_salt(password.expose(), short).ok()?.to_string(),
        Scheme::Sha256 => ShaCrypt::SHA256.hash_password_with_salt(password.expose(), short).ok()?.to_string(),
    };
    Some(Secret::from(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_computed_field_holds_its_password_and_no_other() {
        for scheme in [Scheme::Yescrypt, Scheme::Sha512] {
            let field = hash(scheme, &"one".into()).expect("hashes");
            assert_eq!(Scheme::named(field.expose_str().expect("text")), Some(scheme));
            assert_eq!(verdict(&field, &"one".into()), Verdict::Holds);
            assert_eq!(verdict(&field, &"two".into()), Verdict::Differs);
            let locked = Secret::from(format!("!{}", field.expose_str().expect("text")));
            assert!(is_locked(&locked) && !is_locked(&field));
            assert_eq!(verdict(&locked, &"one".into()), Verdict::Locked);
            assert_eq!(verdict(&locked, &"two".into()), Verdict::Differs);
        }
    }

    #[test]
    fn the_hosts_own_crypt_agrees() {
        for scheme in [Scheme::Yescrypt, Scheme::Sha512, Scheme::Sha256] {
            let field = hash(scheme, &"Agreed-1".into()).expect("hashes");
            let text = field.expose_str().expect("text");
            let mut perl = std::process::Command::new("perl");
            let output = perl.args(["-e", "print crypt('Agreed-1', $ARGV[0])", text]).output().expect("perl runs");
            assert_eq!(String::from_utf8_lossy(&output.stdout), text);
        }
        let long = "$6$rounds=5000$qQsw7d0XysKDc3yioGjm00$CGmfEIGcaVaBxWmewz1qmX96mn9aYs59x6KT3ou43L2ImmRLSC7kaR6ZB.oWzJZKtAp.UiUjbYgOop/vhKREE0";
        assert_eq!(verdict(&long.into(), &"Abc123".into()), Verdict::Unknown, "no host would take it");
    }

    #[test]
    fn the_systems_own_crypt_computes_the_same_field() {
        for scheme in [Scheme::Yescrypt, Scheme::Sha512] {
            for password in ["one", "Canary-8f2c61d0-Passw0rd!", "p\u{e4}ss word,~^"] {
                let field = hash(scheme, &password.into()).expect("hashes");
                let theirs = std::process::Command::new("perl")
                    .args(["-e", "print crypt($ENV{P}, $ENV{H})"])
                    .env("P", password)
                    .env("H", field.expose_str().expect("text"))
                    .output()
                    .expect("perl runs");
                assert_eq!(Some(String::from_utf8_lossy(&theirs.stdout).as_ref()), field.expose_str(), "{scheme:?}");
            }
        }
    }

    #[test]
    fn the_right_line_is_found() {
        let lines = Secret::from("root2:$6$x:1\nroot:$y$z:19:0\n");
        assert_eq!(field(&lines, "root").and_then(|f| f.expose_str().map(str::to_owned)), Some("$y$z".into()));
        assert!(field(&lines, "nobody").is_none());
    }

    #[test]
    fn accounts_without_a_password_hold_none_and_unknown_schemes_are_not_judged() {
        for none in ["!", "!!", "*", "!*", ""] {
            assert_ne!(verdict(&none.into(), &"x".into()), Verdict::Holds, "{none}");
            assert!(!is_locked(&none.into()), "{none}");
        }
        assert_eq!(verdict(&"$2y$05$abc".into(), &"x".into()), Verdict::Unknown);
        assert_eq!(Scheme::named("$2y$05$abc"), None);
    }

    #[test]
    fn damaged_fields_are_not_judged() {
        let whole = hash(Scheme::Yescrypt, &"one".into()).expect("hashes");
        let whole = whole.expose_str().expect("text");
        let (head, verifier) = whole.rsplit_once('$').expect("has fields");
        for damaged in
            [format!("{head}$"), format!("{head}${}", &verifier[..2]), "$6$".into(), "$5$rounds=1$a$b".into()]
        {
            assert_eq!(verdict(&damaged.as_str().into(), &"one".into()), Verdict::Unknown, "{damaged}");
            assert_eq!(verdict(&damaged.as_str().into(), &"two".into()), Verdict::Unknown, "{damaged}");
        }
    }
}
