//! Who asks, as HostDB has it: a session for a user and a password, checked before every write.
//!
//! A server that asks nobody who he is takes any user: the session is then the user's name, and the name the author of what is
//! written.

use super::fault::{Answer, Fault};
use super::given::Given;

/// The longest name of a user, in octets.
const MAX_USER: usize = 256;

/// A session for this user.
pub(super) fn open(given: &Given) -> Answer<String> {
    let (Some(user), Some(_)) = (given.get("username"), given.get("password")) else {
        return Err(Fault::bad_request("Missing username or password"));
    };
    checked(user).map(str::to_owned)
}

/// The user of a session.
pub(super) fn user(session: Option<&str>) -> Answer<String> {
    let none = || Fault::unauthorized("No session: POST username and password to /v1/auth/session");
    checked(session.ok_or_else(none)?).map(str::to_owned)
}

fn checked(user: &str) -> Answer<&str> {
    let fine = !user.trim().is_empty() && user.len() <= MAX_USER && !user.contains(char::is_control);
    if fine { Ok(user) } else { Err(Fault::unauthorized("That is no name of a user")) }
}

/// Whether the user may write the resource.
pub(super) fn may_write(_user: &str) -> bool {
    true
}
