//! Public areas (TPM 2.0 Library, part 2, 12.2): of the parent, of signing keys, and what is read from a key's.

use aws_lc_rs::digest;
use der::asn1::{AnyRef, ObjectIdentifier};
use der::{Decode as _, Encode as _};

use super::command::{Reader, sized};
use crate::algorithm::{DigestAlgorithm, KeyAlgorithm, SignatureAlgorithm};
use crate::public_key::PublicKey;

const ALG_RSA: u16 = 0x0001;
const ALG_AES: u16 = 0x0006;
const ALG_SHA256: u16 = 0x000b;
const ALG_SHA384: u16 = 0x000c;
const ALG_SHA512: u16 = 0x000d;
const ALG_NULL: u16 = 0x0010;
const ALG_RSASSA: u16 = 0x0014;
const ALG_RSAPSS: u16 = 0x0016;
const ALG_ECDSA: u16 = 0x0018;
const ALG_ECC: u16 = 0x0023;
const ALG_CFB: u16 = 0x0043;
const CURVE_P256: u16 = 0x0003;
const CURVE_P384: u16 = 0x0004;

/// fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, noDA, restricted, decrypt: a storage key.
const STORAGE: u32 = 0x0003_0472;
/// fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, sign: made in this TPM, never leaves it, used with its PIN; wrong ones
/// count.
const SIGNING: u32 = 0x0004_0072;

const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
/// The exponent of an RSA key whose public area says 0.
const DEFAULT_EXPONENT: [u8; 3] = [1, 0, 1];

fn joined(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

/// The storage key below which keys are kept: P-256 in the owner's hierarchy (TCG EK Credential Profile's template for storage
/// keys). From one template a TPM derives the same key each time.
pub(super) fn storage() -> Vec<u8> {
    joined(&[
        &ALG_ECC.to_be_bytes(),
        &ALG_SHA256.to_be_bytes(),
        &STORAGE.to_be_bytes(),
        &[0, 0],
        &ALG_AES.to_be_bytes(),
        &128_u16.to_be_bytes(),
        &ALG_CFB.to_be_bytes(),
        &ALG_NULL.to_be_bytes(),
        &CURVE_P256.to_be_bytes(),
        &ALG_NULL.to_be_bytes(),
        &[0; 4],
    ])
}

/// Type and parameters of a signing key, as TPM2_TestParms takes them; none for what TPMs do not have.
pub(super) fn parameters(algorithm: KeyAlgorithm) -> Option<(u16, Vec<u8>)> {
    let null = ALG_NULL.to_be_bytes();
    let ecc = |curve: u16| Some((ALG_ECC, joined(&[&null, &null, &curve.to_be_bytes(), &null])));
    let rsa = |bits: u16| Some((ALG_RSA, joined(&[&null, &null, &bits.to_be_bytes(), &[0; 4]])));
    match algorithm {
        KeyAlgorithm::EcdsaP256 => ecc(CURVE_P256),
        KeyAlgorithm::EcdsaP384 => ecc(CURVE_P384),
        KeyAlgorithm::Rsa3072 => rsa(3072),
        KeyAlgorithm::Rsa4096 => rsa(4096),
        KeyAlgorithm::Ed25519 | KeyAlgorithm::MlDsa44 => None,
    }
}

/// The public area of a signing key that is to be made. `policy` is what the key's authPolicy shall be.
pub(super) fn signing(algorithm: KeyAlgorithm, policy: &[u8; 32]) -> Option<Vec<u8>> {
    let (kind, parameters) = parameters(algorithm)?;
    let unique: &[u8] = if kind == ALG_ECC { &[0; 4] } else { &[0; 2] };
    Some(joined(&[
        &kind.to_be_bytes(),
        &ALG_SHA256.to_be_bytes(),
        &SIGNING.to_be_bytes(),
        &sized(policy),
        &parameters,
        unique,
    ]))
}

/// What the public area of a signing key of ours says.
pub(super) struct SigningKey {
    pub(super) policy: Vec<u8>,
    pub(super) public_key: PublicKey,
}

/// Reads the public area of a signing key; none for everything that [`signing`] does not make.
pub(super) fn read(public: &[u8]) -> Option<SigningKey> {
    let mut reader = Reader::new(public);
    let (kind, name_algorithm, attributes) = (reader.u16()?, reader.u16()?, reader.u32()?);
    if name_algorithm != ALG_SHA256 || attributes != SIGNING {
        return None;
    }
    let policy = reader.sized()?.to_vec();
    if reader.u16()? != ALG_NULL || reader.u16()? != ALG_NULL {
        return None;
    }
    let spki = match kind {
        ALG_ECC => {
            let (curve, derivation) = (reader.u16()?, reader.u16()?);
            let (x, y) = (reader.sized()?, reader.sized()?);
            let (oid, length) = match curve {
                CURVE_P256 => (P256, 32),
                CURVE_P384 => (P384, 48),
                _ => return None,
            };
            if derivation != ALG_NULL {
                return None;
            }
            let oid = oid.to_der().ok()?;
            crate::asn1::ec_spki(AnyRef::from_der(&oid).ok()?, &point(x, y, length)?)
        }
        ALG_RSA => {
            let _bits = reader.u16()?;
            let exponent = reader.u32()?.to_be_bytes();
            let exponent: &[u8] = if exponent == [0; 4] { &DEFAULT_EXPONENT } else { &exponent };
            crate::asn1::rsa_spki(reader.sized()?, exponent)
        }
        _ => return None,
    }?;
    let public_key = PublicKey::from_spki_der(&spki).ok()?;
    reader.is_empty().then_some(SigningKey { policy, public_key })
}

/// The uncompressed point of two coordinates, which TPMs may give without their leading zeros.
fn point(x: &[u8], y: &[u8], length: usize) -> Option<Vec<u8>> {
    let mut point = vec![4];
    for coordinate in [x, y] {
        point.resize(point.len() + length.checked_sub(coordinate.len())?, 0);
        point.extend_from_slice(coordinate);
    }
    Some(point)
}

/// Scheme and hash of a signature; none for what TPMs do not have.
pub(super) fn scheme(algorithm: SignatureAlgorithm) -> Option<(u16, u16)> {
    let hash = match algorithm.digest()? {
        DigestAlgorithm::Sha256 => ALG_SHA256,
        DigestAlgorithm::Sha384 => ALG_SHA384,
        DigestAlgorithm::Sha512 => ALG_SHA512,
    };
    let scheme = match algorithm {
        SignatureAlgorithm::EcdsaP256Sha256 | SignatureAlgorithm::EcdsaP384Sha384 => ALG_ECDSA,
        SignatureAlgorithm::RsaPkcs1Sha256
        | SignatureAlgorithm::RsaPkcs1Sha384
        | SignatureAlgorithm::RsaPkcs1Sha512 => ALG_RSASSA,
        SignatureAlgorithm::RsaPssSha256
        | SignatureAlgorithm::RsaPssSha384
        | SignatureAlgorithm::RsaPssSha512 => ALG_RSAPSS,
        SignatureAlgorithm::Ed25519 | SignatureAlgorithm::MlDsa44 => return None,
    };
    Some((scheme, hash))
}

/// The signature of an answer to TPM2_Sign, in the form that everybody else reads.
pub(super) fn signature(body: &[u8], wanted: (u16, u16)) -> Option<Vec<u8>> {
    let mut reader = Reader::new(body);
    let _parameter_size = reader.u32()?;
    if (reader.u16()?, reader.u16()?) != wanted {
        return None;
    }
    match wanted.0 {
        ALG_ECDSA => crate::asn1::ecdsa_signature(reader.sized()?, reader.sized()?),
        _ => reader.sized().map(<[u8]>::to_vec),
    }
}

/// What a key's authPolicy is: the digest of what it may be used for. No policy of a TPM leads to this value, so that nobody can
/// satisfy it; it stands there because the public area is bound to the private half: a TPM loads no key whose public area was altered.
pub(super) fn policy(text: &str) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(b"mentat tpm2 key policy 1\n");
    context.update(text.as_bytes());
    let mut policy = [0; 32];
    policy.copy_from_slice(context.finish().as_ref());
    policy
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_areas_are_frozen() {
        assert_eq!(
            crate::public_key::hex(&storage()),
            "0023000b000304720000000600800043001000030010".to_owned() + "00000000"
        );
        assert_eq!(
            crate::public_key::hex(&signing(KeyAlgorithm::EcdsaP384, &[0x11; 32]).unwrap()),
            format!("0023000b000400720020{}001000100004001000000000", "11".repeat(32))
        );
        assert_eq!(
            crate::public_key::hex(&signing(KeyAlgorithm::Rsa3072, &[0x11; 32]).unwrap()),
            format!("0001000b000400720020{}001000100c00000000000000", "11".repeat(32))
        );
        assert!(signing(KeyAlgorithm::MlDsa44, &[0; 32]).is_none());
    }

    #[test]
    fn only_keys_as_they_are_made_here_are_read() {
        let mut public = signing(KeyAlgorithm::EcdsaP256, &[0x11; 32]).unwrap();
        // The base point of P-256, its coordinates behind a leading zero too few and as they are.
        let generator = "6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296\
                         4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5";
        let bytes: Vec<u8> = (0..64)
            .map(|index| u8::from_str_radix(generator.get(2 * index..2 * index + 2).unwrap(), 16).unwrap())
            .collect();
        public.truncate(public.len() - 4);
        public.extend_from_slice(&sized(&bytes[..32]));
        public.extend_from_slice(&sized(&bytes[32..]));
        let key = read(&public).unwrap();
        assert_eq!((key.policy, key.public_key.algorithm()), (vec![0x11; 32], KeyAlgorithm::EcdsaP256));
        for position in 0..public.len() {
            let mut altered = public.clone();
            altered[position] ^= 1;
            let read = read(&altered);
            assert!(read.is_none_or(|key| key.policy != [0x11; 32]), "{position}");
        }
        public.push(0);
        assert!(read(&public).is_none());
        assert_eq!(point(&[1], &[2, 3], 2).unwrap(), [4, 0, 1, 2, 3]);
        assert!(point(&[1; 3], &[2], 2).is_none());
    }
}
