//! The certificate authority's server: enrolment, issuance, revocation, status, time stamps.
//!
//! `api` (HTTP) → domain modules → [`storage`]. Domain modules know neither warp nor SQL.
//!
//! | module | what |
//! |---|---|
//! | [`config`] | the configuration file, raw and validated |
//! | [`ceremony`] | plans, approvals, hierarchy, first CRLs, cross-certificates, transcript |
//! | [`approval`] | signatures of a quorum over an exact intent |
//! | [`authority`] | the CA's own certificates and signers, and [`authority::CertificateAuthority`] that holds them all |
//! | [`standing`] | whether the CA's own certificates may still sign |
//! | [`issuance`] | prepare → issue, in the order of ca-requirements §3 |
//! | [`enrolment`] | one-time tokens and certificate requests |
//! | [`queue`] | certificates that people must approve first |
//! | [`role`] | who may do what, and identity tokens that give roles |
//! | [`oidc`], [`fulcio`] | identity tokens of configured issuers, and the certificates that follow from them |
//! | [`reconciler`] | closes every open issuance after a crash |
//! | [`revocation`], [`publisher`], [`responder`], [`presigned`] | revoking; CRLs; OCSP, on demand and signed ahead |
//! | [`mass_revocation`] | revoking many: plan, confirmation, approvals, pieces |
//! | [`token_refusal`] | identity tokens that were refused, in the audit trail |
//! | [`timestamping`] | RFC 3161 |
//! | [`transparency`] | the issuance and event logs, behind traits |
//! | [`submissions`] | chains on their way to the issuance log, many in one call |
//! | [`statement`] | what the CA says to the event log; the anchored audit trail |
//! | [`renewal`] | new certificates for the responder and the time-stamp authority |
//! | [`occupancy`] | one process at a time |
//! | [`backup`] | copies of a CA, and what a restored one takes for granted |
//! | [`overview`] | issuance, expiry and revocation at a glance |
//! | [`check`] | the whole-state checker (`ca-service check`) |
#![forbid(unsafe_code)]

mod allowance;
pub mod api;
pub mod approval;
pub mod authority;
pub mod backup;
pub mod blocked_keys;
pub mod ceremony;
pub mod check;
pub mod clock;
pub mod config;
pub mod consequences;
mod delivery;
pub mod enrolment;
pub mod enrolment_token;
pub mod error;
pub mod expiry;
pub mod fulcio;
mod holders;
mod http_caching;
pub mod issuance;
pub mod mail;
pub mod mail_code;
pub mod mass_revocation;
pub mod metrics;
pub mod occupancy;
pub mod oidc;
pub mod outside;
pub mod overview;
mod own_renewal;
pub mod possession;
pub mod presigned;
pub mod problem_report;
pub mod publisher;
pub mod queue;
pub mod readiness;
pub mod reconciler;
pub mod renewal;
mod renewal_challenge;
pub mod responder;
pub mod revocation;
pub mod role;
pub mod serve;
pub mod service_record;
pub mod standing;
pub mod statement;
pub mod storage;
pub mod submissions;
pub mod timestamping;
pub mod token_refusal;
pub mod transcript;
pub mod transparency;
pub mod webhook;
mod wire;

pub use authority::CertificateAuthority;
pub use config::{Config, Settings};
pub use error::CaError;
