//! JSON web tokens as etcd gives and takes them: claims `username`, `revision` and `exp`,
//! under one configured method.
//!
//! Invariants
//! - A token signed by another method than the configured one is refused.
//! - With a public key alone tokens are judged and never given.

use std::collections::HashSet;
use std::path::Path;
use std::str::FromStr as _;
use std::time::Duration;

use aws_lc_rs::rsa;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair as _,
};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, EncodingKey, Header, Validation};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::directory::Identity;
use super::tokens::{Clock, TOKEN_BYTES_MAX};
use crate::errors::{self, Fault};

/// Bytes of a key file that are read.
const KEY_FILE_BYTES_MAX: usize = 64 * 1024;

/// Why the configured tokens can't be had.
#[derive(Debug, thiserror::Error)]
pub enum TokenKindError {
    /// Neither of the kinds.
    #[error("there is no kind of token {0:?}: write simple, or jwt with its options")]
    UnknownKind(String),
    /// `name=value` expected.
    #[error("{0:?} is no option of the form name=value, or is given twice")]
    Option(String),
    /// An option that etcd does not have either.
    #[error("there is no option {0:?}: write sign-method, pub-key, priv-key or ttl")]
    UnknownOption(String),
    /// The method is required.
    #[error(
        "sign-method {0:?} is none of RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA, HS256, HS384, HS512"
    )]
    Method(String),
    /// The time to live is not one.
    #[error("ttl {0:?} is no duration: write it as in 5m or 1h30m")]
    Ttl(String),
    /// A key file can't be read.
    #[error("the key file {path} can't be read: {reason}")]
    File {
        /// Which.
        path: String,
        /// Why.
        reason: String,
    },
    /// A key of another kind, or none.
    #[error("the key in {path} is no key for {method}: {reason}")]
    Key {
        /// Where.
        path: String,
        /// The method it is for.
        method: String,
        /// Why.
        reason: String,
    },
    /// No key at all.
    #[error("{0} needs a key: write priv-key=FILE, or pub-key=FILE to judge tokens only")]
    MissingKey(String),
    /// Both keys, but not of one pair.
    #[error("pub-key and priv-key are not of one pair")]
    Mismatch,
}

/// `--auth-token jwt,...`, checked, with its keys read.
#[derive(Clone)]
pub struct JwtKeys {
    algorithm: Algorithm,
    judging: DecodingKey,
    giving: Option<EncodingKey>,
    life: Duration,
}

impl JwtKeys {
    /// Reads the options after `jwt,` and the files they name. `duration` reads Go's form.
    ///
    /// # Errors
    /// When an option or a key file is not what etcd would accept.
    pub fn read(
        options: &str,
        default_life: Duration,
        duration: impl Fn(&str) -> Option<Duration>,
    ) -> Result<Self, TokenKindError> {
        let options = Options::parse(options)?;
        let method = options.method.unwrap_or_default();
        let algorithm =
            Algorithm::from_str(method).map_err(|_| TokenKindError::Method(method.to_owned()))?;
        let life = match options.ttl {
            None => default_life,
            Some(text) => duration(text).ok_or_else(|| TokenKindError::Ttl(text.to_owned()))?,
        };
        let pair = options
            .private
            .map(|path| private(algorithm, path))
            .transpose()?;
        let public = match algorithm.family() {
            AlgorithmFamily::Hmac => None,
            _ => options
                .public
                .map(|path| public(algorithm, path))
                .transpose()?,
        };
        let (judging, giving) = match (pair, public) {
            (None, None) => return Err(TokenKindError::MissingKey(method.to_owned())),
            (None, Some(public)) => (public, None),
            (Some((of_pair, giving)), public) => {
                let differs = |public: DecodingKey| {
                    public.try_get_as_bytes().ok() != of_pair.try_get_as_bytes().ok()
                };
                if public.is_some_and(differs) {
                    return Err(TokenKindError::Mismatch);
                }
                (of_pair, Some(giving))
            }
        };
        Ok(Self {
            algorithm,
            judging,
            giving,
            life,
        })
    }
}

#[derive(Default)]
struct Options<'a> {
    method: Option<&'a str>,
    public: Option<&'a str>,
    private: Option<&'a str>,
    ttl: Option<&'a str>,
}

impl<'a> Options<'a> {
    fn parse(text: &'a str) -> Result<Self, TokenKindError> {
        let mut options = Self::default();
        for option in text.split(',').filter(|option| !option.is_empty()) {
            let malformed = || TokenKindError::Option(option.to_owned());
            let (name, value) = option.split_once('=').ok_or_else(malformed)?;
            let place = match name {
                "sign-method" => &mut options.method,
                "pub-key" => &mut options.public,
                "priv-key" => &mut options.private,
                "ttl" => &mut options.ttl,
                _ => return Err(TokenKindError::UnknownOption(name.to_owned())),
            };
            if place.replace(value).is_some() {
                return Err(malformed());
            }
        }
        Ok(options)
    }
}

fn read_file(path: &str) -> Result<Zeroizing<Vec<u8>>, TokenKindError> {
    let fault = |reason: String| TokenKindError::File {
        path: path.to_owned(),
        reason,
    };
    let text = std::fs::read(Path::new(path)).map_err(|error| fault(error.to_string()))?;
    let text = Zeroizing::new(text);
    if text.len() > KEY_FILE_BYTES_MAX {
        return Err(fault(format!(
            "it is longer than {KEY_FILE_BYTES_MAX} bytes"
        )));
    }
    Ok(text)
}

fn public(algorithm: Algorithm, path: &str) -> Result<DecodingKey, TokenKindError> {
    let pem = read_file(path)?;
    let key = match algorithm.family() {
        AlgorithmFamily::Rsa => DecodingKey::from_rsa_pem(&pem),
        AlgorithmFamily::Ec => DecodingKey::from_ec_pem(&pem),
        AlgorithmFamily::Ed => DecodingKey::from_ed_pem(&pem),
        AlgorithmFamily::Hmac => Ok(DecodingKey::from_secret(&pem)),
    };
    key.map_err(|error| not_a_key(algorithm, path, &error.to_string()))
}

/// Both halves of a private key, so that a public one need not be given.
fn private(algorithm: Algorithm, path: &str) -> Result<(DecodingKey, EncodingKey), TokenKindError> {
    let pem = read_file(path)?;
    if algorithm.family() == AlgorithmFamily::Hmac {
        if pem.is_empty() {
            return Err(not_a_key(algorithm, path, "it is empty"));
        }
        return Ok((
            DecodingKey::from_secret(&pem),
            EncodingKey::from_secret(&pem),
        ));
    }
    let fault = |reason: &dyn std::fmt::Display| not_a_key(algorithm, path, &reason.to_string());
    let der = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| fault(&error))?;
    match algorithm {
        Algorithm::ES256 | Algorithm::ES384 => {
            let curve = match algorithm {
                Algorithm::ES256 => &ECDSA_P256_SHA256_FIXED_SIGNING,
                _ => &ECDSA_P384_SHA384_FIXED_SIGNING,
            };
            let pair = EcdsaKeyPair::from_private_key_der(curve, der.secret_der())
                .map_err(|error| fault(&error))?;
            let pkcs8 = pair.to_pkcs8v1().map_err(|error| fault(&error))?;
            Ok((
                DecodingKey::from_ec_der(pair.public_key().as_ref()),
                EncodingKey::from_ec_der(pkcs8.as_ref()),
            ))
        }
        Algorithm::EdDSA => {
            let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_der())
                .map_err(|error| fault(&error))?;
            Ok((
                DecodingKey::from_ed_der(pair.public_key().as_ref()),
                EncodingKey::from_ed_der(der.secret_der()),
            ))
        }
        _ => {
            let pair = match &der {
                PrivateKeyDer::Pkcs1(der) => rsa::KeyPair::from_der(der.secret_pkcs1_der()),
                _ => rsa::KeyPair::from_pkcs8(der.secret_der()),
            };
            let pair = pair.map_err(|error| fault(&error))?;
            Ok((
                DecodingKey::from_rsa_der(pair.public_key().as_ref()),
                EncodingKey::from_rsa_pem(&pem).map_err(|error| fault(&error))?,
            ))
        }
    }
}

fn not_a_key(algorithm: Algorithm, path: &str, reason: &str) -> TokenKindError {
    TokenKindError::Key {
        path: path.to_owned(),
        method: format!("{algorithm:?}"),
        reason: reason.to_owned(),
    }
}

#[derive(Serialize)]
struct Given<'a> {
    username: &'a str,
    revision: u64,
    exp: u64,
}

#[derive(Deserialize)]
struct Claims {
    username: String,
    /// A number of any form: Go's clients write floats.
    revision: f64,
}

/// Gives and judges web tokens.
pub(super) struct WebTokens {
    keys: JwtKeys,
    validation: Validation,
    clock: Clock,
}

impl WebTokens {
    pub(super) fn new(keys: JwtKeys, clock: Clock) -> Self {
        let mut validation = Validation::new(keys.algorithm);
        // As in etcd a token without `exp` is good for ever, and an audience says nothing.
        validation.required_spec_claims = HashSet::new();
        validation.validate_aud = false;
        validation.validate_nbf = true;
        validation.leeway = 0;
        Self {
            keys,
            validation,
            clock,
        }
    }

    /// `None` without a private key.
    pub(super) fn give(&self, user: &str, revision: u64) -> Option<Result<String, Fault>> {
        let key = self.keys.giving.as_ref()?;
        let claims = Given {
            username: user,
            revision,
            exp: (self.clock)() / 1000 + self.keys.life.as_secs(),
        };
        let header = Header::new(self.keys.algorithm);
        Some(
            jsonwebtoken::encode(&header, &claims, key).map_err(|error| {
                tracing::warn!(%error, "a web token could not be signed");
                errors::AUTH_FAILED
            }),
        )
    }

    pub(super) fn judge(&self, token: &str) -> Result<Identity, Fault> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(errors::INVALID_AUTH_TOKEN);
        }
        let claims = jsonwebtoken::decode::<Claims>(token, &self.keys.judging, &self.validation)
            .map_err(|error| {
                tracing::info!(%error, "a web token was refused");
                errors::INVALID_AUTH_TOKEN
            })?
            .claims;
        let revision = whole(claims.revision).ok_or(errors::INVALID_AUTH_TOKEN)?;
        Ok(Identity {
            user: claims.username,
            revision: Some(revision),
        })
    }
}

/// The whole number in a JSON number, where there is one that a float holds exactly.
fn whole(number: f64) -> Option<u64> {
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    let fits = number.fract() == 0.0 && (0.0..=EXACT_MAX).contains(&number);
    // Within the bounds just checked the text form is plain digits.
    fits.then(|| format!("{number:.0}").parse().ok()).flatten()
}
