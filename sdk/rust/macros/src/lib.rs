//! The attribute `#[mentat_agent]`: it exports what it stands on as the agent of the module. Without dependencies: it reads
//! the few tokens up to the name, and leaves the item as it is.
#![forbid(unsafe_code)]

use proc_macro::{Delimiter, TokenStream, TokenTree};

/// Makes a type that implements `Agent`, its `impl` block, or a function of the same form as `Agent::process` the agent of
/// this module. A module has one.
///
/// ```text
/// #[mentat_agent]
/// fn process(context: &Context, input: Input) -> Result<Output> { … }
///
/// #[mentat_agent]
/// impl Agent for Sentiment { … }
/// ```
///
/// Anything else is refused when it is compiled:
///
/// ```compile_fail
/// #[mentat_sdk_macros::mentat_agent]
/// fn generic<T>() {}
/// ```
///
/// ```compile_fail
/// #[mentat_sdk_macros::mentat_agent]
/// const NUMBER: i32 = 1;
/// ```
///
/// ```compile_fail
/// #[mentat_sdk_macros::mentat_agent]
/// extern "C" fn foreign() {}
/// ```
///
/// ```compile_fail
/// #[mentat_sdk_macros::mentat_agent(name = "x")]
/// struct Named;
/// ```
#[proc_macro_attribute]
pub fn mentat_agent(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let call = if arguments.is_empty() {
        call_of(item.clone())
    } else {
        Err("#[mentat_agent] takes no arguments: name and version stand in manifest.yaml")
    };
    let mut expanded = item;
    let more = match call {
        // Inside the block its own names come first: the export must not be called what an agent may be called.
        // Natively nothing is exported, but what would be is compiled: a wrong signature is an error in every build.
        Ok(call) => format!(
            "#[allow(unsafe_code, reason = \"the name of an export\")]
             const _: () = {{
                 #[cfg_attr(target_arch = \"wasm32\", unsafe(export_name = \"process\"))]
                 extern \"C\" fn __mentat_agent_export() -> i32 {{ {call} }}
                 #[cfg(not(target_arch = \"wasm32\"))]
                 const _: extern \"C\" fn() -> i32 = __mentat_agent_export;
             }};"
        ),
        Err(message) => format!("::core::compile_error!({message:?});"),
    };
    // Of text that is written above; were it no Rust, the compiler says so here.
    expanded.extend(more.parse::<TokenStream>().unwrap_or_default());
    expanded
}

/// The expression that runs the item.
fn call_of(item: TokenStream) -> Result<String, &'static str> {
    const FORMS: &str = "#[mentat_agent] stands on a struct or enum, on `impl Agent for …`, or on a function";
    const GENERIC: &str = "an agent has no generic parameters: the host knows no type to put in";
    let mut tokens = item.into_iter().peekable();
    while let Some(token) = tokens.next() {
        let TokenTree::Ident(word) = token else { continue };
        match word.to_string().as_str() {
            kind @ ("struct" | "enum" | "fn") => {
                let name = match tokens.next() {
                    Some(TokenTree::Ident(name)) => name,
                    _ => return Err(FORMS),
                };
                if matches!(tokens.peek(), Some(TokenTree::Punct(punct)) if punct.as_char() == '<') {
                    return Err(GENERIC);
                }
                return Ok(match kind {
                    "fn" => format!("::mentat_sdk::run_function({name})"),
                    _ => format!("::mentat_sdk::run::<{name}>()"),
                });
            }
            "impl" => {
                if matches!(tokens.peek(), Some(TokenTree::Punct(punct)) if punct.as_char() == '<') {
                    return Err(GENERIC);
                }
                let mut tokens = tokens.skip_while(
                    |token| !matches!(token, TokenTree::Ident(word) if word.to_string() == "for"),
                );
                tokens.next().ok_or(FORMS)?;
                let of: TokenStream = tokens
                    .take_while(|token| !matches!(token, TokenTree::Group(group) if group.delimiter() == Delimiter::Brace))
                    .collect();
                return Ok(format!("::mentat_sdk::run::<{of}>()"));
            }
            "async" | "unsafe" | "const" | "extern" | "default" | "trait" | "mod" | "use" | "type"
            | "static" => return Err(FORMS),
            _ => {}
        }
    }
    Err(FORMS)
}
