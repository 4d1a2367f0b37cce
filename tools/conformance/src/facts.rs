//! Date and commit of a run.

/// As the reports say them.
pub fn facts() -> String {
    let read = |args: &[&str]| {
        let out = std::process::Command::new(args[0]).args(&args[1..]).output();
        out.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned())
            .unwrap_or_default()
    };
    let changed = !read(&["git", "status", "--porcelain", "--untracked-files=no"]).is_empty();
    format!(
        "{}, commit {}{}",
        read(&["date", "-u", "+%Y-%m-%d"]),
        read(&["git", "rev-parse", "--short", "HEAD"]),
        if changed { " with changes" } else { "" }
    )
}
