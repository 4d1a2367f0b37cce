//! Builds the image by hand: `cargo run -p haneul-guest-image --example build -- WORK_DIR OUT.qcow2`

use std::path::PathBuf;

fn main() {
    let mut args = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(work_dir), Some(out)) = (args.next(), args.next()) else {
        eprintln!("usage: build WORK_DIR OUT.qcow2");
        std::process::exit(2);
    };
    let opts = haneul_guest_image::Options { work_dir, out };
    match haneul_guest_image::build(&opts, &mut |line| eprintln!("{line}")) {
        Ok(built) => eprintln!("{built:#?}"),
        Err(e) => {
            eprintln!("{e}");
            std::process::exit(1);
        }
    }
}
