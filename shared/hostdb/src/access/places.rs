//! How many passwords wait to be checked: few, and of one user or from one peer fewer, so that who guesses keeps nobody else out.
//!
//! With 20 ms for each of two at once, the last in the queue waits two thirds of a second. Who finds it full is told so at once (503).

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};

/// How many there are at once, waiting or being checked.
const ALL: usize = 64;
/// Of these for one user.
const OF_USER: usize = 12;
/// And from one peer.
const OF_PEER: usize = 24;

/// The places, and who has them.
#[derive(Default)]
pub(super) struct Places(Mutex<HashMap<(String, String), usize>>);

/// One place, for as long as this lives.
pub(super) struct Place<'a> {
    places: &'a Places,
    of: (String, String),
}

impl Places {
    /// A place for a password of `user` that comes from the peer `from`, if there is one for them.
    pub(super) fn take(&self, user: &str, from: &str) -> Option<Place<'_>> {
        let of = (user.to_owned(), from.to_owned());
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = |which: &dyn Fn(&(String, String)) -> bool| -> usize {
            taken.iter().filter(|(of, _)| which(of)).map(|(_, count)| count).sum()
        };
        let full = count(&|_| true) >= ALL
            || count(&|of| of.0 == user) >= OF_USER
            || count(&|of| of.1 == from) >= OF_PEER;
        if full {
            return None;
        }
        *taken.entry(of.clone()).or_default() += 1;
        Some(Place { places: self, of })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut taken = self.places.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.of) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.of);
            }
        }
    }
}

/// What counts as one peer: an address without its port, of IPv6 the network of 64 bits; else what is said of it.
pub(crate) fn peer_of(origin: Option<&str>) -> String {
    let text = origin.unwrap_or_default();
    let address = text.split([' ', ',']).next().and_then(|first| first.parse::<SocketAddr>().ok());
    match address.map(|address| address.ip().to_canonical()) {
        Some(IpAddr::V4(address)) => address.to_string(),
        Some(IpAddr::V6(address)) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).to_string(),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_guesses_keeps_nobody_else_out() {
        let places = Places::default();
        let take = |user: &str, from: &str| places.take(user, from);
        let mut held: Vec<_> = (0..100).filter_map(|_| take("ann", "a")).collect();
        assert_eq!(held.len(), OF_USER);
        // From elsewhere no more of ann, and from there of others.
        assert!(take("ann", "b").is_none() && take("bob", "a").is_some());
        held.extend((0..100).filter_map(|n| take(&n.to_string(), "a")));
        assert_eq!(held.len(), OF_PEER);
        assert!(take("bob", "a").is_none() && take("bob", "b").is_some());
        held.extend((0..100).filter_map(|n| take(&n.to_string(), &n.to_string())));
        assert_eq!(held.len(), ALL);
        assert!(take("bob", "b").is_none());
        drop(held);
        assert!(take("ann", "a").is_some() && places.0.lock().unwrap().is_empty());
    }

    #[test]
    fn a_peer_has_many_ports() {
        let of = |text| peer_of(Some(text));
        assert_eq!(of("192.0.2.1:4711"), "192.0.2.1");
        assert_eq!(of("192.0.2.1:4711 with CN=ann"), of("[::ffff:192.0.2.1]:1"));
        assert_eq!(of("[2001:db8::1]:4711"), of("[2001:db8::2]:4712"));
        assert_eq!(of("uid 1000"), "uid 1000");
    }
}
