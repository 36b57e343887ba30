//! Sorts the lines of its input, each once: a guest that is a component over the world `mentat:agent/agent@1.0.0`, without an
//! SDK. `wit-bindgen` writes the types and functions of `executor/wit`; README.md tells how a module becomes a component.

pub mod lines;

#[cfg(target_arch = "wasm32")]
mod component {
    use crate::lines::sorted;

    wit_bindgen::generate!({ world: "agent", path: "../../../executor/wit" });

    use mentat::agent::io::{input_len, read_input, write_output};
    use mentat::agent::log::{log, Level};
    use mentat::agent::metric::record_metric;

    /// Largest transfer of one call of the interface, bytes.
    const MAX_TRANSFER: u32 = 8 << 20;

    struct LineSorter;

    impl Guest for LineSorter {
        fn process() -> Result<(), String> {
            let mut input = Vec::new();
            while (input.len() as u64) < input_len() {
                let piece =
                    read_input(input.len() as u64, MAX_TRANSFER).map_err(|error| error.to_string())?;
                if piece.is_empty() {
                    return Err("the input ended early".into());
                }
                input.extend(piece);
            }
            let text = String::from_utf8(input).map_err(|_| "input: it is no UTF-8")?;
            let (lines, output) = sorted(&text);
            log(Level::Info, "sorted");
            record_metric("lines", lines as f64).map_err(|error| error.to_string())?;
            for piece in output.as_bytes().chunks(MAX_TRANSFER as usize) {
                write_output(piece).map_err(|error| error.to_string())?;
            }
            Ok(())
        }
    }

    export!(LineSorter);
}
