//! What may be said of a store's address, whoever could open it. No address is read here: each store knows its own.

/// The address, without a password that somebody wrote into it: for errors and logs.
#[must_use]
pub fn without_password(address: &str) -> String {
    let start = address.find("//").map_or(0, |at| at + 2);
    let secret = address.rfind('@').and_then(|end| {
        let user = address.get(start..end)?;
        Some((start + user.find(':')?, end))
    });
    match secret {
        Some((colon, end)) => format!("{}:…{}", &address[..colon], &address[end..]),
        None => address.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_left_out_and_nothing_else() {
        assert_eq!(without_password("etcd://u:p@h1:7/x"), "etcd://u:…@h1:7/x");
        assert_eq!(without_password("etcds://u:p@q@h1,h2/x"), "etcds://u:…@h1,h2/x");
        for fine in ["etcd://u@h1:7", "etcd://h1:7,h2:8/x", "sqlite:x"] {
            assert_eq!(without_password(fine), fine);
        }
    }
}
