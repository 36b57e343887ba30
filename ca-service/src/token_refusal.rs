//! Identity tokens that were refused although their issuer made them: in the audit trail, whoever bore them and however many they were.
//!
//! What nobody can attribute (no token, another's signature, an issuer that is not configured) is counted and logged only: anybody could
//! write the trail full with it. Even so whoever has an account at a public issuer makes tokens in any number, under many subjects. So
//! the first refusal of a bearer for a reason is recorded at once, those of the same minute after it as one number, and of so many
//! bearers at most; the others of the minute are one number for each issuer and reason. That bounds what a minute adds.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::authority::CertificateAuthority;
use crate::error::CaError;
use crate::oidc::{OidcError, VerifiedToken};

/// How long refusals are counted together.
const WINDOW: Duration = Duration::from_secs(60);
/// Bearers and reasons that have records of their own in one window.
const MOST: usize = 16;

/// What a token was shown for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// For a certificate.
    Certificate,
    /// For a role.
    Role,
}

impl Purpose {
    fn as_str(self) -> &'static str {
        match self {
            Self::Certificate => "certificate",
            Self::Role => "role",
        }
    }
}

/// Which refusals are told apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    issuer: String,
    /// None for the bearers of a window that had too many.
    subject: Option<String>,
    purpose: Purpose,
    code: &'static str,
}

/// What a record says: a kind, how many, and the SHA-256 of the token of a single one.
#[derive(Debug, PartialEq, Eq)]
struct Record {
    kind: Kind,
    count: u64,
    token_sha256: Option<[u8; 32]>,
}

/// Which windows a flush is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The one that is open, too: nothing comes after it.
    All,
    /// Those whose time is over.
    Past,
}

#[derive(Default)]
struct Window {
    began: Duration,
    /// How many of each kind came after the one that was recorded.
    further: BTreeMap<Kind, u64>,
}

impl Window {
    /// What is still to be recorded of a window; it begins anew.
    fn close(&mut self, now: Duration) -> Vec<Record> {
        self.began = now;
        let further = std::mem::take(&mut self.further).into_iter();
        let further = further.filter(|(_, count)| *count > 0);
        further.map(|(kind, count)| Record { kind, count, token_sha256: None }).collect()
    }

    fn close_past(&mut self, now: Duration) -> Vec<Record> {
        if now.saturating_sub(self.began) >= WINDOW { self.close(now) } else { Vec::new() }
    }
}

/// Refusals that are counted and not recorded yet.
#[derive(Default)]
pub(crate) struct TokenRefusals(Mutex<Window>);

impl TokenRefusals {
    /// Counts a refusal; what is to be recorded now.
    fn count(&self, kind: Kind, token_sha256: [u8; 32], now: Duration) -> Vec<Record> {
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut due = window.close_past(now);
        let crowded = window.further.len() >= MOST && !window.further.contains_key(&kind);
        let kind = if crowded { Kind { subject: None, ..kind } } else { kind };
        match window.further.get_mut(&kind) {
            Some(count) => *count = count.saturating_add(1),
            None => {
                window.further.insert(kind.clone(), 0);
                due.push(Record { kind, count: 1, token_sha256: Some(token_sha256) });
            }
        }
        due
    }

    fn ended(&self, which: Ended, now: Duration) -> Vec<Record> {
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match which {
            Ended::All => window.close(now),
            Ended::Past => window.close_past(now),
        }
    }
}

impl CertificateAuthority {
    /// Verifies that a configured issuer made a token. What did not come from one is counted and logged.
    pub(crate) async fn verified_token(
        &self,
        token: &str,
        purpose: Purpose,
    ) -> Result<VerifiedToken, OidcError> {
        self.issuers.verify(token, self.clock.monotonic()).await.inspect_err(|refusal| {
            self.count_refusal(purpose);
            tracing::info!(code = refusal.code(), %refusal, purpose = purpose.as_str(), "a token was refused");
        })
    }

    /// Counts, logs and records a refusal; returns it. A trail that cannot be written does not make it less of one.
    pub(crate) async fn refuse_token(
        &self,
        token: &VerifiedToken,
        purpose: Purpose,
        refusal: impl Into<CaError>,
    ) -> CaError {
        let refusal = refusal.into();
        let code = code(&refusal);
        self.count_refusal(purpose);
        let bearer = token.name();
        tracing::info!(code, %refusal, purpose = purpose.as_str(), bearer, "an identity token was refused");
        let kind = Kind {
            issuer: token.issuer().to_owned(),
            subject: Some(token.subject().to_owned()),
            purpose,
            code,
        };
        let due = self.token_refusals.count(kind, token.sha256(), self.clock.monotonic());
        self.record(due).await;
        refusal
    }

    /// Records what was counted beside.
    pub async fn record_refusals(&self, which: Ended) {
        let due = self.token_refusals.ended(which, self.clock.monotonic());
        self.record(due).await;
    }

    /// Records each minute what the minute before left.
    pub async fn run_refusal_records(self: Arc<Self>) {
        loop {
            tokio::time::sleep(WINDOW).await;
            self.record_refusals(Ended::Past).await;
        }
    }

    async fn record(&self, due: Vec<Record>) {
        for Record { kind, count, token_sha256 } in due {
            let Kind { issuer, subject, purpose, code } = kind;
            let bearer = subject.as_ref().map_or("*", String::as_str);
            let actor = format!("oidc:{issuer}#{bearer}");
            let detail = serde_json::json!({
                "code": code,
                "count": count,
                "issuer": issuer,
                "purpose": purpose.as_str(),
                "subject": subject,
                "token_sha256": token_sha256.map(hex::encode),
            });
            let at = self.clock.for_records();
            if let Err(error) = self.store.audit("identity-token.refused", &actor, detail.into(), at).await {
                tracing::error!(%error, actor, code, count, "a refusal is not in the audit trail");
            }
        }
    }

    fn count_refusal(&self, purpose: Purpose) {
        match purpose {
            Purpose::Certificate => self.metrics.identity_tokens_refused.inc(),
            Purpose::Role => self.metrics.role_tokens_refused.inc(),
        };
    }
}

/// Beside what tokens are refused for there is a role that does not reach.
fn code(refusal: &CaError) -> &'static str {
    match refusal {
        CaError::Oidc(refusal) => refusal.code(),
        _ => "role_insufficient",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(subject: &str, code: &'static str) -> Kind {
        Kind {
            issuer: "https://id.example.org".to_owned(),
            subject: Some(subject.to_owned()),
            purpose: Purpose::Certificate,
            code,
        }
    }

    fn counts(records: &[Record]) -> Vec<(Option<&str>, &str, u64)> {
        records
            .iter()
            .map(|record| (record.kind.subject.as_deref(), record.kind.code, record.count))
            .collect()
    }

    #[test]
    fn the_first_is_recorded_at_once_and_the_others_of_its_minute_as_one_number() {
        let refusals = TokenRefusals::default();
        let at = |seconds: u64| Duration::from_secs(1_000 + seconds);
        let count =
            |subject, code: &'static str, seconds| refusals.count(kind(subject, code), [7; 32], at(seconds));
        let first = count("a", "token_used", 0);
        assert_eq!(counts(&first), [(Some("a"), "token_used", 1)]);
        assert_eq!(first[0].token_sha256, Some([7; 32]));
        assert_eq!(counts(&count("a", "token_audience", 1)), [(Some("a"), "token_audience", 1)]);
        for second in 2..50 {
            assert_eq!(counts(&count("a", "token_used", second)), []);
        }
        assert_eq!(counts(&refusals.ended(Ended::Past, at(59))), []);
        // The minute is over: what it left, and the first of the next one.
        let next = count("a", "token_used", 60);
        assert_eq!(counts(&next), [(Some("a"), "token_used", 48), (Some("a"), "token_used", 1)]);
        assert_eq!(next[0].token_sha256, None);
        count("a", "token_used", 61);
        assert_eq!(counts(&refusals.ended(Ended::All, at(62))), [(Some("a"), "token_used", 1)]);
        assert_eq!(counts(&refusals.ended(Ended::All, at(62))), []);
    }

    #[test]
    fn many_bearers_are_one_number_beyond_so_many() {
        let refusals = TokenRefusals::default();
        let now = Duration::from_secs(1_000);
        let mut recorded = 0;
        for number in 0..10_000 {
            let code = if number % 2 == 0 { "token_audience" } else { "token_expired" };
            recorded += refusals.count(kind(&number.to_string(), code), [0; 32], now).len();
        }
        // So many bearers, and then nobody in particular, for each of the two reasons.
        assert_eq!(recorded, MOST + 2);
        let left = refusals.ended(Ended::All, now);
        let of_nobody = |code| (None, code, (10_000 - MOST as u64) / 2 - 1);
        assert_eq!(counts(&left), [of_nobody("token_audience"), of_nobody("token_expired")]);
    }
}
