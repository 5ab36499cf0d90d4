//! By libvirt's own test driver, which keeps what it is told and runs nothing: each function, cut off after each effect.

use std::path::Path;
use std::sync::atomic::AtomicUsize;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::item::{Have, Stage};

/// A machine that somebody else made, a pool with an image, and a network.
const NODE: &str = r#"<node>
  <domain type="test"><name>precious.example.com</name><memory>65536</memory><os><type>hvm</type></os></domain>
  <network><name>lan</name><uuid>81d6bbf4-7e00-4e83-8d52-3a7e3cf5b6ad</uuid><forward mode="nat"/>
    <bridge name="virbr7"/><ip address="192.0.2.1" netmask="255.255.255.0"/></network>
  <pool type="dir"><name>default</name><uuid>dfe224cb-28fb-8dd0-c4b2-64eb3f0f4566</uuid><target><path>/volumes</path></target>
    <volume type="file"><name>debian-12.qcow2</name><capacity>1000000</capacity><allocation>0</allocation>
      <target><path>/volumes/debian-12.qcow2</path><format type="qcow2"/></target></volume></pool>
</node>"#;

/// What its disks begin as is not kept by the test driver, and neither is what is written to them.
fn settings(uri: &str) -> Settings {
    let settings = json!({
        "uri": uri, "type": "test", "stop": "5s",
        "images": {
            "debian-12": {"volume": "debian-12.qcow2", "seed": false, "report": "status"},
            "appliance": {"volume": "debian-12.qcow2", "seed": false, "report": "address"},
            "reporter": {"volume": "debian-12.qcow2", "seed": false},
        },
        "networks": {"lan": {"network": "lan"}, "san": {"bridge": "br7"}},
    });
    serde_json::from_value(settings).unwrap()
}

/// One libvirt, and agents that come and go.
struct Node {
    _dir: TempDir,
    settings: Settings,
    daemon: Daemon,
}

impl Node {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("node.xml");
        std::fs::write(&path, NODE).unwrap();
        let uri = format!("test://{}", Path::new(&path).display());
        // All of it is kept with one connection.
        Self { _dir: dir, settings: settings(&uri), daemon: Daemon::new(&uri) }
    }

    /// An agent that is killed before its effect of this number.
    fn agent(&self, left: usize) -> Libvirt {
        let mut agent = Libvirt::new(self.settings.clone()).unwrap();
        agent.daemon = self.daemon.clone();
        agent.left = AtomicUsize::new(left);
        agent
    }

    fn whole(&self) -> Libvirt {
        self.agent(usize::MAX)
    }

    async fn to<T: Send + 'static>(&self, work: impl FnOnce(&Connect) -> T + Send + 'static) -> T {
        self.daemon.call("a test", move |to| Ok(work(to))).await.unwrap()
    }

    /// Does something to a machine of ours that its agent does not know of.
    async fn of<T: Send + 'static>(
        &self,
        id: &HostId,
        work: impl FnOnce(&Domain) -> T + Send + 'static,
    ) -> T {
        let id = id.clone();
        self.to(move |to| work(&look::lookup(to, &id).unwrap().unwrap())).await
    }

    /// Defines what becomes of a machine's definition.
    async fn redefine(&self, id: &HostId, other: impl FnOnce(&str) -> String + Send + 'static) {
        let text = self.of(id, |domain| domain.get_xml_desc(0).unwrap()).await;
        let other = other(&text);
        assert_ne!(text, other);
        self.to(move |to| Domain::define_xml(to, &other).map(|_| ()).unwrap()).await;
    }

    async fn list(&self) -> Listed {
        self.whole().list(None).await.unwrap()
    }

    async fn have(&self, id: &HostId) -> Option<Have> {
        self.list().await.ours.into_iter().find_map(|(one, have)| (one == *id).then_some(have))
    }

    async fn stage(&self, id: &HostId) -> Option<Stage> {
        self.have(id).await.map(|have| have.stage)
    }

    async fn volumes(&self) -> Vec<String> {
        let mut all = self.to(|to| storage::names(to, "default", "").unwrap()).await;
        all.sort();
        all
    }

    /// Nothing but what was there before Shoal came.
    async fn nothing_left(&self, at: &str) {
        let listed = self.list().await;
        assert!(listed.ours.is_empty() && listed.unseen.is_empty(), "{at}: {listed:?}");
        assert_eq!(listed.foreign, ["precious.example.com"], "{at}");
        assert_eq!(self.volumes().await, ["debian-12.qcow2"], "{at}");
    }
}

fn order(id: &str, host: &str, more: Value) -> Order {
    let mut machine = json!({
        "image": "debian-12", "size": {"cpu": 2, "memory": 67_108_864, "disk": 5_000_000},
        "disks": {"data": {"size": 4096, "at": "/srv"}},
        "networks": [{"name": "lan", "addresses": ["192.0.2.10/24"]}],
        "user_data": "#cloud-config\n<&>\n",
    });
    for (name, value) in more.as_object().unwrap() {
        machine[name] = value.clone();
    }
    serde_json::from_value(json!({"id": id, "host": host, "token": "secret", "machine": machine})).unwrap()
}

fn web() -> Order {
    order("1", "web1.example.com", json!({}))
}

#[tokio::test]
async fn a_machine_comes_and_goes() {
    let node = Node::new();
    let (agent, web) = (node.whole(), web());
    agent.start().await.unwrap();
    node.nothing_left("the beginning").await;
    agent.create(&web).await.unwrap();
    let have = node.have(&web.id).await.unwrap();
    assert_eq!(
        (have.host, have.machine, have.stage),
        (web.host.clone(), web.machine.clone(), Stage::Stopped)
    );
    assert_eq!(have.strayed, Vec::<String>::new());
    assert_eq!(node.volumes().await.len(), 3);
    agent.boot(&web.id).await.unwrap();
    agent.boot(&web.id).await.unwrap();
    // Another attempt, of a host that has another name by now.
    agent.create(&Order { host: "renamed.example.com".parse().unwrap(), ..web.clone() }).await.unwrap();
    let have = node.have(&web.id).await.unwrap();
    assert_eq!((have.host, have.stage), (web.host.clone(), Stage::Up));
    assert!(node.of(&web.id, |domain| domain.get_autostart().unwrap()).await);
    // Only what is asked for is looked at.
    let other = [HostId("2".to_owned())].into();
    assert!(agent.list(Some(&other)).await.unwrap().ours.is_empty());

    node.of(&web.id, |domain| domain.destroy().unwrap()).await;
    assert_eq!(node.stage(&web.id).await, Some(Stage::Stopped));
    agent.boot(&web.id).await.unwrap();
    agent.destroy(&web.id).await.unwrap();
    agent.destroy(&web.id).await.unwrap();
    node.nothing_left("the end").await;
    agent.boot(&web.id).await.unwrap_err();
}

#[tokio::test]
async fn cut_off_after_any_effect_it_is_made_once_and_gone_at_the_end() {
    for cut in 0.. {
        let node = Node::new();
        let (agent, web) = (node.agent(cut), web());
        let made = async { agent.create(&web).await.is_ok() && agent.boot(&web.id).await.is_ok() }.await;
        // What there is of it bears its mark, so it is never nobody's.
        if node.volumes().await.len() > 1 {
            assert!(node.stage(&web.id).await.is_some(), "{cut}");
        }
        let next = node.whole();
        // A look tells what is left to do: where it is there it is only started.
        if node.stage(&web.id).await.is_none() {
            next.create(&web).await.unwrap();
        }
        next.boot(&web.id).await.unwrap();
        assert_eq!(node.stage(&web.id).await, Some(Stage::Up), "{cut}");
        assert_eq!((node.list().await.ours.len(), node.volumes().await.len()), (1, 3), "{cut}");
        next.destroy(&web.id).await.unwrap();
        node.nothing_left(&format!("{cut}")).await;
        if made {
            assert!(cut >= 5, "it has only {cut} effects");
            break;
        }
    }
    for cut in 0.. {
        let node = Node::new();
        let web = web();
        node.whole().create(&web).await.unwrap();
        node.whole().boot(&web.id).await.unwrap();
        let gone = node.agent(cut).destroy(&web.id).await.is_ok();
        assert!(
            gone || node.stage(&web.id).await.is_some(),
            "{cut}: something is left, and nobody knows of it"
        );
        node.whole().destroy(&web.id).await.unwrap();
        node.nothing_left(&format!("{cut}")).await;
        if gone {
            assert!(cut >= 4, "it has only {cut} effects");
            break;
        }
    }
}

#[tokio::test]
async fn what_shoal_did_not_make_is_not_touched() {
    let node = Node::new();
    let agent = node.whole();
    let fault = agent.create(&order("1", "precious.example.com", json!({}))).await.unwrap_err();
    assert!(fault.permanent && fault.to_string().contains("did not make"), "{fault}");
    // What one tried is gone, or is known.
    node.nothing_left("a name that is taken").await;
    // A machine of Shoal's whose host was deleted, and its name given to another.
    agent.create(&web()).await.unwrap();
    let fault = agent.create(&order("2", "web1.example.com", json!({}))).await.unwrap_err();
    assert!(!fault.permanent && fault.to_string().contains("the host 1 "), "{fault}");
    agent.destroy(&web().id).await.unwrap();
    // Under the UUID of a machine of ours, and without a mark.
    let text = format!(
        "<domain type='test'><name>x</name><uuid>{}</uuid><memory>65536</memory><os><type>hvm</type></os></domain>",
        domain::uuid(&web().id)
    );
    node.to(move |to| Domain::create_xml(to, &text, 0).map(|_| ()).unwrap()).await;
    for fault in [
        agent.create(&web()).await.unwrap_err(),
        agent.boot(&web().id).await.unwrap_err(),
        agent.correct(&web().id, &web().machine).await.unwrap_err(),
        agent.destroy(&web().id).await.unwrap_err(),
    ] {
        assert!(fault.permanent, "{fault}");
    }
    let mut foreign = node.list().await.foreign;
    foreign.sort();
    assert_eq!(foreign, ["precious.example.com", "x"]);
}

#[tokio::test]
async fn a_copy_is_not_ours_and_a_mark_that_cannot_be_read_is_unseen() {
    let node = Node::new();
    let (agent, web) = (node.whole(), web());
    agent.create(&web).await.unwrap();
    let uuid = domain::uuid(&web.id).to_string();
    node.redefine(&web.id, move |text| {
        text.replace("<name>web1.example.com</name>", "<name>copy</name>")
            .replace(&uuid, "5d9ed02b-2a2b-4cb2-9d9f-2d7f6c9be111")
    })
    .await;
    let listed = node.list().await;
    assert_eq!((listed.ours.len(), listed.unseen.len()), (1, 0));
    assert!(listed.foreign.contains(&"copy".to_owned()), "{listed:?}");

    node.of(&web.id, |domain| {
        let (kind, flags) = (look::ELEMENT, sys::VIR_DOMAIN_AFFECT_CONFIG);
        let element = Some("<machine>{}</machine>");
        domain
            .set_metadata(kind, element, Some(domain::SHORT), Some(domain::SPACE), flags)
            .map(|_| ())
            .unwrap();
    })
    .await;
    let listed = node.list().await;
    assert_eq!((listed.ours.len(), listed.unseen.len()), (0, 1), "{listed:?}");
    let fault = agent.destroy(&web.id).await.unwrap_err();
    assert!(fault.to_string().contains("cannot be read"), "{fault}");
    agent.create(&web).await.unwrap_err();
    assert_eq!(node.volumes().await.len(), 3);
}

#[tokio::test]
async fn one_that_cannot_report_is_up_when_it_has_an_address() {
    let node = Node::new();
    let agent = node.whole();
    for (id, networks, stage) in
        [("1", json!([{"name": "lan"}]), Stage::Up), ("2", json!([]), Stage::Starting)]
    {
        let host = format!("web{id}.example.com");
        let one = order(id, &host, json!({"image": "appliance", "networks": networks}));
        agent.create(&one).await.unwrap();
        agent.boot(&one.id).await.unwrap();
        assert_eq!(node.stage(&one.id).await, Some(stage), "{host}");
    }
}

#[tokio::test]
async fn what_begins_anew_begins_with_nothing() {
    let node = Node::new();
    let (agent, web) = (node.whole(), web());
    agent.create(&web).await.unwrap();
    node.of(&web.id, |domain| domain.undefine().unwrap()).await;
    assert_eq!(node.volumes().await.len(), 3);
    let larger = order("1", "web1.example.com", json!({"size": {"disk": 7_000_000}}));
    agent.create(&larger).await.unwrap();
    assert_eq!(node.volumes().await.len(), 3);
    let name = format!("{}root", storage::prefix(domain::uuid(&web.id)));
    let size = node.to(move |to| {
        let pool = storage::pool(to, "default").unwrap();
        virt::storage_vol::StorageVol::lookup_by_name(&pool, &name).unwrap().get_info().unwrap().capacity
    });
    assert_eq!(size.await, 7_000_000);
}

#[tokio::test]
async fn what_somebody_changed_is_seen_and_put_right() {
    let node = Node::new();
    let (agent, web) = (node.whole(), web());
    agent.create(&web).await.unwrap();
    agent.boot(&web.id).await.unwrap();
    node.redefine(&web.id, |text| {
        let other = text.replace("<memory unit='KiB'>65536</memory>", "<memory unit='KiB'>32768</memory>");
        assert_ne!(text, other);
        other.replace("<currentMemory unit='KiB'>65536</currentMemory>", "")
    })
    .await;
    node.of(&web.id, |domain| domain.set_autostart(false).map(|_| ()).unwrap()).await;
    assert_eq!(
        node.have(&web.id).await.unwrap().strayed,
        ["it does not start with its box", "its memory is not 64 MiB"]
    );
    // Put right, and in another network, as the document says by now.
    let moved = order("1", "web1.example.com", json!({"networks": [{"name": "san"}], "size": {"cpu": 1}}));
    for cut in 0.. {
        let corrected = node.agent(cut).correct(&web.id, &moved.machine).await.is_ok();
        let have = node.have(&web.id).await.unwrap();
        let settled = have.machine.differences(&moved.machine).is_empty() && have.strayed.is_empty();
        assert_eq!(settled, corrected, "{cut}");
        if corrected {
            assert_eq!(have.stage, Stage::Stopped);
            break;
        }
    }
    agent.boot(&web.id).await.unwrap();
    assert_eq!(node.stage(&web.id).await, Some(Stage::Up));
    assert_eq!(node.volumes().await.len(), 3);
}

#[tokio::test]
async fn it_stops_when_it_is_told_and_nobody_waits_for_it() {
    let node = Node::new();
    let (agent, web) = (node.whole(), web());
    assert!(agent.stop(&web.id, None).await.unwrap(), "it is not there");
    agent.create(&web).await.unwrap();
    assert!(agent.stop(&web.id, None).await.unwrap(), "it does not run");
    for to in [None, Some(&web.machine)] {
        agent.boot(&web.id).await.unwrap();
        assert!(!agent.stop(&web.id, to).await.unwrap(), "it was told just now");
        assert!(agent.stop(&web.id, to).await.unwrap());
        assert_eq!(node.stage(&web.id).await, Some(Stage::Stopped));
    }
}

#[tokio::test]
async fn what_stands_before_its_disks_is_not_lost() {
    let node = Node::new();
    let (agent, web) = (node.whole(), web());
    agent.create(&web).await.unwrap();
    agent.boot(&web.id).await.unwrap();
    // As an external snapshot does.
    let root = format!("{}root", storage::prefix(domain::uuid(&web.id)));
    node.redefine(&web.id, move |text| text.replace(&root, &format!("{root}.snap1"))).await;
    for fault in [
        agent.stop(&web.id, Some(&web.machine)).await.unwrap_err(),
        agent.correct(&web.id, &web.machine).await.unwrap_err(),
    ] {
        assert!(fault.permanent && fault.to_string().contains("only a person"), "{fault}");
    }
    let have = node.have(&web.id).await.unwrap();
    assert!(have.strayed.iter().any(|what| what.starts_with("its disk ")), "{have:?}");
    assert_eq!(have.stage, Stage::Up);
}

#[tokio::test]
async fn what_only_begins_like_its_volumes_stays() {
    let node = Node::new();
    let (agent, web) = (node.whole(), web());
    agent.create(&web).await.unwrap();
    let theirs = ["backup", "disk-data.snap1"];
    let theirs = theirs.map(|part| format!("{}{part}", storage::prefix(domain::uuid(&web.id))));
    for name in theirs.clone() {
        let volume = storage::Volume { name, format: "qcow2", size: 4096, base: None };
        node.to(move |to| storage::make(to, "default", &volume).unwrap()).await;
    }
    agent.destroy(&web.id).await.unwrap();
    assert_eq!(node.volumes().await, ["debian-12.qcow2", &*theirs[0], &*theirs[1]]);
}

/// The test driver has no way to write to a volume: so what is written is refused.
#[tokio::test]
async fn one_that_was_saved_keeps_what_it_reported() {
    let node = Node::new();
    let agent = node.whole();
    let one = order("1", "web1.example.com", json!({"image": "reporter"}));
    agent.create(&one).await.unwrap();
    agent.boot(&one.id).await.unwrap_err();
    node.of(&one.id, |domain| {
        domain.create().unwrap();
        domain.managed_save(0).map(|_| ()).unwrap();
    })
    .await;
    agent.boot(&one.id).await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_seen_is_not_absent() {
    let node = Node::new();
    let (agent, web) = (node.whole(), web());
    agent.create(&web).await.unwrap();
    // A volume that is lost is not made anew: what was on it would be taken for there.
    let id = web.id.clone();
    let name = format!("{}root", storage::prefix(domain::uuid(&id)));
    node.to(move |to| storage::remove(to, "default", &name).unwrap()).await;
    let _ = agent.boot(&web.id).await;
    assert_eq!(node.volumes().await.len(), 2);
    // A libvirt without the pool is not the one that the machines are in.
    node.to(|to| storage::pool(to, "default").unwrap().destroy().unwrap()).await;
    let fault = agent.list(None).await.unwrap_err();
    assert!(fault.to_string().contains("storage pool"), "{fault}");
    let mut settings = node.settings.clone();
    settings.uri = "test:///nowhere/at/all.xml".to_owned();
    let fault = Libvirt::new(settings).unwrap().list(None).await.unwrap_err();
    assert!(fault.to_string().contains("connect to test:"), "{fault}");
}

#[tokio::test]
async fn what_the_configuration_does_not_have_is_refused() {
    let node = Node::new();
    let agent = node.whole();
    for more in [json!({"image": "debian-13"}), json!({"networks": [{"name": "wan"}]})] {
        let fault = agent.create(&order("1", "web1.example.com", more)).await.unwrap_err();
        assert!(fault.permanent, "{fault}");
    }
    node.nothing_left("nothing was begun").await;
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let read = |more: Value| {
        let mut settings = json!({"images": {"a": {"volume": "a"}}});
        for (name, value) in more.as_object().unwrap() {
            settings[name] = value.clone();
        }
        Libvirt::new(serde_json::from_value(settings).map_err(|e| e.to_string())?).map(|_| ())
    };
    read(json!({})).unwrap();
    for bad in [
        json!({"uri": ""}),
        json!({"pool": "a\u{0}b"}),
        json!({"type": "kvm><"}),
        json!({"images": {"a": {}}}),
        json!({"images": {"a": {"kernel": "vmlinuz"}}}),
        json!({"images": {"a": {"volume": "a", "initrd": "/a"}}}),
        json!({"networks": {"lan": {"bridge": ""}}}),
        json!({"networks": {"lan": {"bridge": "a", "network": "b"}}}),
        json!({"colour": "red"}),
    ] {
        read(bad.clone()).unwrap_err();
    }
}
