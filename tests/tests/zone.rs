//! `shoal import zone`: a zone file becomes tags, and the zone that the DNS agent makes of them is the same, as BIND reads both.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use shoal_tests::binaries::{binary, system};
use shoal_tests::process::output;

/// Everything that a zone file can be written with, and types that tags hold in the generic form alone.
const ZONE: &str = r#"$TTL 1h
$ORIGIN example.com.
@ 2h IN SOA ns1 host\.master.example.com. ( 7 7200 900
     1209600 300 ) ; a comment
 IN NS ns1
 IN NS ns2.example.net.
ns1 A 192.0.2.53
 AAAA 2001:db8::53
@ MX 10 mail
 MX 20 mail2.example.net.
 TXT "v=spf1 mx -all"
 CAA 0 issue "ca.example.net"
mail 60 A 192.0.2.25
t TXT "a;b" "c\"d" ( "several"
   "lines" )
l LOC 51 30 12.748 N 0 7 39.611 W 0.00m
a APL 1:192.168.32.0/21 !1:192.168.38.0/28
e EUI48 00-00-5e-00-53-2a
s SVCB 1 . alpn=h2,h3
h HTTPS 0 svc.example.net.
_x._tcp SRV 0 0 22 ns1
n NAPTR 100 10 "u" "E2U+sip" "!^.*$!sip:info@example.com!" .
f SSHFP 4 2 123456789abcdef67890123456789abcdef67890123456789abcdef123456789
u URI 10 1 "https://www.example.com/"
odd TYPE65280 \# 2 beef
old DNAME new.example.net.
sub NS ns.sub
ns.sub A 192.0.2.77
$GENERATE 1-30 g$ A 192.0.2.$
*.w A 192.0.2.9
\119\045x A 192.0.2.10
c CNAME www.example.net.
@ RRSIG A 8 2 3600 20300101000000 20200101000000 12345 example.com. AAAA
$INCLUDE more.inc part.example.com.
"#;

const MORE: &str = "x A 192.0.2.88\n@ TXT included\n";

/// The zone in a file as BIND reads it, without serial and signatures.
fn compiled(file: &Path, dir: &Path) -> Result<Vec<String>> {
    let program = system("named-compilezone").context("named-compilezone")?;
    let lenient = "-q -i none -k ignore -n ignore -m ignore -M ignore -r ignore -S ignore -W ignore -s full -o - example.com";
    let mut command = Command::new(program);
    command.args(lenient.split(' ')).arg(file).current_dir(dir);
    let words = |line: &str| {
        let mut words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        if words.get(3).is_some_and(|rtype| rtype == "SOA") {
            words[6] = "SERIAL".to_owned();
        }
        words.join(" ")
    };
    let text = output(&mut command, &[0])?;
    let mut lines: Vec<String> =
        text.lines().map(words).filter(|line| !line.contains(" RRSIG ") && !line.starts_with(';')).collect();
    lines.sort();
    Ok(lines)
}

struct World(tempfile::TempDir);

impl World {
    fn new() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("shoal-zone-").tempdir().context("a scratch folder")?;
        let zones = dir.path().join("zones");
        std::fs::create_dir(&zones)?;
        let config =
            format!("[agent.bind]\ndirectory = {zones:?}\nfile = '{{zone}}'\nreload = []\ncheck = []\n");
        std::fs::write(dir.path().join("dns.toml"), config)?;
        Ok(Self(dir))
    }

    fn store(&self) -> String {
        format!("sqlite:{}", self.0.path().join("shoal.db").display())
    }

    fn shoal(&self, line: &[&str], codes: &[i32]) -> Result<String> {
        let mut command = Command::new(binary("shoal")?);
        command
            .args(["--store", &self.store()])
            .args(line)
            .env("SHOAL_AUTHOR", "ann")
            .env_remove("SHOAL_STORE");
        output(&mut command, codes)
    }

    /// Has the agent write its zone files, and answers that of the zone.
    fn zone(&self) -> Result<std::path::PathBuf> {
        let mut command = Command::new(binary("shoal-dns")?);
        command.args(["--store", &self.store(), "--once", "--config"]).arg(self.0.path().join("dns.toml"));
        output(&mut command, &[0])?;
        Ok(self.0.path().join("zones/example.com"))
    }
}

#[test]
fn a_zone_file_becomes_tags_and_nothing_is_lost() -> Result<()> {
    if system("named-compilezone").is_none() || system("named-rrchecker").is_none() {
        println!(
            "SKIPPED: a_zone_file_becomes_tags_and_nothing_is_lost: named-compilezone or named-rrchecker is not installed"
        );
        return Ok(());
    }
    let world = World::new()?;
    let dir = world.0.path();
    let file = dir.join("db.example.com");
    std::fs::write(&file, ZONE)?;
    std::fs::write(dir.join("more.inc"), MORE)?;
    let name = file.display().to_string();
    // A plan makes no database.
    world.shoal(&["import", "zone", &name, "--plan"], &[1])?;
    world.shoal(&["put", "tags/other", "site=ams", "-m", "a database"], &[0])?;
    let planned = world.shoal(&["import", "zone", &name, "--plan"], &[3])?;
    ensure!(planned.contains("dns/example.com"), "{planned}");
    let said = world.shoal(&["import", "zone", &name, "-m", "it moves in"], &[0])?;
    ensure!(said.contains("1 of signing"), "{said}");
    let (before, after) = (compiled(&file, dir)?, compiled(&world.zone()?, dir)?);
    ensure!(before.len() > 50, "only {} records", before.len());
    for line in before.iter().filter(|line| !after.contains(line)) {
        println!("lost: {line}");
    }
    for line in after.iter().filter(|line| !before.contains(line)) {
        println!("new: {line}");
    }
    ensure!(before == after, "the zones differ");
    // What is there is not replaced by accident; the same again is no commit.
    world.shoal(&["import", "zone", &name, "-m", "again"], &[4])?;
    let again = world.shoal(&["import", "zone", &name, "--replace", "-m", "again"], &[0])?;
    ensure!(again.contains("nothing to change: everything stands there already"), "{again}");
    Ok(())
}

#[test]
fn a_large_zone_is_spread_over_tags() -> Result<()> {
    if system("named-compilezone").is_none() {
        println!("SKIPPED: a_large_zone_is_spread_over_tags: named-compilezone is not installed");
        return Ok(());
    }
    let world = World::new()?;
    let dir = world.0.path();
    let file = dir.join("example.com.zone");
    let mut text = "$TTL 300\n@ IN SOA ns1 h 1 2 3 4 5\n@ NS ns1\n".to_owned();
    text.extend((0..5_000u32).map(|n| format!("ns{n} A 10.0.{}.{}\n", n >> 8, n & 255)));
    std::fs::write(&file, text)?;
    world.shoal(&["import", "zone", &file.display().to_string(), "-m", "it moves in"], &[0])?;
    ensure!(world.shoal(&["get", "dns/example.com-records-3"], &[0])?.contains("zone: example.com"));
    ensure!(compiled(&file, dir)? == compiled(&world.zone()?, dir)?, "the zones differ");
    Ok(())
}

#[test]
fn what_is_no_zone_is_said() -> Result<()> {
    if system("named-compilezone").is_none() {
        println!("SKIPPED: what_is_no_zone_is_said: named-compilezone is not installed");
        return Ok(());
    }
    let world = World::new()?;
    let file = world.0.path().join("zone.txt");
    let name = file.display().to_string();
    let imports = |text: &str, more: &[&str], exit: i32| -> Result<String> {
        std::fs::write(&file, text)?;
        let line: Vec<&str> = ["import", "zone", &name, "-m", "x"].iter().chain(more).copied().collect();
        let mut command = Command::new(binary("shoal")?);
        command.args(["--store", &world.store()]).args(line).env("SHOAL_AUTHOR", "ann");
        let out = command.output()?;
        ensure!(out.status.code() == Some(exit), "{out:?}");
        Ok(String::from_utf8_lossy(&out.stderr).into_owned())
    };
    let fails = |text: &str, more: &[&str]| imports(text, more, 1);
    let zone = ["--zone", "example.com"];
    let soa = "@ 60 IN SOA ns1 h 1 2 3 4 5\n@ 60 NS ns.example.net.\n";
    let said = fails("nonsense here\n", &zone)?;
    ensure!(said.contains("named-compilezone says") && said.contains("zone.txt:1"), "{said}");
    // Each record of a name that no tag has, as BIND reads it; and how many others there are.
    let said = fails(
        &format!("{soa}a\\.b 60 A 192.0.2.1\n 60 TXT x\nok 60 A 192.0.2.2\nc\\036 60 A 192.0.2.3\n"),
        &zone,
    )?;
    for part in [
        "names with escapes",
        "its other 3 records",
        "\n  a\\.b.example.com. 60 IN A 192.0.2.1\n",
        "\n  a\\.b.example.com. 60 IN TXT \"x\"\n",
        "\n  c\\$.example.com. 60 IN A 192.0.2.3\n",
    ] {
        ensure!(said.contains(part), "{part}: {said}");
    }
    ensure!(!said.contains("192.0.2.2"), "{said}");
    // What lies outside of the zone would be lost.
    let said =
        fails(&format!("{soa}www.elsewhere.com. 60 A 192.0.2.1\nmy-example.com. 60 A 192.0.2.1\n"), &zone)?;
    for part in [
        "outside of the zone example.com",
        "zone.txt:3: ",
        "(www.elsewhere.com)",
        "zone.txt:4: ",
        "(my-example.com)",
    ] {
        ensure!(said.contains(part), "{part}: {said}");
    }
    // A warning is said, and the rest goes on.
    let mut command = Command::new(binary("shoal")?);
    command.args(["--store", &world.store(), "get", "dns/example.com"]);
    ensure!(command.output()?.status.code() == Some(1), "nothing was imported");
    let said = imports(&format!("{soa}a 60 A 192.0.2.1\na 30 A 192.0.2.2\n"), &zone, 0)?;
    ensure!(
        said.contains("zone.txt:4: TTL set to prior TTL (60)") && !said.contains("loaded serial"),
        "{said}"
    );
    Ok(())
}
