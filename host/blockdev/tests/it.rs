//! The file driver: images are checked and shared, root disks are layers that QEMU's tools accept.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use haneul_agent_api::{Failure, FailureCode, ImageRef, LocalDisk, LocalKind, RootDisk};
use haneul_blockdev::file::File;
use haneul_blockdev::{BlockDriver, ImageStream, OpenImage};
use sha2::{Digest, Sha512};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::AsyncWriteExt;
use uuid::Uuid;

struct Dir(PathBuf);
impl Dir {
    fn new() -> Self {
        let dir = std::env::temp_dir().join(format!("hnb-{}", Uuid::new_v4().simple()));
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }
}
impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn image(bytes: &[u8], format: &str, virtual_size: u64) -> ImageRef {
    ImageRef {
        id: Uuid::new_v4(),
        format: format.into(),
        size: bytes.len() as u64,
        virtual_size,
        sha512: Sha512::digest(bytes).iter().map(|b| format!("{b:02x}")).collect(),
    }
}

/// A source that counts how often it was opened.
fn source(bytes: &[u8], opened: &Arc<AtomicUsize>) -> OpenImage {
    let (bytes, opened) = (bytes.to_vec(), Arc::clone(opened));
    Box::new(move || {
        opened.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            let (mut tx, rx) = tokio::io::duplex(64 << 10);
            tokio::spawn(async move {
                let _ = tx.write_all(&bytes).await;
            });
            Ok(Box::pin(rx) as ImageStream)
        })
    })
}

async fn ensure(d: &File, i: &ImageRef, bytes: &[u8]) -> Result<(), Failure> {
    d.ensure_image(i, source(bytes, &Arc::default()), Arc::new(|_| {}))
        .await
}

fn qemu_img(args: &[&str]) -> Option<std::process::Output> {
    match Command::new("qemu-img").args(args).output() {
        Ok(out) => Some(out),
        Err(e) => {
            println!("SKIPPED the part that asks qemu-img: {e}");
            None
        }
    }
}

fn files(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn one_pull_for_all_who_wait() {
    let dir = Dir::new();
    let driver = Arc::new(File::open(&dir.0).unwrap());
    let bytes = vec![7_u8; 3 << 20];
    let image = image(&bytes, "raw", bytes.len() as u64);
    let opened = Arc::new(AtomicUsize::new(0));
    let percents = Arc::new(std::sync::Mutex::new(Vec::new()));
    let mut all = Vec::new();
    for _ in 0..8 {
        let (driver, image, open) = (Arc::clone(&driver), image.clone(), source(&bytes, &opened));
        let percents = Arc::clone(&percents);
        all.push(tokio::spawn(async move {
            driver
                .ensure_image(&image, open, Arc::new(move |p| percents.lock().unwrap().push(p)))
                .await
        }));
    }
    // One that gives up does not end the pull for the others.
    all.pop().unwrap().abort();
    for one in all {
        one.await.unwrap().unwrap();
    }
    assert_eq!(opened.load(Ordering::SeqCst), 1);
    assert!(!percents.lock().unwrap().is_empty());
    assert_eq!(files(&dir.0.join("images")), [image.id.to_string()]);
    // In the cache now, and after a restart.
    let driver = File::open(&dir.0).unwrap();
    driver
        .ensure_image(&image, source(&bytes, &opened), Arc::new(|_| {}))
        .await
        .unwrap();
    assert_eq!(opened.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_bytes_are_never_kept() {
    let dir = Dir::new();
    let driver = File::open(&dir.0).unwrap();
    let bytes = vec![1_u8; 100_000];
    let good = image(&bytes, "raw", 100_000);

    let mut other = bytes.clone();
    other[50_000] = 2;
    let e = ensure(&driver, &good, &other).await.unwrap_err();
    assert_eq!(e.code, FailureCode::ImageCorrupt, "{e:?}");

    let e = ensure(&driver, &good, &bytes[..40_000]).await.unwrap_err();
    assert_eq!(e.code, FailureCode::ImageUnavailable, "{e:?}");
    assert!(e.message.contains("40000 of 100000"), "{e:?}");

    let e = ensure(&driver, &good, &[bytes.clone(), vec![0]].concat())
        .await
        .unwrap_err();
    assert_eq!(e.code, FailureCode::ImageCorrupt, "{e:?}");

    let e = ensure(
        &driver,
        &ImageRef {
            format: "iso".into(),
            ..good.clone()
        },
        &bytes,
    )
    .await
    .unwrap_err();
    assert_eq!(e.code, FailureCode::Unsupported, "{e:?}");

    for format in ["vmdk", "vdi", "vhd", "vhdx"] {
        let wrong = ImageRef {
            format: format.into(),
            ..good.clone()
        };
        let e = ensure(&driver, &wrong, &bytes).await.unwrap_err();
        assert_eq!(e.code, FailureCode::ImageCorrupt, "{e:?}");
        assert!(e.message.contains(format), "{e:?}");
    }

    let e = ensure(
        &driver,
        &ImageRef {
            format: "qcow2".into(),
            ..good.clone()
        },
        &bytes,
    )
    .await
    .unwrap_err();
    assert_eq!(e.code, FailureCode::ImageCorrupt, "{e:?}");

    // A layer over a host's file, uploaded as an image.
    let mut evil = Vec::new();
    haneul_blockdev::qcow2::write_overlay(&mut evil, Path::new("/etc/shadow"), "raw", 1 << 20).unwrap();
    let e = ensure(&driver, &image(&evil, "qcow2", 1 << 20), &evil)
        .await
        .unwrap_err();
    assert!(e.message.contains("backing file"), "{e:?}");

    let e = ensure(
        &driver,
        &ImageRef {
            size: 1 << 60,
            ..good.clone()
        },
        &bytes,
    )
    .await
    .unwrap_err();
    assert_eq!(e.code, FailureCode::DiskFull, "{e:?}");
    assert!(e.message.contains("MiB needed"), "{e:?}");

    assert!(files(&dir.0.join("images")).is_empty());
    // After all that the right bytes are still taken.
    ensure(&driver, &good, &bytes).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn root_disks() {
    let dir = Dir::new();
    let driver = File::open(&dir.0).unwrap();
    let bytes = vec![0x55_u8; 1 << 20];
    let image = image(&bytes, "raw", 1 << 20);
    let guest = Uuid::new_v4();
    let mut root = RootDisk {
        image: image.clone(),
        size_gib: 0,
    };

    let e = driver.root(guest, 0, &root).await.unwrap_err();
    assert_eq!(e.code, FailureCode::ImageUnavailable);
    ensure(&driver, &image, &bytes).await.unwrap();

    let made = std::time::Instant::now();
    let disk = driver.root(guest, 0, &root).await.unwrap();
    println!("root disk made in {:?}", made.elapsed());
    assert_eq!(disk.format, "qcow2");
    assert_eq!(disk.backing.as_ref().unwrap().1, "raw");
    assert_eq!(driver.root(guest, 0, &root).await.unwrap(), disk, "the same again");

    root.size_gib = 6000;
    let big = driver.root(guest, 1, &root).await.unwrap();
    for (disk, size) in [(&disk, 1_u64 << 20), (&big, 6000 << 30)] {
        let path = disk.path.to_str().unwrap();
        let Some(check) = qemu_img(&["check", path]) else {
            continue;
        };
        assert!(check.status.success(), "{check:?}");
        let info = qemu_img(&["info", "--output=json", "--backing-chain", path]).unwrap();
        let info: serde_json::Value = serde_json::from_slice(&info.stdout).unwrap();
        assert_eq!(info[0]["virtual-size"], size);
        assert_eq!(info[0]["backing-filename-format"], "raw");
        // What is read through the layer is the image.
        if size == 1 << 20 {
            let same = qemu_img(&[
                "compare",
                "-f",
                "qcow2",
                "-F",
                "raw",
                path,
                disk.backing.as_ref().unwrap().0.to_str().unwrap(),
            ])
            .unwrap();
            assert!(same.status.success(), "{same:?}");
        }
    }

    assert_eq!(driver.list().await.unwrap().len(), 2);
    assert!(driver.collect(&[]).await.unwrap().is_empty(), "the image has disks");
    driver.prune(guest, 1, None).await.unwrap();
    let left = driver.list().await.unwrap();
    assert_eq!((left.len(), left[0].rebuilds, left[0].image), (1, 1, image.id));
    assert!(driver.usage().await.unwrap().images >= 1 << 20);

    driver.delete(guest).await.unwrap();
    driver.delete(guest).await.unwrap();
    assert!(files(&dir.0.join("disks")).is_empty());
    assert!(driver.collect(&[image.id]).await.unwrap().is_empty());
    assert_eq!(driver.collect(&[]).await.unwrap(), [image.id]);
}

/// What a killed agent leaves is taken away at the next start.
/// Ephemeral disks are a file system and only grow, swap disks a swap area; a rebuild has new ones.
#[tokio::test]
async fn local_disks() {
    let dir = Dir::new();
    let d = File::open(&dir.0).unwrap();
    let (guest, i) = (Uuid::new_v4(), image(&[7; 4096], "raw", 4096));
    ensure(&d, &i, &[7; 4096]).await.unwrap();
    let root = RootDisk { image: i, size_gib: 0 };
    d.root(guest, 0, &root).await.unwrap();
    let ephemeral = |mib| LocalDisk {
        kind: LocalKind::Ephemeral,
        mib,
    };
    let swap = |mib| LocalDisk {
        kind: LocalKind::Swap,
        mib,
    };
    let kind_of = |path: &Path| {
        let out = Command::new("/usr/sbin/blkid")
            .args(["-o", "value", "-s", "TYPE"])
            .arg(path)
            .output()
            .unwrap();
        String::from_utf8_lossy(&out.stdout).trim().to_owned()
    };
    let made = d.local(guest, 0, &[ephemeral(8), swap(4)]).await.unwrap();
    assert_eq!((kind_of(&made[0]), kind_of(&made[1])), ("ext4".into(), "swap".into()));
    let size = |path: &Path| std::fs::metadata(path).unwrap().len() >> 20;
    assert_eq!((size(&made[0]), size(&made[1])), (8, 4));
    assert_eq!(d.local(guest, 0, &[ephemeral(8), swap(4)]).await.unwrap(), made);
    // What the guest has written stays when the disk grows; swap of another size is another disk.
    let label = |path: &Path| std::fs::read(path).unwrap()[0x478..0x482].to_vec();
    std::fs::OpenOptions::new()
        .write(true)
        .open(&made[0])
        .unwrap()
        .write_all_at(b"my-own-one", 0x478)
        .unwrap();
    let grown = d.local(guest, 0, &[ephemeral(16), swap(2)]).await.unwrap();
    assert_eq!((size(&grown[0]), size(&grown[1])), (16, 2));
    assert_eq!(label(&grown[0]), b"my-own-one");
    assert!(!made[1].exists(), "the old swap disk is gone");
    d.local(guest, 0, &[ephemeral(8)]).await.unwrap();
    assert_eq!(size(&grown[0]), 16, "a disk never shrinks");
    assert!(!grown[1].exists());
    let fresh = d.local(guest, 1, &[ephemeral(8)]).await.unwrap();
    assert_eq!(label(&fresh[0]), b"ephemeral0");
    d.prune(guest, 1, None).await.unwrap();
    assert!(!grown[0].exists() && fresh[0].exists());
    d.delete(guest).await.unwrap();
    assert!(!fresh[0].exists());
}

#[test]
fn leftovers() {
    let dir = Dir::new();
    drop(File::open(&dir.0).unwrap());
    let guest = dir.0.join("disks").join(Uuid::new_v4().to_string());
    std::fs::create_dir(&guest).unwrap();
    std::fs::write(guest.join("root-0.qcow2.tmp"), b"x").unwrap();
    std::fs::write(dir.0.join("images").join(format!(".{}.part", Uuid::new_v4())), b"x").unwrap();
    File::open(&dir.0).unwrap();
    assert!(files(&guest).is_empty());
    assert!(files(&dir.0.join("images")).is_empty());
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(dir.0.join("images")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

/// A full file system: a typed failure with numbers, nothing left. Needs a mount, so root.
#[tokio::test(flavor = "multi_thread")]
async fn full_disk() {
    let dir = Dir::new();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=2m", "haneul-test"])
        .arg(&dir.0)
        .status()
        .is_ok_and(|s| s.success());
    if !mounted {
        println!("SKIPPED: cannot mount a tmpfs");
        return;
    }
    struct Umount(PathBuf);
    impl Drop for Umount {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg(&self.0).status();
        }
    }
    let _umount = Umount(dir.0.clone());
    let driver = File::open(&dir.0).unwrap();
    let bytes = vec![1_u8; 1 << 20];
    let image = image(&bytes, "raw", 1 << 20);
    ensure(&driver, &image, &bytes).await.unwrap();
    std::fs::write(dir.0.join("ballast"), vec![0_u8; 950 << 10]).unwrap();
    let guest = Uuid::new_v4();
    let root = RootDisk {
        image: image.clone(),
        size_gib: 1,
    };
    let e = driver.root(guest, 0, &root).await.unwrap_err();
    assert_eq!(e.code, FailureCode::DiskFull, "{e:?}");
    assert!(driver.list().await.unwrap().is_empty());
    std::fs::remove_file(dir.0.join("ballast")).unwrap();
    driver.root(guest, 0, &root).await.unwrap();
}

/// Who asked goes away and something else is wanted of the same guest at once: the newer wins, whole.
#[tokio::test(flavor = "multi_thread")]
async fn dropped_work_gives_way() {
    let dir = Dir::new();
    let driver = File::open(&dir.0).unwrap();
    let bytes = vec![7_u8; 1 << 20];
    let image = image(&bytes, "raw", bytes.len() as u64);
    ensure(&driver, &image, &bytes).await.unwrap();
    let root = RootDisk { image, size_gib: 1 };
    for round in 0..60_u32 {
        let guest = Uuid::new_v4();
        let pause = std::time::Duration::from_micros(u64::from(round) * 50);
        let dropped = tokio::time::timeout(pause, driver.root(guest, 0, &root)).await;
        if round % 2 == 0 {
            driver
                .root(guest, 0, &root)
                .await
                .unwrap_or_else(|e| panic!("round {round} after {dropped:?}: {e:?}"));
        }
        driver
            .delete(guest)
            .await
            .unwrap_or_else(|e| panic!("round {round}: {e:?}"));
    }
    // What was given up does nothing afterwards either: the last in line comes after all of it.
    let last = Uuid::new_v4();
    driver.root(last, 0, &root).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    assert_eq!(files(&dir.0.join("disks")), [last.to_string()]);
}

/// Formats that QEMU is not given become raw in the cache, with the same bytes; what is cached is not pulled again.
#[tokio::test(flavor = "multi_thread")]
async fn foreign_formats_are_converted_when_they_are_pulled() {
    use haneul_disk::{DiskFormat, convert};
    let dir = Dir::new();
    let driver = File::open(&dir.0.join("agent")).unwrap();
    let mut disk = vec![0_u8; 20 << 20];
    for (i, b) in disk[5 << 20..6 << 20].iter_mut().enumerate() {
        *b = (i % 250) as u8 + 1;
    }
    for format in [DiskFormat::Vmdk, DiskFormat::Vdi, DiskFormat::Vhd, DiskFormat::Vhdx] {
        let path = dir.0.join(format.name());
        let out = std::fs::File::create(&path).unwrap();
        convert(
            &mut std::io::Cursor::new(&disk),
            DiskFormat::Raw,
            out,
            format,
            &mut |_| true,
        )
        .unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let image = image(&bytes, format.name(), disk.len() as u64);
        ensure(&driver, &image, &bytes).await.unwrap();
        let cached = dir.0.join("agent/images").join(image.id.to_string());
        assert!(std::fs::read(&cached).unwrap() == disk, "{format}: other bytes");
        use std::os::unix::fs::MetadataExt;
        assert!(
            std::fs::metadata(&cached).unwrap().blocks() * 512 < 3 << 20,
            "{format}: no holes"
        );
        let opened = Arc::new(AtomicUsize::new(0));
        driver
            .ensure_image(&image, source(&bytes, &opened), Arc::new(|_| {}))
            .await
            .unwrap();
        assert_eq!(opened.load(Ordering::SeqCst), 0, "{format}: pulled again");
        let root = RootDisk {
            size_gib: 0,
            image: image.clone(),
        };
        let made = driver.root(Uuid::new_v4(), 0, &root).await.unwrap();
        assert_eq!(made.backing.unwrap().1, "raw");
        // A size that was not recorded at upload is damage.
        let mut wrong = image.clone();
        (wrong.id, wrong.virtual_size) = (Uuid::new_v4(), 1 << 30);
        let e = ensure(&driver, &wrong, &bytes).await.unwrap_err();
        assert_eq!(e.code, FailureCode::ImageCorrupt, "{e:?}");
    }
    let left = files(&dir.0.join("agent/images"));
    assert!(left.len() == 4 && left.iter().all(|n| !n.starts_with('.')), "{left:?}");
}

/// An image of a root disk without a process: the layer and the image below become one file, which is there whole or
/// not at all, and goes when it is wanted no more.
#[tokio::test(flavor = "multi_thread")]
async fn an_image_of_a_disk_is_one_file_and_goes_with_its_wish() {
    let dir = Dir::new();
    let driver = File::open(&dir.0).unwrap();
    let bytes = vec![0x55_u8; 4 << 20];
    let image = image(&bytes, "raw", 4 << 20);
    let (guest, id) = (Uuid::new_v4(), Uuid::new_v4());
    let root = RootDisk {
        image: image.clone(),
        size_gib: 1,
    };
    ensure(&driver, &image, &bytes).await.unwrap();
    let disk = driver.root(guest, 0, &root).await.unwrap();
    let path = disk.path.to_str().unwrap();
    let wrote = Command::new("qemu-io")
        .args(["-f", "qcow2", "-c", "write -P 7 2M 1M", "-c", "write -z 1M 64k", path])
        .output();
    if !wrote.is_ok_and(|o| o.status.success()) {
        println!("SKIPPED: qemu-io is not installed");
        return;
    }
    assert!(driver.snapshot(guest, id).await.unwrap().is_none());
    let begun = driver.snapshot_begin(guest, 0, &root, id).await.unwrap();
    assert!(begun.exists() && driver.snapshot(guest, id).await.unwrap().is_none());
    driver
        .snapshot_copy(guest, 0, &root, id, Arc::new(|_| {}))
        .await
        .unwrap();
    let size = driver.snapshot_keep(guest, id).await.unwrap();
    let (file, seen) = driver.snapshot(guest, id).await.unwrap().unwrap();
    assert_eq!((size, size), (seen, file.metadata().unwrap().len()));
    // What was kept for it and not needed is free again.
    use std::os::unix::fs::MetadataExt;
    assert!(
        file.metadata().unwrap().blocks() * 512 < 6 << 20,
        "{:?}",
        file.metadata()
    );
    let whole = dir
        .0
        .join("disks")
        .join(guest.to_string())
        .join(format!("snapshot-{id}.qcow2"));
    for args in [
        ["check", "-q", "-f", "qcow2", "-U", whole.to_str().unwrap()].as_slice(),
        ["compare", "-f", "qcow2", "-F", "qcow2", path, whole.to_str().unwrap()].as_slice(),
    ] {
        let out = qemu_img(args).unwrap();
        assert!(out.status.success(), "{out:?}");
    }
    // It stays while it is wanted, with this driver or the next; another's does not, nor what was cut off.
    let other = Uuid::new_v4();
    driver.snapshot_begin(guest, 0, &root, other).await.unwrap();
    drop(driver);
    let driver = File::open(&dir.0).unwrap();
    assert_eq!(
        files(whole.parent().unwrap()).len(),
        3,
        "{:?}",
        files(whole.parent().unwrap())
    );
    driver.prune(guest, 0, Some(id)).await.unwrap();
    assert!(driver.snapshot(guest, id).await.unwrap().is_some());
    driver.prune(guest, 0, None).await.unwrap();
    assert_eq!(files(whole.parent().unwrap()).len(), 2);

    // Somebody who goes away ends the copy, and a disk without room refuses with numbers.
    driver.snapshot_begin(guest, 0, &root, id).await.unwrap();
    let told = Arc::new(AtomicUsize::new(0));
    let count = told.clone();
    let copy = driver.snapshot_copy(
        guest,
        0,
        &root,
        id,
        Arc::new(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
        }),
    );
    drop(copy);
    driver.delete(guest).await.unwrap();
    assert!(!whole.parent().unwrap().exists());
    let huge = RootDisk {
        image: ImageRef {
            format: "qcow2".into(),
            virtual_size: 1 << 60,
            ..image.clone()
        },
        size_gib: 0,
    };
    driver.root(guest, 0, &root).await.unwrap();
    let note = whole.with_file_name("root-0.json");
    let text = std::fs::read_to_string(&note).unwrap();
    std::fs::write(&note, text.replace("\"raw\"", "\"qcow2\"")).unwrap();
    let e = driver.snapshot_begin(guest, 0, &huge, id).await.unwrap_err();
    assert_eq!(e.code, FailureCode::DiskFull, "{e:?}");
    assert!(
        e.message.contains("MiB needed") && e.message.contains("MiB free"),
        "{e:?}"
    );
    assert_eq!(files(whole.parent().unwrap()).len(), 2, "nothing is left of it");
}

/// A layer that names one block for many places would let a guest fill the host.
#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_holds_more_than_was_written_is_not_copied() {
    use std::os::unix::fs::FileExt;
    let dir = Dir::new();
    let driver = File::open(&dir.0).unwrap();
    let bytes = vec![0x55_u8; 1 << 20];
    let image = image(&bytes, "raw", 1 << 20);
    let (guest, id) = (Uuid::new_v4(), Uuid::new_v4());
    let root = RootDisk {
        image: image.clone(),
        size_gib: 1,
    };
    ensure(&driver, &image, &bytes).await.unwrap();
    let disk = driver.root(guest, 0, &root).await.unwrap();
    // Behind the empty layer's 4 clusters: one of data, and a table that has it everywhere.
    let layer = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&disk.path)
        .unwrap();
    let (data, table, copied) = (4_u64 << 16, 5_u64 << 16, 1_u64 << 63);
    layer.write_all_at(&[9; 1 << 16], data).unwrap();
    layer
        .write_all_at(&(data | copied).to_be_bytes().repeat(8192), table)
        .unwrap();
    layer.write_all_at(&(table | copied).to_be_bytes(), 3 << 16).unwrap();
    driver.snapshot_begin(guest, 0, &root, id).await.unwrap();
    let e = driver
        .snapshot_copy(guest, 0, &root, id, Arc::new(|_| {}))
        .await
        .unwrap_err();
    assert!(e.message.contains("larger than all that was ever written"), "{e:?}");
    let part = disk.path.with_file_name(format!("snapshot-{id}.qcow2.tmp"));
    assert!(std::fs::metadata(part).unwrap().len() < 8 << 20);
}

/// Two hosts that fill one cache at once do not take each other's files away; what one made the other finds.
#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_hosts_share() {
    let dir = Dir::new();
    let hosts = [Uuid::new_v4(), Uuid::new_v4()];
    let open = |n: usize| File::open_shared(&dir.0, hosts[n]).unwrap();
    let (a, b) = (open(0), open(1));
    let bytes = vec![5_u8; 1 << 20];
    let image = image(&bytes, "raw", bytes.len() as u64);
    let images = dir.0.join("images");
    // The other begins before, and ends after this one has a guest over the image.
    let (go, wait) = tokio::sync::oneshot::channel::<()>();
    let late: OpenImage = Box::new({
        let bytes = bytes.clone();
        move || {
            Box::pin(async move {
                let _ = wait.await;
                Ok(Box::pin(std::io::Cursor::new(bytes)) as ImageStream)
            })
        }
    });
    let b = Arc::new(b);
    let pull = tokio::spawn({
        let (b, image) = (Arc::clone(&b), image.clone());
        async move { b.ensure_image(&image, late, Arc::new(|_| {})).await }
    });
    ensure(&a, &image, &bytes).await.unwrap();
    let inode = || std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(images.join(image.id.to_string())).unwrap());
    let before = inode();
    go.send(()).unwrap();
    pull.await.unwrap().unwrap();
    assert_eq!(inode(), before, "a file that a guest may have open was replaced");
    assert_eq!(files(&images), [image.id.to_string()]);

    let root = RootDisk {
        image: image.clone(),
        size_gib: 1,
    };
    let guest = Uuid::new_v4();
    let made = a.root(guest, 0, &root).await.unwrap();
    assert!(made.path.starts_with(dir.0.join("servers").join(guest.to_string())));
    assert_eq!(b.root(guest, 0, &root).await.unwrap(), made);
    assert!(b.collect(&[]).await.unwrap().is_empty(), "a file of another's guest");

    // What a host was cut off in is its own to remove, and nobody else's.
    for (n, host) in hosts.iter().enumerate() {
        let part = images.join(format!(".{}.{host}.part", image.id));
        std::fs::write(&part, "cut off").unwrap();
        let half = dir.0.join("servers").join(guest.to_string()).join("root-1.qcow2.tmp");
        std::fs::write(&half, "under way").unwrap();
        drop(open(1 - n));
        assert!(part.exists() && half.exists());
        drop(open(n));
        assert!(!part.exists() && half.exists());
    }
    for driver in [&a, &*b, &a] {
        driver.delete(guest).await.unwrap();
        assert!(files(&dir.0.join("servers")).is_empty());
    }
}
