//! Rotator type `key`: the account's own key pair, and its line in `authorized_keys`.
//!
//! The change is one rename: the line of the present key becomes that of the candidate, so that there is no moment without
//! a working key, and after a crash exactly one of the two opens the account. The file is written as the account itself
//! (`su` for root, so that a link in a user's folder leads root nowhere), or as root where the folder is root's.

use std::convert::Infallible;

use base64::Engine as _;
use russh::keys::ssh_key::private::{EcdsaKeypair, Ed25519Keypair, KeypairData, RsaKeypair};
use russh::keys::ssh_key::rand_core::{TryCryptoRng, TryRng};
use russh::keys::ssh_key::{EcdsaCurve, LineEnding};
use russh::keys::{PrivateKey, decode_secret_key};
use tokio::time::{Instant, timeout_at};
use volvelle_domain::connector::{ApplyOutcome, Evidence, Failure, FailureClass, Preflight, ProbeOutcome, ProbeReport};
use volvelle_domain::ids::Entropy;
use volvelle_domain::{Credential, Secret};

use super::change::{before_sending, heading};
use super::session::{Ran, Session};
use super::survey::{PROLOGUE, Rise, one_line};
use super::visit::{Inside, Visit, expired};
use super::{broken, config, runs_nothing, timed_out};

/// Comment of the lines we write.
const COMMENT: &str = "volvelle";

/// The algorithms of `key-algorithm`.
const ALGORITHMS: [&str; 7] = ["ED25519", "RSA2048", "RSA3072", "RSA4096", "ECDSA256", "ECDSA384", "ECDSA521"];

/// Randomness as the key library wants it.
struct Dice<'a>(&'a dyn Entropy);

impl TryRng for Dice<'_> {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.0.fill(&mut bytes);
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.0.fill(bytes);
        Ok(())
    }
}

impl TryCryptoRng for Dice<'_> {}

/// Checks `key-algorithm`; empty means the default.
pub(super) fn check_algorithm(name: &str) -> Result<(), Failure> {
    if name.is_empty() || ALGORITHMS.contains(&name.to_ascii_uppercase().as_str()) {
        return Ok(());
    }
    Err(config(
        format!("key-algorithm {name:?} is not one of {}", ALGORITHMS.join(", ")),
        "leave key-algorithm out for ED25519",
    ))
}

/// Checks `public-key-remote-path`; empty means the default.
pub(super) fn check_path(path: &str) -> Result<(), Failure> {
    let good = path.len() <= 1024 && !path.ends_with('/') && !path.bytes().any(|b| b.is_ascii_control());
    if good && !path.split('/').any(|part| part == "..") {
        return Ok(());
    }
    Err(config("public-key-remote-path is not the path of a file", "give it absolute, or relative to the home folder"))
}

/// A new key pair. Searching the primes of a long RSA key takes seconds, and keeps no other task waiting.
pub(super) fn generate(user: &str, algorithm: &str, entropy: &dyn Entropy) -> Result<Credential, Failure> {
    check_algorithm(algorithm)?;
    let make = || {
        let dice = &mut Dice(entropy);
        Ok(match algorithm.to_ascii_uppercase().as_str() {
            "RSA2048" => KeypairData::from(RsaKeypair::random(dice, 2048)?),
            "RSA3072" => KeypairData::from(RsaKeypair::random(dice, 3072)?),
            "RSA4096" => KeypairData::from(RsaKeypair::random(dice, 4096)?),
            "ECDSA256" => KeypairData::from(EcdsaKeypair::random(dice, EcdsaCurve::NistP256)?),
            "ECDSA384" => KeypairData::from(EcdsaKeypair::random(dice, EcdsaCurve::NistP384)?),
            "ECDSA521" => KeypairData::from(EcdsaKeypair::random(dice, EcdsaCurve::NistP521)?),
            _ => KeypairData::from(Ed25519Keypair::random(dice)),
        })
    };
    let threads = tokio::runtime::Handle::try_current()
        .is_ok_and(|runtime| runtime.runtime_flavor() == tokio::runtime::RuntimeFlavor::MultiThread);
    let pair: Result<KeypairData, russh::keys::ssh_key::Error> =
        if threads { tokio::task::block_in_place(make) } else { make() };
    let key = pair.and_then(|pair| PrivateKey::new(pair, COMMENT));
    let key = key.map_err(|error| config(format!("no key can be made: {error}"), "choose another key-algorithm"))?;
    let text = key.to_openssh(LineEnding::LF).map_err(|_| config("the new key cannot be written", ""))?;
    credential(user, &Secret::from(text.as_str()))
}

/// The credential of a private key: its public half is computed.
fn credential(user: &str, private: &Secret) -> Result<Credential, Failure> {
    let unreadable = || config("the private key cannot be read", "give it as OpenSSH or PEM text without a passphrase");
    let mut key = decode_secret_key(private.expose_str().ok_or_else(unreadable)?, None).map_err(|_| unreadable())?;
    key.set_comment(COMMENT);
    let public = key.public_key().to_openssh().map_err(|_| unreadable())?;
    let credential = Credential::default().with("username", user.into());
    Ok(credential.with("private_key", private.clone()).with("public_key", public.as_str().into()))
}

/// The credential of `key-data-base64`; without it, only the name.
pub(super) fn initial(user: &str, encoded: Option<&Secret>) -> Result<Credential, Failure> {
    let Some(encoded) = encoded else { return Ok(Credential::default().with("username", user.into())) };
    let compact: Vec<u8> = encoded.expose().iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let compact = zeroize::Zeroizing::new(compact);
    let text = base64::engine::general_purpose::STANDARD.decode(compact.as_slice()).map_err(|_| {
        config("key-data-base64 is not base64", "encode the private key's file: `base64 -w0 id_ed25519`")
    })?;
    credential(user, &Secret::new(text))
}

/// The public key as `algorithm base64`, which is what lines are compared by.
fn public(credential: &Credential) -> Option<String> {
    let line = credential.expose_text("public_key")?;
    let mut words = line.split_whitespace();
    Some(format!("{} {}", words.next()?, words.next()?))
}

/// Runs the script that follows on standard input as root, or as the account that is logged in.
const AS_ROOT: &str = r#"as sh -c 'IFS= read -r s; eval "$s"'"#;

/// How the acting user becomes root, if it has to.
const RISE: &str = r#"
if [ "$(id -u)" = 0 ]; then rise=root; elif [ "$(id -un)" != "$u" ]; then for how in sudo sudo-password; do
[ "$how" = sudo ] || [ -n "$P" ] || continue; rise=$how; if as -l sh; then break; fi; rise=never;
done </dev/null >/dev/null 2>&1; fi; say "rise=$rise";
if [ "$rise" = never ] && [ "$(id -un)" != "$u" ]; then exit 0; fi;
"#;

/// Finds the file and passes on to the one who writes it.
const FIND: &str = r#"
IFS= read -r u; IFS= read -r e; IFS= read -r f; IFS= read -r a; IFS= read -r o; IFS= read -r b; IFS= read -r n; IFS= read -r E;
h=$( { grep "^$e:" /etc/passwd || getent passwd "$u"; } 2>/dev/null | cut -d: -f6 | head -n 1);
[ -n "$h" ] || exit 94;
case $f in '') f=$h/.ssh/authorized_keys ;; '~/'*) f=$h/${f#'~/'} ;; /*) ;; *) f=$h/$f ;; esac;
d=${f%/*}; [ -n "$d" ] || d=/; k=${f##*/};
w=; if [ -d "$d/" ]; then w=$(cd -P "$d" && ls -ldn . | { read -r x y z r; echo "$z"; }); fi;
if [ "$(id -u)" = 0 ] && [ "$u" != root ] && [ "$w" != 0 ]; then
printf '%s\n' "$E" "$d" "$k" "$a" "$o" "$b" "$n" "" | su -s /bin/sh "$u" -c 'IFS= read -r s; eval "$s"';
else printf '%s\n' "$d" "$k" "$a" "$o" "$b" "$n" "$w" | sh -c "$E"; fi
"#;

/// Reads the file, or replaces it in one rename. Nothing here is secret: keys are public ones.
const EDIT: &str = r#"
IFS= read -r d; IFS= read -r k; IFS= read -r a; IFS= read -r o; IFS= read -r b; IFS= read -r n; IFS= read -r w;
umask 077;
if [ "$a" = write ] && [ ! -d "$d" ]; then mkdir -p -m 700 "$d" || exit 95; fi;
if ! cd -P "$d" 2>/dev/null; then echo state=read; exit 0; fi;
if [ "$w" = 0 ]; then x=$(ls -ldn . | { read -r x y z r; echo "$z"; }); [ "$x" = 0 ] || exit 95; fi;
if [ -L "$k" ]; then exit 96; fi;
if [ "$a" = write ]; then
if command -v flock >/dev/null 2>&1; then exec 9<.; { flock -w 5 9 || flock -n 9; } 2>/dev/null; fi;
t=.$k.volvelle; rm -f "$t";
if [ -e "$k" ]; then cp -p "$k" "$t" || exit 97; else : >"$k" && : >"$t" || exit 97; fi;
c=0; q=; put() { printf '%s\n' "$1"; c=$((c + 1)); };
{ while IFS= read -r l || [ -n "$l" ]; do case $l in
'#'*) put "$l" ;;
*"$b"*) [ -n "$q" ] || put "$l"; q=1 ;;
*"$o"*) [ -n "$q" ] || put "${l%%"$o"*}$n"; q=1 ;;
*) put "$l" ;; esac; done <"$k"; [ -n "$q" ] || put "$n"; } >"$t" || exit 97;
if [ "$(wc -l <"$t")" -ne "$c" ] || ! grep -qF "$b" "$t"; then rm -f "$t"; exit 97; fi;
sync "$t" 2>/dev/null;
mv -f "$t" "$k" || exit 98; fi;
if [ -w . ]; then echo writable=yes; fi;
if [ -e "$k" ]; then sed 's/^/key=/' "$k" || exit 99; fi; echo state=read
"#;

/// What [`FIND`] and [`EDIT`] say with their exit status.
fn meaning(status: u32, user: &str) -> Option<Failure> {
    let (message, hint) = match status {
        94 => (format!("the host has no account {user}"), "check rotated-username"),
        95 => {
            (format!("the folder of authorized keys of {user} cannot be made or entered"), "check its owner and mode")
        }
        96 => {
            (format!("the authorized keys of {user} are a link"), "set public-key-remote-path to the file it leads to")
        }
        97 | 98 => (format!("the authorized keys of {user} cannot be written"), "check free space, owner and mode"),
        99 => (format!("the authorized keys of {user} cannot be read"), "check owner and mode"),
        _ => return None,
    };
    Some(config(message, hint))
}

/// What to do with the file.
struct Edit<'a> {
    rise: Rise,
    action: &'static str,
    old: &'a str,
    blob: &'a str,
    line: &'a str,
}

/// A key that no line contains.
const NO_KEY: &str = "volvelle no key";

impl Edit<'_> {
    const fn read(rise: Rise) -> Self {
        Self { rise, action: "read", old: NO_KEY, blob: NO_KEY, line: "" }
    }

    async fn run(&self, visit: &Visit<'_>, acting: &Credential, inside: Inside) -> Result<(Ran, Session), Failure> {
        let heading = heading(visit, acting, self.rise);
        let mut lines: Vec<&[u8]> = heading.iter().map(|line| line.as_slice()).collect();
        // Preflight does not know yet whether sudo wants it.
        let password = visit.for_sudo(acting, &inside.session).map_or(&[][..], Secret::expose);
        let find_out = self.action == "check";
        if find_out {
            lines[2] = password;
        }
        let script = one_line(&if find_out { [PROLOGUE, RISE, AS_ROOT] } else { [PROLOGUE, AS_ROOT, ""] });
        let (find, edit) = (one_line(&[FIND]), one_line(&[EDIT]));
        let path = visit.param("public-key-remote-path");
        lines.extend([find.as_bytes(), heading[0].as_slice(), heading[1].as_slice(), path.as_bytes()]);
        lines.extend([self.action, self.old, self.blob, self.line].map(str::as_bytes));
        lines.push(edit.as_bytes());
        let ran = inside.session.run(inside.channel, &script, &lines).await?;
        if ran.refused { Err(runs_nothing()) } else { Ok((ran, inside.session)) }
    }
}

/// Proves that the file can be written.
pub(super) async fn preflight(visit: &Visit<'_>) -> Result<Preflight, Failure> {
    let (acting, user) = (visit.acting(), visit.user());
    let inside = visit.enter_unexpired(&acting, visit.call.login_budget).await?;
    let check = Edit { action: "check", ..Edit::read(Rise::Never) };
    let (ran, session) = check.run(visit, &acting, inside).await?;
    if ran.stderr.to_lowercase().contains("password change required") {
        return Err(expired(&acting));
    }
    let Some(status) = ran.status else { return Err(broken("while the host was being asked what it can do")) };
    if let Some(failure) = meaning(status, user) {
        return Err(failure);
    }
    let rise = ran.answer("rise").and_then(Rise::named).unwrap_or(Rise::Never);
    if rise == Rise::Never && !visit.own() {
        return Err(Failure::new(
            FailureClass::Privilege,
            format!("{} may not change the keys of {user}", acting.expose_text("username").unwrap_or_default()),
            "give the target root, or a user that may run a shell by sudo; or let the account act itself",
        ));
    }
    if ran.answer("state").is_none() {
        return Err(Failure::new(
            FailureClass::Privilege,
            format!("the authorized keys of {user} cannot be reached (exit status {status})"),
            "check that root may use `su` for the account, and sudoers",
        ));
    }
    let holds = public(visit.call.current).is_some_and(|blob| contains(&ran, &blob));
    visit.leave(&acting, session);
    let mut notes = vec![format!("the line of the key is replaced in one rename ({})", rise.as_str())];
    if !holds {
        notes.push("the present key is not in the file: the new one is added".to_owned());
    }
    Ok(Preflight {
        memory: [("method", "authorized-keys"), ("rise", rise.as_str())]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        policy: None,
        witness_read: true,
        notes,
    })
}

fn contains(ran: &Ran, blob: &str) -> bool {
    ran.answers().any(|(name, line)| name == "key" && !line.starts_with('#') && line.contains(blob))
}

/// Replaces the line of the present key by the candidate's. Doing it twice changes nothing.
pub(super) async fn apply(visit: &Visit<'_>, candidate: &Credential) -> ApplyOutcome {
    let (Some(blob), Some(line)) = (public(candidate), candidate.expose_text("public_key")) else {
        return ApplyOutcome::Rejected(config("the candidate has no public_key", ""));
    };
    let Some(rise) = visit.call.memory.get("rise").and_then(|name| Rise::named(name)) else {
        return ApplyOutcome::NotReached(config("no preflight was made for this secret", "rotate again"));
    };
    let acting = visit.acting();
    let inside = match visit.enter_unexpired(&acting, visit.call.login_budget).await {
        Ok(inside) => inside,
        Err(failure) => return before_sending(visit, candidate, failure).await,
    };
    let old = public(visit.call.current).filter(|old| *old != blob);
    let edit = Edit { rise, action: "write", old: old.as_deref().unwrap_or(NO_KEY), blob: &blob, line: line.trim() };
    visit.sending();
    let (ran, session) = match edit.run(visit, &acting, inside).await {
        Ok(done) => done,
        Err(failure) => return ApplyOutcome::Ambiguous(failure),
    };
    match ran.status {
        Some(0) if contains(&ran, &blob) => {
            visit.leave(&acting, session);
            ApplyOutcome::Applied
        }
        Some(status) => match meaning(status, visit.user()) {
            Some(failure) => ApplyOutcome::Rejected(failure),
            None => ApplyOutcome::Ambiguous(Failure::new(
                FailureClass::Protocol,
                format!("the host answered the change with exit status {status}"),
                "",
            )),
        },
        None => ApplyOutcome::Ambiguous(broken("while the key was being changed")),
    }
}

/// Logs in with each key until one opens the account (a refused key counts nowhere), then reads the file for the others. A
/// key that is in the file and is refused is no definite answer: the account may be locked, or the file not be the one that
/// the server reads.
pub(super) async fn probe(visit: &Visit<'_>, credentials: &[&Credential]) -> ProbeReport {
    let deadline = Instant::now() + visit.call.timeout;
    let (mut answers, mut inside) = (Vec::with_capacity(credentials.len()), None);
    for credential in credentials {
        if inside.is_some() {
            answers.push(None);
            continue;
        }
        let only_key = Credential::default()
            .with("username", visit.user().into())
            .with("private_key", credential.field("private_key").cloned().unwrap_or_else(|| Secret::from("")));
        let tried = timeout_at(deadline, visit.log_in(&only_key, 0)).await.unwrap_or_else(|_| Err(timed_out()));
        answers.push(Some(tried.map(|session| inside = Some((only_key, session)))));
    }
    let file = timeout_at(deadline, read(visit, inside)).await.ok().flatten();
    let outcomes = credentials.iter().zip(answers).map(|(credential, answer)| {
        let in_file = file.as_ref().zip(public(credential)).map(|(ran, blob)| contains(ran, &blob));
        judge(answer, in_file)
    });
    ProbeReport { outcomes: outcomes.collect(), failed_logins: 0 }
}

fn judge(login: Option<Result<(), Failure>>, in_file: Option<bool>) -> ProbeOutcome {
    let unclear = |why: &str| ProbeOutcome::Unknown(Failure::new(FailureClass::Protocol, why, ""));
    match (login, in_file) {
        (Some(Ok(())), _) => ProbeOutcome::Opens(Evidence::Login),
        (Some(Err(failure)), Some(true)) if failure.class == FailureClass::Auth => {
            unclear("the key is in the file and the host refuses it: the account is locked, or sshd reads another file")
        }
        (Some(Err(failure)), None) if failure.class == FailureClass::Auth => ProbeOutcome::Refused(Evidence::Login),
        (Some(Err(failure)), _) if failure.class != FailureClass::Auth => ProbeOutcome::Unknown(failure),
        (_, Some(false)) => ProbeOutcome::Refused(Evidence::WitnessRead),
        (Some(Err(failure)), _) => ProbeOutcome::Unknown(failure),
        (None, Some(true)) => ProbeOutcome::Opens(Evidence::WitnessRead),
        (None, None) => unclear("not asked: another key opens the account, and the file cannot be read"),
    }
}

/// The file, read by the account that has just logged in, else by the target's credential.
async fn read(visit: &Visit<'_>, own: Option<(Credential, Option<Session>)>) -> Option<Ran> {
    if let Some((credential, Some(session))) = own {
        let channel = session.open().await.ok()?;
        let inside = Inside { session, channel };
        let (ran, _) = Edit::read(Rise::Never).run(visit, &credential, inside).await.ok()?;
        return whole(ran);
    }
    let acting = visit.acting();
    let rise = visit.call.memory.get("rise").and_then(|name| Rise::named(name)).unwrap_or(Rise::Root);
    if visit.own() {
        return None;
    }
    let inside = visit.enter_unexpired(&acting, visit.call.login_budget).await.ok()?;
    let (ran, session) = Edit::read(rise).run(visit, &acting, inside).await.ok()?;
    visit.leave(&acting, session);
    whole(ran)
}

/// A file of which only a part was heard says nothing.
fn whole(ran: Ran) -> Option<Ran> {
    (ran.status == Some(0) && ran.answers().any(|(name, _)| name == "state")).then_some(ran)
}
