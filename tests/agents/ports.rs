//! Free loopback ports. Agents' tests and the end-to-end tests include this file by its path.

use std::fs::{self, File, TryLockError};
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Mutex, PoisonError};

/// Below the ports that the system gives to clients (32768 and up): a server that is killed and started again would else now and
/// then find its port taken by the other end of somebody's connection.
const FIRST: u16 = 12_000;
const COUNT: u16 = 20_000;

/// What keeps others from the ports that this process was given, until it ends.
static LOCKS: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// A port that is free for TCP and UDP on 127.0.0.1, and that no other test of this user is given while this process lives. Who
/// knows nothing of this file may take it before it is used.
///
/// # Errors
/// None of a hundred was free, or there can be no locks in the folder for temporary files.
pub(crate) fn free() -> io::Result<u16> {
    // A folder for each user: nobody may open what another made. The empty files in it stay.
    let user = fs::metadata("/proc/self")?.uid();
    let folder = std::env::temp_dir().join(format!("shoal-ports-{user}"));
    fs::create_dir_all(&folder)?;
    for _ in 0..100 {
        let [low, high, ..] = RandomState::new().hash_one(0_u8).to_le_bytes();
        let port = FIRST + u16::from_le_bytes([low, high]) % COUNT;
        let lock =
            File::options().create(true).truncate(false).write(true).open(folder.join(port.to_string()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => continue,
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, port));
        if tcp.is_ok() && UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            LOCKS.lock().unwrap_or_else(PoisonError::into_inner).push(lock);
            return Ok(port);
        }
    }
    Err(io::Error::other("no port of 100 was free for both TCP and UDP"))
}
