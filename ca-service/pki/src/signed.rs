//! To-be-signed bytes and their assembly with a signature (requirement C12).

use alloc::vec::Vec;

use sha2::{Digest, Sha256};

use crate::algorithm::SignatureAlgorithm;
use crate::encoding;
use crate::error::Error;

/// The exact bytes a signature will cover, and the algorithm named inside them.
///
/// Certificates and CRLs share one outer shape: the signed bytes, the algorithm, a bit string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToBeSigned {
    der: Vec<u8>,
    algorithm: SignatureAlgorithm,
}

impl ToBeSigned {
    pub(crate) fn new(der: Vec<u8>, algorithm: SignatureAlgorithm) -> Self {
        Self { der, algorithm }
    }

    /// Takes back bytes that a store kept, for an issuance that goes on after a restart.
    #[must_use]
    pub fn from_record(der: Vec<u8>, algorithm: SignatureAlgorithm) -> Self {
        Self { der, algorithm }
    }

    /// The bytes to sign.
    #[must_use]
    pub fn as_der(&self) -> &[u8] {
        &self.der
    }

    /// The signature algorithm that the bytes name.
    #[must_use]
    pub fn algorithm(&self) -> SignatureAlgorithm {
        self.algorithm
    }

    /// SHA-256 of the bytes: what the issuance intent records before anything is signed.
    #[must_use]
    pub fn sha256(&self) -> [u8; 32] {
        Sha256::digest(&self.der).into()
    }

    /// The signed object: these bytes, their algorithm, the signature. Nothing is encoded a second time, and the
    /// result is taken apart again to prove it.
    ///
    /// # Errors
    /// [`Error::SignedBytesDiffer`] when the bytes inside the result are not these bytes.
    pub fn assemble(&self, signature: &[u8]) -> Result<Vec<u8>, Error> {
        let identifier = self.algorithm.identifier();
        let bits = encoding::bit_string(signature);
        let object = encoding::tlv(encoding::SEQUENCE, &[&self.der, &identifier, &bits]);
        let (signed, algorithm, _) = take_apart(&object)?;
        if signed != self.der || algorithm != identifier {
            return Err(Error::SignedBytesDiffer);
        }
        Ok(object)
    }

    /// The object with a signature of zeros in place of a real one: what the linter looks at before anything is signed.
    #[must_use]
    pub fn unsigned(&self) -> Vec<u8> {
        let bits = encoding::bit_string(&[0; 8]);
        encoding::tlv(encoding::SEQUENCE, &[&self.der, &self.algorithm.identifier(), &bits])
    }
}

/// What was signed, the algorithm identifier, and the bits of the signature.
pub type SignedParts<'a> = (&'a [u8], &'a [u8], &'a [u8]);

/// Splits `SEQUENCE { signed, algorithm, BIT STRING }` into the first two as encoded and the bits of the third.
///
/// # Errors
/// [`Error::Malformed`] when the outer shape is another.
pub fn take_apart(object: &[u8]) -> Result<SignedParts<'_>, Error> {
    use der::asn1::BitStringRef;
    use der::{Decode, Reader, SliceReader};
    let malformed = Error::malformed("signed object");
    let mut reader = SliceReader::new(object).map_err(&malformed)?;
    let parts = reader
        .sequence(|inner| {
            let signed = inner.tlv_bytes()?;
            let algorithm = inner.tlv_bytes()?;
            let bits = BitStringRef::decode(inner)?;
            Ok::<_, der::Error>((signed, algorithm, bits))
        })
        .map_err(&malformed)?;
    reader.finish().map_err(&malformed)?;
    let bits = parts.2.as_bytes().ok_or_else(|| Error::Malformed {
        what: "signed object",
        detail: "unused bits in the signature".into(),
    })?;
    Ok((parts.0, parts.1, bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assembled_object_contains_exactly_the_bytes() {
        let tbs = ToBeSigned::new(alloc::vec![0x30, 3, 2, 1, 5], SignatureAlgorithm::EcdsaP256Sha256);
        let object = tbs.assemble(&[9; 70]).unwrap();
        let (signed, algorithm, bits) = take_apart(&object).unwrap();
        assert_eq!(signed, tbs.as_der());
        assert_eq!(algorithm, SignatureAlgorithm::EcdsaP256Sha256.identifier());
        assert_eq!(bits, [9; 70]);
    }

    #[test]
    fn bytes_that_are_not_one_element_cannot_be_assembled() {
        // Two elements, or a truncated one, would move the boundary of what the signature covers.
        for bytes in [alloc::vec![5, 0, 5, 0], alloc::vec![0x30, 9, 0], alloc::vec![]] {
            let tbs = ToBeSigned::new(bytes, SignatureAlgorithm::EcdsaP256Sha256);
            assert!(tbs.assemble(&[1]).is_err());
        }
    }
}
