//! The trust files of a stack over HTTP, for clients that take a URL: `/trust/…`, the metadata repository below
//! `/trust/tuf/`. What is not public (the policy) is not there.

use http::{Method, StatusCode};

use super::layout::Layout;
use super::listener::{Answer, Request};
use crate::home::read_file;

/// Path of everything that is published.
pub const PATH: &str = "/trust";
/// The files beside the metadata repository.
const FILES: [&str; 4] =
    ["trusted_root.json", "signing_config.json", "client_trust_config.json", "log_keys.json"];

/// Answers a request; `None` for paths of others.
pub fn answer(layout: &Layout, request: &Request) -> Option<Answer> {
    let name = request.path.strip_prefix("/trust/")?;
    if !matches!(request.method, Method::GET | Method::HEAD) {
        return Some(Answer::text(StatusCode::METHOD_NOT_ALLOWED, "these files are only read"));
    }
    let absent = || Answer::text(StatusCode::NOT_FOUND, "there is no such file");
    let path = match name.strip_prefix("tuf/") {
        Some(below) if metadata(below) => layout.trust("tuf").join(below),
        None if FILES.contains(&name) => layout.trust(name),
        _ => return Some(absent()),
    };
    Some(match read_file(&path) {
        Ok(body) => Answer { status: StatusCode::OK, content_type: "application/json", location: None, body },
        Err(_) => absent(),
    })
}

/// `NAME.json` or `targets/NAME.json`, and nothing by which a path could leave the folder.
fn metadata(below: &str) -> bool {
    let name = below.strip_prefix("targets/").unwrap_or(below);
    name.ends_with(".json")
        && !name.starts_with('.')
        && name.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"._-".contains(&octet))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_path_leaves_the_folder() {
        for good in ["root.json", "1.root.json", "timestamp.json", "targets/ab12.trusted_root.json"] {
            assert!(metadata(good), "{good}");
        }
        for bad in [
            "",
            "..",
            "../policy.yaml",
            "../ports.json",
            "targets/../x.json",
            "targets/",
            "a/b.json",
            ".json",
            "%2e.json",
        ] {
            assert!(!metadata(bad), "{bad}");
        }
    }
}
