#![allow(clippy::unwrap_used)]

use super::*;

fn load(text: &str, env: &[(&str, &str)], sets: &[&str]) -> Result<Config> {
    let file = std::env::temp_dir().join(format!("haneul-config-{}.toml", crate::id::hex()));
    std::fs::write(&file, text).unwrap();
    let env: Vec<_> = env.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect();
    let sets: Vec<_> = sets.iter().map(|s| s.to_string()).collect();
    let out = Config::load(&file, true, &env, &sets);
    std::fs::remove_file(&file).unwrap();
    out
}

#[test]
fn unknown_keys_name_the_nearest() {
    let e = load("[api]\nlisten_addr = \"127.0.0.1:1\"\n", &[], &[]).unwrap_err();
    assert!(e.public().contains("did you mean api.listen"), "{e}");
    let e = load("stat_dir = \"/x\"\n", &[], &[]).unwrap_err();
    assert!(e.public().contains("did you mean state_dir"), "{e}");
}

#[test]
fn overrides_in_order() {
    let c = load(
        "[identity]\nbcrypt_rounds = 10\n",
        &[("HANEUL_IDENTITY__BCRYPT_ROUNDS", "9")],
        &[],
    )
    .unwrap();
    assert_eq!(c.identity.bcrypt_rounds, 9);
    let c = load(
        "[identity]\nbcrypt_rounds = 10\n",
        &[("HANEUL_IDENTITY__BCRYPT_ROUNDS", "9")],
        &["identity.bcrypt_rounds=8", "api.region=Seoul"],
    )
    .unwrap();
    assert_eq!(c.identity.bcrypt_rounds, 8);
    assert_eq!(c.api.region, "Seoul");
}

#[test]
fn refusals_say_why() {
    for (text, word) in [
        ("[api]\nlisten = \"0.0.0.0:80\"\n", "write in api.public_url"),
        (
            "[api]\nlisten = \"192.0.2.1:80\"\npublic_url = \"http://cloud.example\"\n",
            "speaks TLS only",
        ),
        ("[fleet]\nlisten = \"[::]:8776\"\n", "write in fleet.url"),
        ("[agent]\nhypervisor = \"fake\"\n", "lab = true"),
        ("[identity]\nbcrypt_rounds = 3\n", "4 to 31"),
        ("[network]\nuplink = \"x\"\n", "isolated"),
        ("[security_compliance]\nunique_last_password_count = 25\n", "0 to 24"),
        (
            "[security_compliance]\npassword_expires_days = 7\nminimum_password_age = 7\n",
            "write fewer days",
        ),
    ] {
        let e = load(text, &[], &[]).unwrap_err();
        assert!(e.public().contains(word), "{e}");
    }
}

#[test]
fn distances() {
    assert_eq!(distance("listen", "listen"), 0);
    assert_eq!(distance("listn", "listen"), 1);
    assert_eq!(distance("abc", "xyz"), 3);
}
