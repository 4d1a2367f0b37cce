//! The small guest image: built, kept, and uploaded as a public image when the cloud has none of its name.

use crate::args::UpOptions;
use crate::client::{Client, escape};
use crate::ui::{self, Step};
use crate::{Result, Trouble, admin};
use haneul_core::config::Config;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Its name in the cloud.
pub const NAME: &str = "haneul-guest";

/// `haneul guest-image --out FILE`
pub fn command(out: &Path) -> Result<()> {
    let step = Step::begin("guest image");
    let out = std::path::absolute(out).at(out)?;
    // Beside the result and not in /tmp, where anybody could have prepared it. It keeps downloaded packages.
    let work = out.with_extension("work");
    let built = build(&work, &out, &step)?;
    step.done(format!("{built}: {}", out.display()));
    Ok(())
}

fn build(work: &Path, out: &Path, step: &Step) -> Result<String> {
    let options = haneul_guest_image::Options {
        work_dir: work.to_owned(),
        out: out.to_owned(),
    };
    let built = haneul_guest_image::build(&options, &mut |what| step.doing(what))?;
    let how = if built.cached { "is there" } else { "built" };
    Ok(format!(
        "{how}, {}, sha256 {}",
        ui::size(built.bytes),
        built.sha256.get(..12).unwrap_or_default()
    ))
}

/// Makes sure that the cloud has the image. Builds it only when it has not.
pub fn ensure(config: &Config, client: &Client, options: &UpOptions) -> Result<()> {
    let step = Step::begin("guest image");
    let found = client.get(&format!("/image/v2/images?name={}", escape(NAME)))?;
    let images = admin::list(&found, "images");
    if images.iter().any(|i| admin::text(i, "status") == "active") {
        step.done(format!("image {NAME} is there"));
        return Ok(());
    }
    // An upload that was cut off.
    for left in images {
        client.delete(&format!("/image/v2/images/{}", admin::text(left, "id")))?;
    }
    let (file, said) = match &options.image {
        Some(file) => (file.clone(), format!("{}", file.display())),
        None => {
            let dir = config.state_dir.0.join("guest-image");
            let out: PathBuf = dir.join("haneul-guest.qcow2");
            std::fs::create_dir_all(&dir).at(&dir)?;
            let said = build(&dir, &out, &step)?;
            (out, said)
        }
    };
    step.doing("uploading");
    let bytes = std::fs::read(&file).at(&file)?;
    let image = client.post(
        "/image/v2/images",
        &json!({
            "name": NAME,
            "disk_format": "qcow2",
            "container_format": "bare",
            "visibility": "public",
            "min_ram": haneul_guest_image::MIN_RAM_MIB,
            "min_disk": 1,
            "os_distro": "debian",
            "hw_disk_bus": "virtio",
            "hw_vif_model": "virtio",
        }),
    )?;
    let id = image.get("id").and_then(Value::as_str).unwrap_or_default();
    client.upload(&format!("/image/v2/images/{id}/file"), bytes.into())?;
    step.done(format!("{said}; uploaded as public image {NAME}"));
    Ok(())
}
