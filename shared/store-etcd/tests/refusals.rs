//! What is not opened, and says why: each refusal names the address, the reason and the way out, and writes nothing.

#![allow(clippy::unwrap_used, clippy::panic, reason = "what helps tests fails as tests do")]

mod support;

use shoal_store::{Store, StoreError};
use shoal_store_etcd::{EtcdStore, Missing};
use support::{commit, count, installed, name, put, shared};

/// The refusal, which has these words.
async fn refused(address: &str, missing: Missing, words: &[&str]) -> StoreError {
    let Err(error) = EtcdStore::open_with(address, missing).await else { panic!("{address} was opened") };
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "{word:?} is missing in: {text}");
    }
    error
}

#[tokio::test]
async fn what_is_not_ours_is_refused() {
    if !installed("what_is_not_ours_is_refused") {
        return;
    }
    let (etcd, mut client) = (shared(), shared().client().await);
    let (none, other, newer) = (name(), name(), name());
    let endpoint = etcd.endpoint();
    let error = refused(&etcd.address(&none), Missing::Refuse, &[&endpoint, &none, "mend the address"]).await;
    assert!(matches!(error, StoreError::Invalid(_)));
    assert_eq!(count(etcd, &none).await, 0, "it was made all the same");

    client.put(format!("{other}/x"), "theirs", None).await.unwrap();
    let words = [&endpoint, "another program", "name another"];
    refused(&etcd.address(&other), Missing::Make, &words).await;
    client.put(format!("{other}/log"), "theirs", None).await.unwrap();
    refused(&etcd.address(&other), Missing::Make, &words).await;
    assert_eq!(count(etcd, &format!("{other}/")).await, 2);

    client.put(format!("{newer}/log"), r#"{"shoal":99,"more":true}"#, None).await.unwrap();
    refused(&etcd.address(&newer), Missing::Make, &["version 99", "knows version 2", "newer Shoal"]).await;
}

#[tokio::test]
async fn damage_is_said() {
    if !installed("damage_is_said") {
        return;
    }
    let (etcd, mut client, name) = (shared(), shared().client().await, name());
    let store = EtcdStore::open(&etcd.address(&name)).await.unwrap();
    store.commit(commit([put("lb/a", 1)])).await.unwrap();
    client.put(format!("{name}/row/lb/a"), "{", None).await.unwrap();
    let read = store.read(&shoal_store::Query::new(shoal_core::Range::All)).await;
    for answer in [read.map(drop), store.commit(commit([put("lb/a", 2)])).await.map(drop)] {
        let error = answer.unwrap_err();
        assert!(
            matches!(error, StoreError::Corrupt { .. }) && error.to_string().contains("row/lb/a"),
            "{error}"
        );
    }
    client.delete(format!("{name}/log"), None).await.unwrap();
    let error = store.head().await.unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
}

#[tokio::test]
async fn one_address_of_several_is_enough() {
    if !installed("one_address_of_several_is_enough") {
        return;
    }
    let words = ["etcd at 127.0.0.1:1", "opening the database", "see that etcd runs there"];
    let error = refused("etcd://127.0.0.1:1/x", Missing::Make, &words).await;
    assert!(matches!(error, StoreError::Unavailable { .. }));
    let name = name();
    for _ in 0..10 {
        let address = format!("etcd://127.0.0.1:1,{},127.0.0.1:2/{name}", shared().endpoint());
        let store = EtcdStore::open(&address).await.unwrap();
        store.commit(commit([put("lb/a", 1)])).await.unwrap();
    }
}
