//! RFC 3161 timestamp tokens (with RFC 5816), read strictly, and the request that asks for one.
//!
//! A token is CMS SignedData (RFC 5652) over a `TSTInfo`. It is accepted in one shape only: one signer, signed
//! attributes with content type, message digest and `signingCertificateV2` that names the signer's certificate, and
//! SHA-2 throughout. [`TimestampToken::verify`] checks the token against one signer's certificate; that the
//! certificate belongs to a trusted authority is for [`crate::trust_material`].

use alloc::vec::Vec;

use tlog::signature::SignatureVerifier;

use crate::algorithm::SignatureAlgorithm;
use crate::certificate::Certificate;
use crate::encode;
use crate::key_details::HashAlgorithm;
use crate::reason::{Denial, ReasonCode};
use crate::time::UnixTime;
use crate::x690::{Malformed, Reader, Span, tag};

mod parsing;

/// Largest token that is read, in octets: a token with its whole chain has some 6,000.
pub const MAX_TOKEN_BYTES: usize = 64 << 10;
/// Most certificates that a token may carry.
pub const MAX_TOKEN_CERTIFICATES: usize = 8;

/// sha256 as AlgorithmIdentifier with absent parameters (RFC 5754 section 2)
const SHA256_IDENTIFIER: &[u8] =
    &[0x30, 0x0b, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01];

/// A parsed token; nothing of it is verified yet.
#[derive(Clone, Debug)]
pub struct TimestampToken {
    der: Vec<u8>,
    info: Span,
    imprint_hash: HashAlgorithm,
    imprint: Span,
    serial: Span,
    time: UnixTime,
    nonce: Option<Span>,
    certificates: Vec<Certificate>,
    signer: SignerIdentifier,
    digest_algorithm: HashAlgorithm,
    attributes: Span,
    message_digest: Span,
    certificate_hash: HashAlgorithm,
    certificate_digest: Span,
    signature_algorithm: SignatureAlgorithm,
    signature: Span,
}

#[derive(Clone, Copy, Debug)]
enum SignerIdentifier {
    IssuerAndSerial { issuer: Span, serial: Span },
    SubjectKeyIdentifier(Span),
}

impl TimestampToken {
    /// Reads a `TimeStampResp`, as an authority answers it and a bundle carries it.
    ///
    /// # Errors
    /// `too_large` above [`MAX_TOKEN_BYTES`]; `timestamp_invalid` if the authority refused or the structure is not the
    /// one described above.
    pub fn from_response(der: &[u8]) -> Result<Self, Denial> {
        bounded(der)?;
        Self::read_response(der).map_err(|error| invalid(error, "timestamp response"))
    }

    /// Reads a bare token (a CMS ContentInfo).
    ///
    /// # Errors
    /// As [`TimestampToken::from_response`].
    pub fn from_token(der: &[u8]) -> Result<Self, Denial> {
        bounded(der)?;
        parsing::read_token(der).map_err(|error| invalid(error, "timestamp token"))
    }

    fn read_response(der: &[u8]) -> Result<Self, Malformed> {
        let mut fields = Reader::only(der, tag::SEQUENCE)?.reader();
        let mut status = fields.sequence()?;
        let code = status.expect(tag::INTEGER)?;
        // granted (0) or grantedWithMods (1), RFC 3161 section 2.4.2
        if code.small_integer()? > 1 {
            return Err(code.error("the authority did not grant the request"));
        }
        let token = fields.expect(tag::SEQUENCE)?;
        fields.finish()?;
        parsing::read_token(token.der())
    }

    /// The token itself, DER.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// `genTime`, cut to whole seconds.
    pub fn time(&self) -> UnixTime {
        self.time
    }

    /// Hash algorithm and value that were stamped.
    pub fn imprint(&self) -> (HashAlgorithm, &[u8]) {
        (self.imprint_hash, self.imprint.of(&self.der))
    }

    /// Content octets of the token's serial number.
    pub fn serial(&self) -> &[u8] {
        self.serial.of(&self.der)
    }

    /// Content octets of the nonce, if there is one. A client that sent one compares it.
    pub fn nonce(&self) -> Option<&[u8]> {
        self.nonce.map(|nonce| nonce.of(&self.der))
    }

    /// The certificates that came along: candidates, not trusted.
    pub fn certificates(&self) -> &[Certificate] {
        &self.certificates
    }

    /// Whether the token names `certificate` as its signer.
    pub fn names_signer(&self, certificate: &Certificate) -> bool {
        match self.signer {
            SignerIdentifier::IssuerAndSerial { issuer, serial } => {
                issuer.of(&self.der) == certificate.issuer_der()
                    && serial.of(&self.der) == certificate.serial()
            }
            SignerIdentifier::SubjectKeyIdentifier(identifier) => {
                certificate.subject_key_identifier() == Some(identifier.of(&self.der))
            }
        }
    }

    /// Checks that `message` was stamped and that `signer` signed the token: imprint, message digest,
    /// `signingCertificateV2` and signature.
    ///
    /// # Errors
    /// `timestamp_invalid`.
    pub fn verify(
        &self,
        message: &[u8],
        signer: &Certificate,
        verifier: &dyn SignatureVerifier,
    ) -> Result<(), Denial> {
        let denied = |detail: &'static str| Err(Denial::new(ReasonCode::TimestampInvalid, detail));
        if self.imprint_hash.digest(message) != self.imprint.of(&self.der) {
            return denied("the token stamps other bytes than this signature");
        }
        if self.digest_algorithm.digest(self.info.of(&self.der)) != self.message_digest.of(&self.der) {
            return denied("the token's message digest is not that of its content");
        }
        if self.certificate_hash.digest(signer.der()) != self.certificate_digest.of(&self.der) {
            return denied("signingCertificateV2 names another certificate than the signer's");
        }
        let Some(algorithm) = self.signature_algorithm.with_key(signer.key_algorithm()) else {
            return denied("signature algorithm and key of the timestamp authority do not go together");
        };
        // RFC 5652 section 5.4: the attributes are signed as a SET OF, not under their context tag.
        let attributes = encode::element(tag::SET, &[self.attributes.of(&self.der)]);
        let signature = self.signature.of(&self.der);
        match verifier.verify(algorithm, signer.public_key(), &attributes, signature) {
            Ok(()) => Ok(()),
            Err(_) => denied("the signature of the timestamp authority does not verify"),
        }
    }
}

/// A `TimeStampReq` for a SHA-256 imprint. Asks for the authority's certificate, so that the answer stands alone.
///
/// `nonce` is sent if it is not empty; the caller compares it with the answer's.
pub fn request(imprint: &[u8; 32], nonce: &[u8]) -> Vec<u8> {
    let imprint =
        encode::element(tag::SEQUENCE, &[SHA256_IDENTIFIER, &encode::element(tag::OCTET_STRING, &[imprint])]);
    let nonce = if nonce.is_empty() { Vec::new() } else { encode::unsigned_integer(nonce) };
    let version = [0x02, 0x01, 0x01];
    let certificate_requested = [0x01, 0x01, 0xff];
    encode::element(tag::SEQUENCE, &[&version, &imprint, &nonce, &certificate_requested])
}

fn bounded(der: &[u8]) -> Result<(), Denial> {
    if der.len() > MAX_TOKEN_BYTES {
        return Err(Denial::new(ReasonCode::TooLarge, "timestamp token is larger than 64 KiB"));
    }
    Ok(())
}

/// A token that cannot be read proves no time: the code is that of step 4, not `malformed`.
fn invalid(error: Malformed, structure: &'static str) -> Denial {
    Denial::new(ReasonCode::TimestampInvalid, error.denial(structure).detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_bytes_are_frozen() {
        let bytes = request(&[0xab; 32], &[0x80, 1]);
        let expected = alloc::format!(
            "303c020101302f300b0609608648016503040201{}{}0203008001{}",
            "0420",
            "ab".repeat(32),
            "0101ff"
        );
        assert_eq!(hex::encode(&bytes), expected);
        assert_eq!(request(&[0xab; 32], &[]).len(), bytes.len() - 5);
    }

    #[test]
    fn refuses_a_refusal_and_rubbish() {
        // PKIStatusInfo with status rejection (2) and no token
        let refusal = [0x30, 0x05, 0x30, 0x03, 0x02, 0x01, 0x02];
        for der in [&refusal[..], b"", b"\x30\x00", b"\x30\x80\x00\x00"] {
            assert_eq!(TimestampToken::from_response(der).unwrap_err().code, ReasonCode::TimestampInvalid);
        }
        assert_eq!(
            TimestampToken::from_response(&[0; MAX_TOKEN_BYTES + 1]).unwrap_err().code,
            ReasonCode::TooLarge
        );
    }
}
