//! A real OpenLDAP server with TLS, a password policy and the access rules that the documentation tells people to write.

use std::{
    net::Ipv4Addr,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::namespace::Namespace;

/// The password of every account of a new directory.
pub const INITIAL_PASSWORD: &str = "Init-Passw0rd!1";

/// One directory.
pub struct Slapd {
    namespace: Namespace,
}

impl Slapd {
    /// Starts a directory with the accounts `app1`, `app2` and `app3` (whose policy wants the old password with the new one) and
    /// the services `rotator` (writes and reads passwords), `blind` (only writes them) and `weak` (may do nothing).
    pub fn start() -> Result<Slapd> {
        let page = include_str!("../../../docs/targets/ldap.md");
        let rules = page
            .split_once("```slapd\n")
            .and_then(|(_, rest)| rest.split_once("```"))
            .context("the page has the rules")?
            .0;
        // Another service only writes passwords, as the page says one may.
        let blind = "  by dn.exact=cn=blind,ou=services,dc=example,dc=org =w\n  by self =xw\n";
        let rules = rules.replace("  by self =xw\n", blind);
        let environment = [("PASSWORD", INITIAL_PASSWORD), ("RULES", &rules)];
        Ok(Slapd { namespace: Namespace::start(include_str!("slapd/slapd.sh"), &[], &environment)? })
    }

    /// Where it listens, on ports 389 and 636.
    pub fn address(&self) -> Ipv4Addr {
        self.namespace.address
    }

    /// The certificate of the authority that signed the server's.
    pub fn authority(&self) -> Result<String> {
        self.namespace.read("tls/ca.pem")
    }

    /// The certificate of an authority that signed nothing.
    pub fn other_authority(&self) -> Result<String> {
        self.namespace.read("tls/other.pem")
    }

    /// Distinguished name of a person.
    pub fn person(name: &str) -> String {
        format!("uid={name},ou=people,dc=example,dc=org")
    }

    /// Distinguished name of a service.
    pub fn service(name: &str) -> String {
        format!("cn={name},ou=services,dc=example,dc=org")
    }

    /// Whether an independent client can log in.
    pub fn opens(&self, dn: &str, password: &str) -> Result<bool> {
        let status = self.client("ldapwhoami", dn, password)?.stdout(Stdio::null()).stderr(Stdio::null()).status()?;
        match status.code() {
            Some(0) => Ok(true),
            Some(49) => Ok(false),
            other => bail!("ldapwhoami ended with {other:?}"),
        }
    }

    /// Whether the stored hash is made of this password, asked as the server's root account: no login of the account.
    pub fn holds(&self, dn: &str, password: &str) -> Result<bool> {
        let stored = self.attribute(dn, "userPassword")?;
        Ok(stored.iter().any(|value| salted_sha1(value, password)))
    }

    /// The values of an attribute.
    pub fn attribute(&self, dn: &str, name: &str) -> Result<Vec<String>> {
        let root = "cn=admin,dc=example,dc=org";
        let mut client = self.client("ldapsearch", root, INITIAL_PASSWORD)?;
        let output =
            client.args(["-LLL", "-o", "ldif-wrap=no", "-b", dn, "-s", "base", "(objectClass=*)", name]).output()?;
        if !output.status.success() {
            bail!("ldapsearch: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::to_owned))
            .collect())
    }

    /// Changes entries as the server's root account; `ldif` as for ldapmodify.
    pub fn modify(&self, ldif: &str) -> Result<()> {
        let mut client = self.client("ldapmodify", "cn=admin,dc=example,dc=org", INITIAL_PASSWORD)?;
        let mut child = client.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        std::io::Write::write_all(&mut child.stdin.take().context("standard input")?, ldif.as_bytes())?;
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!("ldapmodify: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }

    /// How many failed logins the password policy has counted since the last success.
    pub fn failures(&self, dn: &str) -> Result<usize> {
        Ok(self.attribute(dn, "pwdFailureTime")?.len())
    }

    fn client(&self, program: &str, dn: &str, password: &str) -> Result<Command> {
        let mut command = Command::new(program);
        command.args(["-x", "-H", &format!("ldaps://{}", self.address()), "-D", dn, "-w", password]);
        command.env("LDAPTLS_CACERT", self.namespace.file("tls/ca.pem")).stdin(Stdio::null());
        Ok(command)
    }
}

/// Whether `: BASE64({SSHA}BASE64(hash | salt))`, as ldapsearch prints it, is made of the password; asked of openssl.
fn salted_sha1(printed: &str, password: &str) -> bool {
    let script = r#"
        stored=$(printf %s "${1#*: }" | base64 -d) || exit 1
        case $stored in '{SSHA}'*) ;; *) exit 1 ;; esac
        raw=$(printf %s "${stored#'{SSHA}'}" | base64 -d | od -An -v -tx1 | tr -d ' \n')
        salt=${raw:40}
        made=$( (printf %s "$2"; printf "$(printf %s "$salt" | sed 's/../\\x&/g')") | openssl sha1 -r | cut -c1-40)
        [ "$made" = "${raw:0:40}" ]
    "#;
    let status = Command::new("bash").args(["-c", script, "bash", printed, password]).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}
