//! The Debian packages that the test hosts and databases are made of, installed once per machine.
//! Parallel test binaries wait for each other at a lock file.

use std::{
    fs::File,
    path::Path,
    process::{Command, Stdio},
    sync::OnceLock,
};

use anyhow::{Context, Result, bail};

/// One file that a package brings, and the package.
type Needed = (&'static str, &'static str);

/// What somebody is about to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum For {
    /// Hosts that are reached over SSH.
    Hosts,
    /// A database.
    Postgres,
    /// Directories and Windows servers.
    Directories,
    /// BMCs and routers.
    Devices,
}

impl For {
    const fn needs(self) -> &'static [Needed] {
        match self {
            Self::Hosts => &[
                ("/usr/sbin/sshd", "openssh-server"),
                ("/usr/bin/ssh", "openssh-client"),
                ("/usr/sbin/dropbear", "dropbear-bin"),
                ("/usr/sbin/tinysshd", "tinysshd"),
                ("/bin/busybox", "busybox-static"),
                ("/usr/bin/sudo", "sudo"),
                ("/lib/x86_64-linux-gnu/security/pam_pwquality.so", "libpam-pwquality"),
                ("/usr/sbin/cracklib-format", "cracklib-runtime"),
                ("/usr/bin/sshpass", "sshpass"),
            ],
            Self::Postgres => &[("/usr/lib/postgresql", "postgresql")],
            Self::Directories => &[
                ("/usr/bin/openssl", "openssl"),
                ("/usr/sbin/slapd", "slapd"),
                ("/usr/bin/ldapsearch", "ldap-utils"),
                ("/usr/sbin/samba", "samba"),
                ("/usr/lib/x86_64-linux-gnu/samba/ldb/samba_dsdb.so", "samba-dsdb-modules"),
                ("/usr/share/samba/setup/provision.ldif", "samba-ad-provision"),
                ("/usr/lib/x86_64-linux-gnu/samba/vfs/acl_xattr.so", "samba-vfs-modules"),
                ("/usr/sbin/winbindd", "winbind"),
                ("/usr/bin/smbclient", "smbclient"),
                ("/usr/bin/kinit", "krb5-user"),
                ("/usr/lib/python3/dist-packages/markdown/__init__.py", "python3-markdown"),
                ("/usr/bin/sshpass", "sshpass"),
                ("/usr/bin/ssh", "openssh-client"),
                ("/usr/bin/gcc", "gcc"),
                ("/usr/include/python3.11/Python.h", "python3-dev"),
                ("/usr/include/gssapi/gssapi.h", "libkrb5-dev"),
            ],
            Self::Devices => {
                &[("/usr/bin/ipmi_sim", "openipmi"), ("/usr/bin/ipmitool", "ipmitool"), ("/usr/lib/frr/zebra", "frr")]
            }
        }
    }
}

/// Installs what is missing and remembers the answer for this process.
pub(crate) fn ensure(what: For) -> Result<()> {
    static DONE: [OnceLock<std::result::Result<(), String>>; 4] = [const { OnceLock::new() }; 4];
    let done = &DONE[what as usize];
    done.get_or_init(|| install_missing(what).map_err(|error| format!("{error:#}"))).clone().map_err(anyhow::Error::msg)
}

fn install_missing(what: For) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("test hosts need root: they are namespaces with their own /etc/shadow; run the tests as root");
    }
    if missing(what).is_empty() {
        return Ok(());
    }
    let lock = File::create("/tmp/volvelle-testkit-install.lock").context("opening the install lock")?;
    lock.lock().context("waiting for another installation")?;
    let packages = missing(what);
    if packages.is_empty() {
        return Ok(());
    }
    apt(&["update", "-q"])?;
    let mut arguments = vec!["install", "-y", "-q", "--no-install-recommends"];
    arguments.extend(packages.iter().copied());
    apt(&arguments)?;
    let left = missing(what);
    if !left.is_empty() {
        bail!("apt-get finished but these packages bring no program: {}", left.join(" "));
    }
    Ok(())
}

fn missing(what: For) -> Vec<&'static str> {
    what.needs().iter().filter(|(path, _)| !Path::new(path).exists()).map(|(_, package)| *package).collect()
}

fn apt(arguments: &[&str]) -> Result<()> {
    let output = Command::new("apt-get")
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .output()
        .context("starting apt-get (the test hosts need Debian)")?;
    if !output.status.success() {
        bail!("apt-get {} failed: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
