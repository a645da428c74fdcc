//! Join tokens: how a workload without a certificate is attested.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use weft_proto::spiffe::SpiffeId;

/// Longest lifetime of a token.
pub const TTL_MAX: Duration = Duration::from_secs(365 * 24 * 3600);
/// Tells a token from other secrets, for people and for scanners of repositories.
const PREFIX: &str = "weft-token-";
const SECRET_BYTES: usize = 32;

/// The secret itself. It is shown once and kept nowhere here.
#[derive(Clone, PartialEq, Eq)]
pub struct Token([u8; SECRET_BYTES]);

/// What a token is filed under: the SHA-256 of it, so that who reads the store can't join with what
/// he reads. The secret has 256 random bits, so a slow hash would add nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenKey(String);

/// What the store keeps of a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    pub namespace: String,
    pub service_account: String,
    pub not_after_unix_seconds: u64,
    /// 0: any number within the lifetime.
    pub uses_max: u32,
    pub uses: u32,
}

/// Why a token opens nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefused {
    /// Not even a token.
    #[error("the join token is malformed: it must be what `weft token create` printed")]
    Malformed,
    /// None of ours, or one whose record was swept.
    #[error(
        "the join token is unknown: it was not issued by this control plane, or expired and was removed"
    )]
    Unknown,
    /// Too late.
    #[error("the join token expired {0:?} ago")]
    Expired(Duration),
    /// Every use was used.
    #[error("the join token is used up: it allowed {0} uses")]
    UsedUp(u32),
    /// It is for somebody else.
    #[error(
        "the join token is for service account {allowed} and does not allow {asked}",
        allowed = format!("{namespace}/{service_account}")
    )]
    OtherIdentity {
        namespace: String,
        service_account: String,
        asked: SpiffeId,
    },
}

impl Token {
    /// A new secret of 256 random bits.
    pub fn generate() -> Self {
        Self(rand::random())
    }

    /// Where its record is filed.
    pub fn key(&self) -> TokenKey {
        TokenKey(hex(&Sha256::digest(self.0)))
    }
}

impl TokenKey {
    /// The key as a text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TokenRecord {
    /// Whether the token can still be used by anybody.
    pub fn is_expired(&self, now: SystemTime) -> bool {
        unix_seconds(now) >= self.not_after_unix_seconds
    }

    /// Counts one use for `asked`, or says why not.
    pub fn redeem(&mut self, asked: &SpiffeId, now: SystemTime) -> Result<(), TokenRefused> {
        if self.is_expired(now) {
            let ago = unix_seconds(now) - self.not_after_unix_seconds;
            return Err(TokenRefused::Expired(Duration::from_secs(ago)));
        }
        if asked.namespace() != self.namespace || asked.service_account() != self.service_account {
            return Err(TokenRefused::OtherIdentity {
                namespace: self.namespace.clone(),
                service_account: self.service_account.clone(),
                asked: asked.clone(),
            });
        }
        if self.uses_max != 0 && self.uses >= self.uses_max {
            return Err(TokenRefused::UsedUp(self.uses_max));
        }
        self.uses = self.uses.saturating_add(1);
        Ok(())
    }
}

fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", hex(&self.0))
    }
}

/// A secret is never printed by accident.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

impl FromStr for Token {
    type Err = TokenRefused;

    fn from_str(text: &str) -> Result<Self, TokenRefused> {
        let digits = text
            .trim()
            .strip_prefix(PREFIX)
            .filter(|digits| digits.len() == 2 * SECRET_BYTES && digits.is_ascii())
            .ok_or(TokenRefused::Malformed)?;
        let mut secret = [0; SECRET_BYTES];
        for (index, byte) in secret.iter_mut().enumerate() {
            let pair = &digits[2 * index..2 * index + 2];
            *byte = u8::from_str_radix(pair, 16).map_err(|_| TokenRefused::Malformed)?;
        }
        Ok(Self(secret))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_parses_what_it_prints_and_nothing_else() {
        let token = Token::generate();
        assert_eq!(token.to_string().parse(), Ok(token.clone()));
        assert_eq!(format!("{token}\n").parse(), Ok(token.clone()));
        for text in ["", "weft-token-", "weft-token-zz", &token.to_string()[1..]] {
            assert_eq!(
                text.parse::<Token>(),
                Err(TokenRefused::Malformed),
                "{text}"
            );
        }
        assert!(!token.to_string().contains(token.key().as_str()));
    }

    #[test]
    fn redeems_within_its_bounds() {
        let check = |asked: &str, uses: u32, at: u64, expect: Result<(), &str>| {
            let mut record = TokenRecord {
                namespace: "shop".into(),
                service_account: "orders".into(),
                not_after_unix_seconds: 1000,
                uses_max: 2,
                uses,
            };
            let asked: SpiffeId = asked.parse().unwrap();
            let now = UNIX_EPOCH + Duration::from_secs(at);
            let got = record
                .redeem(&asked, now)
                .map_err(|error| error.to_string());
            assert_eq!(got, expect.map_err(str::to_owned));
            assert_eq!(record.uses, uses + u32::from(got.is_ok()));
        };
        let orders = "spiffe://weft.local/ns/shop/sa/orders";
        check(orders, 0, 999, Ok(()));
        check(orders, 1, 999, Ok(()));
        check(
            orders,
            2,
            999,
            Err("the join token is used up: it allowed 2 uses"),
        );
        check(orders, 0, 1000, Err("the join token expired 0ns ago"));
        check(orders, 0, 1060, Err("the join token expired 60s ago"));
        check(
            "spiffe://weft.local/ns/shop/sa/stock",
            0,
            1,
            Err(
                "the join token is for service account shop/orders and does not allow spiffe://weft.local/ns/shop/sa/stock",
            ),
        );
        check(
            "spiffe://weft.local/ns/other/sa/orders",
            0,
            1,
            Err(
                "the join token is for service account shop/orders and does not allow spiffe://weft.local/ns/other/sa/orders",
            ),
        );
    }
}
