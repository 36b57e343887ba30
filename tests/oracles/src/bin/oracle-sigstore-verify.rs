//! `oracle-sigstore-verify time FOLDER`: reads `trusted_root.json`, `bundle.json` and `artifact` of the folder and prints the
//! median time in milliseconds that `sigstore-verify` takes to read the bundle and to verify it with a verifier that was made
//! before. The bench of the verifier compares its own figures with it.

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use mentat_oracles::sigstore::Peer;

const ROUNDS: usize = 2_000;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [command, folder] = arguments.as_slice() else { return usage() };
    if command != "time" {
        return usage();
    }
    match time(Path::new(folder)) {
        Ok(milliseconds) => {
            println!("{milliseconds:.6}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    eprintln!("usage: oracle-sigstore-verify time FOLDER");
    ExitCode::from(2)
}

fn time(folder: &Path) -> Result<f64, String> {
    let read = |name: &str| std::fs::read(folder.join(name)).map_err(|error| format!("{name}: {error}"));
    let (root, bundle, artifact) = (read("trusted_root.json")?, read("bundle.json")?, read("artifact")?);
    let peer = Peer::new(&root)?;
    peer.verify(&bundle, &artifact)?;
    let mut took: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            let verified = peer.verify(&bundle, &artifact);
            let took = start.elapsed().as_secs_f64() * 1e3;
            verified.map(|()| took)
        })
        .collect::<Result<_, _>>()?;
    took.sort_by(f64::total_cmp);
    Ok(took[took.len() / 2])
}
