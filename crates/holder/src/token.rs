//! Keys in a PKCS#11 token: HMAC-SHA256 under a key that stays there. A customer's fragment can be such a key, and so can what
//! seals a holder's fragments.
//!
//! What must stay true: the PIN comes from a file and is in no argument, error or log; a PIN that was refused is not tried again,
//! because tokens lock themselves; a key that was exchanged meanwhile is not used; a token that hangs holds up one thread and not
//! those of others.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error as TokenError, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::AuthPin;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use volvelle_fragments::customer::CHECKED;
use zeroize::{Zeroize as _, Zeroizing};

use crate::lock;
use crate::roster::read_private;

/// Longest a token may take for one message.
const PATIENCE: Duration = Duration::from_secs(5);

/// Which key of which token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct TokenKey {
    /// The vendor's library, such as `/usr/lib/softhsm/libsofthsm2.so`.
    pub module: PathBuf,
    /// The token's label.
    pub token: String,
    /// The key's label.
    pub key: String,
    /// A file with the user's PIN.
    #[serde(alias = "pin_file")]
    pub pin_file: PathBuf,
}

/// A session that is signed in, and the key's handle in it.
struct Open {
    session: Session,
    key: ObjectHandle,
}

/// The only process-wide state: a module may be initialised once.
static MODULES: OnceLock<Mutex<HashMap<PathBuf, Pkcs11>>> = OnceLock::new();

fn module(path: &Path) -> Result<Pkcs11> {
    let mut modules = lock(MODULES.get_or_init(Mutex::default));
    if let Some(known) = modules.get(path) {
        return Ok(known.clone());
    }
    let shown = path.display();
    let module = Pkcs11::new(path).with_context(|| format!("{shown} is no PKCS#11 module that can be loaded"))?;
    match module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        Ok(()) | Err(TokenError::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
        Err(error) => return Err(said(&error)).with_context(|| format!("the module {shown} does not start")),
    }
    modules.insert(path.to_owned(), module.clone());
    Ok(module)
}

/// What the token says, in few words.
fn said(error: &TokenError) -> anyhow::Error {
    match error {
        TokenError::Pkcs11(code, function) => anyhow!("{function:?} answers {code:?}"),
        other => anyhow!("{other}"),
    }
}

impl TokenKey {
    /// Relative paths begin at this folder.
    pub(crate) fn beside(&mut self, folder: &Path) {
        self.pin_file = folder.join(&self.pin_file);
    }

    /// HMAC-SHA256 of a message, in a session of its own.
    pub(crate) fn mac(&self, message: &[u8]) -> Result<Zeroizing<[u8; 32]>> {
        self.open()?.mac(message)
    }

    fn slot(&self, module: &Pkcs11) -> Result<Slot> {
        let slots = module.get_slots_with_token().map_err(|error| said(&error))?;
        let mut found = Vec::new();
        for slot in slots {
            // A slot that cannot be asked is not the one.
            if module.get_token_info(slot).is_ok_and(|info| info.label().trim_end() == self.token) {
                found.push(slot);
            }
        }
        match found.as_slice() {
            [only] => Ok(*only),
            [] => bail!("there is no token with the label {:?}", self.token),
            _ => bail!("there are several tokens with the label {:?}", self.token),
        }
    }

    fn open(&self) -> Result<Open> {
        let module = module(&self.module)?;
        let session = module.open_ro_session(self.slot(&module)?).map_err(|error| said(&error))?;
        match session.login(UserType::User, Some(&self.pin()?)) {
            Ok(()) | Err(TokenError::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {}
            Err(TokenError::Pkcs11(RvError::PinIncorrect, _)) => bail!("the token {:?} refuses the PIN", self.token),
            Err(error) => {
                return Err(said(&error)).with_context(|| format!("the token {:?} lets nobody in", self.token));
            }
        }
        let wanted = [Attribute::Class(ObjectClass::SECRET_KEY), Attribute::Label(self.key.clone().into_bytes())];
        let found = session.find_objects(&wanted).map_err(|error| said(&error))?;
        let key = match found.as_slice() {
            [only] => *only,
            [] => bail!("the token {:?} has no secret key with the label {:?}", self.token, self.key),
            _ => bail!("the token {:?} has several keys with the label {:?}", self.token, self.key),
        };
        let shown = session.get_attributes(key, &[AttributeType::Extractable]).unwrap_or_default();
        if shown.iter().any(|attribute| matches!(attribute, Attribute::Extractable(true))) {
            tracing::warn!(token = self.token, key = self.key, "the key may be taken out of its token");
        }
        Ok(Open { session, key })
    }

    /// The PIN from its file, without the line feed at its end.
    fn pin(&self) -> Result<AuthPin> {
        let text = read_private(&self.pin_file)?;
        let text = std::str::from_utf8(&text).map_err(|_| anyhow!("{} is no text", self.pin_file.display()))?;
        let pin = text.trim_end_matches(['\n', '\r']);
        ensure!(!pin.is_empty(), "{} is empty", self.pin_file.display());
        Ok(AuthPin::from(pin))
    }
}

impl Open {
    fn mac(&self, message: &[u8]) -> Result<Zeroizing<[u8; 32]>> {
        let mut made = self.session.sign(&Mechanism::Sha256Hmac, self.key, message).map_err(|error| said(&error))?;
        let mut out = Zeroizing::new([0; 32]);
        let fits = made.len() == out.len();
        if fits {
            out.copy_from_slice(&made);
        }
        made.zeroize();
        ensure!(fits, "the token's key makes no HMAC-SHA256");
        Ok(out)
    }
}

/// A key of a token that is asked again and again, one message at a time.
pub(crate) struct Mac {
    at: TokenKey,
    /// What the key makes of [`CHECKED`], by which an exchanged one is known.
    check: [u8; 32],
    /// `None` after a failure: it is opened anew. The second field says that the PIN was refused.
    open: Mutex<(Option<Open>, bool)>,
    turn: Arc<Semaphore>,
}

impl std::fmt::Debug for Mac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mac").field("at", &self.at).finish_non_exhaustive()
    }
}

impl Mac {
    /// Signs in to the token.
    pub(crate) fn open(at: TokenKey) -> Result<Arc<Self>> {
        let open = at.open()?;
        let check = *open.mac(CHECKED)?;
        Ok(Arc::new(Self { at, check, open: Mutex::new((Some(open), false)), turn: Arc::new(Semaphore::new(1)) }))
    }

    /// What the key made of [`CHECKED`] at the start.
    pub(crate) const fn check(&self) -> &[u8; 32] {
        &self.check
    }

    /// HMAC-SHA256 of a message. A session that broke is opened anew, once.
    fn now(&self, message: &[u8]) -> Result<Zeroizing<[u8; 32]>> {
        let mut guarded = lock(&self.open);
        let (open, refused) = &mut *guarded;
        if let Some(known) = open.as_ref() {
            match known.mac(message) {
                Ok(mac) => return Ok(mac),
                Err(error) => tracing::warn!(%error, token = self.at.token, "the token is asked in a new session"),
            }
        }
        *open = None;
        ensure!(!*refused, "the token refused the PIN before, and is not asked again until a restart");
        let fresh = self.at.open();
        *refused = fresh.as_ref().is_err_and(|error| error.to_string().contains("refuses the PIN"));
        let fresh = fresh?;
        self.compare(&*fresh.mac(CHECKED)?)?;
        open.insert(fresh).mac(message)
    }

    fn compare(&self, check: &[u8; 32]) -> Result<()> {
        ensure!(*check == self.check, "the key {:?} of its token is another one than at the start", self.at.key);
        Ok(())
    }

    /// Refuses unless the key is the one of the start.
    pub(crate) async fn ask_check(self: &Arc<Self>) -> Result<()> {
        self.compare(&*self.ask(CHECKED).await?)
    }

    /// The same from a thread of its own, within a bounded time.
    pub(crate) async fn ask(self: &Arc<Self>, message: &[u8]) -> Result<Zeroizing<[u8; 32]>> {
        let late = || anyhow!("it does not answer in time");
        let turn =
            tokio::time::timeout(PATIENCE, Arc::clone(&self.turn).acquire_owned()).await.map_err(|_| late())??;
        let (mac, message) = (Arc::clone(self), message.to_vec());
        let asked = tokio::task::spawn_blocking(move || {
            // Held by the thread, so that a hung token stops one and others give up in time.
            let _turn = turn;
            mac.now(&message)
        });
        tokio::time::timeout(PATIENCE, asked).await.map_err(|_| late())??
    }
}
