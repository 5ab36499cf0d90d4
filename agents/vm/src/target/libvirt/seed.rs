//! What a machine is told at its start: the seed of cloud-init, as a small file system, and the disk on which it reports in.
//!
//! The seed is cloud-init's own (NoCloud): a FAT file system that is called `CIDATA`, with `meta-data`, `user-data`, `vendor-data` and
//! `network-config`. All but the user's own is JSON, which is YAML too: a writer of JSON escapes what documents say, nothing here does. The
//! vendor's part has the machine report in at every start, and mounts its disks.

use std::io::{Cursor, Error, Write as _};

use fatfs::{FileSystem, FormatVolumeOptions, FsOptions, format_volume};
use serde_json::{Map, Value, json};
use shoal_machine::Network;

use super::Order;
use super::domain::{disk_serial, mac};

/// How large the seed is, in octets: twice what the user may say, and room for the rest.
pub(super) const SEED: usize = 1024 * 1024;
/// How large the disk is on which a machine reports in.
pub(super) const REPORT: usize = 4096;
/// It is written by blocks of so many octets. In the first the machine reports in; in the second stands its token.
pub(super) const BLOCK: usize = 512;

/// Reports in: copies the token to where the box looks for it. A machine that has no cloud-init can have this in its image.
const SCRIPT: &str = "#!/bin/sh
disk=/dev/disk/by-id/virtio-shoal-report
exec dd if=\"$disk\" of=\"$disk\" bs=512 skip=1 count=1 conv=notrunc,fsync
";

/// The seed of a machine.
///
/// # Errors
/// What it is told does not fit.
pub(super) fn seed(order: &Order) -> Result<Vec<u8>, Error> {
    let mut disk = Cursor::new(vec![0; SEED]);
    format_volume(&mut disk, FormatVolumeOptions::new().volume_label(*b"CIDATA     "))?;
    {
        let system = FileSystem::new(&mut disk, FsOptions::new())?;
        let root = system.root_dir();
        let user = order.machine.user_data.as_deref().unwrap_or("#cloud-config\n{}\n");
        for (name, text) in [
            ("meta-data", pretty(&json!({"instance-id": order.id, "local-hostname": order.host}))),
            ("user-data", user.to_owned()),
            ("vendor-data", vendor(order)),
            ("network-config", pretty(&network(order))),
        ] {
            root.create_file(name)?.write_all(text.as_bytes())?;
        }
    }
    Ok(disk.into_inner())
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

fn vendor(order: &Order) -> String {
    let disks = || order.machine.disks.values().enumerate();
    let device = |n: usize| format!("/dev/disk/by-id/virtio-{}", disk_serial(n));
    // By `none` cloud-init would not look whether there is a file system already.
    let made: Vec<Value> = disks()
        .map(|(n, _)| json!({"device": device(n), "filesystem": "ext4", "partition": "any", "overwrite": false}))
        .collect();
    let mounts: Vec<Value> =
        disks().map(|(n, disk)| json!([device(n), disk.at, "auto", "defaults,nofail", "0", "2"])).collect();
    let config = json!({
        "fs_setup": made,
        "mounts": mounts,
        // What is corrected is another network, and the same machine.
        "updates": {"network": {"when": ["boot-new-instance", "boot"]}},
    });
    let parts = json!([
        {"type": "text/cloud-config", "content": format!("#cloud-config\n{config}\n")},
        {"type": "text/x-shellscript-per-boot", "filename": "shoal-report", "content": SCRIPT},
    ]);
    format!("#cloud-config-archive\n{}", pretty(&parts))
}

fn network(order: &Order) -> Value {
    let card = |(n, network): (usize, &Network)| {
        let mut card = json!({"match": {"macaddress": mac(&order.id, n)}, "set-name": format!("eth{n}")});
        match &network.addresses[..] {
            // The network gives it one.
            [] => card["dhcp4"] = json!(true),
            all => card["addresses"] = json!(all),
        }
        let way = |way: &std::net::IpAddr| json!({"to": if way.is_ipv4() { "0.0.0.0/0" } else { "::/0" }, "via": way});
        if !network.gateways.is_empty() {
            card["routes"] = network.gateways.iter().map(way).collect();
        }
        (format!("eth{n}"), card)
    };
    let cards: Map<String, Value> = order.machine.networks.iter().enumerate().map(card).collect();
    json!({"version": 2, "ethernets": cards})
}

/// What stands on the disk for reports when a machine is started: nothing reported, and the token.
pub(super) fn unreported(token: &str) -> Vec<u8> {
    let mut octets = vec![0; REPORT];
    for (place, octet) in octets.iter_mut().skip(BLOCK).zip(token.bytes().take(BLOCK)) {
        *place = octet;
    }
    octets
}

/// Whether this is what a machine with this token reports.
pub(super) fn is_report(first: &[u8], token: &str) -> bool {
    !token.is_empty() && unreported(token).get(BLOCK..BLOCK * 2) == first.get(..BLOCK)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn order() -> Order {
        let order = json!({
            "id": "1", "host": "web1.example.com", "token": "secret",
            "machine": {
                "image": "debian-12", "size": {"cpu": 1},
                "disks": {"data": {"size": 1, "at": "/srv/a \"b\": c"}},
                "networks": [
                    {"name": "lan", "addresses": ["192.0.2.10/24", "2001:db8::a/64"], "gateways": ["192.0.2.1", "2001:db8::1"]},
                    {"name": "san"},
                ],
                "user_data": "#cloud-config\npackages: [nginx]\n",
            },
        });
        serde_json::from_value(order).unwrap()
    }

    #[test]
    fn a_seed_says_what_the_machine_is() {
        let seed = seed(&order()).unwrap();
        assert_eq!(seed.len(), SEED);
        let system = FileSystem::new(Cursor::new(seed), FsOptions::new()).unwrap();
        assert_eq!(system.volume_label(), "CIDATA");
        let text = |name: &str| {
            let mut text = String::new();
            system.root_dir().open_file(name).unwrap().read_to_string(&mut text).unwrap();
            text
        };
        assert_eq!(text("user-data"), "#cloud-config\npackages: [nginx]\n");
        let meta: Value = serde_json::from_str(&text("meta-data")).unwrap();
        assert_eq!(meta, json!({"instance-id": "1", "local-hostname": "web1.example.com"}));
        let network: Value = serde_json::from_str(&text("network-config")).unwrap();
        let cards = &network["ethernets"];
        assert_eq!(cards["eth0"]["addresses"], json!(["192.0.2.10/24", "2001:db8::a/64"]));
        assert_eq!(cards["eth0"]["routes"][1], json!({"to": "::/0", "via": "2001:db8::1"}));
        assert_eq!((&cards["eth1"]["dhcp4"], &cards["eth0"]["dhcp4"]), (&json!(true), &Value::Null));
        assert_ne!(cards["eth0"]["match"], cards["eth1"]["match"]);
        // What a document says stays one value, whatever it is.
        let vendor = text("vendor-data");
        let parts: Value =
            serde_json::from_str(vendor.strip_prefix("#cloud-config-archive\n").unwrap()).unwrap();
        let config = parts[0]["content"].as_str().unwrap().strip_prefix("#cloud-config\n").unwrap();
        let config: Value = serde_json::from_str(config).unwrap();
        assert_eq!(config["mounts"][0][1], json!("/srv/a \"b\": c"));
        let made = &config["fs_setup"][0];
        assert_eq!((&made["partition"], &made["overwrite"]), (&json!("any"), &json!(false)));
        assert!(!vendor.contains("secret"), "the token stands on the disk for reports alone");
    }

    #[test]
    fn only_the_token_is_a_report() {
        let begun = unreported("secret");
        assert_eq!(begun.len(), REPORT);
        assert!(!is_report(&begun, "secret"));
        let mut told = begun.clone();
        told.copy_within(BLOCK..BLOCK * 2, 0);
        assert!(is_report(&told, "secret") && !is_report(&told, "secre") && !is_report(&told, "other"));
        assert!(!is_report(&[], "secret") && !is_report(&begun, ""));
    }
}
