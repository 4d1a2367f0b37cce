//! A console's client, by hand: the websocket's upgrade and frames (RFC 6455), and RFB in them (RFC 6143).

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// An open websocket, whose binary frames are one stream of bytes.
pub struct Socket {
    tcp: TcpStream,
    have: VecDeque<u8>,
}

impl Socket {
    /// The status of a refusal otherwise. `path` with its query.
    pub fn open(address: &str, path: &str, origin: Option<&str>) -> Result<Socket, u16> {
        let mut tcp = TcpStream::connect(address).unwrap();
        tcp.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let origin = origin.map_or(String::new(), |o| format!("origin: {o}\r\n"));
        write!(
            tcp,
            "GET /{path} HTTP/1.1\r\nhost: {address}\r\nupgrade: WebSocket\r\nconnection: keep-alive, Upgrade\r\n{origin}\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             sec-websocket-protocol: base64, binary\r\n\r\n"
        )
        .unwrap();
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            tcp.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        let status: u16 = head.split(' ').nth(1).unwrap().parse().unwrap();
        if status != 101 {
            return Err(status);
        }
        // RFC 6455, section 1.3: the answer to its own example.
        let accept = "s3pplmbitxaq9kygzzhzrbk+xoo=";
        assert!(head.contains(&format!("sec-websocket-accept: {accept}")), "{head}");
        assert!(head.contains("sec-websocket-protocol: binary\r\n"), "{head}");
        Ok(Socket {
            tcp,
            have: VecDeque::new(),
        })
    }

    pub fn frame(&mut self, opcode: u8, data: &[u8]) {
        assert!(data.len() < 126);
        let mut out = vec![0x80 | opcode, 0x80 | data.len() as u8, 7, 2, 1, 9];
        out.extend(data.iter().zip([7, 2, 1, 9].iter().cycle()).map(|(b, k)| b ^ k));
        self.tcp.write_all(&out).unwrap();
    }

    pub fn send(&mut self, data: &[u8]) {
        self.frame(2, data);
    }

    /// The next frame that is none of a stream's: its opcode and data. `None` at the end.
    fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut head = [0; 2];
        self.tcp.read_exact(&mut head).ok()?;
        assert!(head[0] & 0x70 == 0 && head[1] & 0x80 == 0, "{head:x?}");
        let mut long = [0; 8];
        let n = match head[1] {
            126 => {
                self.tcp.read_exact(&mut long[6..]).ok()?;
                u64::from_be_bytes(long)
            }
            127 => {
                self.tcp.read_exact(&mut long).ok()?;
                u64::from_be_bytes(long)
            }
            n => u64::from(n),
        };
        let mut data = vec![0; n as usize];
        self.tcp.read_exact(&mut data).ok()?;
        Some((head[0] & 15, data))
    }

    pub fn read(&mut self, n: usize) -> Vec<u8> {
        while self.have.len() < n {
            match self.next().expect("an open console") {
                (2, data) => self.have.extend(data),
                (9, data) => self.frame(10, &data),
                other => panic!("{other:x?}"),
            }
        }
        self.have.drain(..n).collect()
    }

    /// Waits until the other side closes; the status that it gives.
    pub fn closed(&mut self) -> Option<u16> {
        loop {
            match self.next()? {
                (8, data) => return Some(u16::from_be_bytes([data[0], data[1]])),
                (2 | 9, _) => {}
                other => panic!("{other:x?}"),
            }
        }
    }
}

/// A screen that is seen.
pub struct Screen {
    pub socket: Socket,
    pub width: usize,
    pub height: usize,
    pub name: String,
}

impl Screen {
    pub fn open(mut s: Socket) -> Screen {
        assert_eq!(s.read(12), b"RFB 003.008\n");
        s.send(b"RFB 003.008\n");
        let n = s.read(1)[0];
        assert!(s.read(n.into()).contains(&1), "no password is asked for");
        s.send(&[1]);
        assert_eq!(s.read(4), [0; 4]);
        s.send(&[1]);
        let hello = s.read(24);
        let two = |at: usize| usize::from(u16::from_be_bytes([hello[at], hello[at + 1]]));
        let (width, height) = (two(0), two(2));
        let n = u32::from_be_bytes(hello[20..24].try_into().unwrap());
        let name = String::from_utf8(s.read(n as usize)).unwrap();
        // 32 bits a pixel, 8 each of red, green and blue; raw, and told of another size.
        s.send(&[0, 0, 0, 0, 32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0]);
        s.send(&[&[2, 0, 0, 2, 0, 0, 0, 0][..], &(-223_i32).to_be_bytes()].concat());
        Screen {
            socket: s,
            width,
            height,
            name,
        }
    }

    pub fn of(address: &str, url: &str) -> Screen {
        Self::open(Socket::open(address, &websocket(url), None).expect("a console"))
    }

    /// The whole picture, now.
    pub fn picture(&mut self) -> Vec<u8> {
        loop {
            let size = [(self.width as u16).to_be_bytes(), (self.height as u16).to_be_bytes()].concat();
            self.socket.send(&[&[3, 0, 0, 0, 0, 0][..], &size].concat());
            if let Some(p) = self.update() {
                return p;
            }
        }
    }

    /// One update; `None` when the size changed with it.
    fn update(&mut self) -> Option<Vec<u8>> {
        let mut picture = vec![0; self.width * self.height * 4];
        let mut resized = false;
        while self.socket.read(1) != [0] {}
        let head = self.socket.read(3);
        for _ in 0..u16::from_be_bytes([head[1], head[2]]) {
            let r = self.socket.read(12);
            let two = |at: usize| usize::from(u16::from_be_bytes([r[at], r[at + 1]]));
            let (x, y, w, h) = (two(0), two(2), two(4), two(6));
            if r[8..] != [0; 4] {
                (self.width, self.height, resized) = (w, h, true);
                continue;
            }
            let rows = self.socket.read(w * h * 4);
            for (n, row) in rows.chunks(w * 4).enumerate().filter(|_| !resized) {
                let at = ((y + n) * self.width + x) * 4;
                picture[at..at + w * 4].copy_from_slice(row);
            }
        }
        (!resized).then_some(picture)
    }

    /// Presses a key, and lets it go.
    pub fn key(&mut self, code: u32) {
        for down in [1, 0] {
            self.socket.send(&[&[4, down, 0, 0][..], &code.to_be_bytes()].concat());
        }
    }
}

/// Where the websocket of a console's URL is, without the leading slash, as noVNC finds it.
pub fn websocket(url: &str) -> String {
    let path = url.split_once("?path=").expect("a path").1;
    path.replace("%2F", "/").replace("%3F", "?").replace("%3D", "=")
}

/// The token in it.
pub fn token(url: &str) -> String {
    websocket(url).split_once("token=").expect("a token").1.to_owned()
}
