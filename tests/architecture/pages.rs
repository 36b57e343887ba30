//! The pages that servers show to people: what their content policy would stop must not be there in the first place, and text of others
//! never becomes markup.

use std::path::{Path, PathBuf};

use crate::{root, text};

/// Folders of the pages' files.
const PAGES: [&str; 3] = ["ca-service/web", "executor/web", "transparency-log/web"];

/// What no file of a page holds: markup from text, scripts and styles inline, memory in the browser.
const BANNED: [&str; 13] = [
    "innerHTML",
    "outerHTML",
    "insertAdjacent",
    "document.write",
    "eval(",
    "Function(",
    "style=",
    "<style",
    "onclick=\"",
    "javascript:",
    "localStorage",
    "sessionStorage",
    "document.cookie",
];

fn files(page: &str) -> Vec<PathBuf> {
    let folder = std::fs::read_dir(root().join(page)).expect("the page's folder");
    let mut files: Vec<PathBuf> =
        folder.map(|entry| Path::new(page).join(entry.expect("entry").file_name())).collect();
    files.sort();
    assert!(files.len() >= 4, "{page} holds a page, a style, a script and an icon");
    files
}

#[test]
fn no_file_holds_inline_scripts_foreign_addresses_or_markup_from_text() {
    for path in PAGES.iter().flat_map(|page| files(page)) {
        let text = text(&path);
        let shown = path.display();
        for banned in BANNED {
            assert!(!text.contains(banned), "{shown} holds {banned}");
        }
        for (at, _) in text.match_indices("://") {
            let from = text[..at].rfind([' ', '"', '`', '(', '=']).map_or(0, |at| at + 1);
            let address = text[from..].trim_start_matches('"');
            // Names that are never fetched: types of events, and the name of the form that an icon is in.
            let is_name = ["https://mentat.internal/", "http://www.w3.org/"]
                .iter()
                .any(|name| address.starts_with(name));
            assert!(is_name, "{shown}: {}", &text[from..(at + 40).min(text.len())]);
        }
    }
}

#[test]
fn a_page_has_one_script_and_it_is_a_file() {
    for page in PAGES {
        let html = text(&Path::new(page).join("index.html"));
        assert_eq!(html.matches("<script").count(), 1, "{page}");
        assert!(html.contains("src=\"/page/page.js\"") || html.contains("src=\"page/page.js\""), "{page}");
    }
}

/// The headers and the policy are one module's.
#[test]
fn no_server_words_the_policy_of_its_page_itself() {
    for path in crate::rust_sources() {
        let is_the_module = path == Path::new("service/src/page.rs");
        if !is_the_module && !path.starts_with("tests") {
            assert!(!text(&path).contains("require-trusted-types-for"), "{}", path.display());
        }
    }
}
