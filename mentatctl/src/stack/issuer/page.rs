//! The two pages on which a person signs in. No script; every text from outside is escaped.

use http::StatusCode;

use super::super::listener::{Answer, Fields};

/// Parameters of the authorization request that the form carries on.
const CARRIED: [&str; 8] = [
    "client_id",
    "redirect_uri",
    "response_type",
    "scope",
    "state",
    "nonce",
    "code_challenge",
    "code_challenge_method",
];

const STYLE: &str = "body{font:16px/1.5 sans-serif;max-width:34em;margin:3em auto;padding:0 1em}\
    .mark{background:#b00020;color:#fff;padding:.6em 1em}label{display:block;margin:.8em 0}\
    input{font:inherit;width:100%;box-sizing:border-box;padding:.3em}.wrong{color:#b00020}button{font:inherit;padding:.4em 1.2em}";

fn document(status: StatusCode, title: &str, inner: &str) -> Answer {
    Answer::page(
        status,
        format!(
            "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{title}</title><style>{STYLE}</style>\
             <p class=\"mark\"><b>Development issuer.</b> It vouches for any address to whoever knows the secret of this \
             stack. Never let anything but this stack trust it.</p><h1>{title}</h1>{inner}</html>"
        ),
    )
}

fn wrong(what: &str) -> String {
    if what.is_empty() {
        String::new()
    } else {
        format!("<p class=\"wrong\" role=\"alert\">{}</p>", escape(what))
    }
}

const WHO: &str = "<label>E-mail address <input name=\"email\" type=\"email\" required autocomplete=\"email\"></label>\
    <label>Secret of the stack (file secrets/oidc.secret) \
    <input name=\"secret\" type=\"password\" required autocomplete=\"off\"></label>\
    <button>Sign in</button></form>";

/// The page for a code that a device shows.
pub fn device(status: StatusCode, user_code: &str, what: &str) -> Answer {
    let inner = format!(
        "{}<form method=\"post\" action=\"/device\"><label>Code that the device shows \
         <input name=\"user_code\" value=\"{}\" required autocomplete=\"off\"></label>{WHO}",
        wrong(what),
        escape(user_code)
    );
    document(status, "Let a device sign in", &inner)
}

/// The page for a client that waits for a code.
pub fn sign_in(status: StatusCode, asked: &Fields, what: &str) -> Answer {
    let hidden: String = CARRIED
        .iter()
        .filter_map(|name| Some((name, asked.get(name)?)))
        .map(|(name, value)| format!("<input type=\"hidden\" name=\"{name}\" value=\"{}\">", escape(value)))
        .collect();
    let client = escape(asked.get("client_id").unwrap_or("unknown"));
    let inner = format!(
        "{}<p>The client <b>{client}</b> asks who you are.</p><form method=\"post\" action=\"/auth\">{hidden}{WHO}",
        wrong(what)
    );
    document(status, "Sign in", &inner)
}

/// The page after the work is done.
pub fn done(what: &str) -> Answer {
    document(StatusCode::OK, "Signed in", &format!("<p>{}</p>", escape(what)))
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}
