//! Known data by example, everything else by property.

use proptest::prelude::*;

use super::*;

fn zone() -> Zone {
    Zone::parse("example.com").unwrap()
}

fn text(rtype: &str, data: &str) -> String {
    parse(rtype.parse().unwrap(), data, &zone()).unwrap_or_else(|e| panic!("{rtype} {data}: {e}")).text
}

#[test]
fn every_type_has_one_text() {
    for (rtype, data, expected) in [
        ("A", "192.0.2.1", "192.0.2.1"),
        ("AAAA", "2001:DB8:0:0::1", "2001:db8::1"),
        ("CNAME", "WWW", "www.example.com."),
        ("MX", "10 mail.example.net.", "10 mail.example.net."),
        ("SRV", "0 5 5060 sip", "0 5 5060 sip.example.com."),
        ("TXT", "v=spf1 mx -all", "\"v=spf1 mx -all\""),
        ("TXT", "\"a\" \"b;\\\"c\"", "\"a\" \"b;\\\"c\""),
        ("TXT", "naïve", "\"na\\195\\175ve\""),
        ("TXT", "k=rsa; p=AB", "\"k=rsa; p=AB\""),
        ("CAA", "0 Issue \"letsencrypt.org\"", "0 issue \"letsencrypt.org\""),
        ("CAA", "128 iodef mailto:x@example.com", "128 iodef \"mailto:x@example.com\""),
        ("SSHFP", "4 3 AB cd", "4 3 abcd"),
        ("TLSA", "3 1 1 ( 00 ff )", "3 1 1 00ff"),
        ("NAPTR", "100 10 U E2U+sip \"!^.*$!sip:a@b!\" .", "100 10 \"U\" \"E2U+sip\" \"!^.*$!sip:a@b!\" ."),
        ("URI", "10 1 \"https://x/\"", "10 1 \"https://x/\""),
        ("OPENPGPKEY", "AAEC", "AAEC"),
        ("TYPE65280", "\\# 2 ab CD", "\\# 2 abcd"),
        ("A", "\\# 4 C0000201", "192.0.2.1"),
        ("LOC", "\\# 16 00000000800000008000000000989680", "\\# 16 00000000800000008000000000989680"),
        ("DNAME", "other.example.", "other.example."),
        ("PTR", "first\\.last", "first\\.last.example.com."),
        ("HTTPS", "1 . alpn=h2", "\\# 10 00010000010003026832"),
    ] {
        assert_eq!(text(rtype, data), expected, "{rtype} {data}");
    }
}

#[test]
fn bad_data_says_why() {
    for (rtype, data, why) in [
        ("A", "192.0.2", "not an IPv4 address"),
        ("A", "192.0.2.1 x", "more than belongs here"),
        ("MX", "mail", "not a number"),
        ("MX", "10", "2 parts are needed"),
        ("MX", "10 mail.example.net", "could be a complete name"),
        ("TXT", "\"open", "not closed"),
        ("SSHFP", "1 1 abc", "hexadecimal"),
        ("SSHFP", "4 2 abcd", "has 32 octets, not 2"),
        ("TYPE65280", "abc", "generic form"),
        ("TYPE65280", "\\# 3 abcd", "says 3 octets"),
        ("A", "\\# 3 abcdef", "not A data"),
        ("HTTPS", "\\# 1 ff", "not HTTPS data"),
        ("HTTPS", "\\# 0", "not HTTPS data"),
        ("LOC", "\\# 0", "not LOC data"),
        ("TYPE14", "\\# 2 0001", "not TYPE14 data"),
        ("NAPTR", "1 2 u x \"x\" .", "must stand in it three times"),
        ("NAPTR", "1 2 u x \"!a!\\\\1!\" .", "none of 0 groups"),
        ("DS", "12345 8 2 00ff", "has 32 octets, not 2"),
        ("HINFO", &format!("{} x", "y".repeat(256)), "at most 255"),
    ] {
        let found = parse(rtype.parse().unwrap(), data, &zone()).unwrap_err();
        assert!(found.contains(why), "{rtype} {data}: {found}");
    }
}

#[test]
fn long_text_is_split() {
    let data = parse(Rtype::TXT, &"x".repeat(600), &zone()).unwrap();
    assert_eq!(data.wire.len(), 603);
    assert_eq!((data.wire[0], data.wire[256], data.wire[512]), (255, 255, 90));
    assert_eq!(data.text.matches('"').count(), 6);
}

proptest! {
    #[test]
    fn canonical_text_is_a_fixed_point(number in 1u16..300, words in "[ -~é]{0,60}") {
        let rtype = Rtype(number);
        if let Ok(data) = parse(rtype, &words, &zone()) {
            let again = parse_tokens(rtype, &tokens(&data.text).unwrap(), Base::Root).unwrap();
            prop_assert_eq!(&again, &data);
            // The text never breaks out of its line.
            prop_assert!(!data.text.contains(['\n', '\r']) && data.text.is_ascii());
        }
    }

    #[test]
    fn an_address_is_what_its_text_is(ip in any::<std::net::IpAddr>()) {
        let rtype = if ip.is_ipv4() { Rtype::A } else { Rtype::AAAA };
        prop_assert_eq!(parse(rtype, &ip.to_string(), &zone()), Ok(address(ip)));
    }

    #[test]
    fn octets_read_back(number in prop::sample::select(vec![1u16, 5, 6, 13, 15, 16, 28, 33, 35, 37, 44, 52, 64, 99, 256, 257, 65280]), octets in prop::collection::vec(any::<u8>(), 0..80)) {
        let rtype = Rtype(number);
        if let Ok(data) = finish(rtype, octets) {
            prop_assert_eq!(wire(rtype, &data.text).unwrap(), data.wire);
        }
    }
}
