//! What `new` writes: the files of `sdk/templates` and, in `mentat-sdk/`, the sources of the language's SDK, so that an agent
//! builds with nothing to fetch from anywhere of ours. All of it is part of this program.

use super::Language;

/// The folder of the SDK's sources in an agent.
const SDK: &str = "mentat-sdk/";

/// A file of a new agent.
#[derive(Clone, Copy, Debug)]
pub struct File {
    /// Its path in the agent's folder, with the template's own name where that stands in it.
    pub path: &'static str,
    /// Its text.
    pub text: &'static str,
}

impl File {
    /// Whether it is a source of the SDK, which stays as it is.
    pub fn is_sdk(&self) -> bool {
        self.path.starts_with(SDK)
    }
}

/// The start of an agent in one language.
#[derive(Debug)]
pub struct Template {
    /// As `--language` takes it.
    pub name: &'static str,
    /// As people write it.
    pub title: &'static str,
    /// The tools to build it, and where they come from.
    pub needs: &'static str,
    /// The file with an input to try it with.
    pub input: &'static str,
    own: &'static [File],
    sdk: &'static [File],
}

macro_rules! own {
    ($folder:literal: $($path:literal)+) => {
        &[$(File { path: $path, text: include_str!(concat!("../../../sdk/templates/", $folder, "/", $path)) }),+]
    };
}

macro_rules! sdk {
    ($folder:literal: $($path:literal)+) => {
        &[$(File {
            path: concat!("mentat-sdk/", $path),
            text: include_str!(concat!("../../../sdk/", $folder, "/", $path)),
        }),+]
    };
}

const RUST: Template = Template {
    name: "rust",
    title: "Rust",
    needs: "make; a Rust toolchain with the target wasm32-unknown-unknown (rustup target add), or Debian's rustc-web, cargo-web, rust-web-src and lld-22",
    input: "input.json",
    own: own!("rust": ".gitignore" "Cargo.toml" "Makefile" "README.md" "input.json" "manifest.yaml" "src/lib.rs" "tests/agent.rs"),
    sdk: sdk!("rust": "Cargo.toml" "guest.mk" "macros/Cargo.toml" "macros/src/lib.rs" "src/abi.rs" "src/agent.rs" "src/bump.rs" "src/capability.rs"
        "src/context.rs" "src/error.rs" "src/fake.rs" "src/fake/raw.rs" "src/host.rs" "src/input.rs" "src/json.rs" "src/lib.rs"
        "src/media.rs" "src/output.rs" "src/runtime.rs" "src/stream.rs"),
};

const ASSEMBLYSCRIPT: Template = Template {
    name: "assemblyscript",
    title: "AssemblyScript",
    needs: "make; Node 20 or later; asc (npm install -g assemblyscript)",
    input: "input.json",
    own: own!("assemblyscript": ".gitignore" "Makefile" "README.md" "assembly/index.ts" "input.json" "manifest.yaml" "package.json"
        "tests/agent.test.mjs"),
    sdk: sdk!("assemblyscript": "assembly/abi.ts" "assembly/abort.ts" "assembly/agent.ts" "assembly/error.ts" "assembly/host.ts"
        "assembly/index.ts" "assembly/input.ts" "assembly/json.ts" "assembly/log.ts" "assembly/output.ts" "assembly/value.ts"
        "fake/host.mjs" "guest.mk"),
};

const GO: Template = Template {
    name: "go",
    title: "Go",
    needs: "make; Go 1.24 or later; TinyGo 0.41 for a core module (the same source is a command with Go alone: make go)",
    input: "input.json",
    own: own!("go": ".gitignore" "Makefile" "README.md" "go.mod" "input.json" "main.go" "main_test.go" "manifest.yaml"),
    sdk: sdk!("go": "agent/agent.go" "agent/command.go" "agent/core.go" "agent/error.go" "agent/fake.go" "agent/input.go"
        "agent/interface.go" "agent/json.go" "agent/lines.go" "agent/output.go" "go.mod" "guest.mk" "memory/main.go"),
};

const C: Template = Template {
    name: "c",
    title: "C",
    needs: "make; a C compiler; clang with WebAssembly (Debian: clang-22 and lld-22)",
    input: "input.txt",
    own: own!("c": ".gitignore" "Makefile" "README.md" "input.txt" "manifest.yaml" "my_agent.c" "test.c"),
    sdk: sdk!("c": "fake/mentat_fake.c" "fake/mentat_fake.h" "guest.mk" "mentat.h"),
};

impl Template {
    /// The template of a language.
    pub fn of(language: Language) -> Self {
        match language {
            Language::Rust => RUST,
            Language::AssemblyScript => ASSEMBLYSCRIPT,
            Language::Go => GO,
            Language::C => C,
        }
    }

    /// All files of it.
    pub fn files(&self) -> impl Iterator<Item = &'static File> {
        self.own.iter().chain(self.sdk)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::collections::BTreeSet;
    use std::path::{Path, PathBuf};

    use clap::ValueEnum as _;

    use super::*;
    use crate::new::name::AgentName;

    /// Every file below a folder of `sdk/`, but what building and testing the SDK itself leaves and takes.
    fn sources(folder: &Path) -> BTreeSet<String> {
        fn walk(at: &Path, root: &Path, found: &mut BTreeSet<String>) {
            for entry in std::fs::read_dir(at).unwrap().flatten() {
                let path = entry.path();
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                if path.is_dir() {
                    if !matches!(name.as_str(), "target" | "node_modules" | "build" | "tests") {
                        walk(&path, root, found);
                    }
                } else if !matches!(
                    name.as_str(),
                    ".gitignore" | "Makefile" | "Cargo.lock" | "package.json" | "package-lock.json"
                ) && !name.ends_with("_test.go")
                {
                    found.insert(name);
                }
            }
        }
        let mut found = BTreeSet::new();
        walk(folder, folder, &mut found);
        found
    }

    #[test]
    fn every_source_of_every_sdk_is_written() {
        let sdk = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../sdk");
        for language in Language::value_variants() {
            let template = Template::of(*language);
            let written: BTreeSet<String> =
                template.sdk.iter().map(|file| file.path.strip_prefix(SDK).unwrap().to_owned()).collect();
            assert_eq!(written, sources(&sdk.join(template.name)), "{}", template.name);
        }
    }

    #[test]
    fn every_template_carries_the_placeholder_and_its_input() {
        let name = AgentName::new("word-count").unwrap();
        for language in Language::value_variants() {
            let template = Template::of(*language);
            assert!(template.own.iter().any(|file| file.path == template.input), "{}", template.name);
            let manifest = template.own.iter().find(|file| file.path == "manifest.yaml").unwrap();
            let manifest = name.put_into(manifest.text);
            assert!(
                manifest.contains("id: mentatlab.word-count\n")
                    && manifest.contains("module: word-count.wasm\n")
            );
            for file in template.own {
                let text = name.put_into(file.text);
                assert!(!text.contains("my-agent") && !text.contains("my_agent"), "{}", file.path);
            }
        }
    }
}
