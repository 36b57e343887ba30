//! OCSP responses that the `ocsp` crate writes, read by us: every status and reason, several answers, all times. The crate
//! reads no responses, names responders by key only and signs with RSA identifiers only; that is as far as it reaches.

#[allow(dead_code)]
#[path = "../../../trust-store/tests/forge/mod.rs"]
mod forge;

use forge::Ca;
use ocsp::common::asn1::{CertId, GeneralizedTime, Oid};
use ocsp::response::{
    BasicResponse, CertStatus, CertStatusCode, CrlReason, OcspRespStatus, OcspResponse as Theirs, OneResp,
    ResponderId, ResponseBytes, ResponseData, RevokedInfo,
};
use sha1::{Digest as _, Sha1};
use trust_store::crl::RevocationReason as R;
use trust_store::ocsp::{CertificateStatus, OcspResponse, response_status};
use trust_store::{Certificate, ReasonCode, UnixTime};

const PRODUCED: (i32, u32, u32, u32, u32, u32) = (2026, 2, 28, 23, 59, 58);

fn time((year, month, day, hour, minute, second): (i32, u32, u32, u32, u32, u32)) -> GeneralizedTime {
    GeneralizedTime::new(year, month, day, hour, minute, second).unwrap()
}

fn unix((year, month, day, hour, minute, second): (i32, u32, u32, u32, u32, u32)) -> UnixTime {
    UnixTime::from_utc(year.into(), month, day, hour, minute, second).unwrap()
}

fn id(ca: &Ca, serial: &[u8]) -> CertId {
    let sha1 = Oid::new_from_dot("1.3.14.3.2.26").unwrap();
    CertId::new(sha1, &Sha1::digest(ca.certificate.subject_der()), &Sha1::digest(ca.key.bits()), serial)
}

fn response(ca: &Ca, answers: Vec<OneResp>) -> Vec<u8> {
    let responder = ResponderId::new_key_hash(&Sha1::digest(ca.key.bits()));
    let data = ResponseData::new(responder, time(PRODUCED), answers, None);
    let algorithm = Oid::new_from_dot("1.2.840.113549.1.1.11").unwrap();
    let basic = BasicResponse::new(data, algorithm, vec![0x5a; 256], None);
    let kind = Oid::new_from_dot("1.3.6.1.5.5.7.48.1.1").unwrap();
    Theirs::new_success(ResponseBytes::new_basic(kind, basic).unwrap()).to_der().unwrap()
}

fn leaf(ca: &Ca, serial: &[u8]) -> Certificate {
    ca.leaf(|body| body.serial = serial.to_vec())
}

#[test]
fn every_status_and_reason_is_read_as_it_was_written() {
    let ca = Ca::root("root");
    let revoked_at = (2025, 12, 31, 0, 0, 1);
    let reasons = [
        (None, R::Unspecified),
        (Some(CrlReason::OcspRevokeUnspecified), R::Unspecified),
        (Some(CrlReason::OcspRevokeKeyCompromise), R::KeyCompromise),
        (Some(CrlReason::OcspRevokeCaCompromise), R::CaCompromise),
        (Some(CrlReason::OcspRevokeAffChanged), R::AffiliationChanged),
        (Some(CrlReason::OcspRevokeSuperseded), R::Superseded),
        (Some(CrlReason::OcspRevokeCessOperation), R::CessationOfOperation),
        (Some(CrlReason::OcspRevokeCertHold), R::CertificateHold),
        (Some(CrlReason::OcspRevokePrivWithdrawn), R::PrivilegeWithdrawn),
        (Some(CrlReason::OcspRevokeAaCompromise), R::AaCompromise),
    ];
    let mut expected = vec![
        (CertStatus::new(CertStatusCode::Good, None), CertificateStatus::Good),
        (CertStatus::new(CertStatusCode::Unknown, None), CertificateStatus::Unknown),
    ];
    expected.extend(reasons.map(|(theirs, reason)| {
        let info = RevokedInfo::new(time(revoked_at), theirs);
        let status = CertStatus::new(CertStatusCode::Revoked, Some(info));
        (status, CertificateStatus::Revoked { at: unix(revoked_at), reason })
    }));
    let (this, next) = ((2026, 2, 28, 12, 0, 0), (2026, 3, 1, 0, 0, 0));
    let serial = |n: usize| vec![0x11, u8::try_from(n).unwrap()];
    let answers = expected.iter().enumerate().map(|(n, (status, _))| OneResp {
        cid: id(&ca, &serial(n)),
        cert_status: status.clone(),
        this_update: time(this),
        next_update: (n % 2 == 0).then(|| time(next)),
        one_resp_ext: None,
    });
    let read = OcspResponse::from_der(&response(&ca, answers.collect())).unwrap();
    assert_eq!((read.responses().len(), read.produced_at()), (expected.len(), unix(PRODUCED)));
    for (n, (_, status)) in expected.iter().enumerate() {
        let leaf = leaf(&ca, &serial(n));
        let found: Vec<_> = read.responses_for(&leaf, &ca.certificate).collect();
        assert_eq!(found.len(), 1, "answer {n}");
        assert_eq!(found[0].status(), *status);
        assert_eq!(found[0].this_update(), unix(this));
        assert_eq!(found[0].next_update(), (n % 2 == 0).then(|| unix(next)));
        assert_eq!(read.responses_for(&leaf, &leaf).count(), 0, "the issuer's key counts");
    }
    let refused = read.find_responder(&ca.certificate, unix(PRODUCED), &trust_store::provider::AwsLc);
    assert_eq!(
        refused.unwrap_err().code,
        ReasonCode::AlgorithmNotAllowed,
        "an RSA identifier for a P-256 key"
    );
}

#[test]
fn error_responses_are_errors() {
    for status in [
        OcspRespStatus::MalformedReq,
        OcspRespStatus::InternalError,
        OcspRespStatus::TryLater,
        OcspRespStatus::SigRequired,
        OcspRespStatus::Unauthorized,
    ] {
        let der = Theirs::new_non_success(status).unwrap().to_der().unwrap();
        assert!(OcspResponse::from_der(&der).is_err());
        assert!(response_status(&der).is_ok());
    }
}
