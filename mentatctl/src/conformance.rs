//! `conformance`: the verifier's decisions over JSON Lines, for other people's test suites. One line in, one line out, in
//! order; a bad line never affects another. The functions are the ones that admission calls.

use std::io::Write as _;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use trust_store::conformance::{self, Decide, MAX_LINE_LENGTH};
use trust_store::provider::AwsLc;
use trust_store::signature::SignatureVerifier;

use crate::clock;
use crate::exit::{Exit, OrFail as _, Outcome};

/// `conformance`.
#[derive(Debug, Args)]
pub struct Conformance {
    /// What the lines are about
    #[arg(value_enum)]
    kind: Kind,
}

/// Kinds of cases.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Kind {
    /// Certification paths
    Path,
    /// Certificate revocation lists
    Crl,
    /// OCSP responses
    Ocsp,
    /// Signatures
    Signature,
    /// Merkle proofs
    Merkle,
    /// Bundles
    Bundle,
}

/// Reads cases from standard input until it ends.
///
/// # Errors
/// Exit code 1 when standard input or output fails; what a line says is never an error.
pub fn run(args: &Conformance) -> Outcome {
    let with =
        |decide: Decide| Box::new(move |line: &str| decide(line, &AwsLc)) as Box<dyn Fn(&str) -> String>;
    let decide = match args.kind {
        Kind::Path => with(conformance::decide_path),
        Kind::Crl => with(conformance::decide_crl),
        Kind::Ocsp => with(conformance::decide_ocsp),
        Kind::Signature => with(conformance::decide_signature),
        Kind::Merkle => with(conformance::decide_merkle),
        Kind::Bundle => {
            let crypto: Arc<dyn SignatureVerifier> = Arc::new(AwsLc);
            Box::new(move |line: &str| conformance::decide_bundle(line, clock::now(), Arc::clone(&crypto)))
        }
    };
    let mut input = std::io::stdin().lock();
    let mut output = std::io::BufWriter::new(std::io::stdout().lock());
    let mut line = Vec::new();
    while read_line(&mut input, &mut line).or_fail(Exit::Failure, "reading standard input")? {
        let text = String::from_utf8_lossy(&line);
        let answer = decide(text.trim_end_matches(['\r', '\n']));
        writeln!(output, "{answer}").or_fail(Exit::Failure, "writing standard output")?;
    }
    output.flush().or_fail(Exit::Failure, "writing standard output")?;
    Ok(Exit::Ok)
}

/// Reads one line, keeping no more of it than shows that it is too long. Returns false at the end of the input.
fn read_line(input: &mut impl std::io::BufRead, line: &mut Vec<u8>) -> std::io::Result<bool> {
    line.clear();
    let mut any = false;
    loop {
        let buffer = input.fill_buf()?;
        if buffer.is_empty() {
            return Ok(any);
        }
        any = true;
        let (part, ended) = match buffer.iter().position(|byte| *byte == b'\n') {
            Some(end) => (buffer.get(..=end).unwrap_or(buffer), true),
            None => (buffer, false),
        };
        let room = (MAX_LINE_LENGTH + 2).saturating_sub(line.len());
        line.extend_from_slice(part.get(..part.len().min(room)).unwrap_or(part));
        let used = part.len();
        input.consume(used);
        if ended {
            return Ok(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_one_by_one_and_the_last_needs_no_break() {
        let mut input: &[u8] = b"one\n\nthree";
        let mut line = Vec::new();
        for expected in [&b"one\n"[..], b"\n", b"three"] {
            assert!(read_line(&mut input, &mut line).unwrap());
            assert_eq!(line, expected);
        }
        assert!(!read_line(&mut input, &mut line).unwrap());
    }
}
