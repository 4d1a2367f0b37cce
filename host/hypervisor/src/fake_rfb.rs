//! A screen for guests that do not exist: RFB 3.8 (RFC 6143) without a password, one colour, and another one for each
//! key that is pressed.

use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

const WIDTH: u16 = 64;
const HEIGHT: u16 = 48;
/// 32 bits a pixel, 24 of them colour, little-endian, 8 bits each of red, green and blue.
const PIXELS: [u8; 16] = [32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0];

/// Until the other side goes.
pub(crate) async fn serve(peer: UnixStream) {
    // Whatever it sends, it only ends its own connection.
    let _ = talk(peer).await;
}

async fn talk(mut s: UnixStream) -> io::Result<()> {
    s.write_all(b"RFB 003.008\n").await?;
    s.read_exact(&mut [0; 12]).await?;
    // One security type: none.
    s.write_all(&[1, 1]).await?;
    s.read_exact(&mut [0; 1]).await?;
    s.write_all(&[0; 4]).await?;
    s.read_exact(&mut [0; 1]).await?;
    let mut hello = [WIDTH.to_be_bytes(), HEIGHT.to_be_bytes()].concat();
    hello.extend(PIXELS);
    hello.extend(4_u32.to_be_bytes());
    hello.extend(b"fake");
    s.write_all(&hello).await?;
    let mut colour = 0_u32;
    loop {
        let mut kind = [0];
        s.read_exact(&mut kind).await?;
        match kind[0] {
            // SetPixelFormat: we keep to ours.
            0 => drop(s.read_exact(&mut [0; 19]).await?),
            // SetEncodings.
            2 => {
                let mut head = [0; 3];
                s.read_exact(&mut head).await?;
                let n = u64::from(u16::from_be_bytes([head[1], head[2]]));
                tokio::io::copy(&mut (&mut s).take(n * 4), &mut tokio::io::sink()).await?;
            }
            // FramebufferUpdateRequest.
            3 => {
                s.read_exact(&mut [0; 9]).await?;
                let mut update = vec![0, 0, 0, 1, 0, 0, 0, 0];
                update.extend(WIDTH.to_be_bytes());
                update.extend(HEIGHT.to_be_bytes());
                update.extend([0; 4]);
                for _ in 0..u32::from(WIDTH) * u32::from(HEIGHT) {
                    update.extend(colour.to_le_bytes());
                }
                s.write_all(&update).await?;
            }
            // KeyEvent.
            4 => {
                let mut key = [0; 7];
                s.read_exact(&mut key).await?;
                if key[0] == 1 {
                    colour = (colour + 0x0030_4050) & 0x00ff_ffff;
                }
            }
            // PointerEvent.
            5 => drop(s.read_exact(&mut [0; 5]).await?),
            // ClientCutText.
            6 => {
                let mut head = [0; 7];
                s.read_exact(&mut head).await?;
                let n = u64::from(u32::from_be_bytes([head[3], head[4], head[5], head[6]]));
                tokio::io::copy(&mut (&mut s).take(n), &mut tokio::io::sink()).await?;
            }
            _ => return Ok(()),
        }
    }
}
