//! Real Samba servers: an Active Directory domain controller with LDAPS, Kerberos and SAMR, and a standalone server whose
//! accounts stand for the local accounts of a Windows machine.

use std::{
    net::Ipv4Addr,
    path::PathBuf,
    process::{Command, Stdio},
    sync::Mutex,
};

use anyhow::{Context, Result, bail};

use crate::namespace::Namespace;

/// The password of every account of a new domain or server.
pub const INITIAL_PASSWORD: &str = "Init-Passw0rd!1";

/// One domain controller of the domain `corp.test` (`CORP`).
pub struct Domain {
    namespace: Namespace,
    joining: Mutex<()>,
}

/// Where an account tells which kinds of keys it has.
const ENCRYPTION: &str = "msDS-SupportedEncryptionTypes";

impl Domain {
    /// Starts a domain with the accounts `app1`, `app2`, `app3`, `weak`, and `rot`, a domain administrator. The first one on a
    /// machine takes ten seconds longer, because a domain has to be made; later ones use a copy of it.
    pub fn start() -> Result<Domain> {
        let (script, cache) = (include_str!("samba/domain.sh"), std::env::temp_dir().join("volvelle-testkit-domain"));
        // Another script makes another domain.
        let sum = script.bytes().fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)));
        let cache = format!("{}-{sum:x}.tar", cache.display());
        let namespace = Namespace::start(script, &[&cache], &[("PASSWORD", INITIAL_PASSWORD)])?;
        Ok(Domain { namespace, joining: Mutex::new(()) })
    }

    /// Where it listens: 88, 389, 445, 464, 636.
    pub fn address(&self) -> Ipv4Addr {
        self.namespace.address
    }

    /// The certificate of the authority that signed the server's.
    pub fn authority(&self) -> Result<String> {
        self.namespace.read("tls/ca.pem")
    }

    /// Runs `samba-tool` on the controller's own database.
    pub fn tool(&self, arguments: &str) -> Result<String> {
        self.namespace.run(&format!("samba-tool {arguments} -s etc/smb.conf"))
    }

    /// Whether MIT Kerberos gets a ticket with this password; only the present one does.
    pub fn opens(&self, user: &str, password: &str) -> Result<bool> {
        let mut child = Command::new("kinit")
            .args(["-c", "MEMORY:none", &format!("{user}@CORP.TEST")])
            .env("KRB5_CONFIG", self.namespace.file("etc/krb5.conf"))
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("starting kinit")?;
        std::io::Write::write_all(
            &mut child.stdin.take().context("standard input")?,
            format!("{password}\n").as_bytes(),
        )?;
        let output = child.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        match (
            output.status.success(),
            said.contains("Password incorrect") || said.contains("Preauthentication failed"),
        ) {
            (true, _) => Ok(true),
            (false, true) => Ok(false),
            (false, false) => bail!("kinit: {}", said.trim()),
        }
    }

    /// Where the configuration for MIT's Kerberos programs is.
    pub fn kerberos_config(&self) -> PathBuf {
        self.namespace.file("etc/krb5.conf")
    }

    /// Makes a computer with this service a member of the domain, if it is none; gives the file of its keys.
    pub fn join(&self, computer: &str, service: &str) -> Result<Vec<u8>> {
        let _one = self.joining.lock().map_err(|_| anyhow::anyhow!("the lock of another joining"))?;
        let file = format!("{computer}.keytab");
        if !self.namespace.file(&file).exists() {
            self.tool(&format!("computer create {computer}"))?;
            self.tool(&format!("user setpassword {computer}$ --newpassword={INITIAL_PASSWORD}"))?;
            self.tool(&format!("spn add {service} {computer}$"))?;
            // A real computer says of itself that it speaks AES.
            self.namespace.run(&format!(
                "printf 'dn: CN={computer},CN=Computers,DC=corp,DC=test\nchangetype: modify\nreplace: {ENCRYPTION}\n{ENCRYPTION}: 24\n' | \
                 LDAPTLS_REQCERT=never ldapmodify -H ldaps://{} -D rot@corp.test -w '{INITIAL_PASSWORD}'",
                self.address()
            ))?;
            self.tool(&format!("domain exportkeytab {file} --principal={service}"))?;
        }
        std::fs::read(self.namespace.file(&file)).context("reading the keys")
    }

    /// How many failed logins the domain has counted of late.
    pub fn failures(&self, user: &str) -> Result<u32> {
        let shown = self.tool(&format!("user show {user} --attributes=badPwdCount"))?;
        let count = shown.lines().find_map(|line| line.strip_prefix("badPwdCount: "));
        Ok(count.and_then(|count| count.trim().parse().ok()).unwrap_or(0))
    }
}

/// One server with accounts of its own.
pub struct Standalone {
    namespace: Namespace,
}

impl Standalone {
    /// Starts a server with the accounts `Administrator`, `app1`, `app2`, `app3` and `weak`; four wrong passwords lock an account.
    pub fn start() -> Result<Standalone> {
        let environment = [("PASSWORD", INITIAL_PASSWORD)];
        Ok(Standalone { namespace: Namespace::start(include_str!("samba/standalone.sh"), &[], &environment)? })
    }

    /// Where it listens, on port 445.
    pub fn address(&self) -> Ipv4Addr {
        self.namespace.address
    }

    /// Whether an independent client can log in.
    pub fn opens(&self, user: &str, password: &str) -> Result<bool> {
        let output = Command::new("smbclient")
            .args(["-m", "SMB3", "-U", user, "-c", "exit", &format!("//{}/IPC$", self.address())])
            .env("PASSWD", password)
            .stdin(Stdio::null())
            .output()
            .context("starting smbclient")?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        match (output.status.success(), said.contains("LOGON_FAILURE")) {
            (true, _) => Ok(true),
            (false, true) => Ok(false),
            (false, false) => bail!("smbclient: {}", said.trim()),
        }
    }

    /// Whether the stored hash is made of this password: no login.
    pub fn holds(&self, user: &str, password: &str) -> Result<bool> {
        let user = if user == "Administrator" { "root" } else { user };
        let stored = self.namespace.run(&format!("pdbedit -s smb.conf -w {user}"))?;
        let stored = stored.split(':').nth(3).context("a hash")?.to_lowercase();
        let script = "iconv -t UTF-16LE | openssl dgst -provider legacy -provider default -md4 -r | cut -c1-32";
        let mut child =
            Command::new("bash").args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        std::io::Write::write_all(&mut child.stdin.take().context("standard input")?, password.as_bytes())?;
        Ok(String::from_utf8_lossy(&child.wait_with_output()?.stdout).trim() == stored)
    }

    /// Runs `pdbedit` on the server's own database.
    pub fn accounts(&self, arguments: &str) -> Result<String> {
        self.namespace.run(&format!("pdbedit -s smb.conf {arguments}"))
    }

    /// How many failed logins the server has counted since the last success.
    pub fn failures(&self, user: &str) -> Result<u32> {
        let shown = self.accounts(&format!("-v -u {user}"))?;
        let count = shown.lines().find_map(|line| line.strip_prefix("Bad password count  :"));
        Ok(count.and_then(|count| count.trim().parse().ok()).unwrap_or(0))
    }
}
