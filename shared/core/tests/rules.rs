//! Rules that try to hurt: deep ones end the thread that reads them, unless somebody sees to it.
#![allow(clippy::unwrap_used, reason = "a test fails by them")]

use shoal_core::Rule;

/// On a thread as small as a server's, in whatever way parts can stand in each other.
#[test]
fn deep_rules_are_refused_and_hurt_nobody() {
    let around = |open: &str, close: &str, n: usize| format!("{}1{} == 1", open.repeat(n), close.repeat(n));
    let all = move || {
        for n in [16, 31, 64, 200, 500, 1500] {
            for rule in [
                around("(", ")", n),
                around("!(", ")", n),
                around("[", "]", n),
                around("{1: ", "}", n),
                around("size(", ")", n),
                around("true ? 1 : ", "", n),
                around("-", "", n),
                around("", "[0]", n),
                around("a", ".a", n),
                around("a", ".size()", n),
                around("1 + ", "", n),
                around("1 == ", "", n),
                around("1 in ", "", n),
            ] {
                if let Err(bad) = Rule::compile(&rule) {
                    let why = bad.why;
                    assert!(!why.contains("Recursion") && !why.is_empty(), "{why}");
                }
            }
        }
        assert!(Rule::compile(&around("(", ")", 100)).unwrap_err().why.contains("32 deep"));
        // What people write is wide, and not deep.
        Rule::compile(&vec!["site == 'ams1'"; 200].join(" || ")).unwrap();
        Rule::compile("((((a == 1 && (b == 2 || !(c in [1, 2, 3]))))))").unwrap();
    };
    std::thread::Builder::new().stack_size(2 << 20).spawn(all).unwrap().join().unwrap();
}
