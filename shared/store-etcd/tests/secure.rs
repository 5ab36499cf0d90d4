//! Etcd by TLS, with client certificates, users and roles: who is let in, who is not and is told why, and what changes while a
//! store is open.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "what helps tests fails as tests do"
)]

mod support;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use etcd_client::{Client, ConnectOptions, Permission};
use futures::StreamExt;
use shoal_client::certificates::Authority;
use shoal_core::{Change, Document, Range};
use shoal_store::{ClaimAnswer, ClaimRequest, Feed, Filter, LedgerWrite, Query, Store, StoreError};
use shoal_store_etcd::{EtcdStore, Missing, Papers};
use support::{Etcd, check_rows, commit, installed, key, put, whole_log};
use tempfile::TempDir;

/// What of the command line makes an etcd whose users need no half second to be known each.
const QUICK: [&str; 2] = ["--bcrypt-cost", "4"];

/// An authority, and an etcd with a certificate of it.
struct Secured {
    folder: TempDir,
    authority: Authority,
    etcd: Etcd,
}

impl Secured {
    fn start(clients: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new().unwrap();
        let pair = authority.server(&["127.0.0.1"]).unwrap();
        let (cert, key) = pair.write(folder.path(), "etcd").unwrap();
        let ca = folder.path().join("ca.pem");
        std::fs::write(&ca, &authority.pem).unwrap();
        let text = |path: &Path| path.display().to_string();
        let mut more: Vec<String> = QUICK.map(str::to_owned).into();
        more.extend(["--cert-file".into(), text(&cert), "--key-file".into(), text(&key)]);
        if clients {
            more.extend(["--client-cert-auth".into(), "--trusted-ca-file".into(), text(&ca)]);
        }
        Self { etcd: Etcd::by_tls(&more), folder, authority }
    }

    /// What a client of this name shows.
    fn papers(&self, client: Option<&str>) -> Papers {
        let ca = Some(self.folder.path().join("ca.pem"));
        let Some(client) = client else { return Papers { ca, ..Papers::default() } };
        let pair = self.authority.client(client).unwrap().write(self.folder.path(), client).unwrap();
        Papers { ca, cert: Some(pair.0), key: Some(pair.1), ..Papers::default() }
    }

    /// A client for what a store does not do.
    async fn client(&self, papers: &Papers, user: Option<(&str, &str)>) -> Client {
        let read = |path: &Option<PathBuf>| std::fs::read(path.as_ref().unwrap()).unwrap();
        let mut tls = etcd_client::TlsOptions::new()
            .ca_certificate(etcd_client::Certificate::from_pem(read(&papers.ca)));
        if papers.cert.is_some() {
            tls = tls.identity(etcd_client::Identity::from_pem(read(&papers.cert), read(&papers.key)));
        }
        let mut options = ConnectOptions::new().with_tls(tls);
        if let Some((name, password)) = user {
            options = options.with_user(name, password);
        }
        Client::connect([format!("https://{}", self.etcd.endpoint())], Some(options)).await.unwrap()
    }
}

async fn refused(address: &str, papers: &Papers, words: &[&str]) -> StoreError {
    let opened = EtcdStore::open_showing(address, Missing::Make, papers).await;
    let Err(error) = opened else { panic!("{address} was opened") };
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "{word:?} is missing in: {text}");
    }
    assert!(!text.contains("hunter2"), "{text}");
    error
}

/// Everything that a store does.
async fn works(store: &EtcdStore) {
    let start = store.head().await.unwrap();
    let mut watch = store.watch(Filter::all(), start);
    assert_eq!(watch.next().await.unwrap().unwrap(), Feed::Upto(start.revision));
    let done = store.commit(commit([put("lb/a", 1), put("dns/x/members/b", 1)])).await.unwrap();
    let value = Document::trusted(&format!("\"{}\"", "x".repeat(4000)));
    let large = (0..1000).map(|n| Change::put(key(&format!("hosts/h{n:04}")), value.clone()));
    store.commit(commit(large)).await.unwrap();
    let told = tokio::time::timeout(Duration::from_secs(60), watch.next()).await.expect("a message");
    let Feed::Commit(entry) = told.unwrap().unwrap() else { panic!("a commit") };
    assert_eq!(entry.info.revision, done.revision);
    assert_eq!(store.read(&Query::new(Range::hosts())).await.unwrap().rows.len(), 1000);
    let want =
        ClaimRequest { name: "unit/x".into(), of: 1, holder: "a".into(), ttl: Some(Duration::from_secs(60)) };
    let ClaimAnswer::Granted(claim) = store.claim(&want).await.unwrap() else { panic!("it is free") };
    assert_eq!(store.claim(&want).await.unwrap(), ClaimAnswer::Granted(claim.clone()), "it is renewed");
    let rows = vec![LedgerWrite { key: "dns/x".into(), value: Some(vec![1]) }];
    store.write_ledger(rows, &claim).await.unwrap();
    store.release(&claim).await.unwrap();
    assert!(store.claims("").await.unwrap().is_empty());
    assert!(store.reports().await.unwrap().is_empty());
    assert_eq!(whole_log(store).await.len(), 2);
    check_rows(store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_tls_both_ends_know_each_other_or_say_why_not() {
    if !installed("by_tls_both_ends_know_each_other_or_say_why_not") {
        return;
    }
    let secured = Secured::start(false);
    let (etcd, papers) = (&secured.etcd, secured.papers(None));
    let address = etcd.address("tls");
    works(&EtcdStore::open_showing(&address, Missing::Make, &papers).await.unwrap()).await;

    let other = secured.folder.path().join("other.pem");
    std::fs::write(&other, Authority::new().unwrap().pem).unwrap();
    let stranger = Papers { ca: Some(other), ..Papers::default() };
    let error = refused(&address, &stranger, &[&etcd.endpoint(), "not believed", "--ca"]).await;
    assert!(matches!(error, StoreError::Denied { .. }), "{error}");
    let elsewhere = address.replace("127.0.0.1", "localhost");
    refused(&elsewhere, &papers, &["not believed", "the host as the certificate does"]).await;
    // Plain, to an etcd that speaks TLS, and the other way round.
    let plain = address.replace("etcds:", "etcd:");
    refused(&plain, &papers, &["write etcds://"]).await;
    let open = support::shared().address("plain").replace("etcd:", "etcds:");
    let error = refused(&open, &papers, &["opening the database"]).await;
    assert!(matches!(error, StoreError::Denied { .. } | StoreError::Unavailable { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_says_who_comes_and_a_renewed_one_is_taken_over() {
    if !installed("a_certificate_says_who_comes_and_a_renewed_one_is_taken_over") {
        return;
    }
    let secured = Secured::start(true);
    let address = secured.etcd.address("certs");
    refused(&address, &secured.papers(None), &[&secured.etcd.endpoint()]).await;
    let shoal = secured.papers(Some("shoal"));
    works(&EtcdStore::open_showing(&address, Missing::Make, &shoal).await.unwrap()).await;

    let mut client = secured.client(&shoal, None).await;
    users(&mut client, "certs", "hunter2").await;
    // The common name is the user: this one has no role.
    let nobody = secured.papers(Some("nobody"));
    let words = ["permission denied", "etcdctl role grant-permission", "--prefix certs/"];
    let error = refused(&address, &nobody, &words).await;
    assert!(matches!(error, StoreError::Denied { .. }), "{error}");

    // Opened with the right one, the wrong one comes, and the right one again: each is taken over while the store is open.
    let place = |papers: &Papers| {
        let key = copy(&secured, papers.key.as_deref().unwrap(), "key");
        (copy(&secured, papers.cert.as_deref().unwrap(), "cert"), key)
    };
    let (cert, key) = place(&shoal);
    let changing = Papers { ca: shoal.ca.clone(), cert, key, password_file: None };
    let store = EtcdStore::open_showing(&address, Missing::Refuse, &changing).await.unwrap();
    store.commit(commit([put("lb/a", 3)])).await.unwrap();
    place(&nobody);
    let begun = Instant::now();
    let error = loop {
        match store.head().await {
            Err(error) => break error,
            Ok(_) => assert!(begun.elapsed() < Duration::from_secs(60), "the old one is still shown"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(matches!(error, StoreError::Denied { .. }), "{error}");
    // Half of a renewal is none: the one before it stays, for longer than it takes to look.
    copy(&secured, shoal.key.as_deref().unwrap(), "key");
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(1500) {
        let error = store.head().await.unwrap_err();
        assert!(error.to_string().contains("permission denied"), "{error}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    copy(&secured, shoal.cert.as_deref().unwrap(), "cert");
    let begun = Instant::now();
    while let Err(error) = store.commit(commit([put("lb/a", 5)])).await {
        assert!(begun.elapsed() < Duration::from_secs(60), "{error}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Puts a copy of a file in the place of another one, at once.
fn copy(secured: &Secured, from: &Path, to: &str) -> Option<PathBuf> {
    let (new, place) = (secured.folder.path().join("new"), secured.folder.path().join(to));
    std::fs::copy(from, &new).unwrap();
    std::fs::rename(new, &place).unwrap();
    Some(place)
}

/// Users as docs/etcd.md makes them: root, one with a role for one database, one that only reads it, and one without.
async fn users(client: &mut Client, database: &str, password: &str) {
    client.user_add("root", "toor", None).await.unwrap();
    client.user_grant_role("root", "root").await.unwrap();
    client.role_add("shoal").await.unwrap();
    let all = Permission::read_write(format!("{database}/")).with_prefix();
    client.role_grant_permission("shoal", all).await.unwrap();
    client.role_add("reader").await.unwrap();
    let only = Permission::read(format!("{database}/")).with_prefix();
    client.role_grant_permission("reader", only).await.unwrap();
    for user in ["shoal", "reader", "nobody"] {
        client.user_add(user, password, None).await.unwrap();
    }
    client.user_grant_role("shoal", "shoal").await.unwrap();
    client.user_grant_role("reader", "reader").await.unwrap();
    client.auth_enable().await.unwrap();
}

async fn root(etcd: &Etcd) -> Client {
    let options = ConnectOptions::new().with_user("root", "toor");
    Client::connect([etcd.endpoint()], Some(options)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_with_a_role_for_one_database_is_enough() {
    if !installed("a_user_with_a_role_for_one_database_is_enough") {
        return;
    }
    let (folder, mut etcd) = (tempfile::tempdir().unwrap(), Etcd::with(&QUICK));
    let file = folder.path().join("password");
    std::fs::write(&file, "hunter2\n").unwrap();
    let papers = Papers { password_file: Some(file.clone()), ..Papers::default() };
    let address = etcd.address_of("shoal", "users");
    // As long as nobody is asked, it is let in all the same: so users can be brought in without a stop.
    let before = EtcdStore::open_showing(&address, Missing::Make, &papers).await.unwrap();
    before.head().await.unwrap();
    users(&mut etcd.client().await, "users", "hunter2").await;
    works(&before).await;

    let none = Papers::default();
    let denied = |error: StoreError| assert!(matches!(error, StoreError::Denied { .. }), "{error}");
    denied(refused(&etcd.address("users"), &none, &["user name is empty", "USER@"]).await);
    denied(refused(&etcd.address_of("nobody", "users"), &papers, &["permission denied"]).await);
    denied(refused(&etcd.address_of("shoal", "others"), &papers, &["--prefix others/"]).await);
    denied(refused(&etcd.address_of("stranger", "users"), &papers, &["--password-file"]).await);
    let wrong = folder.path().join("wrong");
    std::fs::write(&wrong, "hunter2?").unwrap();
    let other = Papers { password_file: Some(wrong), ..Papers::default() };
    denied(refused(&address, &other, &["--password-file"]).await);

    let reader = etcd.address_of("reader", "users");
    let reader = EtcdStore::open_showing(&reader, Missing::Refuse, &papers).await.unwrap();
    assert_eq!(reader.head().await.unwrap(), before.head().await.unwrap());
    check_rows(&reader).await;
    denied(reader.commit(commit([put("lb/a", 6)])).await.unwrap_err());

    // What etcd knew of who had come is gone with a restart.
    let store = EtcdStore::open_showing(&address, Missing::Refuse, &papers).await.unwrap();
    let start = store.head().await.unwrap();
    let mut watch = store.watch(Filter::all(), start);
    assert_eq!(watch.next().await.unwrap().unwrap(), Feed::Upto(start.revision));
    tokio::task::block_in_place(|| {
        etcd.kill();
        etcd.run();
    });
    let done = store.commit(commit([put("lb/a", 7)])).await.unwrap();
    told(&mut watch, done.revision).await;

    // The password is another one: refused until the file says so, too.
    let mut root = root(&etcd).await;
    root.user_change_password("shoal", "hunter2!").await.unwrap();
    denied(store.commit(commit([put("lb/a", 8)])).await.unwrap_err());
    std::fs::write(&file, "hunter2!").unwrap();
    let done = store.commit(commit([put("lb/a", 9)])).await.unwrap();
    told(&mut watch, done.revision).await;

    // A role that is taken is missed at once, and one that is given helps at once.
    root.user_revoke_role("shoal", "shoal").await.unwrap();
    denied(store.commit(commit([put("lb/a", 10)])).await.unwrap_err());
    root.user_grant_role("shoal", "shoal").await.unwrap();
    store.commit(commit([put("lb/a", 11)])).await.unwrap();
    check_rows(&store).await;
}

async fn told(watch: &mut shoal_store::Flow<shoal_store::Result<Feed>>, revision: shoal_core::Revision) {
    loop {
        let message = tokio::time::timeout(Duration::from_secs(30), watch.next()).await.expect("a message");
        match message.unwrap().unwrap() {
            Feed::Commit(entry) if entry.info.revision == revision => return,
            Feed::Commit(_) | Feed::Upto(_) => {}
            Feed::Reset(head) => panic!("{head:?}"),
        }
    }
}
