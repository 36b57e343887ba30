//! The page for people: static files that search, decode and verify in the browser. They are served from memory; what
//! they ask for are the reads that everybody has.

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use service::page::{self, Kind};

/// A file of the page by the request's path.
pub(crate) fn file(path: &str) -> Option<Response<Full<Bytes>>> {
    let (kind, text) = match path {
        "/" => (Kind::Html, include_str!("../web/index.html")),
        "/page/page.css" => (Kind::Style, include_str!("../web/page.css")),
        "/page/page.js" => (Kind::Script, include_str!("../web/page.js")),
        "/page/artifact.js" => (Kind::Script, include_str!("../web/artifact.js")),
        "/page/bytes.js" => (Kind::Script, include_str!("../web/bytes.js")),
        "/page/certificate.js" => (Kind::Script, include_str!("../web/certificate.js")),
        "/page/der.js" => (Kind::Script, include_str!("../web/der.js")),
        "/page/entry.js" => (Kind::Script, include_str!("../web/entry.js")),
        "/page/event.js" => (Kind::Script, include_str!("../web/event.js")),
        "/page/merkle.js" => (Kind::Script, include_str!("../web/merkle.js")),
        "/page/note.js" => (Kind::Script, include_str!("../web/note.js")),
        "/page/icon.svg" => (Kind::Svg, include_str!("../web/icon.svg")),
        _ => return None,
    };
    Some(page::answer(kind, text).map(Full::new))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPTS: [(&str, &str); 9] = [
        ("/page/page.js", include_str!("../web/page.js")),
        ("/page/artifact.js", include_str!("../web/artifact.js")),
        ("/page/bytes.js", include_str!("../web/bytes.js")),
        ("/page/certificate.js", include_str!("../web/certificate.js")),
        ("/page/der.js", include_str!("../web/der.js")),
        ("/page/entry.js", include_str!("../web/entry.js")),
        ("/page/event.js", include_str!("../web/event.js")),
        ("/page/merkle.js", include_str!("../web/merkle.js")),
        ("/page/note.js", include_str!("../web/note.js")),
    ];

    #[test]
    fn every_file_is_served_with_the_policy_and_nothing_else_is() {
        let others = ["/", "/page/page.css", "/page/icon.svg"];
        for path in SCRIPTS.iter().map(|(path, _)| *path).chain(others) {
            assert_eq!(file(path).unwrap().headers()["content-security-policy"], page::POLICY, "{path}");
        }
        for path in ["", "/page", "/page/", "/page/../page.js", "/page/page.js/", "/index.html"] {
            assert!(file(path).is_none(), "{path}");
        }
    }

    #[test]
    fn every_import_of_a_script_is_a_file() {
        for (path, text) in SCRIPTS {
            for import in text.lines().filter_map(|line| line.split(" from \"./").nth(1)) {
                let name = import.split('"').next().unwrap();
                assert!(file(&format!("/page/{name}")).is_some(), "{path} imports {name}");
            }
        }
    }
}
