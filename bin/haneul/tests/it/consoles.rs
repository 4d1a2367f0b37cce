//! Consoles: a server's screen through the agent, the control plane and a websocket.

use crate::real_lab::cannot;
use crate::rfb::{Screen, Socket, token, websocket};
use crate::setup::{Ready, id, options};
use haneul_testkit::{Client, Cloud, Options, eventually};
use http::Method;
use serde_json::{Value, json};
use std::time::Duration;

/// Asks for a console.
async fn ask(c: &Client, server: &str) -> haneul_testkit::Answer {
    let c = Client {
        version: Some("compute 2.6".into()),
        ..c.clone()
    };
    let body = json!({"remote_console": {"protocol": "vnc", "type": "novnc"}});
    c.post(&format!("/compute/v2.1/servers/{server}/remote-consoles"), &body)
        .await
}

pub async fn url(c: &Client, server: &str) -> String {
    id(&ask(c, server).await.expect(200), "/remote_console/url")
}

#[tokio::test(flavor = "multi_thread")]
async fn fake_console_shows_one_server_once() {
    let cloud = Cloud::start(Options {
        sets: vec!["compute.consoles_per_server=2".into()],
        ..options()
    })
    .await;
    let r = Ready::on(cloud).await;
    let address = r.cloud.address.clone();
    let at = address.as_str();
    let server = r.create("seen").await;
    r.wait(&server, "ACTIVE").await;

    // The old action gives the same as the new resource.
    let old = r
        .action(&server, json!({"os-getVNCConsole": {"type": "novnc"}}))
        .await
        .expect(200);
    assert_eq!(old["console"]["type"], "novnc");
    let first = url(&r.admin, &server).await;
    assert!(
        first.starts_with(&format!("http://{at}/console/vnc.html?path=")),
        "{first}"
    );
    let page = r.admin.get(first.split_once(at).unwrap().1).await;
    assert_eq!(page.status, 200);
    assert!(
        page.text.contains("noVNC") && page.text.contains("</html>"),
        "{}",
        page.text
    );

    // An administrator looks at a token without using it up; only by its own name it can be found.
    let mut admin = r.admin.clone();
    admin.version = Some("compute 2.31".into());
    let known = admin
        .get(&format!("/compute/v2.1/os-console-auth-tokens/{}", token(&first)))
        .await
        .expect(200);
    assert_eq!(known["console"]["instance_uuid"], server.as_str());
    let bad = format!("/compute/v2.1/os-console-auth-tokens/bad{}", token(&first));
    assert_eq!(admin.get(&bad).await.status, 404);

    // Another origin's page is refused, and uses nothing up.
    let socket = websocket(&first);
    assert_eq!(Socket::open(at, &socket, Some("http://evil.example")).err(), Some(403));
    let own = format!("http://{at}");
    let mut one = Screen::open(Socket::open(at, &socket, Some(&own)).expect("our own page"));
    assert_eq!((one.width, one.height, one.name.as_str()), (64, 48, "fake"));
    let before = one.picture();
    assert!(before.iter().all(|b| *b == 0));
    one.key(0x61);
    assert_ne!(one.picture(), before, "the key was seen");

    // A token opens once.
    assert_eq!(Socket::open(at, &socket, None).err(), Some(403));
    assert_eq!(
        admin
            .get(&format!("/compute/v2.1/os-console-auth-tokens/{}", token(&first)))
            .await
            .status,
        404
    );
    // As many as may be, and not one more; the refused one's token is good still.
    let mut two = Screen::of(at, &id(&old, "/console/url"));
    let third = url(&r.admin, &server).await;
    assert_eq!(Socket::open(at, &websocket(&third), None).err(), Some(429));
    two.socket.frame(8, &[3, 0xe8]);
    assert_eq!(two.socket.closed(), Some(1000));
    drop(two);
    let mut two = eventually("a seat is free", Duration::from_secs(60), || async {
        Socket::open(at, &websocket(&third), None).ok()
    })
    .await;
    // What is no RFB (text) ends that connection only.
    two.frame(1, b"hello");
    assert_eq!(two.closed(), Some(1003));
    one.picture();

    // A token is for the run that it was asked for, and a server that stands has no screen.
    let late = url(&r.admin, &server).await;
    r.action(&server, json!({"reboot": {"type": "HARD"}})).await.expect(202);
    r.wait(&server, "ACTIVE").await;
    assert_eq!(Socket::open(at, &websocket(&late), None).err(), Some(403));
    r.action(&server, json!({"os-stop": null})).await.expect(202);
    r.wait(&server, "SHUTOFF").await;
    let none = ask(&r.admin, &server).await;
    assert!(
        none.status == 409 && none.text.contains("vm_state stopped"),
        "{}",
        none.text
    );

    // Nobody logs what opens a screen.
    for entry in std::fs::read_dir(r.cloud.dir.join("run")).unwrap().flatten() {
        if entry.path().extension().is_some_and(|e| e == "log") {
            let text = std::fs::read_to_string(entry.path()).unwrap();
            for url in [&first, &third, &late] {
                assert!(!text.contains(&token(url)), "{} holds a token", entry.path().display());
            }
        }
    }
    r.cloud.audit().await;
}

/// Types a letter, and waits until the screen has changed.
async fn typed(screen: &mut Screen) {
    let before = screen.picture();
    screen.key(0x78);
    eventually("the key is on the screen", Duration::from_secs(30), || {
        let now = screen.picture();
        let changed = now.len() == before.len() && now != before;
        async move { changed.then_some(()) }
    })
    .await;
}

/// Waits for a key, shows it, and so on: `int 16h`, `int 10h`.
const ECHOES: &[u8] = &[0xfb, 0xb4, 0x00, 0xcd, 0x16, 0xb4, 0x0e, 0xcd, 0x10, 0xeb, 0xf6];

#[tokio::test(flavor = "multi_thread")]
async fn real_console_shows_what_is_typed() {
    if let Some(why) = cannot() {
        println!("SKIPPED: {why}");
        return;
    }
    let cloud = Cloud::start(Options {
        real: true,
        sets: vec!["network.external_cidr=172.31.211.0/24".into()],
        ..options()
    })
    .await;
    let r = Ready::on(cloud).await;
    let mut disk = ECHOES.to_vec();
    disk.resize(510, 0);
    disk.extend([0x55, 0xaa]);
    disk.resize(1 << 20, 0);
    let image = json!({"name": "echo", "disk_format": "raw", "container_format": "bare"});
    let image = id(&r.admin.post("/image/v2/images", &image).await.expect(201), "/id");
    let octets = [("content-type", "application/octet-stream")];
    let file = format!("/image/v2/images/{image}/file");
    r.admin.send(Method::PUT, &file, &octets, disk).await.expect(204);
    let body = json!({"server": {"name": "echo", "imageRef": image, "flavorRef": "tiny", "networks": "none"}});
    let mut admin = r.admin.clone();
    admin.version = Some("compute 2.37".into());
    let server = id(
        &admin.post("/compute/v2.1/servers", &body).await.expect(202),
        "/server/id",
    );
    r.wait(&server, "ACTIVE").await;
    let mut screen = Screen::of(&r.cloud.address, &url(&r.admin, &server).await);
    // The firmware's text mode; and then what is typed.
    eventually("the firmware has ended", Duration::from_secs(30), || {
        let (a, size) = (screen.picture(), (screen.width, screen.height));
        let still = a == screen.picture() && a.iter().any(|b| *b != 0) && size == (720, 400);
        async move { still.then_some(()) }
    })
    .await;
    typed(&mut screen).await;

    // Suspended there is no screen; afterwards the same one is there again, for who asks anew.
    let shown = screen.picture();
    r.action(&server, json!({"suspend": null})).await.expect(202);
    let s: Value = r.wait(&server, "SUSPENDED").await;
    assert_eq!(s["OS-EXT-STS:power_state"], 7);
    assert_eq!(screen.socket.closed(), Some(1001));
    assert_eq!(ask(&r.admin, &server).await.status, 409);
    r.action(&server, json!({"resume": null})).await.expect(202);
    r.wait(&server, "ACTIVE").await;
    let mut screen = Screen::of(&r.cloud.address, &url(&r.admin, &server).await);
    let text = |p: &[u8]| p.chunks(4).filter(|c| c.iter().any(|b| *b != 0)).count();
    let now = screen.picture();
    // But for the cursor, which blinks.
    assert!(
        text(&now).abs_diff(text(&shown)) < 200,
        "{} {}",
        text(&now),
        text(&shown)
    );
    typed(&mut screen).await;
    r.delete(&server).await;
    r.cloud.audit().await;
}
