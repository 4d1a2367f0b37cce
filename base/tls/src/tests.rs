//! Certificates that our own listener and connector take, and those that they must not take.

use super::*;
use haneul_core::id;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use uuid::Uuid;

fn authority() -> Authority {
    let cloud = Uuid::new_v4();
    Authority::open(cloud, &Authority::generate(cloud).unwrap()).unwrap()
}

/// A listener for hosts of this authority that tells each peer who it is.
async fn listen(authority: &Authority) -> SocketAddr {
    let own = Certificate::new(&authority.server(&[], 1).unwrap()).unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap();
    let tls = optional_hosts(own, authority.pem()).unwrap();
    let mut listener = Listener::new(tcp, Some(tls)).unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, peer) = axum::serve::Listener::accept(&mut listener).await;
            let said = peer
                .host
                .map_or("nobody".into(), |h| format!("{} {}", h.host, h.membership));
            let _ = stream.write_all(said.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    address
}

async fn heard(address: SocketAddr, trust: &Trust<'_>) -> Result<String, String> {
    let mut stream = connect(&address.to_string(), trust)
        .await
        .map_err(|e| e.public().to_owned())?;
    let mut said = String::new();
    match stream.read_to_string(&mut said).await {
        Ok(_) => Ok(said),
        Err(e) => Err(e.to_string()),
    }
}

fn member(authority: &Authority, name: HostName) -> Identity {
    let key = KeyPair::generate().unwrap();
    Identity::new(authority.host(name, &key.public(), 1).unwrap(), &key)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_is_what_its_certificate_says() {
    let ours = authority();
    let address = listen(&ours).await;
    let name = HostName {
        host: Uuid::new_v4(),
        membership: 7,
    };
    let identity = member(&ours, name);
    let trust = |authority, identity| Trust::Member { authority, identity };
    let said = heard(address, &trust(ours.pem(), &identity)).await.unwrap();
    assert_eq!(said, format!("{} 7", name.host));
    // A machine that joins shows none, and believes the fingerprint it was told.
    let print = ours.fingerprint();
    assert_eq!(heard(address, &Trust::Fingerprint(&print)).await.unwrap(), "nobody");

    let theirs = authority();
    let wrong = heard(address, &Trust::Fingerprint(&theirs.fingerprint()))
        .await
        .unwrap_err();
    assert!(wrong.contains("UnknownIssuer"), "{wrong}");
    let wrong = heard(address, &trust(theirs.pem(), &identity)).await.unwrap_err();
    assert!(wrong.contains("trusts"), "{wrong}");
    // A certificate of another cloud for the same host.
    let forged = member(&theirs, name);
    assert!(heard(address, &trust(ours.pem(), &forged)).await.is_err());
    // A host is not control, though the same authority has certified it.
    let posing = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = posing.local_addr().unwrap();
    let tls = optional_hosts(Certificate::new(&identity).unwrap(), ours.pem()).unwrap();
    let mut listener = Listener::new(posing, Some(tls)).unwrap();
    tokio::spawn(async move { axum::serve::Listener::accept(&mut listener).await });
    let wrong = heard(at, &trust(ours.pem(), &identity)).await.unwrap_err();
    assert!(wrong.contains("trusts"), "{wrong}");
}

#[test]
fn keys_that_are_none_are_refused() {
    let ours = authority();
    let name = HostName {
        host: Uuid::new_v4(),
        membership: 1,
    };
    for key in [vec![], vec![4; 64], vec![2; 65], id::random_bytes(300)] {
        let e = ours.host(name, &key, 1).unwrap_err();
        assert!(e.public().contains("P-256"), "{e}");
    }
    let text = |certificate: &str, key: &str| Identity {
        certificate: certificate.into(),
        key: key.into(),
    };
    let good = ours.server(&["10.0.0.1".into(), "cloud.example".into()], 1).unwrap();
    assert!(Certificate::new(&text("", &good.key)).is_err());
    assert!(Certificate::new(&text(&good.certificate, "")).is_err());
    let other = ours.server(&[], 1).unwrap();
    let e = Certificate::new(&text(&good.certificate, &other.key)).unwrap_err();
    assert!(e.public().contains("cannot be used"), "{e}");
}

/// Whoever does not show who it is has a place for a while, and gives it to a newer one when there are too many.
#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_few_and_do_not_stay() {
    let ours = authority();
    let own = Certificate::new(&ours.server(&[], 1).unwrap()).unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap();
    let tls = optional_hosts(own, ours.pem()).unwrap();
    let bounds = strangers::Bounds {
        most: 4,
        handshake: Duration::from_secs(3600),
        // Long enough for a word of one that is slow.
        stays: Duration::from_secs(3),
        of_host: 2,
    };
    let mut listener = Listener::tls(tcp, tls, true, bounds).unwrap();
    // Says after each word of a peer that it was heard; one that says the word is known from then on.
    tokio::spawn(async move {
        loop {
            let (mut stream, peer) = axum::serve::Listener::accept(&mut listener).await;
            tokio::spawn(async move {
                let mut word = [0; 4];
                while stream.read_exact(&mut word).await.is_ok() {
                    if &word == b"open" {
                        peer.known();
                    }
                    if stream.write_all(b"yes").await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    let print = ours.fingerprint();
    let trust = Trust::Fingerprint(&print);
    let dial = async || connect(&address.to_string(), &trust).await.unwrap();
    let mut known = dial().await;
    let (mut said, mut rest) = ([0; 3], Vec::new());
    known.write_all(b"open").await.unwrap();
    known.read_exact(&mut said).await.unwrap();
    let identity = member(
        &ours,
        HostName {
            host: Uuid::new_v4(),
            membership: 1,
        },
    );
    let member = Trust::Member {
        authority: ours.pem(),
        identity: &identity,
    };
    let mut host = connect(&address.to_string(), &member).await.unwrap();
    // It has two connections, and no third until one of them is over.
    let another = async || {
        let mut stream = connect(&address.to_string(), &member).await.unwrap();
        let said = stream.write_all(b"word").await.is_ok() && stream.read_exact(&mut [0; 3]).await.is_ok();
        said.then_some(stream)
    };
    let second = another().await.unwrap();
    assert!(another().await.is_none());
    drop(second);
    tokio::time::timeout(Duration::from_secs(10), async { while another().await.is_none() {} })
        .await
        .unwrap();
    // One whose time is over.
    let mut late = dial().await;
    let _ = late.read_to_end(&mut rest).await;
    // The oldest of too many: none of these would be late for an hour.
    let mut silent = Vec::new();
    for _ in 0..5 {
        silent.push(tokio::net::TcpStream::connect(address).await.unwrap());
    }
    assert_eq!(silent[0].read(&mut [0; 1]).await.unwrap_or(0), 0);
    assert!(rest.is_empty());
    // Who is known has all the time.
    for one in [&mut known, &mut host] {
        one.write_all(b"more").await.unwrap();
        one.read_exact(&mut said).await.unwrap();
        assert_eq!(&said, b"yes");
    }
    for one in &silent[1..] {
        assert!(
            one.try_read(&mut [0; 1])
                .is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock)
        );
    }
}
