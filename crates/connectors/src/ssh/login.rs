//! Logging in: by key, at a prompt, or with a password; and the change that a host demands at login.
//!
//! What must stay true: at most one wrong password is sent per call, and only what the host said of the password itself is
//! told as a refusal. A locked account, a host that takes no passwords and a second factor are something else.

use std::sync::Arc;

use russh::MethodKind;
use russh::client::{AuthResult, KeyboardInteractiveAuthResponse as Answer, Prompt};
use russh::keys::{PrivateKeyWithHashAlg, decode_secret_key};
use volvelle_domain::connector::{Failure, FailureClass};
use volvelle_domain::{Credential, Secret};

use super::config;
use super::policy::sentence;
use super::session::{Session, Way, lost};

/// Most questions a host may ask at one login.
const MOST_QUESTIONS: usize = 12;

/// What came of a login.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Login {
    /// In.
    In,
    /// The credential was refused.
    Refused,
    /// The password is right, but the host demands a new one before it lets anybody in.
    Expired,
    /// The account is locked, in the host's own words; this says nothing about the password.
    Locked(String),
}

/// What came of a change at login.
pub(super) enum Changed {
    /// The host took the new password.
    Done,
    /// The host refuses the new password, in its own words.
    Rejected(String),
    /// The login ended otherwise, before the new password was sent.
    Unchanged(Login),
    /// The new password was sent and the host did not say what became of it.
    Unclear,
}

/// What a prompt asks for.
enum Question {
    Present,
    New,
    Again,
    Other,
}

/// Everything the host said; PAM's remarks come in front of the prompt.
fn all_text(name: &str, instructions: &str, prompts: &[Prompt]) -> String {
    prompts.iter().fold(format!("{name}\n{instructions}\n"), |text, prompt| format!("{text}{}\n", prompt.prompt))
}

fn question(prompt: &str, answered: usize) -> Question {
    let text = prompt.trim_end().lines().last().unwrap_or_default().to_lowercase();
    if !text.contains("password") {
        return Question::Other;
    }
    if ["retype", "re-enter", "reenter", "repeat", "again", "confirm", "verify"].iter().any(|w| text.contains(w)) {
        return Question::Again;
    }
    if answered > 0 && text.contains("new") { Question::New } else { Question::Present }
}

/// Whether the host asks for the password a second time because it wants it changed.
fn demands_change(text: &str, prompts: &[Prompt]) -> bool {
    let asks = |prompt: &Prompt| {
        let text = prompt.prompt.to_lowercase();
        matches!(question(&text, 1), Question::New | Question::Again)
            || text.contains("current")
            || text.contains("old ")
    };
    prompts.iter().any(asks) || text.to_lowercase().contains("change your password")
}

fn second_factor(user: &str) -> Failure {
    Failure::new(
        FailureClass::Protocol,
        format!("the host asks {user} for something else than a password"),
        "exempt the account from a second factor, or log in with a key",
    )
}

impl Session {
    /// Logs in with what the credential has: a key (a refused one counts nowhere), then the password, if `budget` allows a
    /// failure.
    pub(super) async fn log_in(&mut self, credential: &Credential, budget: u32) -> Result<Login, Failure> {
        let user = credential.expose_text("username").unwrap_or_default().to_owned();
        if credential.field("private_key").is_some() && self.by_key(&user, credential).await? {
            self.way = Way::Key;
            return Ok(Login::In);
        }
        let Some(password) = credential.expose_text("password") else { return Ok(Login::Refused) };
        if budget == 0 {
            return Err(Failure::new(
                FailureClass::LoginBudget,
                "no failed login may be risked on the host any more",
                "wait until the login budget is free again",
            ));
        }
        self.way = Way::Password;
        let (prompt, plain) = self.methods(&user).await?;
        if prompt && let Some(login) = self.at_prompt(&user, password).await? {
            return Ok(login);
        }
        if plain { self.by_password(&user, password).await } else { Err(takes_no_password(&user)) }
    }

    async fn by_key(&mut self, user: &str, credential: &Credential) -> Result<bool, Failure> {
        let text = credential.expose_text("private_key").unwrap_or_default();
        let key = decode_secret_key(text, credential.expose_text("private_key_password"))
            .map_err(|_| config("the private key cannot be read", "check private-key and private-key-password"))?;
        // Only RSA has a choice of hashes, and asking for it may take a second on old servers.
        let hash = if key.algorithm().is_rsa() {
            self.handle.best_supported_rsa_hash().await.ok().flatten().flatten()
        } else {
            None
        };
        let key = PrivateKeyWithHashAlg::new(Arc::new(key), hash);
        match self.handle.authenticate_publickey(user, key).await.map_err(|e| lost(&self.shown, &e))? {
            AuthResult::Success => Ok(true),
            AuthResult::Failure { partial_success: true, .. } => Err(second_factor(user)),
            AuthResult::Failure { .. } => Ok(false),
        }
    }

    /// Whether the host takes passwords at a prompt, and whether it takes them without one.
    async fn methods(&mut self, user: &str) -> Result<(bool, bool), Failure> {
        match self.handle.authenticate_none(user).await.map_err(|e| lost(&self.shown, &e))? {
            AuthResult::Success => Err(config(
                format!("the host lets {user} in without any password"),
                "give the account a password and forbid empty ones",
            )),
            AuthResult::Failure { remaining_methods, .. } => Ok((
                remaining_methods.contains(&MethodKind::KeyboardInteractive),
                remaining_methods.contains(&MethodKind::Password),
            )),
        }
    }

    async fn by_password(&mut self, user: &str, password: &str) -> Result<Login, Failure> {
        match self.handle.authenticate_password(user, password).await.map_err(|e| lost(&self.shown, &e))? {
            AuthResult::Success => Ok(Login::In),
            AuthResult::Failure { partial_success: true, .. } => Err(second_factor(user)),
            AuthResult::Failure { .. } => Ok(Login::Refused),
        }
    }

    /// The prompt is preferred because there the host says more: that the account is locked, or that the password has
    /// expired. `None` if it asked nothing.
    async fn at_prompt(&mut self, user: &str, password: &str) -> Result<Option<Login>, Failure> {
        let mut answer = self.start_prompt(user).await?;
        let (mut answered, mut heard) = (0, String::new());
        for _ in 0..MOST_QUESTIONS {
            let (text, prompts) = match answer {
                Answer::Success => return Ok(Some(Login::In)),
                Answer::Failure { partial_success: true, .. } => return Err(second_factor(user)),
                Answer::Failure { .. } if heard.to_lowercase().contains("locked") => {
                    return Ok(Some(Login::Locked(sentence(&heard, &["locked"], &Secret::from(password)))));
                }
                Answer::Failure { .. } => return Ok((answered > 0).then_some(Login::Refused)),
                Answer::InfoRequest { name, instructions, prompts } => {
                    (all_text(&name, &instructions, &prompts), prompts)
                }
            };
            heard.push_str(&text);
            if answered > 0 && demands_change(&text, &prompts) {
                return Ok(Some(Login::Expired));
            }
            if prompts.iter().any(|p| !p.prompt.to_lowercase().contains("password")) {
                return Err(second_factor(user));
            }
            if answered > 0 && !prompts.is_empty() {
                return Ok(Some(Login::Refused));
            }
            answered += prompts.len();
            answer = self.reply(prompts.iter().map(|_| password.to_owned()).collect()).await?;
        }
        Err(second_factor(user))
    }

    /// Logs in to an account whose password has expired, and gives the new password when the host demands it. `sending` is
    /// called just before the new password leaves.
    pub(super) async fn change_at_login(
        &mut self,
        credential: &Credential,
        new: &Secret,
        sending: &(dyn Fn() + Sync),
    ) -> Result<Changed, Failure> {
        let user = credential.expose_text("username").unwrap_or_default().to_owned();
        let (Some(old), Some(wanted)) = (credential.expose_text("password"), new.expose_str()) else {
            return Err(config("a change at login needs the present password", "give rotated-password"));
        };
        self.way = Way::Password;
        let mut answer = self.start_prompt(&user).await?;
        let (mut answered, mut given, mut heard) = (0, 0, String::new());
        for _ in 0..MOST_QUESTIONS {
            let prompts = match answer {
                Answer::Success if given > 0 => return Ok(Changed::Done),
                Answer::Success => return Ok(Changed::Unchanged(Login::In)),
                Answer::Failure { .. } if given == 0 => return Ok(Changed::Unchanged(Login::Refused)),
                Answer::Failure { .. } => return Ok(rejected(&heard, new).unwrap_or(Changed::Unclear)),
                Answer::InfoRequest { name, instructions, prompts } => {
                    heard.push_str(&all_text(&name, &instructions, &prompts));
                    prompts
                }
            };
            let mut replies = Vec::with_capacity(prompts.len());
            for prompt in &prompts {
                replies.push(match question(&prompt.prompt, answered) {
                    Question::Other => return Err(second_factor(&user)),
                    // The same question again means that the first answer was not good enough.
                    Question::New if given > 0 => return Ok(rejected(&heard, new).unwrap_or(Changed::Unclear)),
                    Question::Present => old.to_owned(),
                    Question::New | Question::Again => {
                        sending();
                        given += 1;
                        wanted.to_owned()
                    }
                });
                answered += 1;
            }
            answer = self.reply(replies).await?;
        }
        Ok(Changed::Unclear)
    }

    async fn start_prompt(&mut self, user: &str) -> Result<Answer, Failure> {
        let started = self.handle.authenticate_keyboard_interactive_start(user, None).await;
        started.map_err(|e| lost(&self.shown, &e))
    }

    async fn reply(&mut self, replies: Vec<String>) -> Result<Answer, Failure> {
        self.handle.authenticate_keyboard_interactive_respond(replies).await.map_err(|e| lost(&self.shown, &e))
    }
}

fn rejected(heard: &str, new: &Secret) -> Option<Changed> {
    let known = super::policy::REFUSALS;
    let said = heard.to_lowercase();
    known.iter().any(|text| said.contains(text)).then(|| Changed::Rejected(sentence(heard, known, new)))
}

fn takes_no_password(user: &str) -> Failure {
    config(
        format!("the host takes no passwords of {user}, so that none can be tried"),
        "let the target's private key act (use-target-creds), or allow password logins on the host",
    )
}
