//! `traceparent`, the header of W3C Trace Context (level 1, section 3.2).

/// What a caller says about the trace that its call is part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    /// The trace, never zero.
    pub trace: [u8; 16],
    /// The caller's span, never zero.
    pub span: [u8; 8],
    /// Whether the caller records it.
    pub sampled: bool,
}

impl TraceParent {
    /// Reads the header: `00-TRACE-SPAN-FLAGS` in lower-case hexadecimal. A later version may have more behind another dash,
    /// which is not looked at. What is anything else is as if it were not there.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(5, '-');
        let (version, trace, span) = (field(parts.next()?)?, field(parts.next()?)?, field(parts.next()?)?);
        let [version]: [u8; 1] = version;
        let [flags]: [u8; 1] = field(parts.next()?)?;
        if version == 0xff || (version == 0 && parts.next().is_some()) || trace == [0; 16] || span == [0; 8] {
            return None;
        }
        Some(Self { trace, span, sampled: flags & 1 == 1 })
    }
}

fn field<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let lower = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    (lower && hex::decode_to_slice(text, &mut bytes).is_ok()).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn the_example_of_the_standard_is_read() {
        let parent = TraceParent::parse(HEADER).unwrap();
        assert_eq!(hex::encode(parent.trace), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!((hex::encode(parent.span).as_str(), parent.sampled), ("00f067aa0ba902b7", true));
        assert!(!TraceParent::parse(&HEADER.replace("-01", "-00")).unwrap().sampled);
        assert!(
            TraceParent::parse(&HEADER.replace("-01", "-03")).unwrap().sampled,
            "other flags are others'"
        );
        let later = format!("{}-what-comes-later", HEADER.replacen("00", "01", 1));
        assert!(TraceParent::parse(&later).is_some());
    }

    #[test]
    fn everything_else_is_as_if_it_were_not_there() {
        for text in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0g",
        ] {
            assert_eq!(TraceParent::parse(text), None, "{text}");
        }
    }
}
