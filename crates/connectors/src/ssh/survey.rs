//! Everything preflight wants to know of a host, asked in one command.

use volvelle_domain::connector::Failure;
use volvelle_domain::{Credential, Secret};

use super::policy::Demands;
use super::session::Ran;
use super::shadow::{self, Scheme};
use super::visit::{Inside, Visit};

/// How the acting user becomes root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rise {
    /// It is root.
    Root,
    /// sudo asks nothing.
    Sudo,
    /// sudo asks for the acting user's password.
    SudoPassword,
    /// Not at all.
    Never,
}

impl Rise {
    const ALL: [(Self, &str); 4] =
        [(Self::Root, "root"), (Self::Sudo, "sudo"), (Self::SudoPassword, "sudo-password"), (Self::Never, "never")];

    pub(super) fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(rise, _)| *rise == self).map_or("never", |(_, name)| name)
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, n)| *n == name).map(|(rise, _)| *rise)
    }
}

/// What a host can do about changing a password without a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chpasswd {
    /// It takes hashes.
    Hashes,
    /// It takes passwords only.
    Passwords,
    /// The acting user has none.
    Absent,
}

/// Start of every script. It reads the account, the account as a pattern, the password for sudo and the way to become root.
///
/// `say` writes its argument with what the shell has built in, so that it is in no process list; `as` runs a command as root,
/// giving sudo its password before the command's own input.
pub(super) const PROLOGUE: &str = r#"
LC_ALL=C; export LC_ALL; PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin;
IFS= read -r u; IFS= read -r e; IFS= read -r P; IFS= read -r rise;
if [ "$(command -v printf)" = printf ]; then say() { printf '%s\n' "$1"; }; else say() { print -r -- "$1"; }; fi;
as() { case $rise in
sudo) sudo -n "$@" ;;
sudo-password) { say "$P"; cat; } | sudo -k -S -p '' "$@" ;;
*) "$@" ;; esac; };
field() { [ "$rise" = never ] || as grep "^$e:" /etc/shadow </dev/null 2>/dev/null; };
"#;

const SURVEY: &str = r#"
if [ "$(id -u)" = 0 ]; then rise=root; else for how in sudo sudo-password; do
[ "$how" = sudo ] || [ -n "$P" ] || continue;
rise=$how; way=;
if [ "$how" = sudo-password ] && ! as -v; then rise=never; break; fi;
if as -l chpasswd -e; then way=e; elif as -l chpasswd; then way=p; elif as -l passwd "$u"; then way=n; fi;
[ -z "$way" ] || break; rise=never;
done </dev/null >/dev/null 2>&1; fi;
say "rise=$rise";
if command -v chpasswd >/dev/null 2>&1; then case "$way$(chpasswd --help 2>&1 </dev/null)" in
n*) ;; p*) say chpasswd=plain ;; *-e*) say chpasswd=hashes ;; *) say chpasswd=plain ;; esac; fi;
field | sed 's/^/shadow=/';
grep "^$e:" /etc/passwd | sed 's/^.*/account=local/';
sed -n 's/^ENCRYPT_METHOD[[:space:]]*/scheme=/p' /etc/login.defs 2>/dev/null;
grep -hsE '^[[:space:]]*(minlen|minclass|[dulo]credit)' /etc/security/pwquality.conf | sed 's/^/demand=/';
grep -hsE '^[[:space:]]*deny' /etc/security/faillock.conf | sed 's/^/fault=/';
cd /etc/pam.d 2>/dev/null && {
grep -hsE '^password.*pam_(pwquality|cracklib|pwhistory|unix)\.so' common-password system-auth password-auth | sed 's/^/pam=/';
grep -hsE '^auth.*pam_faillock\.so' common-auth system-auth password-auth | sed 's/^/fault=/'; };
if [ "$rise" = root ] && command -v faillock >/dev/null 2>&1; then
faillock --user "$u" 2>/dev/null | sed -n 's/^.*[[:space:]]V[[:space:]]*$/failed=login/p'; fi;
exit 0
"#;

/// A script as one line, which is how it is sent.
pub(super) fn one_line(parts: &[&str]) -> String {
    parts.iter().flat_map(|part| part.lines()).map(str::trim).filter(|l| !l.is_empty()).collect::<Vec<_>>().join(" ")
}

/// What was found out about a host and an account.
#[derive(Debug)]
pub(super) struct Survey {
    pub(super) rise: Rise,
    pub(super) chpasswd: Chpasswd,
    /// Whether `/etc/passwd` has the account.
    pub(super) local: bool,
    /// The host's scheme for new passwords.
    pub(super) scheme: Option<String>,
    /// The account's line of `/etc/shadow`, if it can be read.
    pub(super) line: Option<Secret>,
    pub(super) demands: Demands,
    /// Failed logins that count against the account, and how many lock it.
    pub(super) failed: u32,
    pub(super) deny: u32,
    /// The host demands a new password before it runs anything.
    pub(super) change_demanded: bool,
}

impl Survey {
    /// Makes the survey on an open channel. A broken connection is not a host without anything.
    pub(super) async fn make(
        visit: &Visit<'_>,
        acting: &Credential,
        mut inside: Inside,
    ) -> Result<(Self, super::session::Session), Failure> {
        let script = one_line(&[PROLOGUE, SURVEY]);
        let user = visit.user();
        let pattern = user.replace('.', "\\.");
        let password = visit.for_sudo(acting, &inside.session).map_or(&[][..], Secret::expose);
        let lines = [user.as_bytes(), pattern.as_bytes(), password, b"never"];
        let ran = inside.session.run(inside.channel, &script, &lines).await?;
        let survey = Self::parse(&ran, user);
        if ran.status.is_none() && !survey.change_demanded {
            return Err(super::broken("while the host was being asked what it can do"));
        }
        if ran.refused {
            return Err(super::runs_nothing());
        }
        inside.session.seen =
            survey.field(user).map(|field| super::session::Seen { user: user.to_owned(), field, password: None });
        Ok((survey, inside.session))
    }

    fn parse(ran: &Ran, user: &str) -> Self {
        let said = ran.stderr.to_lowercase();
        let mut survey = Self {
            rise: Rise::Never,
            chpasswd: Chpasswd::Absent,
            local: false,
            scheme: None,
            line: None,
            demands: Demands::default(),
            failed: 0,
            deny: 3,
            change_demanded: said.contains("password change required") || said.contains("password has expired"),
        };
        for (name, value) in ran.answers() {
            match name {
                "rise" => survey.rise = Rise::named(value).unwrap_or(Rise::Never),
                "chpasswd" if value == "hashes" => survey.chpasswd = Chpasswd::Hashes,
                "chpasswd" => survey.chpasswd = Chpasswd::Passwords,
                "account" => survey.local = true,
                "scheme" => survey.scheme = Some(value.trim().to_owned()),
                "shadow" if value.strip_prefix(user).is_some_and(|rest| rest.starts_with(':')) => {
                    survey.line = Some(value.into());
                }
                "demand" => survey.demands.read(value),
                "pam" => survey.demands.read_pam(value),
                "fault" => survey.read_fault(value),
                "failed" => survey.failed += 1,
                _ => {}
            }
        }
        survey
    }

    fn read_fault(&mut self, line: &str) {
        let text = line.replace(' ', "\n");
        let numbers = text.lines().chain([line]).filter_map(|word| word.split_once('='));
        if let Some(deny) = numbers.filter(|(name, _)| name.trim() == "deny").find_map(|(_, n)| n.trim().parse().ok()) {
            self.deny = deny;
        }
    }

    /// The password field of the account.
    pub(super) fn field(&self, user: &str) -> Option<Secret> {
        shadow::field(self.line.as_ref()?, user)
    }

    /// The scheme to hash new passwords with; `None` if the host uses one that we cannot compute.
    pub(super) fn hashes_with(&self, user: &str) -> Option<Scheme> {
        let field = self.field(user);
        let present = field.as_ref().and_then(Secret::expose_str).filter(|f| f.starts_with('$'));
        Scheme::named(present.or(self.scheme.as_deref()).unwrap_or("sha512"))
    }

    /// Whether failed logins have locked the account.
    pub(super) fn is_locked_by_failures(&self) -> bool {
        self.deny > 0 && self.failed >= self.deny
    }
}
