//! States and reasons between the wire and the store.

use ca_api::{CertificateState, Identity};
use ca_pki::crl::RevocationReason;

use crate::storage::{DatedStatus, State};

pub(crate) fn wire_status(status: DatedStatus) -> ca_api::DatedStatus {
    match status {
        DatedStatus::Good => ca_api::DatedStatus::Good,
        DatedStatus::Revoked { at, reason } => {
            ca_api::DatedStatus::Revoked { revoked_at: at.0, reason: wire_reason(reason) }
        }
        DatedStatus::NotYetValid => ca_api::DatedStatus::NotYetValid,
        DatedStatus::Expired => ca_api::DatedStatus::Expired,
        DatedStatus::Unknown => ca_api::DatedStatus::Unknown,
    }
}

pub(crate) fn wire_identity(identity: &ca_pki::Identity) -> Identity {
    match identity {
        ca_pki::Identity::Email(address) => Identity::Email(address.clone()),
        ca_pki::Identity::Uri(uri) => Identity::Uri(uri.clone()),
    }
}

pub(crate) fn wire_state(state: State) -> CertificateState {
    match state {
        State::Intent => CertificateState::Intent,
        State::Signing => CertificateState::Signing,
        State::MaybeIssued => CertificateState::MaybeIssued,
        State::Signed => CertificateState::Signed,
        State::Logged => CertificateState::Logged,
        State::Delivered => CertificateState::Delivered,
        State::Abandoned => CertificateState::Abandoned,
        State::Revoked => CertificateState::Revoked,
    }
}

pub(crate) fn stored_state(state: CertificateState) -> State {
    match state {
        CertificateState::Intent => State::Intent,
        CertificateState::Signing => State::Signing,
        CertificateState::MaybeIssued => State::MaybeIssued,
        CertificateState::Signed => State::Signed,
        CertificateState::Logged => State::Logged,
        CertificateState::Delivered => State::Delivered,
        CertificateState::Abandoned => State::Abandoned,
        CertificateState::Revoked => State::Revoked,
    }
}

pub(crate) fn stored_reason(reason: ca_api::RevocationReason) -> RevocationReason {
    match reason {
        ca_api::RevocationReason::Unspecified => RevocationReason::Unspecified,
        ca_api::RevocationReason::KeyCompromise => RevocationReason::KeyCompromise,
        ca_api::RevocationReason::CaCompromise => RevocationReason::CaCompromise,
        ca_api::RevocationReason::AffiliationChanged => RevocationReason::AffiliationChanged,
        ca_api::RevocationReason::Superseded => RevocationReason::Superseded,
        ca_api::RevocationReason::CessationOfOperation => RevocationReason::CessationOfOperation,
        ca_api::RevocationReason::PrivilegeWithdrawn => RevocationReason::PrivilegeWithdrawn,
    }
}

pub(crate) fn wire_reason(reason: RevocationReason) -> ca_api::RevocationReason {
    match reason {
        RevocationReason::KeyCompromise => ca_api::RevocationReason::KeyCompromise,
        RevocationReason::CaCompromise => ca_api::RevocationReason::CaCompromise,
        RevocationReason::AffiliationChanged => ca_api::RevocationReason::AffiliationChanged,
        RevocationReason::Superseded => ca_api::RevocationReason::Superseded,
        RevocationReason::CessationOfOperation => ca_api::RevocationReason::CessationOfOperation,
        RevocationReason::PrivilegeWithdrawn => ca_api::RevocationReason::PrivilegeWithdrawn,
        _ => ca_api::RevocationReason::Unspecified,
    }
}
