//! Fetching bytes from an address that a user gave: only from where the administrator allows, and to exactly the
//! address that was checked.
//!
//! A name is resolved once for each connection, and the connection goes to an address that was looked at, so that a
//! name server cannot answer differently the second time. Redirects are followed by us, each as a request of its own
//! with all checks. Nothing but the bytes of a 200 comes back to the user: no answer's text, no address, no timing
//! of closed ports beyond "could not be fetched".

use axum::body::Body;
use futures_util::StreamExt;
use haneul_core::{Error, Result};
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// Redirects that are followed.
const MAX_HOPS: usize = 5;
/// For a connection, and for the head of the answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// What is read of an answer that is JSON.
const MAX_JSON: usize = 1 << 20;
const MAX_URL: usize = 2048;

/// One entry of `image.web_download_from`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Allowed {
    scheme: String,
    host: Host,
    /// None: any.
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    Any,
    /// `*.example.org`, kept as `.example.org`.
    Below(String),
    Name(String),
    /// Network and length of its prefix.
    Net(IpAddr, u8),
}

/// Where may be fetched from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rules(Vec<Allowed>);

/// A URL taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    scheme: String,
    host: String,
    port: u16,
    path: String,
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

impl Target {
    fn parse(url: &str) -> Result<Self, String> {
        if url.len() > MAX_URL {
            return Err(format!(
                "it has {} characters, and at most {MAX_URL} are taken",
                url.len()
            ));
        }
        // A parser of ours and one of a library could disagree about these.
        if url.chars().any(|c| c.is_whitespace() || c.is_control() || c == '\\') {
            return Err("it holds blanks, control characters or backslashes".into());
        }
        let uri: Uri = url.parse().map_err(|_| "it is no URL".to_owned())?;
        let scheme = uri.scheme_str().unwrap_or_default().to_ascii_lowercase();
        let standard = default_port(&scheme).ok_or("its scheme is neither http nor https")?;
        let authority = uri.authority().ok_or("it names no host")?;
        if authority.as_str().contains('@') {
            return Err("it holds a user name or password".into());
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        if host.is_empty() {
            return Err("it names no host".into());
        }
        Ok(Self {
            scheme,
            host,
            port: authority.port_u16().unwrap_or(standard),
            path: uri.path_and_query().map_or("/", |p| p.as_str()).to_owned(),
        })
    }

    /// The host as an address. Numbers in other spellings (`0x7f.1`, `2130706433`) are names to us: the system's
    /// resolver may know them, and what it answers is checked as for any name.
    fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    fn authority(&self) -> String {
        let host = if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        };
        if default_port(&self.scheme) == Some(self.port) {
            host
        } else {
            format!("{host}:{}", self.port)
        }
    }
}

impl Rules {
    /// Parses the setting.
    ///
    /// # Errors
    /// Names the entry that is wrong.
    pub fn parse(entries: &[String]) -> Result<Self> {
        let one = |entry: &String| {
            parse_entry(entry).map_err(|why| {
                Error::field(
                    "image.web_download_from",
                    format!(
                        "image.web_download_from: \"{entry}\": {why}. Write SCHEME://HOST[:PORT], for example \
                         https://cloud.debian.org, https://*.example.org, http://10.1.0.0/16:8080 or https://*"
                    ),
                )
            })
        };
        Ok(Self(entries.iter().map(one).collect::<Result<_>>()?))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a URL may be asked for at all, as far as that can be said without resolving its name.
    pub fn admits(&self, url: &str) -> Result<(), String> {
        let target = Target::parse(url)?;
        match target.ip() {
            Some(ip) => self.admits_address(&target, ip),
            None if self.by_name(&target) => Ok(()),
            None => Err("no entry of image.web_download_from allows it".into()),
        }
    }

    fn fitting<'a>(&'a self, target: &'a Target) -> impl Iterator<Item = &'a Allowed> {
        self.0
            .iter()
            .filter(|a| a.scheme == target.scheme && a.port.is_none_or(|p| p == target.port))
    }

    fn by_name(&self, target: &Target) -> bool {
        self.fitting(target).any(|a| match &a.host {
            Host::Any => true,
            Host::Below(end) => target.host.ends_with(end) && target.host.len() > end.len(),
            Host::Name(name) => *name == target.host,
            Host::Net(..) => false,
        })
    }

    /// Whether this address of the target may be spoken to.
    fn admits_address(&self, target: &Target, ip: IpAddr) -> Result<(), String> {
        let ip = plain(ip);
        let listed = self.fitting(target).any(|a| match &a.host {
            Host::Net(net, len) => contains(*net, *len, ip),
            _ => false,
        });
        // The name or `*` must be allowed, and of names only public addresses are.
        match (listed, self.by_name(target), is_public(ip)) {
            (true, _, _) | (_, true, true) => Ok(()),
            (_, true, false) => Err("its address is not a public one".into()),
            _ => Err("no entry of image.web_download_from allows it".into()),
        }
    }
}

fn parse_entry(entry: &str) -> Result<Allowed, String> {
    let (scheme, rest) = entry.split_once("://").ok_or("it has no scheme")?;
    let scheme = scheme.to_ascii_lowercase();
    let standard = default_port(&scheme).ok_or("its scheme is neither http nor https")?;
    // An IPv6 address stands in brackets, and its prefix behind them.
    let bare = rest.strip_prefix('[').and_then(|r| r.split_once(']'));
    let rest = bare.map_or_else(
        || rest.to_owned(),
        |(inside, after)| format!("{}{after}", inside.replace(':', "_")),
    );
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (rest.as_str(), None),
    };
    let host = if bare.is_some() {
        host.replace('_', ":")
    } else {
        host.to_owned()
    };
    let port = match port {
        None => Some(standard),
        Some("*") => None,
        Some(text) => Some(text.parse().map_err(|_| "its port is no number")?),
    };
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let (address, length) = match host.split_once('/') {
        Some((a, l)) => (a.to_owned(), Some(l.to_owned())),
        None => (host.clone(), None),
    };
    let host = match (address.parse::<IpAddr>(), length) {
        (Ok(ip), length) => {
            let most = if ip.is_ipv4() { 32 } else { 128 };
            let length = match length {
                None => most,
                Some(text) => text
                    .parse()
                    .ok()
                    .filter(|l| *l <= most)
                    .ok_or("its prefix is too long")?,
            };
            Host::Net(ip, length)
        }
        (Err(_), Some(_)) => return Err("a path or a prefix without an address".into()),
        (Err(_), None) if host == "*" => Host::Any,
        (Err(_), None) => {
            let name = host.strip_prefix('*').unwrap_or(&host);
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
            let below = host.starts_with('*');
            if name.is_empty() || !name.chars().all(plain) || below != name.starts_with('.') {
                return Err("its host is no name and no address".into());
            }
            if below {
                Host::Below(name.to_owned())
            } else {
                Host::Name(name.to_owned())
            }
        }
    };
    Ok(Allowed { scheme, host, port })
}

/// IPv4 in its IPv6 dress counts as IPv4.
fn plain(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(ip, IpAddr::V4),
        IpAddr::V4(_) => ip,
    }
}

fn contains(net: IpAddr, len: u8, ip: IpAddr) -> bool {
    let bits = |ip: IpAddr| match ip {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()) << 96, 32),
        IpAddr::V6(v6) => (v6.to_bits(), 128),
    };
    let ((net, width), (ip, other)) = (bits(net), bits(ip));
    let mask = if len == 0 {
        0
    } else {
        u128::MAX << (128 - u32::from(len))
    };
    width == other && net & mask == ip & mask
}

/// Addresses that the internet routes to one host (IANA's special-purpose registries).
fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => public_v4(v4),
        IpAddr::V6(v6) => public_v6(v6),
    }
}

fn public_v4(ip: Ipv4Addr) -> bool {
    const NOT: &[(u32, u8)] = &[
        (0x0000_0000, 8),  // this network
        (0x0a00_0000, 8),  // private
        (0x6440_0000, 10), // shared by carriers
        (0x7f00_0000, 8),  // loopback
        (0xa9fe_0000, 16), // link local, metadata services
        (0xac10_0000, 12), // private
        (0xc000_0000, 24), // protocol assignments
        (0xc000_0200, 24), // documentation
        (0xc058_6300, 24), // 6to4 relays
        (0xc0a8_0000, 16), // private
        (0xc612_0000, 15), // benchmarks
        (0xc633_6400, 24), // documentation
        (0xcb00_7100, 24), // documentation
        (0xe000_0000, 4),  // multicast
        (0xf000_0000, 4),  // reserved, broadcast
    ];
    let bits = ip.to_bits();
    !NOT.iter().any(|(net, len)| bits >> (32 - len) == net >> (32 - len))
}

fn public_v6(ip: Ipv6Addr) -> bool {
    let s = ip.segments();
    let [first, second, ..] = s;
    // Only 2000::/3 is given out; in it are documentation, tunnels that carry any IPv4 address, and benchmarks.
    first & 0xe000 == 0x2000
        && first != 0x2002
        && !(first == 0x2001 && second < 0x0200)
        && !(first == 0x2001 && second == 0x0db8)
        && !(first == 0x3fff && second < 0x1000)
}

/// Fetches a URL; the body of its answer and, where it was told, its length.
///
/// # Errors
/// 400 with what is wrong, in words that tell nothing about what is inside our networks.
pub(crate) async fn get(rules: &Rules, url: &str) -> Result<(Option<u64>, Body)> {
    let mut next = url.to_owned();
    for _ in 0..=MAX_HOPS {
        let target = Target::parse(&next).map_err(|why| refused(&next, &why))?;
        let address = resolve(&target, |ip| rules.admits_address(&target, ip))
            .await
            .map_err(|why| refused(&next, &why))?;
        let answer = request(&target, address, &[]).await?;
        match answer.status() {
            StatusCode::OK => {
                let length = answer.headers().get(header::CONTENT_LENGTH);
                let length = length.and_then(|l| l.to_str().ok()).and_then(|l| l.parse().ok());
                return Ok((length, body_of(answer)));
            }
            s if s.is_redirection() => {
                let to = answer.headers().get(header::LOCATION).and_then(|l| l.to_str().ok());
                next = join(
                    &target,
                    to.ok_or_else(|| failed(&next, "it redirects without saying where to"))?,
                );
            }
            s => return Err(failed(&next, &format!("it answered {}", s.as_u16()))),
        }
    }
    Err(failed(url, &format!("it redirects more than {MAX_HOPS} times")))
}

/// Where a redirect leads.
fn join(from: &Target, to: &str) -> String {
    if to.contains("://") {
        return to.to_owned();
    }
    let base = format!("{}://{}", from.scheme, from.authority());
    if let Some(rest) = to.strip_prefix("//") {
        return format!("{}://{rest}", from.scheme);
    }
    if to.starts_with('/') {
        return format!("{base}{to}");
    }
    let path = from.path.split('?').next().unwrap_or_default();
    let folder = path.rfind('/').map_or("/", |i| path.get(..=i).unwrap_or("/"));
    format!("{base}{folder}{to}")
}

fn refused(url: &str, why: &str) -> Error {
    Error::bad_request(format!(
        "URI for web-download does not pass filtering: {}: {why}.",
        shown(url)
    ))
}

fn failed(url: &str, why: &str) -> Error {
    Error::bad_request(format!("{} could not be fetched: {why}.", shown(url)))
}

/// Without what stands behind a question mark: signed addresses carry their secret there.
fn shown(url: &str) -> String {
    let bare = url.split(['?', '#']).next().unwrap_or_default();
    bare.chars().filter(|c| !c.is_control()).take(200).collect()
}

/// The first of the target's addresses that passes; an error when one does not, for a name that leads to several
/// places is not to be trusted with any.
async fn resolve(target: &Target, admits: impl Fn(IpAddr) -> Result<(), String>) -> Result<SocketAddr, String> {
    let found: Vec<SocketAddr> = match target.ip() {
        Some(ip) => vec![SocketAddr::new(ip, target.port)],
        None => tokio::time::timeout(PATIENCE, tokio::net::lookup_host((target.host.as_str(), target.port)))
            .await
            .map_err(|_| "its name could not be resolved".to_owned())?
            .map_err(|_| "its name could not be resolved".to_owned())?
            .collect(),
    };
    for address in &found {
        admits(address.ip())?;
    }
    found
        .first()
        .copied()
        .ok_or_else(|| "its name could not be resolved".into())
}

type Answer = http::Response<hyper::body::Incoming>;

async fn request(target: &Target, address: SocketAddr, headers: &[(&str, &str)]) -> Result<Answer> {
    let url = format!("{}://{}{}", target.scheme, target.authority(), target.path);
    let mut request = Request::get(&target.path).header(header::HOST, target.authority());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request
        .header(header::USER_AGENT, "haneul")
        .body(Empty::<bytes::Bytes>::new())
        .map_err(|e| failed(&url, "its path is not one").with_private(e))?;
    let ask = async {
        let stream = tokio::net::TcpStream::connect(address)
            .await
            .map_err(|e| e.to_string())?;
        if target.scheme == "http" {
            return speak(stream, request).await;
        }
        let name = ServerName::try_from(target.host.clone()).map_err(|e| e.to_string())?;
        let stream = TlsConnector::from(tls()?).connect(name, stream).await;
        speak(stream.map_err(|e| e.to_string())?, request).await
    };
    match tokio::time::timeout(PATIENCE, ask).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(e)) => Err(failed(&url, "there was no answer").with_private(e)),
        Err(_) => Err(failed(&url, "there was no answer in time")),
    }
}

/// One request over a connection, which ends with its answer.
async fn speak<S>(stream: S, request: Request<Empty<bytes::Bytes>>) -> Result<Answer, String>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| e.to_string())?;
    tokio::spawn(connection);
    sender.send_request(request).await.map_err(|e| e.to_string())
}

/// Where systems keep the certificates that they trust.
const TRUSTED: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];

/// TLS with the certificates that this system trusts, or those of the file that `SSL_CERT_FILE` names, as elsewhere.
fn tls() -> Result<Arc<ClientConfig>, String> {
    static TLS: OnceLock<Result<Arc<ClientConfig>, String>> = OnceLock::new();
    TLS.get_or_init(|| {
        let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
        let known = TRUSTED.iter().map(PathBuf::from);
        let file = named.into_iter().chain(known).find(|f| f.is_file());
        tls_trusting(&file.ok_or("this system has no file of trusted certificates")?)
    })
    .clone()
}

fn tls_trusting(file: &Path) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    let all = CertificateDer::pem_file_iter(file).map_err(|e| format!("{}: {e}", file.display()))?;
    // One that we cannot read vouches for nobody.
    for certificate in all.flatten() {
        let _ = roots.add(certificate);
    }
    let ring = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(ring)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}

fn body_of(answer: Answer) -> Body {
    let stream = answer.into_body().into_data_stream();
    Body::from_stream(stream.map(|r| r.map_err(std::io::Error::other)))
}

/// Another region's image service: an address that the administrator wrote down, with the user's token.
#[derive(Clone, Debug)]
pub(crate) struct Remote {
    pub url: String,
    pub token: String,
}

impl Remote {
    async fn ask(&self, path: &str) -> Result<Answer> {
        let url = format!("{}{path}", self.url.trim_end_matches('/'));
        let target = Target::parse(&url).map_err(|why| Error::internal(format!("image.regions: {url}: {why}")))?;
        let address = resolve(&target, |_| Ok(())).await.map_err(|why| failed(&url, &why))?;
        let answer = request(&target, address, &[("x-auth-token", &self.token)]).await?;
        match answer.status() {
            StatusCode::OK => Ok(answer),
            s => Err(failed(&url, &format!("it answered {}", s.as_u16()))),
        }
    }

    /// What the other service says of an image.
    pub async fn image(&self, id: &str) -> Result<serde_json::Value> {
        let path = format!("/v2/images/{id}");
        let answer = self.ask(&path).await?;
        let body = http_body_util::Limited::new(answer.into_body(), MAX_JSON).collect();
        let bytes = tokio::time::timeout(PATIENCE, body)
            .await
            .ok()
            .and_then(std::result::Result::ok)
            .ok_or_else(|| failed(&path, "its answer broke off"))?
            .to_bytes();
        serde_json::from_slice(&bytes).map_err(|e| failed(&path, "its answer is no JSON").with_private(e))
    }

    /// The bytes.
    pub async fn file(&self, id: &str) -> Result<Body> {
        Ok(body_of(self.ask(&format!("/v2/images/{id}/file")).await?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(entries: &[&str]) -> Rules {
        Rules::parse(&entries.iter().map(|e| (*e).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn entries() {
        for bad in [
            "example.org",
            "ftp://a",
            "http://",
            "http://a:b",
            "http://10.0.0.0/33",
            "http://a/b",
            "http://*a.b",
            "http://a b",
        ] {
            let e = Rules::parse(&[bad.to_owned()]).unwrap_err();
            assert_eq!(e.field_name(), Some("image.web_download_from"), "{bad}");
        }
    }

    #[test]
    fn what_is_asked_for_must_be_allowed() {
        let r = rules(&[
            "https://images.example.org",
            "http://*.mirror.net:8080",
            "http://10.1.0.0/16:*",
            "http://[fd00::]/8",
        ]);
        for (url, good) in [
            ("https://images.example.org/a", true),
            ("https://IMAGES.example.org./a", true),
            ("https://images.example.org:444/a", false),
            ("http://images.example.org/a", false),
            ("https://images.example.org.evil.net/a", false),
            ("https://images.example.org@evil.net/a", false),
            ("https://evil.net\\@images.example.org/", false),
            ("http://de.mirror.net:8080/a", true),
            ("http://mirror.net:8080/a", false),
            ("http://xmirror.net:8080/a", false),
            ("http://10.1.2.3:99/", true),
            ("http://10.2.0.1/", false),
            ("http://[::ffff:10.1.2.3]/", true),
            ("http://[fd12::1]/", true),
            ("http://[fe80::1]/", false),
            ("file:///etc/passwd", false),
            ("http://", false),
            ("", false),
        ] {
            assert_eq!(r.admits(url).is_ok(), good, "{url}");
        }
    }

    /// `*` is the internet and nothing else.
    #[test]
    fn names_lead_to_public_addresses_only() {
        let r = rules(&["http://*:*"]);
        for (ip, good) in [
            ("1.1.1.1", true),
            ("2606:4700::1111", true),
            ("127.0.0.1", false),
            ("0.0.0.0", false),
            ("10.0.0.1", false),
            ("100.64.0.1", false),
            ("169.254.169.254", false),
            ("172.31.255.255", false),
            ("172.32.0.1", true),
            ("192.168.1.1", false),
            ("198.18.0.1", false),
            ("224.0.0.1", false),
            ("255.255.255.255", false),
            ("::", false),
            ("::1", false),
            ("::ffff:127.0.0.1", false),
            ("::127.0.0.1", false),
            ("fe80::1", false),
            ("fc00::1", false),
            ("ff02::1", false),
            ("64:ff9b::7f00:1", false),
            ("2002:7f00:1::", false),
            ("2001::1", false),
            ("2001:db8::1", false),
        ] {
            let ip: IpAddr = ip.parse().unwrap();
            let target = Target {
                scheme: "http".into(),
                host: "somewhere.example".into(),
                port: 80,
                path: "/".into(),
            };
            assert_eq!(r.admits_address(&target, ip).is_ok(), good, "{ip}");
        }
    }

    #[test]
    fn redirects_are_joined() {
        let from = Target::parse("http://a.org:81/x/y?z").unwrap();
        for (to, url) in [
            ("http://b.org/", "http://b.org/"),
            ("//b.org/c", "http://b.org/c"),
            ("/c", "http://a.org:81/c"),
            ("c", "http://a.org:81/x/c"),
        ] {
            assert_eq!(join(&from, to), url);
        }
    }

    #[test]
    fn messages_do_not_show_what_is_signed() {
        let e = failed("http://a/b?signature=secret#x", "why");
        assert!(!e.public().contains("secret"), "{e}");
    }

    /// A name is proven by a certificate of somebody whom the system trusts.
    #[tokio::test]
    async fn https_needs_a_trusted_certificate() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        use tokio_rustls::rustls::ServerConfig;
        use tokio_rustls::rustls::pki_types::PrivateKeyDer;
        let dir = std::env::temp_dir().join(format!("haneul-tls-{}", haneul_core::id::hex()));
        std::fs::create_dir_all(&dir).unwrap();
        let (key, cert) = (dir.join("key.pem"), dir.join("cert.pem"));
        let made = std::process::Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-days",
                "2",
            ])
            .args(["-subj", "/CN=images.test", "-addext", "subjectAltName=DNS:images.test"])
            .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
            .arg(&key)
            .arg("-out")
            .arg(&cert)
            .output();
        if !made.is_ok_and(|m| m.status.success()) {
            eprintln!("skipped: openssl is not installed (package openssl)");
            return;
        }
        let ring = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let server = ServerConfig::builder_with_provider(ring)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                CertificateDer::pem_file_iter(&cert)
                    .unwrap()
                    .map(|c| c.unwrap())
                    .collect(),
                PrivateKeyDer::from_pem_file(&key).unwrap(),
            )
            .unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if let Ok(mut tls) = acceptor.accept(stream).await {
                    let _ = tls.read(&mut [0; 1024]).await;
                    let _ = tls.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
                    let _ = tls.shutdown().await;
                }
            }
        });
        let ask = async |name: &'static str| {
            let stream = tokio::net::TcpStream::connect(address).await.unwrap();
            let tls = TlsConnector::from(tls_trusting(&cert).unwrap());
            let stream = tls.connect(ServerName::try_from(name).unwrap(), stream).await;
            let request = Request::get("/").header("host", name).body(Empty::new()).unwrap();
            speak(stream.map_err(|e| e.to_string())?, request).await
        };
        assert_eq!(ask("images.test").await.unwrap().status(), 200);
        assert!(ask("other.test").await.unwrap_err().contains("certificate"));
        // Nobody but this test trusts it.
        let target = Target {
            scheme: "https".into(),
            host: "images.test".into(),
            port: address.port(),
            path: "/".into(),
        };
        let e = request(&target, address, &[]).await.unwrap_err();
        assert!(e.public().contains("no answer"), "{e}");
        let _ = std::fs::remove_dir_all(&dir);
    }
}
