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
}

impl Scheme {
    /// As it is written in a slot's memory.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Yescrypt => "yescrypt",
            Self::Sha512 => "sha512",
        }
    }

    /// The scheme of a slot's memory, of a present field, or of `ENCRYPT_METHOD` in `/etc/login.defs`.
    pub(super) fn named(text: &str) -> Self {
        if text.starts_with("$y$") || text.eq_ignore_ascii_case("yescrypt") { Self::Yescrypt } else { Self::Sha512 }
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

/// Whether `password` is what the field holds; `None` if the field cannot be compared: unknown scheme or damaged.
pub(super) fn holds(field: &Secret, password: &Secret) -> Option<bool> {
    let text = field.expose_str()?;
    if text.is_empty() || text.starts_with(['!', '*']) {
        return Some(false);
    }
    if text.starts_with("$y$") {
        if text.rsplit('$').next().map(str::len) != Some(YESCRYPT_VERIFIER) {
            return None;
        }
        return definite(&Yescrypt::default().verify_password(password.expose(), text));
    }
    if text.starts_with("$5$") || text.starts_with("$6$") {
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
pub(super) fn hash(scheme: Scheme, password: &Secret) -> Option<Secret> {
    // Twelve bytes are the sixteen characters that crypt(3) takes of a `$6$` salt; what is longer it cuts off in silence.
    let mut salt = [0_u8; 16];
    getrandom::fill(&mut salt).ok()?;
    let text = match scheme {
        Scheme::Yescrypt => Yescrypt::default().hash_password_with_salt(password.expose(), &salt).ok()?.to_string(),
        Scheme::Sha512 => ShaCrypt::SHA512.hash_password_with_salt(password.expose(), &salt[..12]).ok()?.to_string(),
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
            assert_eq!(Scheme::named(field.expose_str().expect("text")), scheme);
            assert_eq!(holds(&field, &"one".into()), Some(true));
            assert_eq!(holds(&field, &"two".into()), Some(false));
        }
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
    fn locked_accounts_hold_nothing_and_unknown_schemes_are_not_judged() {
        assert_eq!(holds(&"!".into(), &"x".into()), Some(false));
        assert_eq!(holds(&"$2y$05$abc".into(), &"x".into()), None);
    }

    #[test]
    fn damaged_fields_are_not_judged() {
        let whole = hash(Scheme::Yescrypt, &"one".into()).expect("hashes");
        let whole = whole.expose_str().expect("text");
        let (head, verifier) = whole.rsplit_once('$').expect("has fields");
        for damaged in
            [format!("{head}$"), format!("{head}${}", &verifier[..2]), "$6$".into(), "$5$rounds=1$a$b".into()]
        {
            assert_eq!(holds(&damaged.as_str().into(), &"one".into()), None, "{damaged}");
            assert_eq!(holds(&damaged.as_str().into(), &"two".into()), None, "{damaged}");
        }
    }
}
