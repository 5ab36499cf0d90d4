//! A look at servers that are about to be made, for which their pool need not be read as a whole.
//!
//! What begins to be wanted is looked at before it is made, and mostly it is not there. To see that takes less than to see what is: the
//! pool's file does not have its name, and HAProxy has no server that is called so. It is said of all that were asked for, or of none: what
//! is there, only a look at the whole pool shows.
//!
//! Cost: a search through the file's text for each, and one question to HAProxy. No line of the file is taken apart, and HAProxy says nothing of
//! any other server.

use shoal_agent::{Fault, HostName};

use super::{Haproxy, live, render};
use crate::item::Key;
use crate::target::file;

/// The most servers that are asked about in this way: HAProxy goes through the pool for each, and all of them have to fit into a line.
const FEW: usize = 8;

impl Haproxy {
    /// Whether certainly none of these is there. `text` is what stands in the pool's file.
    ///
    /// # Errors
    /// HAProxy is to be asked and does not answer.
    pub(super) async fn lacks(&self, name: &str, text: &str, keys: &[Key]) -> Result<bool, Fault> {
        let hosts: Option<Vec<&HostName>> = keys.iter().map(|key| key.host.as_ref()).collect();
        let Some(hosts) = hosts.filter(|hosts| hosts.len() <= FEW) else { return Ok(false) };
        // Of a file that Shoal did not write, nobody knows what it says.
        let ours = file::pool(text.lines().take(2).map(str::to_owned)).is_ok();
        if !ours || !names_none(text, &hosts) {
            return Ok(false);
        }
        if !self.settings.tell {
            return Ok(true);
        }
        live::lacks(&self.stats, name, &render::variable(name), &hosts).await
    }
}

/// Whether the text has none of these names, however somebody may write one: in large letters, with others than those of ASCII, or escaped
/// in what is JSON there.
fn names_none(text: &str, hosts: &[&HostName]) -> bool {
    if !text.is_ascii() || text.contains('\\') {
        return false;
    }
    let text = text.to_ascii_lowercase();
    !hosts.iter().any(|host| text.contains(host.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_however_it_is_written() {
        let host: HostName = "web4.example.com".parse().unwrap();
        let none = |text: &str| names_none(text, &[&host]);
        assert!(none("    server web5.example.com 192.0.2.5:80 # shoal {\"host\":\"web5.example.com\"}\n"));
        for text in [
            "    server web4.example.com 192.0.2.4:80\n",
            "    server x # shoal {\"host\":\"web4.example.com\"}\n",
            "    server WEB4.Example.com. 192.0.2.4:80\n",
            "    server x # shoal {\"host\":\"\\u0077eb4.example.com\"}\n",
            "    server \u{ff57}eb4.example.com 192.0.2.4:80\n",
        ] {
            assert!(!none(text), "{text}");
        }
    }
}
