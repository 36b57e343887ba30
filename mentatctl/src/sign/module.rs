//! Modules: what is looked at before one is signed (a log entry is for ever, and one about bytes that no executor can load helps
//! nobody), and the signature of one without a manifest, which is that of any file.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use hsm::Input;
use serde_json::json;
use trust_store::Certificate;
use trust_store::bundle::Bundle;
use trust_store::rekor::{HashedRekord, VerifierKey};
use trust_store_files::manifest_file::MAX_MODULE_BYTES;
use wasmparser::{Validator, WasmFeatures};

use super::evidence::Services;
use super::pending::Pending;
use super::signer::{Signer, sha256};
use super::{Signed, complete};
use crate::exit::{Exit, Failure, OrFail as _, Outcome};
use crate::home::{Secrecy, check_writable, folder_of, read_bounded, write_file};
use crate::output::{Output, Tone, shown};

/// A bundle alone has no place for revocation evidence, so none is fetched.
pub const NO_STAPLES: &[Certificate] = &[];

/// Signs a module that has no manifest, into `MODULE.sigstore.json` beside it.
///
/// # Errors
/// Exit code 2 when it cannot be read or is no module, 69 when a service is away (the signature is kept then), 1 when one
/// refuses.
pub fn sign(path: &Path, signer: &Signer, services: &Services, out: &Output) -> Outcome<()> {
    let bytes = read_bounded(path, MAX_MODULE_BYTES)?;
    check(path, &bytes)?;
    check_writable(folder_of(path))?;
    let spinner = out.spinner(format!("signing {}", path.display()));
    let (mut bundle, entry) = unlogged_file(&sha256(&bytes), signer)?;
    let log_index = match complete(&mut bundle, &entry, NO_STAPLES, services) {
        Ok((_, log_index)) => log_index,
        Err(failure) if failure.exit == Exit::Unavailable => {
            Pending::new(&bundle, &signer.chain, None).store(path)?;
            return Err(failure.hint(
                "the signature is kept: finish it with `mentatctl log submit --resume` and the module's name",
            ));
        }
        Err(failure) => return Err(failure),
    };
    drop(spinner);
    let signed = Signed { bundle, staples: trust_store::attestation::Staples::default(), log_index };
    store(path, &signed, &signer.name(), out)
}

/// Writes the finished bundle of a module without a manifest, and says so.
///
/// # Errors
/// Exit code 1 when it cannot be written.
pub fn store(path: &Path, signed: &Signed, signer: &str, out: &Output) -> Outcome<()> {
    let bundle = bundle_path(path);
    let json = signed.bundle.to_json().or_fail(Exit::Failure, "writing the bundle")?;
    write_file(&bundle, &json, Secrecy::Public)?;
    Pending::forget(path)?;
    let index = signed.log_index;
    out.line(format!(
        "{} {} as {signer}, log index {index}, into {}; without a manifest no executor admits it",
        out.paint(Tone::Good, "signed"),
        path.display(),
        bundle.display(),
    ));
    out.value(|| {
        json!({
            "ok": true, "module": shown(path), "bundle": shown(&bundle), "signer": signer, "log_index": index,
        })
    });
    Ok(())
}

/// A bundle that holds nothing but the signature of a file by its digest, and the entry that belongs into the log.
///
/// # Errors
/// When the key cannot sign.
pub fn unlogged_file(digest: &[u8; 32], signer: &Signer) -> Outcome<(Bundle, HashedRekord)> {
    let signature = signer.sign_input(Input::Digest(digest))?;
    let certificate = signer.certificate().der().to_vec();
    let bundle = Bundle::for_message(certificate.clone(), *digest, signature.clone());
    let key = VerifierKey::Certificate(certificate);
    let entry = HashedRekord::new(digest.to_vec(), signature, key, signer.key_details)
        .or_fail(Exit::Failure, "making the log entry")?;
    Ok((bundle, entry))
}

fn bundle_path(module: &Path) -> PathBuf {
    let mut name = OsString::from(module);
    name.push(".sigstore.json");
    PathBuf::from(name)
}

/// Refuses bytes that are no WebAssembly module or component, by every proposal that is known: which of them an executor
/// allows is its own decision.
///
/// # Errors
/// Exit code 2 with the code `malformed` and the place.
pub fn check(path: &Path, bytes: &[u8]) -> Outcome<()> {
    match Validator::new_with_features(WasmFeatures::all()).validate_all(bytes) {
        Ok(_) => Ok(()),
        Err(error) => Err(Failure::new(
            Exit::Usage,
            format!("{} is no WebAssembly module or component: {error}", path.display()),
        )
        .code("malformed")
        .hint("build it again; nothing was signed or recorded")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use super::*;

    #[test]
    fn what_no_executor_loads_is_refused_before_it_is_signed() {
        let path = Path::new("m.wasm");
        let module = wat::parse_str("(module (func (export \"run\") (result i32) i32.const 7))").unwrap();
        check(path, &module).unwrap();
        check(path, &wat::parse_str("(component)").unwrap()).unwrap();
        check(path, b"\0asm\x01\0\0\0").unwrap();
        // The third ends at a section's end: a parser alone would take it.
        for bad in [&b""[..], b"hello", &module[..module.len() - 7], &module[..module.len() - 1]] {
            let failure = check(path, bad).unwrap_err();
            assert_eq!((failure.exit, failure.code.as_deref()), (Exit::Usage, Some("malformed")));
            assert!(!failure.line().contains('\n'));
        }
    }
}
