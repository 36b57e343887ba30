//! The `keystore` file, version 1.
//!
//! | Offset | Length | Field |
//! |---|---|---|
//! | 0 | 8 | `MENTATKS` |
//! | 8 | 4 | version, big-endian: 1 |
//! | 12 | 16 | keystore id, random |
//! | 28 | 4 | Argon2id memory in KiB, big-endian |
//! | 32 | 4 | Argon2id passes |
//! | 36 | 4 | Argon2id lanes |
//! | 40 | 16 | salt |
//! | 56 | 24 | nonce |
//! | 80 | 48 | master key, XChaCha20-Poly1305 under the derived key; bytes 0..56 authenticated with it |
//! | 128 | 32 | SHA-256 of bytes 0..128: tells damage from a wrong passphrase |

use std::path::Path;

use aws_lc_rs::digest;
use zeroize::Zeroizing;

use super::kdf::KdfParameters;
use super::seal::{self, NONCE_LEN};
use crate::error::Error;
use crate::passphrase::Passphrase;

/// Length of the file in bytes.
pub const LEN: usize = 160;

const MAGIC: &[u8; 8] = b"MENTATKS";
const VERSION: u32 = 1;
const BOUND_LEN: usize = 56;
const CHECKED_LEN: usize = 128;

pub(crate) type MasterKey = Zeroizing<[u8; 32]>;
/// Random name of a keystore; key files carry it so that they cannot be moved between keystores unnoticed.
pub(crate) type KeystoreId = [u8; 16];

/// The parsed file. The master key stays wrapped until [`Header::unwrap_master`].
pub(crate) struct Header {
    pub(crate) id: KeystoreId,
    kdf: KdfParameters,
    salt: [u8; 16],
    nonce: [u8; NONCE_LEN],
    wrapped: [u8; 48],
    bound: [u8; BOUND_LEN],
}

impl Header {
    /// Makes the file for a master key.
    pub(crate) fn wrap(
        id: KeystoreId,
        master: &MasterKey,
        kdf: KdfParameters,
        passphrase: &Passphrase,
    ) -> Result<Vec<u8>, Error> {
        Self::wrap_with(id, master, kdf, passphrase, seal::random()?, seal::random()?)
    }

    fn wrap_with(
        id: KeystoreId,
        master: &MasterKey,
        kdf: KdfParameters,
        passphrase: &Passphrase,
        salt: [u8; 16],
        nonce: [u8; NONCE_LEN],
    ) -> Result<Vec<u8>, Error> {
        let mut file = Vec::with_capacity(LEN);
        file.extend_from_slice(MAGIC);
        file.extend_from_slice(&VERSION.to_be_bytes());
        file.extend_from_slice(&id);
        for number in [kdf.memory_kib, kdf.passes, kdf.lanes] {
            file.extend_from_slice(&number.to_be_bytes());
        }
        file.extend_from_slice(&salt);
        let kek = kdf.derive(passphrase, &salt)?;
        let wrapped = seal::seal(&kek, &nonce, master.as_ref(), &file)?;
        file.extend_from_slice(&nonce);
        file.extend_from_slice(&wrapped);
        let checksum = digest::digest(&digest::SHA256, &file);
        file.extend_from_slice(checksum.as_ref());
        Ok(file)
    }

    pub(crate) fn parse(path: &Path, file: &[u8]) -> Result<Self, Error> {
        let corrupted = |reason| Error::Corrupted { path: path.to_owned(), reason };
        let file: &[u8; LEN] = file.try_into().map_err(|_| corrupted("it is not 160 bytes long"))?;
        let (checked, checksum) = file.split_at(CHECKED_LEN);
        if digest::digest(&digest::SHA256, checked).as_ref() != checksum {
            return Err(corrupted("its checksum does not fit"));
        }
        let mut rest = checked;
        if &take::<8>(&mut rest) != MAGIC {
            return Err(corrupted("it is not a keystore"));
        }
        if u32::from_be_bytes(take(&mut rest)) != VERSION {
            return Err(Error::Unsupported {
                what: format!("the version of {}", path.display()),
                reason: "this program knows version 1; use a newer program",
            });
        }
        let id = take(&mut rest);
        let kdf = KdfParameters {
            memory_kib: u32::from_be_bytes(take(&mut rest)),
            passes: u32::from_be_bytes(take(&mut rest)),
            lanes: u32::from_be_bytes(take(&mut rest)),
        };
        if !kdf.within_bounds() {
            return Err(corrupted("its passphrase parameters are out of bounds"));
        }
        let (salt, nonce, wrapped) = (take(&mut rest), take(&mut rest), take(&mut rest));
        let mut bound_bytes: &[u8] = checked;
        Ok(Self { id, kdf, salt, nonce, wrapped, bound: take(&mut bound_bytes) })
    }

    pub(crate) const fn kdf(&self) -> KdfParameters {
        self.kdf
    }

    /// Derives the key from the passphrase and unwraps the master key.
    pub(crate) fn unwrap_master(&self, path: &Path, passphrase: &Passphrase) -> Result<MasterKey, Error> {
        let kek = self.kdf.derive(passphrase, &self.salt)?;
        let wrong = || Error::AuthFailed { what: format!("keystore {}", path.display()) };
        let plain = seal::open(&kek, &self.nonce, &self.wrapped, &self.bound).map_err(|_| wrong())?;
        let mut master = Zeroizing::new([0; 32]);
        if plain.len() != master.len() {
            return Err(wrong());
        }
        master.copy_from_slice(&plain);
        Ok(master)
    }
}

/// Takes `N` bytes off the front; zeros where the slice is shorter, which the fixed length checked above rules out.
fn take<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    match rest.split_first_chunk::<N>() {
        Some((head, tail)) => {
            *rest = tail;
            *head
        }
        None => [0; N],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::software::kdf::KdfProfile;

    fn frozen() -> Vec<u8> {
        Header::wrap_with(
            [1; 16],
            &Zeroizing::new([2; 32]),
            KdfProfile::DangerForTests.parameters(),
            &Passphrase::new(b"frozen passphrase".to_vec()).unwrap(),
            [3; 16],
            [4; 24],
        )
        .unwrap()
    }

    #[test]
    fn bytes_are_frozen() {
        let file = frozen();
        assert_eq!(file.len(), LEN);
        assert_eq!(file[..12], *b"MENTATKS\x00\x00\x00\x01");
        assert_eq!(crate::public_key::hex(&file[128..]), FROZEN_CHECKSUM);
        let header = Header::parse(Path::new("k"), &file).unwrap();
        let passphrase = Passphrase::new(b"frozen passphrase".to_vec()).unwrap();
        assert_eq!(*header.unwrap_master(Path::new("k"), &passphrase).unwrap(), [2; 32]);
    }

    /// Covers every byte before it.
    const FROZEN_CHECKSUM: &str = "70e6b6aadf8fc705b9fdf88d303d98f7d07171809b1317378f9542fbaeca4752";

    #[test]
    fn every_flipped_byte_is_reported_as_damage() {
        let file = frozen();
        for position in 0..file.len() {
            let mut damaged = file.clone();
            damaged[position] ^= 0x40;
            assert!(matches!(
                Header::parse(Path::new("k"), &damaged),
                Err(Error::Corrupted { reason: "its checksum does not fit", .. })
            ));
        }
        assert!(matches!(Header::parse(Path::new("k"), &file[..100]), Err(Error::Corrupted { .. })));
    }

    #[test]
    fn forged_parameters_do_not_reach_the_derivation() {
        let mut file = frozen();
        file[28..32].copy_from_slice(&u32::MAX.to_be_bytes());
        let checksum = digest::digest(&digest::SHA256, &file[..128]);
        file[128..].copy_from_slice(checksum.as_ref());
        assert!(matches!(
            Header::parse(Path::new("k"), &file),
            Err(Error::Corrupted { reason: "its passphrase parameters are out of bounds", .. })
        ));
    }
}
