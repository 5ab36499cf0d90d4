//! Tokens and passwords as rows keep them.
//!
//! A token is `shoal_<id>_<secret>`: the id names its row, and of the secret, 256 random bits, the row has the SHA-256 alone.
//! Passwords are hashed with argon2id, in the form that carries its own parameters.

use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, PasswordHasher, PasswordVerifier};
use rand::TryRngCore;
use sha2::{Digest, Sha256};
use shoal_core::access::Secret;

/// The shortest and the longest password, in octets.
pub const PASSWORD: std::ops::RangeInclusive<usize> = 8..=1024;

/// Why there is no credential.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// The system has no random numbers.
    #[error("the system has no random numbers: {0}")]
    Random(String),
    /// Not a password that is taken.
    #[error("a password has {least} to {most} octets, this has {0}", least = PASSWORD.start(), most = PASSWORD.end())]
    Length(usize),
    /// It cannot be hashed.
    #[error("the password cannot be hashed: {0}")]
    Hash(String),
}

/// A token that nobody has yet.
#[derive(Clone, PartialEq, Eq)]
pub struct NewToken {
    /// What its row is called.
    pub id: String,
    /// The whole, to be shown once.
    pub text: String,
    /// What the row has of its secret.
    pub hash: Secret,
}

/// A new token.
///
/// # Errors
/// The system has no random numbers.
pub fn new_token() -> Result<NewToken, CredentialError> {
    let mut octets = [0; 38];
    random(&mut octets)?;
    let text = data_encoding::HEXLOWER.encode(&octets);
    let (id, secret) = text.split_at(12);
    Ok(NewToken { id: id.to_owned(), text: format!("shoal_{id}_{secret}"), hash: hash(secret) })
}

fn random(octets: &mut [u8]) -> Result<(), CredentialError> {
    rand::rngs::OsRng.try_fill_bytes(octets).map_err(|error| CredentialError::Random(error.to_string()))
}

/// What a row has of the secret of a token: its SHA-256, in hexadecimal.
#[must_use]
pub fn hash(secret: &str) -> Secret {
    Secret(data_encoding::HEXLOWER.encode(&Sha256::digest(secret.as_bytes())))
}

/// What a row has of a password. Costs 19 MiB and some 20 ms.
///
/// # Errors
/// A password that is too short or too long.
pub fn hash_password(password: &str) -> Result<Secret, CredentialError> {
    if !PASSWORD.contains(&password.len()) {
        return Err(CredentialError::Length(password.len()));
    }
    let mut salt = [0; 16];
    random(&mut salt)?;
    let hashed = Argon2::default().hash_password_with_salt(password.as_bytes(), &salt);
    hashed
        .map(|hash: PasswordHash| Secret(hash.to_string()))
        .map_err(|error| CredentialError::Hash(error.to_string()))
}

/// Whether this is the password of that hash.
pub(crate) fn verify(hash: &Secret, password: &str) -> bool {
    let Ok(hash) = PasswordHash::new(&hash.0) else { return false };
    Argon2::default().verify_password(password.as_bytes(), &hash).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_differ_and_have_all_their_bits() {
        let (one, two) = (new_token().unwrap(), new_token().unwrap());
        assert!(one.text != two.text && one.id != two.id);
        let parts: Vec<&str> = one.text.split('_').collect();
        assert_eq!((parts[0], parts[1].len(), parts[2].len()), ("shoal", 12, 64));
        assert_eq!((parts[1], &hash(parts[2])), (one.id.as_str(), &one.hash));
    }

    #[test]
    fn the_hash_is_the_standard_one() {
        assert_eq!(hash("abc").0, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn a_password_is_known_again_and_no_other() {
        let hash = hash_password("correct horse").unwrap();
        assert!(hash.0.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", hash.0);
        assert!(verify(&hash, "correct horse") && !verify(&hash, "correct horsf") && !verify(&hash, ""));
        assert!(!verify(&Secret(String::new()), "") && !verify(&Secret("$argon2id$x".into()), "x"));
        assert!(hash_password("short").is_err());
        assert_eq!(format!("{hash:?}"), "(hidden)");
    }
}
