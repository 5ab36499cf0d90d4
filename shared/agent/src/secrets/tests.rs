//! References, places, and that nothing printed shows what was planted.

use super::*;

const PLANTED: &str = "correct-horse-battery-staple";

#[derive(Debug, Deserialize)]
struct Node {
    secrets: Secrets,
}

fn node(text: &str) -> Result<Secrets, String> {
    toml::from_str::<Node>(text).map(|node| node.secrets).map_err(|e| e.message().to_owned())
}

fn named(name: &str) -> SecretRef {
    format!("secret:{name}").parse().unwrap()
}

#[test]
fn a_reference_is_a_name_and_never_a_path() {
    for good in ["secret:a", "secret:SNMP_v2.community", "secret:-x", &format!("secret:{}", "x".repeat(64))] {
        let reference: SecretRef = good.parse().unwrap();
        assert_eq!(reference.to_string(), good);
        assert_eq!(serde_json::to_value(&reference).unwrap(), *good);
    }
    let long = format!("secret:{}", "x".repeat(65));
    for bad in [
        "secret:",
        "secret:a/b",
        "secret:../a",
        "secret:/etc/shadow",
        "secret:.a",
        "secret:a b",
        "secret:ä",
        "Secret:a",
        &long,
    ] {
        assert!(bad.parse::<SecretRef>().is_err(), "{bad}");
    }
    // Who wrote the secret itself where its name belongs is not quoted.
    let said = serde_json::from_value::<SecretRef>(PLANTED.into()).unwrap_err().to_string();
    assert!(said.contains("secret:NAME") && !said.contains(PLANTED), "{said}");
}

#[test]
fn the_schema_takes_what_the_parser_takes() {
    let schema = schemars::schema_for!(SecretRef).to_value();
    assert_eq!(schema["pattern"], PATTERN);
    assert_eq!(schema["type"], "string");
}

#[test]
fn the_node_says_where_a_secret_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    std::fs::write(&path, format!("{PLANTED}\n")).unwrap();
    let home = std::env::var("PATH").unwrap();
    let secrets = node(&format!(
        "[secrets]\na = {{ file = {path:?} }}\nb = {{ env = \"PATH\" }}\nc = {{ credential = \"x\" }}"
    ))
    .unwrap();
    assert_eq!(secrets.get(&named("a")).unwrap().expose(), PLANTED);
    assert_eq!(secrets.get(&named("b")).unwrap().expose(), home);
    // It is read each time.
    std::fs::write(&path, "another").unwrap();
    assert_eq!(secrets.get(&named("a")).unwrap().expose(), "another");
    for (text, says) in
        [(&b""[..], "empty"), (b"\n", "empty"), (b"\xff", "no text"), (&[b'x'; 70_000], "more than")]
    {
        std::fs::write(&path, text).unwrap();
        let said = secrets.get(&named("a")).unwrap_err().to_string();
        assert!(said.contains(says) && said.contains("secret:a"), "{said}");
    }
    let unknown = secrets.get(&named("zzz")).unwrap_err().to_string();
    assert!(unknown.contains("secret:zzz") && unknown.contains("[secrets]"), "{unknown}");
}

#[test]
fn a_place_is_one_of_three_and_a_credential_no_path() {
    for bad in [
        "[secrets]\na = \"correct-horse-battery-staple\"",
        "[secrets]\na = { value = \"correct-horse-battery-staple\" }",
        "[secrets]\na = { credential = \"../../etc/shadow\" }",
        "[secrets]\n\"a/b\" = { env = \"X\" }",
        "[secrets]\na = { file = \"x\", env = \"y\" }",
    ] {
        node(bad).unwrap_err();
    }
}

#[test]
fn whatever_is_printed_shows_the_reference_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    std::fs::write(&path, PLANTED).unwrap();
    let secrets =
        node(&format!("[secrets]\na = {{ file = {path:?} }}\nbroken = {{ file = {:?} }}", dir.path()))
            .unwrap();
    let (reference, secret) = (named("a"), secrets.get(&named("a")).unwrap());
    let fault = secrets.get(&named("broken")).unwrap_err();
    // What a program says that was given it.
    let echoed = Fault::new("log in", secret.hide(&format!("bad password {PLANTED}!")));
    let all = [
        format!("{secret}"),
        format!("{secret:?}"),
        format!("{:#?}", (Some(&secret), vec![secret.clone()])),
        format!("{reference} {reference:?}"),
        serde_json::to_string(&reference).unwrap(),
        format!("{secrets:?}"),
        format!("{fault} {fault:?}"),
        format!("{echoed} {echoed:?}"),
    ];
    for text in &all {
        assert!(!text.contains(PLANTED), "{text}");
    }
    assert_eq!(all[0], "secret:a");
    assert!(all[7].contains("bad password secret:a!"));
    // A fault goes into the database: where the node keeps its secrets stays on the node.
    assert!(!all[6].contains(&dir.path().display().to_string()), "{}", all[6]);
}
