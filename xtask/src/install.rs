//! What the demo and the tests need beside Rust, and how it gets onto a Debian 12 machine.

use std::path::Path;

use anyhow::{Result, bail};

use crate::host;

/// A file that proves that a package is there, and the package.
type Needed = (&'static str, &'static str);

/// For the demo.
const DEMO: &[Needed] = &[
    ("/usr/bin/cc", "build-essential"),
    ("/usr/sbin/sshd", "openssh-server"),
    ("/usr/bin/ssh", "openssh-client"),
    ("/usr/bin/sshpass", "sshpass"),
    ("/usr/bin/sudo", "sudo"),
    ("/usr/bin/unshare", "util-linux"),
    ("/usr/sbin/dropbear", "dropbear-bin"),
    ("/usr/sbin/tinysshd", "tinysshd"),
    ("/bin/busybox", "busybox-static"),
    ("/usr/lib/x86_64-linux-gnu/security/pam_pwquality.so", "libpam-pwquality"),
    ("/usr/share/dict/cracklib-small", "cracklib-runtime"),
];

/// For the tests, besides.
const TESTS: &[Needed] = &[
    ("/usr/lib/postgresql/15/bin/postgres", "postgresql-15"),
    ("/usr/lib/python3.11/ensurepip/__init__.py", "python3-venv"),
    ("/usr/bin/openssl", "openssl"),
    ("/usr/bin/softhsm2-util", "softhsm2"),
    ("/usr/bin/pkcs11-tool", "opensc"),
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
    ("/usr/bin/ipmi_sim", "openipmi"),
    ("/usr/bin/ipmitool", "ipmitool"),
    ("/usr/lib/frr/zebra", "frr"),
    ("/usr/bin/strace", "strace"),
    ("/usr/bin/chromium", "chromium"),
    ("/usr/share/fonts/opentype/inter/Inter-Bold.otf", "fonts-inter"),
];

/// Installs what the demo needs and is missing; asks nobody, changes nothing when all is there.
pub fn ensure_for_demo() -> Result<()> {
    ensure(DEMO.iter())
}

/// The same for the tests and the figures.
pub fn ensure_for_tests() -> Result<()> {
    ensure(DEMO.iter().chain(TESTS))
}

fn ensure(needed: impl Iterator<Item = &'static Needed>) -> Result<()> {
    let missing: Vec<&str> = needed.filter(|(file, _)| !Path::new(file).exists()).map(|(_, p)| *p).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if host::which("apt-get").is_none() {
        bail!("install these packages by hand (no apt-get here): {}", missing.join(" "));
    }
    let sudo: &[&str] = if is_root() { &[] } else { &["sudo"] };
    let apt = |args: &[&str]| {
        let all: Vec<&str> =
            sudo.iter().chain(&["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]).chain(args).copied().collect();
        host::run(all[0], &all[1..])
    };
    apt(&["update", "-qq"])?;
    apt(&[&["install", "-y", "-qq", "--no-install-recommends"], missing.as_slice()].concat())
}

/// Whether this process may make hosts of its own in namespaces.
pub fn is_root() -> bool {
    std::fs::read_to_string("/proc/self/status")
        .is_ok_and(|s| s.lines().any(|l| l.starts_with("Uid:") && l.split_whitespace().nth(2) == Some("0")))
}
