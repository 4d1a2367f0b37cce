//! What a host hears from control: whole lines of the protocol, each of which can be kept and read again as it was, or the
//! link ends; and however the bytes come in pieces, the same is heard.
#![no_main]

use bytes::BytesMut;
use haneul_agent_api::{MAX_LINE, ToAgent, limits};
use libfuzzer_sys::fuzz_target;

/// What is heard until the end, or until the link ends.
fn heard<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<String>, bool) {
    let (mut buffer, mut all) = (BytesMut::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        match limits::lines(&mut buffer) {
            Ok(lines) => all.extend(lines.iter().map(kept)),
            Err(e) => {
                assert_eq!(e.kind().status(), 400);
                assert!(e.public().len() < 2000, "a refusal does not repeat what was said");
                return (all, true);
            }
        }
        assert!(
            buffer.len() <= MAX_LINE && !buffer.contains(&b'\n'),
            "nothing is held but a line that is not whole"
        );
    }
    (all, false)
}

fn kept(line: &ToAgent) -> String {
    let text = serde_json::to_string(line).expect("it can be kept");
    let again: ToAgent = serde_json::from_str(&text).expect("it can be read again");
    assert_eq!(text, serde_json::to_string(&again).expect("it can be kept again"));
    if let (ToAgent::Put(a), ToAgent::Put(b)) = (line, &again) {
        assert_eq!(a.object.kind(), b.object.kind());
        assert_eq!(a.object.id(), b.object.id());
    }
    text
}

fuzz_target!(|data: &[u8]| {
    let (whole, ended) = heard(std::iter::once(data));
    let (pieces, ended_too) = heard(data.chunks(1 + data.len() / 7));
    assert_eq!(ended, ended_too);
    // A link that ends takes nothing of the piece that it ended in.
    if !ended {
        assert_eq!(whole, pieces);
    }
});
