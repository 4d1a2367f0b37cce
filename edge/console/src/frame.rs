//! Frames of a websocket (RFC 6455, section 5), as a server reads and writes them.

use std::io;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Longest frame that is read, bytes: what a person types, or pastes.
pub(crate) const LONGEST: u64 = 1 << 20;

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    Data(Vec<u8>),
    Ping(Vec<u8>),
    Pong,
    Close,
}

/// Why it is not gone on with: the status of a close frame (section 7.4.1).
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// The connection ended.
    Gone,
    Close(u16),
}

impl From<io::Error> for Broken {
    fn from(_: io::Error) -> Self {
        Broken::Gone
    }
}

const PROTOCOL: Broken = Broken::Close(1002);

/// Reads one frame. Fragments are frames of their own: what is in them is a stream of bytes.
pub(crate) async fn read<R: AsyncRead + Unpin>(r: &mut R) -> Result<Frame, Broken> {
    let mut head = [0; 2];
    r.read_exact(&mut head).await?;
    let [first, second] = head;
    let (last, opcode) = (first & 0x80 != 0, first & 0x0f);
    // No extension was agreed upon, and a client masks.
    if first & 0x70 != 0 || second & 0x80 == 0 {
        return Err(PROTOCOL);
    }
    let length = match second & 0x7f {
        126 => u64::from(r.read_u16().await?),
        127 => r.read_u64().await?,
        n => u64::from(n),
    };
    if opcode >= 8 && (!last || length > 125) {
        return Err(PROTOCOL);
    }
    if length > LONGEST {
        return Err(Broken::Close(1009));
    }
    let mut mask = [0; 4];
    r.read_exact(&mut mask).await?;
    let mut data = vec![0; length as usize];
    r.read_exact(&mut data).await?;
    for (byte, key) in data.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
    match opcode {
        0 | 2 => Ok(Frame::Data(data)),
        // Text: RFB has none.
        1 => Err(Broken::Close(1003)),
        8 => Ok(Frame::Close),
        9 => Ok(Frame::Ping(data)),
        10 => Ok(Frame::Pong),
        _ => Err(PROTOCOL),
    }
}

fn whole(opcode: u8, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len() + 10);
    out.push(0x80 | opcode);
    match data.len() {
        n @ 0..=125 => out.push(n as u8),
        n @ 126..=65535 => {
            out.push(126);
            out.extend((n as u16).to_be_bytes());
        }
        n => {
            out.push(127);
            out.extend((n as u64).to_be_bytes());
        }
    }
    out.extend(data);
    out
}

pub(crate) fn binary(data: &[u8]) -> Vec<u8> {
    whole(2, data)
}

pub(crate) fn ping() -> Vec<u8> {
    whole(9, &[])
}

pub(crate) fn pong(data: &[u8]) -> Vec<u8> {
    whole(10, data)
}

pub(crate) fn close(status: u16) -> Vec<u8> {
    whole(8, &status.to_be_bytes())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    async fn one(bytes: &[u8]) -> Result<Frame, Broken> {
        read(&mut &bytes[..]).await
    }

    #[tokio::test]
    async fn what_is_read_and_what_is_not() {
        // RFC 6455, section 5.7: a masked "Hello", here as binary data.
        let hello = [0x82, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        assert_eq!(one(&hello).await, Ok(Frame::Data(b"Hello".to_vec())));
        for (bytes, why) in [
            (&hello[..8], Broken::Gone),
            // Not masked; a reserved bit; an opcode that is none; text.
            (&[0x82, 0x01, 0x00], PROTOCOL),
            (&[0xc2, 0x80, 0, 0, 0, 0], PROTOCOL),
            (&[0x83, 0x80, 0, 0, 0, 0], PROTOCOL),
            (&[0x81, 0x80, 0, 0, 0, 0], Broken::Close(1003)),
            // A ping in two parts; a long one; a frame of 2^63 bytes.
            (&[0x09, 0x80, 0, 0, 0, 0], PROTOCOL),
            (&[0x89, 0xfe, 0, 126], PROTOCOL),
            (&[0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0], Broken::Close(1009)),
        ] {
            assert_eq!(one(bytes).await, Err(why), "{bytes:x?}");
        }
        assert_eq!(one(&[0x88, 0x80, 0, 0, 0, 0]).await, Ok(Frame::Close));
        assert_eq!(binary(&[7; 126])[..4], [0x82, 126, 0, 126]);
        assert_eq!(binary(&[7; 65536])[..10], [0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
        assert_eq!(close(1000), [0x88, 2, 3, 0xe8]);
    }
}
