//! Subject public keys: parsed, judged by requirement C9 (CSBR §6.1.5, §6.1.6, §6.1.1.3), identified.

use alloc::vec::Vec;

use der::asn1::{AnyRef, UintRef};
use der::{Decode, Encode, Reader, SliceReader};
use num_bigint::BigUint;
use sha2::{Digest, Sha256};
use spki::{ObjectIdentifier, SubjectPublicKeyInfoRef};
use trust_store::signature::Algorithm;

use crate::error::{Error, KeyRefusal};
use crate::{encoding, oid};

/// Largest SubjectPublicKeyInfo read, in octets: an RSA-8192 key needs about 1,060, an ML-DSA-87 key 2,620.
pub const MAX_SPKI: usize = 4096;

/// The key types that are recognised; which are allowed depends on [`KeyUse`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyKind {
    /// ECDSA on P-256.
    EcdsaP256,
    /// ECDSA on P-384.
    EcdsaP384,
    /// ECDSA on P-521.
    EcdsaP521,
    /// Ed25519.
    Ed25519,
    /// ML-DSA-44.
    MlDsa44,
    /// RSA with a modulus of so many bits.
    Rsa(u32),
}

/// Whose key is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyUse {
    /// A CA: RSA ≥ 4096, P-256, P-384, P-521; ML-DSA where the profile says so.
    Authority,
    /// A subscriber, time-stamp authority or OCSP responder: RSA ≥ 3072, P-256, P-384, P-521.
    Subscriber,
    /// A subscriber whose profile takes ML-DSA-44 beside those.
    PostQuantumSubscriber,
}

/// A public key that passed [`SubjectPublicKey::from_spki`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubjectPublicKey {
    spki: Vec<u8>,
    kind: KeyKind,
    bits: Vec<u8>,
    identifier: Option<KeyIdentifier>,
}

impl SubjectPublicKey {
    /// Parses and judges a SubjectPublicKeyInfo. That a point lies on its curve is checked by the first verification
    /// with the key, which proof of possession makes before anything is issued.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::Malformed`], or [`Error::KeyNotAllowed`] with the rule that is broken.
    pub fn from_spki(spki: &[u8], key_use: KeyUse) -> Result<Self, Error> {
        if spki.len() > MAX_SPKI {
            return Err(Error::TooLarge { what: "public key", limit: MAX_SPKI });
        }
        let parsed = SubjectPublicKeyInfoRef::from_der(spki).map_err(Error::malformed("public key"))?;
        let bits = parsed
            .subject_public_key
            .as_bytes()
            .ok_or_else(|| Error::Malformed { what: "public key", detail: "unused bits".into() })?;
        let kind = kind(&parsed.algorithm.oid, parsed.algorithm.parameters, bits, key_use)?;
        // A DER reader that were too lenient would let two encodings of one key differ in their digests.
        if parsed.to_der().map_err(Error::malformed("public key"))? != spki {
            return Err(Error::Malformed { what: "public key", detail: "not DER".into() });
        }
        Ok(Self { spki: spki.to_vec(), kind, bits: bits.to_vec(), identifier: None })
    }

    /// The SubjectPublicKeyInfo.
    #[must_use]
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// The key's type and size.
    #[must_use]
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The content of the subjectPublicKey bit string, as signature verifiers want it.
    #[must_use]
    pub fn bits(&self) -> &[u8] {
        &self.bits
    }

    /// Modulus and exponent of an RSA key, as minimal big-endian magnitudes.
    #[must_use]
    pub fn rsa(&self) -> Option<(&[u8], &[u8])> {
        matches!(self.kind, KeyKind::Rsa(_)).then(|| rsa_numbers(&self.bits).ok()).flatten()
    }

    /// SHA-256 of the SubjectPublicKeyInfo: what blocklists, pins and RFC 6962 issuer hashes use.
    #[must_use]
    pub fn spki_sha256(&self) -> [u8; 32] {
        Sha256::digest(&self.spki).into()
    }

    /// The same key with the identifier that another CA gave it: what that CA's certificates name as their issuer's.
    #[must_use]
    pub fn identified_by(mut self, identifier: KeyIdentifier) -> Self {
        self.identifier = Some(identifier);
        self
    }

    /// subjectKeyIdentifier: the one given by [`SubjectPublicKey::identified_by`], else by method 1 of RFC 7093 the leftmost
    /// 160 bits of SHA-256 of the key bits.
    #[must_use]
    pub fn key_identifier(&self) -> KeyIdentifier {
        if let Some(identifier) = self.identifier {
            return identifier;
        }
        let digest: [u8; 32] = Sha256::digest(&self.bits).into();
        let mut identifier = [0; 20];
        identifier.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
        KeyIdentifier(identifier)
    }

    /// The algorithm of a signature by this key under a signature algorithm identifier, `None` if they do not match.
    #[must_use]
    pub fn verification_algorithm(
        &self,
        signature_oid: &ObjectIdentifier,
        parameters: Option<AnyRef<'_>>,
    ) -> Option<Algorithm> {
        let absent = parameters.is_none();
        let null_or_absent = parameters.is_none_or(AnyRef::is_null);
        let algorithm = match (self.kind, *signature_oid) {
            (KeyKind::EcdsaP256, oid::ECDSA_SHA256) if absent => Algorithm::EcdsaP256Sha256,
            (KeyKind::EcdsaP256, oid::ECDSA_SHA384) if absent => Algorithm::EcdsaP256Sha384,
            (KeyKind::EcdsaP256, oid::ECDSA_SHA512) if absent => Algorithm::EcdsaP256Sha512,
            (KeyKind::EcdsaP384, oid::ECDSA_SHA256) if absent => Algorithm::EcdsaP384Sha256,
            (KeyKind::EcdsaP384, oid::ECDSA_SHA384) if absent => Algorithm::EcdsaP384Sha384,
            (KeyKind::EcdsaP384, oid::ECDSA_SHA512) if absent => Algorithm::EcdsaP384Sha512,
            (KeyKind::EcdsaP521, oid::ECDSA_SHA512) if absent => Algorithm::EcdsaP521Sha512,
            (KeyKind::Ed25519, oid::ED25519) if absent => Algorithm::Ed25519,
            (KeyKind::MlDsa44, oid::ML_DSA_44) if absent => Algorithm::MlDsa44,
            (KeyKind::Rsa(_), oid::RSA_SHA256) if null_or_absent => Algorithm::RsaPkcs1Sha256,
            (KeyKind::Rsa(_), oid::RSA_SHA384) if null_or_absent => Algorithm::RsaPkcs1Sha384,
            (KeyKind::Rsa(_), oid::RSA_SHA512) if null_or_absent => Algorithm::RsaPkcs1Sha512,
            _ => return None,
        };
        Some(algorithm)
    }
}

/// subjectKeyIdentifier and authorityKeyIdentifier value of 20 octets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyIdentifier(pub [u8; 20]);

fn kind(
    algorithm: &ObjectIdentifier,
    parameters: Option<AnyRef<'_>>,
    bits: &[u8],
    key_use: KeyUse,
) -> Result<KeyKind, Error> {
    let refuse = |refusal| Err(Error::KeyNotAllowed(refusal));
    match *algorithm {
        oid::EC_PUBLIC_KEY => {
            let Some(curve) = parameters.and_then(|any| any.decode_as::<ObjectIdentifier>().ok()) else {
                return refuse(KeyRefusal::Parameters);
            };
            let (kind, point) = match curve {
                oid::SECP256R1 => (KeyKind::EcdsaP256, 65),
                oid::SECP384R1 => (KeyKind::EcdsaP384, 97),
                oid::SECP521R1 => (KeyKind::EcdsaP521, 133),
                _ => return refuse(KeyRefusal::Curve),
            };
            if bits.len() != point || bits.first() != Some(&4) {
                return refuse(KeyRefusal::Point);
            }
            Ok(kind)
        }
        oid::RSA_ENCRYPTION => {
            if !parameters.is_some_and(AnyRef::is_null) {
                return refuse(KeyRefusal::Parameters);
            }
            rsa(bits, key_use)
        }
        oid::ML_DSA_44 if key_use != KeyUse::Subscriber => {
            if parameters.is_some() || bits.len() != 1312 {
                return refuse(KeyRefusal::Parameters);
            }
            Ok(KeyKind::MlDsa44)
        }
        _ => refuse(KeyRefusal::Algorithm),
    }
}

fn rsa(bits: &[u8], key_use: KeyUse) -> Result<KeyKind, Error> {
    let malformed = Error::malformed("RSA public key");
    let (modulus, exponent) = rsa_numbers(bits).map_err(&malformed)?;
    let modulus_bits = bit_length(modulus);
    let shortest = match key_use {
        KeyUse::Authority => 4096,
        KeyUse::Subscriber | KeyUse::PostQuantumSubscriber => 3072,
    };
    let refusal = if modulus_bits < shortest {
        KeyRefusal::RsaTooShort(shortest)
    } else if modulus_bits > 8192 {
        KeyRefusal::RsaTooLong
    } else if exponent.last().is_none_or(|last| last % 2 == 0)
        || bit_length(exponent) < 17
        || bit_length(exponent) > 256
    {
        KeyRefusal::RsaExponent
    } else if modulus_known_weak(modulus) || primes_are_close(modulus) {
        KeyRefusal::RsaKnownFlaw
    } else {
        return Ok(KeyKind::Rsa(modulus_bits));
    };
    Err(Error::KeyNotAllowed(refusal))
}

/// Rounds of Fermat's method: what finds no factors in them has primes that are far enough from each other (CSBR §6.1.1.3).
const FERMAT_ROUNDS: u32 = 100;

/// What squares leave when they are divided by each of these, as a set of bits: of a hundred other numbers less than one passes all four.
const SQUARES: [(u64, u128); 4] = [
    (64, remainders_of_squares(64)),
    (63, remainders_of_squares(63)),
    (65, remainders_of_squares(65)),
    (11, remainders_of_squares(11)),
];
/// The product of the four: a remainder of it has those of each.
const SIEVE: u64 = 64 * 63 * 65 * 11;

const fn remainders_of_squares(of: u32) -> u128 {
    let (mut found, mut root) = (0, 0);
    while root < of {
        found |= 1 << (root * root % of);
        root += 1;
    }
    found
}

/// Whether a number with this remainder of [`SIEVE`] may be a square.
fn may_be_square(remainder: u64) -> bool {
    SQUARES.iter().all(|(of, squares)| (squares >> (remainder % of)) & 1 == 1)
}

/// The remainder of [`SIEVE`] of a magnitude.
fn sieved(magnitude: &[u8]) -> u64 {
    magnitude.iter().fold(0, |value, octet| (value << 8 | u64::from(*octet)) % SIEVE)
}

/// Whether two primes are so close that the modulus is a difference of two squares near its root (CVE-2022-26320). What cannot be a
/// square is told by small remainders: large numbers are multiplied for one round of a hundred.
fn primes_are_close(modulus: &[u8]) -> bool {
    let number = BigUint::from_bytes_be(modulus);
    let mut first = number.sqrt();
    if &first * &first < number {
        first += 1u8;
    }
    let (first_sieved, number_sieved) = (sieved(&first.to_bytes_be()), sieved(modulus));
    for round in 0..FERMAT_ROUNDS {
        let middle = first_sieved + u64::from(round);
        if !may_be_square((middle * middle + SIEVE - number_sieved) % SIEVE) {
            continue;
        }
        let middle = &first + round;
        let square = &middle * &middle - &number;
        let root = square.sqrt();
        if &root * &root == square {
            return true;
        }
    }
    false
}

/// Modulus and exponent of a PKCS #1 `RSAPublicKey`, as minimal big-endian magnitudes.
pub(crate) fn rsa_numbers(bits: &[u8]) -> der::Result<(&[u8], &[u8])> {
    let mut reader = SliceReader::new(bits)?;
    let numbers = reader.sequence(|inner| {
        Ok::<_, der::Error>((UintRef::decode(inner)?.as_bytes(), UintRef::decode(inner)?.as_bytes()))
    })?;
    reader.finish()?;
    Ok(numbers)
}

pub(crate) fn bit_length(magnitude: &[u8]) -> u32 {
    let Some(first) = magnitude.first() else { return 0 };
    let octets = u32::try_from(magnitude.len()).unwrap_or(u32::MAX / 8);
    octets.saturating_mul(8).saturating_sub(first.leading_zeros())
}

/// Odd primes up to 167: the set over which moduli of the Infineon generator (ROCA, CVE-2017-15361) show themselves.
const SMALL_PRIMES: [u32; 38] = [
    3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101, 103,
    107, 109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167,
];

/// True for an even modulus, one with a prime factor up to 167, or one in which every small prime shows a power of 65537.
fn modulus_known_weak(modulus: &[u8]) -> bool {
    if modulus.last().is_none_or(|last| last % 2 == 0) {
        return true;
    }
    let mut all_generated = true;
    for prime in SMALL_PRIMES {
        let remainder = modulus.iter().fold(0u32, |value, octet| (value << 8 | u32::from(*octet)) % prime);
        if remainder == 0 {
            return true;
        }
        all_generated &= in_subgroup_of_65537(remainder, prime);
    }
    all_generated
}

fn in_subgroup_of_65537(value: u32, prime: u32) -> bool {
    let generator = 65_537 % prime;
    let mut power = 1;
    for _ in 0..prime {
        if power == value {
            return true;
        }
        power = power * generator % prime;
    }
    false
}

/// RSA SubjectPublicKeyInfo from its numbers; used by tests that need keys nobody generates.
#[doc(hidden)]
#[must_use]
pub fn rsa_spki(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
    let key =
        encoding::tlv(encoding::SEQUENCE, &[&encoding::unsigned(modulus), &encoding::unsigned(exponent)]);
    let algorithm = encoding::tlv(encoding::SEQUENCE, &[&encoding::oid(&oid::RSA_ENCRYPTION), &[5, 0]]);
    encoding::tlv(encoding::SEQUENCE, &[&algorithm, &encoding::bit_string(&key)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn refusal(spki: &[u8], key_use: KeyUse) -> KeyRefusal {
        match SubjectPublicKey::from_spki(spki, key_use) {
            Err(Error::KeyNotAllowed(refusal)) => refusal,
            other => panic!("{other:?}"),
        }
    }

    fn modulus(bits: usize, last: u8) -> Vec<u8> {
        let mut modulus = vec![0xff; bits / 8];
        *modulus.last_mut().unwrap() = last;
        modulus
    }

    /// A modulus without a small factor, found by counting up.
    fn sound_modulus(bits: usize) -> Vec<u8> {
        (1..=255u8)
            .step_by(2)
            .map(|last| modulus(bits, last))
            .find(|candidate| !modulus_known_weak(candidate))
            .unwrap()
    }

    #[test]
    fn rsa_2048_is_refused_with_the_reason() {
        let spki = rsa_spki(&sound_modulus(2048), &[1, 0, 1]);
        assert_eq!(refusal(&spki, KeyUse::Subscriber), KeyRefusal::RsaTooShort(3072));
        assert_eq!(
            refusal(&rsa_spki(&sound_modulus(3072), &[1, 0, 1]), KeyUse::Authority),
            KeyRefusal::RsaTooShort(4096)
        );
        let key =
            SubjectPublicKey::from_spki(&rsa_spki(&sound_modulus(3072), &[1, 0, 1]), KeyUse::Subscriber)
                .unwrap();
        assert_eq!(key.kind(), KeyKind::Rsa(3072));
    }

    #[test]
    fn rsa_numbers_known_to_be_weak_are_refused() {
        let sound = sound_modulus(3072);
        for exponent in [&[3][..], &[1, 0, 0], &[0xff], &[1; 40]] {
            assert_eq!(refusal(&rsa_spki(&sound, exponent), KeyUse::Subscriber), KeyRefusal::RsaExponent);
        }
        assert_eq!(
            refusal(&rsa_spki(&modulus(3072, 0xfe), &[1, 0, 1]), KeyUse::Subscriber),
            KeyRefusal::RsaKnownFlaw
        );
        // 2^3072 - 1 is divisible by 3.
        assert_eq!(
            refusal(&rsa_spki(&modulus(3072, 0xff), &[1, 0, 1]), KeyUse::Subscriber),
            KeyRefusal::RsaKnownFlaw
        );
        assert_eq!(
            refusal(&rsa_spki(&sound_modulus(16384), &[1, 0, 1]), KeyUse::Subscriber),
            KeyRefusal::RsaTooLong
        );
        // Every power of 65537 carries the fingerprint of the faulty generator.
        let mut power: Vec<u8> = vec![1];
        for _ in 0..181 {
            power = times_65537(&power);
        }
        assert!(modulus_known_weak(&power));
    }

    /// Two odd numbers of 1,536 bits, so far apart; what the method looks at does not depend on that they are prime.
    fn product(distance: u64) -> Vec<u8> {
        let low: BigUint = (BigUint::from(0xc5u8) << 1528_u32) + 0x1235u32;
        let high: BigUint = &low + distance;
        let product: BigUint = low * high;
        product.to_bytes_be()
    }

    #[test]
    fn primes_that_are_close_are_found_and_others_are_not() {
        // 1,536 bits each: a hundred rounds reach differences of some 2^769 / 2; these are closer by far.
        for distance in [2, 1_000, u64::MAX - 1] {
            assert!(primes_are_close(&product(distance)), "{distance}");
            let spki = rsa_spki(&product(distance), &[1, 0, 1]);
            assert_eq!(refusal(&spki, KeyUse::Subscriber), KeyRefusal::RsaKnownFlaw);
        }
        let low: BigUint = (BigUint::from(0xc5u8) << 1528_u32) + 0x1235u32;
        let far: BigUint = (BigUint::from(0xd5u8) << 1528_u32) + 0x1237u32;
        let product: BigUint = low * far;
        assert!(!primes_are_close(&product.to_bytes_be()));
        assert!(!primes_are_close(&sound_modulus(3072)));
    }

    #[test]
    fn no_square_is_sieved_out_and_little_else_is_left() {
        for root in 0..20_000_u64 {
            assert!(may_be_square(root * root % SIEVE), "{root}");
        }
        let left = (0..SIEVE).filter(|remainder| may_be_square(*remainder)).count() as u64;
        assert_eq!(left, 12 * 16 * 21 * 6, "of each of the four what squares leave");
        assert!(left * 100 < SIEVE);
        let large = BigUint::from(0xc5_1234_5678u64) << 1528_u32;
        assert!(may_be_square(sieved(&(&large * &large).to_bytes_be())));
        assert_eq!(sieved(&BigUint::from(SIEVE * 7 + 3).to_bytes_be()), 3);
    }

    fn times_65537(value: &[u8]) -> Vec<u8> {
        let mut shifted = value.to_vec();
        shifted.extend_from_slice(&[0, 0]);
        let mut carry = 0u16;
        for (index, octet) in shifted.iter_mut().rev().enumerate() {
            let addend = value.len().checked_sub(index + 1).map_or(0, |at| u16::from(value[at]));
            carry += u16::from(*octet) + addend;
            *octet = (carry & 0xff) as u8;
            carry >>= 8;
        }
        if carry > 0 {
            shifted.insert(0, carry as u8);
        }
        shifted
    }

    #[test]
    fn curves_and_points_outside_the_list_are_refused() {
        let ec = |curve: &ObjectIdentifier, point: &[u8]| {
            let algorithm = encoding::tlv(
                encoding::SEQUENCE,
                &[&encoding::oid(&oid::EC_PUBLIC_KEY), &encoding::oid(curve)],
            );
            encoding::tlv(encoding::SEQUENCE, &[&algorithm, &encoding::bit_string(point)])
        };
        let mut point = [7u8; 65];
        point[0] = 4;
        assert!(SubjectPublicKey::from_spki(&ec(&oid::SECP256R1, &point), KeyUse::Subscriber).is_ok());
        assert_eq!(refusal(&ec(&oid::SECP224R1, &point), KeyUse::Subscriber), KeyRefusal::Curve);
        assert_eq!(refusal(&ec(&oid::SECP384R1, &point), KeyUse::Subscriber), KeyRefusal::Point);
        point[0] = 2;
        assert_eq!(refusal(&ec(&oid::SECP256R1, &point), KeyUse::Subscriber), KeyRefusal::Point);
        let algorithm = encoding::tlv(encoding::SEQUENCE, &[&encoding::oid(&oid::ED25519)]);
        let ed25519 = encoding::tlv(encoding::SEQUENCE, &[&algorithm, &encoding::bit_string(&[1; 32])]);
        assert_eq!(refusal(&ed25519, KeyUse::Subscriber), KeyRefusal::Algorithm);
    }
}
