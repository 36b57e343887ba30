//! What an operator watches: issuances by outcome, the reconciler's backlog, lists, answers, tokens.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Object {
    object: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Issuer {
    issuer: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Key {
    key: String,
}

/// The CA's own counters; requests are counted by `service`.
#[derive(Default)]
pub struct CaMetrics {
    pub(crate) issued: Counter,
    pub(crate) maybe_issued: Counter,
    pub(crate) abandoned: Counter,
    pub(crate) backlog: Gauge,
    pub(crate) revoked: Counter,
    pub(crate) revocations_unlogged: Gauge,
    pub(crate) lists_published: Counter,
    pub(crate) ocsp_signed: Counter,
    pub(crate) ocsp_presigned: Counter,
    pub(crate) ocsp_limited: Counter,
    pub(crate) identity_tokens_refused: Counter,
    pub(crate) key_proofs_refused: Counter,
    pub(crate) identity_tokens_reused: Counter,
    pub(crate) role_tokens_refused: Counter,
    pub(crate) issuance_limited: Counter,
    pub(crate) timestamps: Counter,
    pub(crate) first_expiry: Gauge,
    pub(crate) issues_until: Gauge,
    pub(crate) requests_recorded: Counter,
    pub(crate) requests_approved: Counter,
    pub(crate) requests_denied: Counter,
    pub(crate) requests_expired: Counter,
    pub(crate) requests_ended: Counter,
    pub(crate) requests_waiting: Gauge,
    pub(crate) problems_open: Gauge,
    pub(crate) problems_overdue: Gauge,
    pub(crate) problems_first_due: Gauge,
    pub(crate) request_notices_failed: Counter,
    pub(crate) expiry_warnings: Counter,
    pub(crate) expiry_warnings_failed: Counter,
    outside_ok: Family<Object, Gauge>,
    list_next_update: Family<Issuer, Gauge>,
    key_usable: Family<Key, Gauge>,
    /// Those of the keys that the authority has, by its name: each signature sets one.
    keys: OnceLock<BTreeMap<String, Gauge>>,
}

impl CaMetrics {
    /// Notes whether something is served outside as it is published.
    pub(crate) fn saw_outside(&self, object: &str, ok: bool) {
        let object = Object { object: object.to_owned() };
        self.outside_ok.get_or_create(&object).set(i64::from(ok));
    }

    /// Notes when the first of an issuer's lists ends.
    pub(crate) fn lists_end(&self, issuer: &str, next_update: i64) {
        let issuer = Issuer { issuer: issuer.to_owned() };
        self.list_next_update.get_or_create(&issuer).set(next_update);
    }

    /// Notes that these authorities have keys that could be opened.
    pub(crate) fn keys_are<'a>(&self, authorities: impl Iterator<Item = &'a String>) {
        let gauge = |name: &'a String| {
            let gauge = self.key_usable.get_or_create_owned(&Key { key: name.clone() });
            gauge.set(1);
            (name.clone(), gauge)
        };
        // Once a process.
        let _ = self.keys.set(authorities.map(gauge).collect());
    }

    /// Notes whether an authority's key signs.
    pub(crate) fn key_signs(&self, authority: &str, usable: bool) {
        if let Some(gauge) = self.keys.get().and_then(|keys| keys.get(authority)) {
            gauge.set(i64::from(usable));
        }
    }

    /// Shows the counters in a registry.
    pub fn register(&self, registry: &mut Registry) {
        for (name, help, counter) in [
            ("mentat_ca_issued", "Certificates issued", &self.issued),
            ("mentat_ca_maybe_issued", "Signatures that may exist without a record", &self.maybe_issued),
            ("mentat_ca_abandoned", "Issuances given up before a signature", &self.abandoned),
            ("mentat_ca_revoked", "Revocations recorded", &self.revoked),
            ("mentat_ca_lists_published", "Revocation lists published", &self.lists_published),
            ("mentat_ca_ocsp_signed", "OCSP answers signed", &self.ocsp_signed),
            ("mentat_ca_ocsp_presigned", "Of those, signed before anybody asked", &self.ocsp_presigned),
            (
                "mentat_ca_ocsp_limited",
                "OCSP requests, with a nonce, an odd certificate id or about unknown serial numbers, that were told to try later",
                &self.ocsp_limited,
            ),
            (
                "mentat_ca_identity_tokens_refused",
                "Identity tokens that got no certificate",
                &self.identity_tokens_refused,
            ),
            (
                "mentat_ca_key_proofs_refused",
                "Proofs of certified keys that opened nothing",
                &self.key_proofs_refused,
            ),
            (
                "mentat_ca_identity_tokens_reused",
                "Certificates by an identity token that had served for one before",
                &self.identity_tokens_reused,
            ),
            (
                "mentat_ca_role_tokens_refused",
                "Identity tokens that opened nothing to whoever bore them for a role",
                &self.role_tokens_refused,
            ),
            (
                "mentat_ca_issuance_limited",
                "Certificates refused because their identity or requester had as many as may be",
                &self.issuance_limited,
            ),
            ("mentat_ca_requests_recorded", "Requests that need approval", &self.requests_recorded),
            ("mentat_ca_requests_approved", "Requests that enough people approved", &self.requests_approved),
            ("mentat_ca_requests_denied", "Requests that somebody denied", &self.requests_denied),
            ("mentat_ca_requests_expired", "Requests whose time was over", &self.requests_expired),
            ("mentat_ca_requests_ended", "Requests that an order to revoke many ended", &self.requests_ended),
            (
                "mentat_ca_request_notices_failed",
                "Notices of requests that the webhook did not take",
                &self.request_notices_failed,
            ),
            ("mentat_ca_timestamps", "Time-stamp tokens issued", &self.timestamps),
            (
                "mentat_ca_expiry_warnings",
                "Warnings of certificates that end soon that the webhook took",
                &self.expiry_warnings,
            ),
            (
                "mentat_ca_expiry_warnings_failed",
                "Rounds of warnings that the webhook did not take",
                &self.expiry_warnings_failed,
            ),
        ] {
            registry.register(name, help, counter.clone());
        }
        registry.register(
            "mentat_ca_reconciler_backlog",
            "Open issuances that wait for a log",
            self.backlog.clone(),
        );
        registry.register(
            "mentat_ca_requests_waiting",
            "Requests that wait for approval",
            self.requests_waiting.clone(),
        );
        for (name, help, gauge) in [
            ("mentat_ca_problem_reports_open", "Reported problems that nobody decided", &self.problems_open),
            (
                "mentat_ca_problem_reports_overdue",
                "Of those, the ones that should have been decided",
                &self.problems_overdue,
            ),
            (
                "mentat_ca_problem_reports_first_due_unix_seconds",
                "When the first of them must be decided; 0 where there is none",
                &self.problems_first_due,
            ),
        ] {
            registry.register(name, help, gauge.clone());
        }
        registry.register(
            "mentat_ca_first_expiry_unix_seconds",
            "When the first of the CA's own certificates expires",
            self.first_expiry.clone(),
        );
        registry.register(
            "mentat_ca_issues_until_unix_seconds",
            "From when on the CA that issues to subscribers issues nothing any more; 0 where there is none",
            self.issues_until.clone(),
        );
        registry.register(
            "mentat_ca_revocations_unlogged",
            "Revocations that wait for the event log",
            self.revocations_unlogged.clone(),
        );
        registry.register(
            "mentat_ca_outside_ok",
            "Whether what is served at the public addresses is what is published",
            self.outside_ok.clone(),
        );
        registry.register(
            "mentat_ca_list_next_update_unix_seconds",
            "When the first of an issuer's published lists ends",
            self.list_next_update.clone(),
        );
        registry.register(
            "mentat_ca_key_usable",
            "Whether the last signature that the key was asked for came",
            self.key_usable.clone(),
        );
    }
}
