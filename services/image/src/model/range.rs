//! `Range` of a download (RFC 9110, 14.1.2), with Glance's answers: one range only, and `Content-Range` in
//! a request means the same for old clients.

use haneul_core::{Error, Kind, Result};

/// The bytes to send: first, and how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub start: u64,
    pub len: u64,
}

impl Span {
    /// `bytes 0-4/10`.
    pub fn content_range(self, size: u64) -> String {
        format!(
            "bytes {}-{}/{size}",
            self.start,
            self.start + self.len.saturating_sub(1)
        )
    }
}

fn unsatisfiable(message: impl Into<String>) -> Error {
    Error::new(Kind::RangeNotSatisfiable, message).with_field("range")
}

/// The span that the headers ask for; `None` asks for everything.
pub(crate) fn span_of(range: Option<&str>, content_range: Option<&str>, size: u64) -> Result<Option<Span>> {
    if let Some(text) = range {
        return parse_range(text, size).map(Some);
    }
    content_range.map(|text| parse_content_range(text, size)).transpose()
}

fn beyond(header: &str, size: u64) -> Error {
    unsatisfiable(format!(
        "Invalid start position in {header} header. Start position MUST be in the inclusive range [0, {}].",
        i128::from(size) - 1
    ))
}

fn parse_range(text: &str, size: u64) -> Result<Span> {
    if text.contains(',') {
        return Err(Error::field(
            "range",
            "Requests with multiple ranges are not supported in Glance. You may make multiple single-range \
             requests instead.",
        ));
    }
    let invalid = || unsatisfiable("Invalid Range header.");
    let (first, last) = text
        .trim()
        .strip_prefix("bytes=")
        .and_then(|r| r.trim().split_once('-'))
        .ok_or_else(invalid)?;
    let number = |t: &str| {
        if t.is_empty() {
            Ok(None)
        } else if t.bytes().all(|b| b.is_ascii_digit()) {
            // Larger than 64 bits is larger than any image.
            Ok(Some(t.parse::<u64>().unwrap_or(u64::MAX)))
        } else {
            Err(invalid())
        }
    };
    let (start, end) = match (number(first.trim())?, number(last.trim())?) {
        (None, None) | (None, Some(0)) => return Err(invalid()),
        (None, Some(suffix)) => (size.saturating_sub(suffix), size),
        (Some(start), None) => (start, size),
        (Some(start), Some(last)) if last >= start => (start, last.saturating_add(1).min(size)),
        (Some(_), Some(_)) => return Err(invalid()),
    };
    if start >= size {
        return Err(beyond("Range", size));
    }
    Ok(Span {
        start,
        len: end - start,
    })
}

fn parse_content_range(text: &str, size: u64) -> Result<Span> {
    let parts = || {
        let (range, _total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let (first, last) = (first.trim().parse::<u64>().ok()?, last.trim().parse::<u64>().ok()?);
        (first <= last).then_some((first, last))
    };
    let (first, last) = parts().ok_or_else(|| unsatisfiable("Invalid Content-Range header."))?;
    if first >= size {
        return Err(beyond("Content-Range", size));
    }
    if last >= size {
        return Err(unsatisfiable(format!(
            "Invalid stop position in Content-Range header. The stop position MUST be in the inclusive \
             range [0, {}].",
            size - 1
        )));
    }
    Ok(Span {
        start: first,
        len: last - first + 1,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let ok = [
            ("bytes=0-4", 0, 5),
            ("bytes=5-", 5, 5),
            ("bytes=-3", 7, 3),
            ("bytes=-30", 0, 10),
            ("bytes=9-9", 9, 1),
            ("bytes=2-100", 2, 8),
            ("bytes=0-99999999999999999999999", 0, 10),
        ];
        for (text, start, len) in ok {
            assert_eq!(
                span_of(Some(text), None, 10).unwrap(),
                Some(Span { start, len }),
                "{text}"
            );
        }
        for text in [
            "bytes=10-",
            "bytes=11-12",
            "bytes=-0",
            "bytes=-",
            "bytes=5-4",
            "items=0-1",
            "bytes=a-b",
            "bytes=+1-2",
            "",
            "bytes=99999999999999999999999-",
        ] {
            let e = span_of(Some(text), None, 10).unwrap_err();
            assert_eq!(e.kind(), Kind::RangeNotSatisfiable, "{text}");
        }
        assert_eq!(
            span_of(Some("bytes=0-1,4-5"), None, 10).unwrap_err().kind(),
            Kind::BadRequest
        );
        assert_eq!(
            span_of(Some("bytes=0-"), None, 0).unwrap_err().kind(),
            Kind::RangeNotSatisfiable
        );
        assert_eq!(span_of(None, None, 10).unwrap(), None);
    }

    #[test]
    fn content_ranges() {
        let span = span_of(None, Some("bytes 1-4/*"), 10).unwrap().unwrap();
        assert_eq!((span.start, span.len), (1, 4));
        assert_eq!(span.content_range(10), "bytes 1-4/10");
        for text in ["bytes 1-10/10", "bytes 10-11/12", "bytes x", "bytes 4-1/10"] {
            assert!(span_of(None, Some(text), 10).is_err(), "{text}");
        }
    }
}
