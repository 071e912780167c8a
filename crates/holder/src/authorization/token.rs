//! A client's own token of an OIDC provider (JWT), as a holder verifies it: by the provider's keys in a file, asking nobody.
//!
//! What must stay true: the algorithm is that of the key and never what the token would like; a token without an end, of another issuer
//! or for another audience is refused. No gateway can make one.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use aws_lc_rs::rsa::PublicKeyComponents;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Shown;

/// A provider whose clients' tokens are believed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct IssuerConfig {
    /// The `iss` of its tokens.
    pub issuer: String,
    /// What must be among their `aud`.
    pub audience: String,
    /// Its public keys, a JWK set.
    pub jwks: PathBuf,
    /// The tenants whose clients it knows, in hexadecimal (`realm` of `volvelle account settings`).
    pub realms: Vec<String>,
}

/// A provider with its keys.
pub(crate) struct Issuer {
    issuer: String,
    audience: String,
    realms: Vec<[u8; 16]>,
    keys: Vec<(Option<String>, Jwk)>,
}

enum Jwk {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    P256(Vec<u8>),
    Ed25519(Vec<u8>),
}

impl Jwk {
    fn read(jwk: &Value) -> Option<Self> {
        let bytes = |name: &str| URL_SAFE_NO_PAD.decode(jwk[name].as_str()?).ok();
        match (jwk["kty"].as_str()?, jwk["crv"].as_str()) {
            ("RSA", _) => Some(Self::Rsa { n: bytes("n")?, e: bytes("e")? }),
            ("EC", Some("P-256")) => Some(Self::P256([vec![4], bytes("x")?, bytes("y")?].concat())),
            ("OKP", Some("Ed25519")) => Some(Self::Ed25519(bytes("x")?)),
            _ => None,
        }
    }

    const fn algorithm(&self) -> &'static str {
        match self {
            Self::Rsa { .. } => "RS256",
            Self::P256(_) => "ES256",
            Self::Ed25519(_) => "EdDSA",
        }
    }

    fn signed(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Rsa { n, e } => {
                PublicKeyComponents { n, e }.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature).is_ok()
            }
            Self::P256(point) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature).is_ok()
            }
            Self::Ed25519(key) => UnparsedPublicKey::new(&ED25519, key).verify(message, signature).is_ok(),
        }
    }
}

impl Issuer {
    /// Reads a provider's keys; a relative path begins at `home`.
    pub(crate) fn load(config: &IssuerConfig, home: &Path) -> Result<Self> {
        let path = home.join(&config.jwks);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let set: Value = serde_json::from_str(&text).with_context(|| format!("{} is no JSON", path.display()))?;
        let named = |jwk: &Value| Some((jwk["kid"].as_str().map(str::to_owned), Jwk::read(jwk)?));
        let keys: Vec<_> = set["keys"].as_array().into_iter().flatten().filter_map(named).collect();
        ensure!(!keys.is_empty(), "{} has no key for RS256, ES256 or EdDSA", path.display());
        let realm = |text: &String| hex::decode(text).ok().and_then(|bytes| bytes.try_into().ok());
        let realms = config.realms.iter().map(|text| realm(text).context("a realm is 32 hexadecimal digits"));
        let (issuer, audience) = (config.issuer.clone(), config.audience.clone());
        Ok(Self { issuer, audience, realms: realms.collect::<Result<_>>()?, keys })
    }
}

/// Whom a token shows, if one of these providers signed it.
pub(super) fn verify(token: &[u8], issuers: &[Issuer]) -> Result<Shown> {
    let token = std::str::from_utf8(token).context("its form is not known here")?;
    let (message, signature) = token.rsplit_once('.').context("its form is not known here")?;
    let (header, claims) = message.split_once('.').context("its form is not known here")?;
    let json = |text: &str| -> Result<Value> {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text)?).context("its form is not known here")
    };
    let (header, claims) = (json(header)?, json(claims)?);
    let signature = URL_SAFE_NO_PAD.decode(signature).context("its form is not known here")?;
    let issuer = issuers.iter().find(|issuer| claims["iss"] == issuer.issuer.as_str());
    let issuer = issuer.context("it is of no issuer that this holder trusts")?;
    let (algorithm, kid) = (header["alg"].as_str().unwrap_or_default(), header["kid"].as_str());
    let fits = |(name, key): &&(Option<String>, Jwk)| {
        key.algorithm() == algorithm && (kid.is_none() || name.is_none() || name.as_deref() == kid)
    };
    let signed = issuer.keys.iter().filter(fits).any(|(_, key)| key.signed(message.as_bytes(), &signature));
    ensure!(signed, "its signature is of no key that this holder trusts");
    let audience = &claims["aud"];
    let listed = audience.as_array().is_some_and(|list| list.iter().any(|one| one == issuer.audience.as_str()));
    ensure!(listed || *audience == issuer.audience.as_str(), "it is for another audience");
    let second = |name: &str| claims[name].as_f64().filter(|at| *at >= 0.0).map(|at| at as u64);
    Ok(Shown {
        issued_at: second("nbf").or_else(|| second("iat")).unwrap_or(0),
        expires_at: second("exp").context("it has no end")?,
        realms: issuer.realms.clone(),
        gateways: None,
        access_id: claims["sub"].as_str().unwrap_or_default().chars().take(255).collect(),
    })
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
    };
    use serde_json::json;

    use super::*;

    const REALM: [u8; 16] = [7; 16];

    fn text(bytes: &[u8]) -> String {
        URL_SAFE_NO_PAD.encode(bytes)
    }

    fn token(header: &Value, claims: &Value, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
        let message = format!("{}.{}", text(header.to_string().as_bytes()), text(claims.to_string().as_bytes()));
        format!("{message}.{}", text(&sign(message.as_bytes())))
    }

    fn issuer(keys: &Value) -> Issuer {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("jwks.json"), json!({ "keys": keys }).to_string()).expect("writes");
        let config = IssuerConfig {
            issuer: "https://id.example".into(),
            audience: "volvelle".into(),
            jwks: "jwks.json".into(),
            realms: vec![hex::encode(REALM)],
        };
        Issuer::load(&config, folder.path()).expect("loads")
    }

    fn claims() -> Value {
        json!({"iss": "https://id.example", "aud": ["other", "volvelle"], "sub": "alice", "iat": 10, "exp": 20.5})
    }

    #[test]
    fn tokens_of_every_algorithm_are_verified_by_their_own_key_only() {
        let rng = SystemRandom::new();
        let ed = Ed25519KeyPair::generate().expect("a key");
        let ec = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
        let rsa = RsaKeyPair::generate(KeySize::Rsa2048).expect("a key");
        let point = ec.public_key().as_ref();
        // 30 82 …, 02 82 01 01 00 modulus, 02 03 exponent
        let der = rsa.public_key().as_ref();
        let (n, e) = (&der[9..265], &der[267..]);
        let keys = json!([
            {"kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": text(ed.public_key().as_ref())},
            {"kty": "EC", "crv": "P-256", "kid": "ec", "x": text(&point[1..33]), "y": text(&point[33..])},
            {"kty": "RSA", "kid": "rsa", "n": text(n), "e": text(e)},
            {"kty": "EC", "crv": "P-521", "x": "", "y": ""},
        ]);
        let issuers = [issuer(&keys)];
        let by_ed = |message: &[u8]| ed.sign(message).as_ref().to_vec();
        let by_ec = |message: &[u8]| ec.sign(&rng, message).expect("signs").as_ref().to_vec();
        let by_rsa = |message: &[u8]| {
            let mut signature = vec![0; rsa.public_modulus_len()];
            rsa.sign(&RSA_PKCS1_SHA256, &rng, message, &mut signature).expect("signs");
            signature
        };
        let verify = |token: String| verify(token.as_bytes(), &issuers).map_err(|error| error.to_string());
        let good = [
            token(&json!({"alg": "EdDSA", "kid": "ed"}), &claims(), by_ed),
            token(&json!({"alg": "ES256"}), &claims(), by_ec),
            token(&json!({"alg": "RS256", "kid": "rsa"}), &claims(), by_rsa),
        ];
        for token in good {
            let shown = verify(token).expect("is believed");
            assert_eq!((shown.access_id.as_str(), shown.issued_at, shown.expires_at), ("alice", 10, 20));
            assert_eq!(shown.realms, [REALM]);
        }
        let not_signed = Err("its signature is of no key that this holder trusts".to_owned());
        assert_eq!(verify(token(&json!({"alg": "none"}), &claims(), |_| vec![])).map(|_| ()), not_signed);
        assert_eq!(verify(token(&json!({"alg": "ES256", "kid": "ed"}), &claims(), by_ed)).map(|_| ()), not_signed);
        assert_eq!(verify(token(&json!({"alg": "EdDSA", "kid": "gone"}), &claims(), by_ed)).map(|_| ()), not_signed);
        let changed = |name: &str, value: Value| {
            let mut claims = claims();
            claims[name] = value;
            verify(token(&json!({"alg": "EdDSA"}), &claims, by_ed)).map(|_| ()).expect_err("refused")
        };
        assert_eq!(changed("iss", json!("https://evil.example")), "it is of no issuer that this holder trusts");
        assert_eq!(changed("aud", json!("other")), "it is for another audience");
        assert_eq!(changed("exp", Value::Null), "it has no end");
        assert!(verify("a.b.c".to_owned()).is_err() && verify("abc".to_owned()).is_err());
    }
}
