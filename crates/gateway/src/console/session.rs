//! Sessions: a token that lives in a cookie, for as long as its user is there.
//!
//! What must stay true: a session ends 30 minutes after its user last did something and 12 hours after it began, whichever
//! gateway is asked, and its token ends with it. A request counts only if it was made by the console's own page: it
//! carries a header that no other site's page can send, and the browser does not say that it came from elsewhere.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use hyper::HeaderMap;
use hyper::header::{COOKIE, HOST, HeaderValue, ORIGIN};
use serde_json::{Value, json};
use volvelle_domain::Secret;
use volvelle_domain::ids::Micros;
use volvelle_store::sessions::{self, Session};
use volvelle_store::{StoreError, tokens};

use crate::app::{App, Fresh};
use crate::credentials;
use crate::error::ApiError;
use crate::ops::auth::{Use, sign_in_for};
use crate::params::Params;
use crate::server::{Origin, Peer};

/// Seconds without anything done by the user.
const IDLE: i64 = 30 * 60;
/// Seconds from the beginning.
const LONGEST: i64 = 12 * 3600;
/// Seconds that the database's memory of the last request may lag behind.
const LAG: i64 = 60;
/// Most sessions remembered; beyond, they are asked of the database.
const MOST: usize = 10_000;
/// The header that the console's page sends: `user` for what a person did, `page` for what the page did by itself.
const HEADER: &str = "x-volvelle-console";

/// The sessions of this gateway.
pub struct Sessions {
    app: Arc<App>,
    known: Mutex<HashMap<[u8; 32], Known>>,
}

#[derive(Clone, Copy)]
struct Known {
    started_at: Micros,
    seen_at: Micros,
    saved_at: Micros,
}

/// What a request has in the place of a token.
pub enum Presented {
    /// No cookie of the console.
    Nothing,
    /// A cookie, but not sent by the console's own page.
    Foreign,
    /// A session's token, and whether a person did something.
    Token(Secret, Activity),
}

/// What a request says about the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// A person did something.
    User,
    /// The page asked by itself.
    Page,
}

impl Sessions {
    /// The sessions of a gateway.
    #[must_use]
    pub fn new(app: Arc<App>) -> Self {
        Self { app, known: Mutex::default() }
    }

    /// What the headers of a request present.
    #[must_use]
    pub fn presented(&self, headers: &HeaderMap) -> Presented {
        let Some(token) = cookie(headers) else { return Presented::Nothing };
        match own_page(headers) {
            Some(activity) => Presented::Token(token, activity),
            None => Presented::Foreign,
        }
    }

    /// Puts the session's token where a client would have put its own; a body that has one stays as it is.
    ///
    /// # Errors
    /// The session has ended, or the request was not made by the console's page.
    pub async fn stand_in(&self, body: Bytes, presented: Presented) -> Result<Bytes, ApiError> {
        if matches!(presented, Presented::Nothing) {
            return Ok(body);
        }
        let params = Params::parse(&body)?;
        if params.has("token") {
            return Ok(body);
        }
        let Presented::Token(token, activity) = presented else { return Err(ApiError::Unauthenticated) };
        self.admit(&token, activity).await?;
        Ok(params.with_token(&token).to_body())
    }

    /// Signs in; gives the answer and the cookie.
    ///
    /// # Errors
    /// The credential is not valid, or another site's page asks.
    pub async fn begin(
        &self,
        headers: &HeaderMap,
        params: &Params,
        remote: Peer,
    ) -> Result<(Value, HeaderValue), ApiError> {
        own_page(headers).ok_or(ApiError::Unauthenticated)?;
        let from = Origin::of(remote, headers);
        let given = sign_in_for(&self.app, &from, params, Use::Session(LONGEST / 60)).await?;
        // Whatever is in `Params` is wiped.
        let Value::Object(given) = given else { return Err(ApiError::Internal) };
        let answer = Params::new(given);
        let token = answer.secret("token").ok_or(ApiError::Internal)?;
        let (_, caller) = self.app.enter(credentials::hash(token.expose()), Fresh::Checked).await?;
        let now = self.app.now();
        let session = Session {
            account: caller.account.id.clone(),
            hash: credentials::hash(token.expose()),
            started_at: now,
            seen_at: now,
        };
        let mut tx = self.app.store.begin().await?;
        sessions::add(&mut tx, &session, now.plus_seconds(-LONGEST)).await?;
        tx.commit().await?;
        self.remember(session.hash, Known { started_at: now, seen_at: now, saved_at: now });
        let text = format!(
            "{}={}; Path=/; HttpOnly; Secure; SameSite=Strict; Max-Age={LONGEST}",
            name(headers),
            token.expose_str().unwrap_or_default()
        );
        let mut cookie = HeaderValue::from_str(&text).map_err(|_| ApiError::Internal)?;
        cookie.set_sensitive(true);
        Ok((json!({"access_id": caller.method.access_id.0, "expiration": answer.text("expiration")}), cookie))
    }

    /// Signs out; gives the answer and the cookie that takes the old one away.
    ///
    /// # Errors
    /// Another site's page asks, or the store failed.
    pub async fn end(&self, headers: &HeaderMap) -> Result<(Value, HeaderValue), ApiError> {
        match self.presented(headers) {
            Presented::Foreign => return Err(ApiError::Unauthenticated),
            Presented::Token(token, _) => self.close(&credentials::hash(token.expose())).await?,
            Presented::Nothing => {}
        }
        let text = format!("{}=; Path=/; HttpOnly; Secure; SameSite=Strict; Max-Age=0", name(headers));
        Ok((json!({}), HeaderValue::from_str(&text).map_err(|_| ApiError::Internal)?))
    }

    async fn admit(&self, token: &Secret, activity: Activity) -> Result<(), ApiError> {
        let (hash, now) = (credentials::hash(token.expose()), self.app.now());
        let mut known = self.recall(&hash);
        if known.is_none_or(|known| ended(&known, now)) {
            // Another gateway may have seen the user since.
            let mut tx = self.app.store.read().await?;
            known = sessions::find(&mut tx, &hash).await?.map(|session| Known {
                started_at: session.started_at,
                seen_at: session.seen_at,
                saved_at: session.seen_at,
            });
        }
        let Some(mut known) = known else { return Err(ApiError::Unauthenticated) };
        if ended(&known, now) {
            self.close(&hash).await?;
            return Err(ApiError::Unauthenticated);
        }
        if activity == Activity::User {
            known.seen_at = now;
            if now >= known.saved_at.plus_seconds(LAG) {
                let mut tx = self.app.store.begin().await?;
                sessions::touch(&mut tx, &hash, now).await?;
                tx.commit().await?;
                known.saved_at = now;
            }
        }
        self.remember(hash, known);
        Ok(())
    }

    /// Ends a session and its token.
    async fn close(&self, hash: &[u8; 32]) -> Result<(), ApiError> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(hash);
        let mut tx = self.app.store.begin().await?;
        sessions::remove(&mut tx, hash).await?;
        match tokens::revoke(&mut tx, hash).await {
            Ok(()) | Err(StoreError::NotFound(_)) => Ok(tx.commit().await?),
            Err(error) => Err(error.into()),
        }
    }

    fn recall(&self, hash: &[u8; 32]) -> Option<Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(hash).copied()
    }

    fn remember(&self, hash: [u8; 32], session: Known) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST && !known.contains_key(&hash) {
            known.clear();
        }
        known.insert(hash, session);
    }
}

fn ended(known: &Known, now: Micros) -> bool {
    now >= known.seen_at.plus_seconds(IDLE) || now >= known.started_at.plus_seconds(LONGEST)
}

/// Cookies belong to a host and not to a port: gateways beside each other must not take each other's.
fn name(headers: &HeaderMap) -> String {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let port = host.rsplit_once(':').map(|(_, port)| port).filter(|port| port.parse::<u16>().is_ok());
    format!("__Host-volvelle-{}", port.unwrap_or("443"))
}

fn cookie(headers: &HeaderMap) -> Option<Secret> {
    // Clients of the API have none, and are not to pay for those who do.
    headers.get(COOKIE)?;
    let name = name(headers);
    let pairs = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok()).flat_map(|line| line.split(';'));
    let value = pairs.filter_map(|pair| pair.trim().split_once('=')).find(|(key, _)| *key == name)?.1;
    (!value.is_empty()).then(|| Secret::from(value))
}

/// Whether the console's own page made the request, and for whom.
fn own_page(headers: &HeaderMap) -> Option<Activity> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let activity = match text(HEADER)? {
        "user" => Activity::User,
        "page" => Activity::Page,
        _ => return None,
    };
    let same_origin = match (text("sec-fetch-site"), headers.get(ORIGIN).and_then(|origin| origin.to_str().ok())) {
        (Some(site), _) => site == "same-origin",
        (None, Some(origin)) => {
            let host = origin.split_once("://").map(|(_, host)| host);
            host.is_some() && host == headers.get(HOST).and_then(|host| host.to_str().ok())
        }
        // No browser leaves out both: this is a program, which has no cookie but its own.
        (None, None) => true,
    };
    same_origin.then_some(activity)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| ((*name).parse().expect("a name"), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn only_the_consoles_own_page_speaks_for_the_user() {
        let own = [("x-volvelle-console", "user"), ("host", "pw.example:8443")];
        let with = |more: &[(&'static str, &'static str)]| own_page(&headers(&[&own[..], more].concat()));
        assert_eq!(with(&[("sec-fetch-site", "same-origin")]), Some(Activity::User));
        assert_eq!(with(&[("origin", "https://pw.example:8443")]), Some(Activity::User));
        for foreign in [
            &[("sec-fetch-site", "cross-site")][..],
            &[("sec-fetch-site", "same-site")],
            &[("sec-fetch-site", "none")],
            &[("origin", "https://evil.example")],
            &[("origin", "null")],
            &[("origin", "https://pw.example")],
        ] {
            assert_eq!(with(foreign), None, "{foreign:?}");
        }
        assert_eq!(own_page(&headers(&[("sec-fetch-site", "same-origin")])), None, "the header is needed");
    }

    #[test]
    fn the_cookie_is_that_of_this_port() {
        let held = "a=b; __Host-volvelle-8081=t-1; __Host-volvelle-8080=t-2";
        let token = |host| cookie(&headers(&[("cookie", held), ("host", host)]));
        assert_eq!(token("127.0.0.1:8080").expect("there").expose_str(), Some("t-2"));
        assert!(token("pw.example").is_none());
        assert!(token("127.0.0.1:8082").is_none());
    }
}
