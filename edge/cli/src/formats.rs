//! `haneul formats` and `haneul convert`.

use crate::args::ConvertOptions;
use crate::{Error, Result, Trouble, failed, ui};
use haneul_disk::{BOOTABLE, DiskFormat, OUTPUTS};
use serde_json::{Value, json};
use std::fs::{File, OpenOptions};

/// How a hypervisor gets on with a format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fit {
    /// It takes it.
    Yes,
    /// It takes it, which older tables leave out.
    Also,
    /// In some versions, or for reading only.
    Some,
    /// It does not, though older tables say so.
    Not,
    /// Nobody says it does.
    No,
}

impl Fit {
    fn cell(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::Also => "yes+",
            Self::Some => "some",
            Self::Not => "no!",
            Self::No => "-",
        }
    }
}

/// Hypervisors, each with its formats in the order of [`OUTPUTS`]: raw, qcow2, vmdk, vdi, vhd, vhdx.
const TABLE: [(&str, [Fit; 6]); 5] = {
    use Fit::{Also, No, Not, Some, Yes};
    [
        ("QEMU/KVM", [Yes, Yes, Yes, Also, Also, Also]),
        ("VMware", [No, No, Yes, No, No, No]),
        ("VirtualBox", [No, Some, Yes, Yes, Yes, No]),
        ("Hyper-V", [No, No, Not, Not, Yes, Also]),
        ("Xen", [Also, Yes, No, No, Yes, No]),
    ]
};

/// What this cloud does with a format.
fn here(format: DiskFormat) -> &'static str {
    match format {
        DiskFormat::Raw | DiskFormat::Qcow2 => "starts as it is",
        f if BOOTABLE.contains(&f) => "starts, converted on the host",
        _ => "is not started from",
    }
}

fn table() -> Value {
    let formats: Vec<Value> = OUTPUTS
        .iter()
        .enumerate()
        .map(|(n, f)| {
            let by = TABLE
                .iter()
                .map(|(name, fits)| ((*name).to_owned(), fits.get(n).map_or("-", |f| f.cell()).into()));
            json!({
                "format": f.name(), "hypervisors": Value::Object(by.collect()), "here": here(*f),
                "uploaded": true, "converted_to": true,
            })
        })
        .collect();
    json!({"formats": formats})
}

/// `haneul formats`.
pub fn show(as_json: bool) {
    if as_json {
        return ui::json(&table());
    }
    let mut head = format!("{:<8}", "FORMAT");
    for (name, _) in TABLE {
        head += &format!("{name:<12}");
    }
    ui::line(format_args!("{head}THIS CLOUD (QEMU/KVM)"));
    for (n, format) in OUTPUTS.iter().enumerate() {
        let mut row = format!("{:<8}", format.name());
        for (_, fits) in TABLE {
            row += &format!("{:<12}", fits.get(n).map_or("-", |f| f.cell()));
        }
        ui::line(format_args!("{row}{}", here(*format)));
    }
    ui::line("");
    ui::line("yes   it takes the format          yes+  so it does, though older tables leave it out");
    ui::line("some  in some versions             no!   it does not, though older tables say so: convert first");
    ui::line("img is another name for raw, vpc for vhd. All six are taken as uploads when their contents are what was");
    ui::line("declared and nothing in them points outside; `haneul convert` writes any of them from any other.");
}

fn format_of(option: &str, name: &str) -> Result<DiskFormat> {
    let name = match name {
        "img" => "raw",
        "vpc" => "vhd",
        other => other,
    };
    let known = DiskFormat::from_glance_name(name).filter(|f| OUTPUTS.contains(f));
    known.ok_or_else(|| {
        let names: Vec<&str> = OUTPUTS.iter().map(|f| f.name()).collect();
        Error::bad_request(format!("{option} {name}: write one of {}", names.join(", ")))
    })
}

/// `haneul convert`.
pub fn convert(options: &ConvertOptions) -> Result<()> {
    let (from, to) = (format_of("--from", &options.from)?, format_of("--to", &options.to)?);
    let mut source = File::open(&options.source).at(&options.source)?;
    let mut new = OpenOptions::new();
    let out = new
        .read(true)
        .write(true)
        .create_new(true)
        .open(&options.target)
        .at(&options.target)?;
    let whole = out.try_clone().at(&options.target)?;
    let done = haneul_disk::convert(&mut source, from, out, to, &mut |_| true)
        .map_err(|e| failed(format!("{}: {e}", options.source.display())))
        .and_then(|c| whole.sync_all().at(&options.target).map(|()| c));
    match done {
        Ok(c) => {
            ui::line(format_args!(
                "{}: {to}, a disk of {} bytes of which {} are not zero",
                options.target.display(),
                c.virtual_size,
                c.data
            ));
            Ok(())
        }
        Err(e) => {
            let _ = std::fs::remove_file(&options.target);
            Err(e)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is shown is what is enforced.
    #[test]
    fn the_table_is_that_of_the_parsers() {
        let names: Vec<&str> = OUTPUTS.iter().map(|f| f.name()).collect();
        assert_eq!(names, ["raw", "qcow2", "vmdk", "vdi", "vhd", "vhdx"]);
        let t = table();
        for row in t["formats"].as_array().unwrap() {
            assert!(row["here"].as_str().unwrap().starts_with("starts"), "{row}");
        }
        let cell = |format: usize, of: &str| t["formats"][format]["hypervisors"][of].as_str().unwrap().to_owned();
        assert_eq!((cell(2, "Hyper-V"), cell(5, "Hyper-V")), ("no!".into(), "yes+".into()));
        assert_eq!(
            (cell(3, "QEMU/KVM"), cell(2, "VMware"), cell(1, "VMware")),
            ("yes+".into(), "yes".into(), "-".into())
        );
    }

    #[test]
    fn names_of_the_field_are_understood() {
        assert_eq!(format_of("--from", "img").unwrap(), DiskFormat::Raw);
        assert_eq!(format_of("--from", "vpc").unwrap(), DiskFormat::Vhd);
        assert!(format_of("--to", "iso").unwrap_err().to_string().contains("vhdx"));
    }
}
