//! Renewals that are whole, half, or too late.

use super::*;
use shoal_client::certificates::{Authority, Wish};

struct World {
    dir: tempfile::TempDir,
    authority: Authority,
}

impl World {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), authority: Authority::new().unwrap() }
    }

    fn write(&self, wish: &Wish<'_>) -> TlsFiles {
        let (cert, key) = self.authority.issue(wish).unwrap().write(self.dir.path(), "server").unwrap();
        TlsFiles { cert, key, client_ca: None, demand: false }
    }
}

fn ends_in(seconds: u64) -> Wish<'static> {
    Wish { names: &["localhost"], ends: Ok(Duration::from_secs(seconds)), ..Wish::default() }
}

/// The end of the certificate in use, from now; and whether it is the one in the file.
fn state(tls: &Tls) -> (i64, i64) {
    (tls.0.expiry.get() - Timestamp::now().as_second(), tls.0.ok.get())
}

#[test]
fn a_renewed_pair_is_taken_over_and_a_broken_one_is_not() {
    let world = World::new();
    let files = world.write(&ends_in(1000));
    let tls = Tls::load(files.clone()).unwrap();
    let first = tls.config();
    tls.reload();
    assert!(Arc::ptr_eq(&first, &tls.config()), "nothing changed");
    let near = |(ends, ok): (i64, i64), expected: i64| (ends - expected).abs() < 60 && ok == 1;
    assert!(near(state(&tls), 1000), "{:?}", state(&tls));
    world.write(&ends_in(5000));
    tls.reload();
    let second = tls.config();
    assert!(!Arc::ptr_eq(&first, &second) && near(state(&tls), 5000), "{:?}", state(&tls));
    // Half of a renewal: the new certificate, and the key of the old one.
    let key = std::fs::read(&files.key).unwrap();
    world.write(&ends_in(9000));
    let whole = std::fs::read(&files.cert).unwrap();
    let new_key = std::fs::read(&files.key).unwrap();
    let broken: [(&[u8], &[u8]); 4] =
        [(&whole, &key), (b"", &new_key), (&whole[..whole.len() / 2], &new_key), (&whole, b"")];
    for (cert, key) in broken {
        std::fs::write(&files.cert, cert).unwrap();
        std::fs::write(&files.key, key).unwrap();
        tls.reload();
        let (ends, ok) = state(&tls);
        assert!(Arc::ptr_eq(&second, &tls.config()) && ok == 0 && (ends - 5000).abs() < 60, "{ends} {ok}");
    }
    std::fs::write(&files.cert, &whole).unwrap();
    std::fs::write(&files.key, &new_key).unwrap();
    tls.reload();
    assert!(near(state(&tls), 9000), "{:?}", state(&tls));
}

#[test]
fn an_expired_certificate_replaces_no_good_one() {
    let world = World::new();
    let past = Wish { ends: Err(Duration::from_secs(60)), ..ends_in(0) };
    let files = world.write(&past);
    // Who has only that may still listen, and be told.
    let expired = Tls::load(files).unwrap();
    assert!(state(&expired).0 < 0);
    world.write(&ends_in(1000));
    expired.reload();
    assert!(state(&expired).0 > 0 && state(&expired).1 == 1, "{:?}", state(&expired));
    world.write(&past);
    expired.reload();
    assert!(state(&expired).0 > 0 && state(&expired).1 == 0, "{:?}", state(&expired));
}

#[test]
fn what_cannot_be_used_is_named() {
    let world = World::new();
    let files = world.write(&ends_in(1000));
    let why = |files: TlsFiles| Tls::load(files).err().unwrap().to_string();
    let missing = TlsFiles { key: world.dir.path().join("none.key"), ..files.clone() };
    assert!(why(missing).contains("none.key"));
    let other = world.authority.server(&["localhost"]).unwrap().write(world.dir.path(), "other").unwrap();
    let said = why(TlsFiles { key: other.1, ..files.clone() });
    assert!(
        said.contains("server.pem") && said.contains("other.key") && said.contains("do not go together"),
        "{said}"
    );
    let said = why(TlsFiles { client_ca: Some(files.key.clone()), ..files });
    assert!(said.contains("server.key holds no certificate"), "{said}");
}
