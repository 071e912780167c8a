//! The account database of a Windows host over its pipe `samr` (MS-SAMR): what an account is, a reset, and a change by the account itself.
//!
//! The new password travels sealed three times: by the encrypted SMB session, by the session's key inside the call, and never in the clear.

use des::Des;
use des::cipher::{Array, BlockCipherEncrypt, KeyInit};
use md5::{Digest as _, Md5};
use volvelle_domain::Secret;
use volvelle_domain::connector::{Failure, FailureClass};
use zeroize::Zeroizing;

use super::ndr::{Rpc, Writer};
use super::ntlm::{nt_hash, rc4, utf16};
use super::smb::Session;

const INTERFACE: [u8; 20] =
    [0x78, 0x57, 0x34, 0x12, 0x34, 0x12, 0xcd, 0xab, 0xef, 0x00, 0x01, 0x23, 0x45, 0x67, 0x89, 0xac, 1, 0, 0, 0];

/// Longest password, in UTF-16 units.
const LONGEST: usize = 256;
/// Most domains a host may name; it has two.
const MOST_DOMAINS: u32 = 16;

/// The right to read an account, and the right to set its password.
const READ: u32 = 0x19;
const SET: u32 = 0x80;

/// An account, opened.
pub(super) struct Account {
    handle: [u8; 20],
}

/// What is known of an account.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) disabled: bool,
    pub(super) locked: bool,
}

/// What the host demands of passwords.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rules {
    pub(super) min_length: u16,
    pub(super) history: u16,
    pub(super) complex: bool,
}

fn strange(what: &str) -> Failure {
    Failure::new(FailureClass::Protocol, format!("the host's account database answers {what}"), "")
}

/// A status that ends the work.
fn failed(status: u32, doing: &str) -> Failure {
    match status {
        0xc000_0022 => Failure::new(
            FailureClass::Privilege,
            format!("the acting account may not {doing} (access denied)"),
            "use an account of the host's Administrators group; local ones need LocalAccountTokenFilterPolicy for this over the network",
        ),
        0xc000_0064 | 0xc000_0073 => Failure::new(
            FailureClass::Config,
            format!("the host has no such account to {doing}"),
            "check rotated-username",
        ),
        other => strange(&format!("with status {other:08x} when asked to {doing}")),
    }
}

/// The account database with the host's own accounts opened.
pub(super) struct Sam {
    rpc: Rpc,
    domain: [u8; 20],
    /// The name of the domain: of a host, its own; of a domain controller, the domain's.
    pub(super) name: String,
}

impl Sam {
    /// Opens the database of the host in which the session is.
    pub(super) async fn open(mut rpc: Rpc, host: &str) -> Result<Self, Failure> {
        let mut stub = Writer::default();
        let server: Vec<u16> = format!("\\\\{host}\0").encode_utf16().collect();
        let count = u32::try_from(server.len()).unwrap_or(0);
        stub.pointer().long(count).long(0).long(count);
        for unit in server {
            stub.short(unit);
        }
        stub.long(0x31);
        let mut answer = rpc.call(57, &stub).await?;
        if answer.status() != 0 {
            return Err(failed(answer.status(), "read the account database"));
        }
        let server = answer.handle()?;
        let name = own_domain(&mut rpc, &server).await?;
        let mut stub = Writer::default();
        stub.bytes(&server).string_head(&name).string_body(&name);
        let mut answer = rpc.call(5, &stub).await?;
        if answer.status() != 0 {
            return Err(failed(answer.status(), "look up the host's accounts"));
        }
        answer.long()?;
        let count = answer.long()?.min(15);
        let sid = answer.take(8 + 4 * usize::try_from(count).unwrap_or(0))?.to_vec();
        let mut stub = Writer::default();
        stub.bytes(&server).long(0x201).long(count).bytes(&sid);
        let mut answer = rpc.call(7, &stub).await?;
        if answer.status() != 0 {
            return Err(failed(answer.status(), "open the host's accounts"));
        }
        let domain = answer.handle()?;
        Ok(Self { rpc, domain, name })
    }

    /// Who opened it.
    pub(super) fn session(&self) -> &Session {
        &self.rpc.pipe.session
    }

    /// What the host demands of passwords.
    pub(super) async fn rules(&mut self) -> Result<Rules, Failure> {
        let mut stub = Writer::default();
        stub.bytes(&self.domain).short(1);
        let mut answer = self.rpc.call(46, &stub).await?;
        if answer.status() != 0 {
            return Err(failed(answer.status(), "read the host's password policy"));
        }
        answer.long()?;
        answer.short()?;
        answer.align(4);
        let (min_length, history, properties) = (answer.short()?, answer.short()?, answer.long()?);
        Ok(Rules { min_length, history, complex: properties & 1 != 0 })
    }

    /// Opens an account to read it, and to set its password if `acting` says so.
    pub(super) async fn account(&mut self, user: &str, acting: Wish) -> Result<Account, Failure> {
        let mut stub = Writer::default();
        stub.bytes(&self.domain).long(1).long(1000).long(0).long(1).string_head(user).string_body(user);
        let mut answer = self.rpc.call(17, &stub).await?;
        if answer.status() != 0 {
            return Err(failed(answer.status(), &format!("find {user}")));
        }
        let (_, _, _, number) = (answer.long()?, answer.long()?, answer.long()?, answer.long()?);
        let mut stub = Writer::default();
        stub.bytes(&self.domain).long(if acting == Wish::Set { READ | SET } else { READ }).long(number);
        let mut answer = self.rpc.call(34, &stub).await?;
        if answer.status() != 0 {
            return Err(failed(answer.status(), &format!("set the password of {user}")));
        }
        Ok(Account { handle: answer.handle()? })
    }

    /// Reads an account.
    pub(super) async fn facts(&mut self, account: &Account) -> Result<Facts, Failure> {
        let mut stub = Writer::default();
        stub.bytes(&account.handle).short(16);
        let mut answer = self.rpc.call(47, &stub).await?;
        if answer.status() != 0 {
            return Err(failed(answer.status(), "read the account"));
        }
        answer.long()?;
        answer.short()?;
        let flags = answer.long()?;
        Ok(Facts { disabled: flags & 0x1 != 0, locked: flags & 0x400 != 0 })
    }

    /// Sets a password; the status that the host answers with.
    pub(super) async fn set(&mut self, account: &Account, new: &Secret) -> Result<u32, Failure> {
        let mut salt = [0_u8; 16];
        getrandom::fill(&mut salt).expect("the system gives randomness");
        let mut sealed = padded(new)?;
        let key = Md5::new().chain_update(salt).chain_update(self.session().key()).finalize();
        rc4(&key, sealed.as_mut_slice());
        let mut stub = Writer::default();
        stub.bytes(&account.handle).short(26).short(26).bytes(&sealed).bytes(&salt).bytes(&[0]);
        Ok(self.rpc.call(58, &stub).await?.status())
    }
}

/// Opens the pipe to the database, which everybody who can log in may.
pub(super) async fn bind(session: Session, host: &str) -> Result<Rpc, Failure> {
    Rpc::bind(session.pipe(host, "samr").await?, INTERFACE).await
}

/// Changes a password with the old one as proof; the status that the host answers with.
pub(super) async fn change(rpc: &mut Rpc, host: &str, user: &str, old: &Secret, new: &Secret) -> Result<u32, Failure> {
    let text = |secret: &Secret| secret.expose_str().map(nt_hash).ok_or_else(|| strange("nothing that is text"));
    let (old, next) = (text(old)?, text(new)?);
    let mut sealed = padded(new)?;
    rc4(old.as_slice(), sealed.as_mut_slice());
    let mut proof = *old;
    for (half, key) in proof.chunks_exact_mut(8).zip(next.chunks(7)) {
        encrypt(half, key);
    }
    let server = format!("\\\\{host}");
    let mut stub = Writer::default();
    stub.pointer().string_head(&server).string_body(&server).align(4).string_head(user).string_body(user);
    stub.pointer().bytes(&sealed).pointer().bytes(&proof).bytes(&[0]).long(0).long(0);
    Ok(rpc.call(55, &stub).await?.status())
}

/// What an account is opened for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// To read it.
    Read,
    /// To set its password as well.
    Set,
}

/// The domain of a host's database that is not the built-in one.
async fn own_domain(rpc: &mut Rpc, server: &[u8; 20]) -> Result<String, Failure> {
    let mut stub = Writer::default();
    stub.bytes(server).long(0).long(4096);
    let mut answer = rpc.call(6, &stub).await?;
    if answer.status() != 0 {
        return Err(failed(answer.status(), "list the host's accounts"));
    }
    let (_, _, count, _, _) = (answer.long()?, answer.long()?, answer.long()?, answer.long()?, answer.long()?);
    if count > MOST_DOMAINS {
        return Err(strange("with too many domains"));
    }
    for _ in 0..count {
        answer.align(4).take(12)?;
    }
    for _ in 0..count {
        let name = answer.string_body()?;
        if !name.eq_ignore_ascii_case("Builtin") {
            return Ok(name);
        }
    }
    Err(strange("with no domain of its own"))
}

/// A password at the end of 512 random bytes, with its length behind them.
fn padded(password: &Secret) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let text = password.expose_str().ok_or_else(|| strange("nothing that is text"))?;
    let units = Zeroizing::new(utf16(text));
    if units.len() > LONGEST * 2 {
        return Err(Failure::new(FailureClass::Config, "the password is longer than 256 characters", "shorten it"));
    }
    let mut out = Zeroizing::new(vec![0_u8; 512]);
    getrandom::fill(&mut out).expect("the system gives randomness");
    out[512 - units.len()..].copy_from_slice(&units);
    out.extend_from_slice(&u32::try_from(units.len()).unwrap_or(0).to_le_bytes());
    Ok(out)
}

/// One block under a key of 56 bits.
fn encrypt(block: &mut [u8], key: &[u8]) {
    let mut spread = [0_u8; 8];
    let whole = key.iter().take(7).fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
    for (number, byte) in spread.iter_mut().enumerate() {
        // Seven bits each; the eighth is parity, which nobody looks at.
        *byte = u8::try_from(whole >> (49 - 7 * number) & 0x7f).unwrap_or(0) << 1;
    }
    let (Ok(cipher), Ok(block)) = (Des::new_from_slice(&spread), <&mut Array<u8, _>>::try_from(block)) else { return };
    cipher.encrypt_block(block);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_under_a_hash_is_that_of_the_specification() {
        // MS-SAMR 4: the LM one-way function of "Password" begins with this block under the key "PASSWOR".
        let mut block = *b"KGS!@#$%";
        encrypt(&mut block, b"PASSWOR");
        assert_eq!(block, [0xe5, 0x2c, 0xac, 0x67, 0x41, 0x9a, 0x9a, 0x22]);
    }

    #[test]
    fn the_padded_password_ends_with_it_and_its_length() {
        let made = padded(&Secret::from("aé")).expect("fits");
        assert_eq!(made.len(), 516);
        assert_eq!(&made[508..], &[b'a', 0, 0xe9, 0, 4, 0, 0, 0]);
        assert!(padded(&Secret::from("x".repeat(257))).is_err());
    }
}
