//! A reload through the master's socket.

use std::time::Duration;

use shoal_agent::Fault;
use tokio::time::{Instant, sleep};

use super::live;
use super::socket::Socket;

/// How often HAProxy is asked whether it has reloaded.
const POLL: Duration = Duration::from_millis(5);

/// Makes HAProxy read its files, and waits until the new process answers.
///
/// # Errors
/// It does not answer, or goes on with what it had.
pub(super) async fn reload(stats: &Socket, master: &Socket, within: Duration) -> Result<(), Fault> {
    let before = master.ask("show proc").await?;
    let (old, failed) = live::worker(&before);
    let end = Instant::now() + within;
    // The master closes the connection in the middle of it, and older ones say nothing.
    if let Ok(said) = master.ask("reload").await
        && said.contains("Success=0")
    {
        return Err(refused(&said));
    }
    while Instant::now() < end {
        let now = master.ask("show proc").await.map(|said| live::worker(&said));
        match now {
            Ok((_, now)) if now > failed => return Err(refused("")),
            // The old process answers for a moment more.
            Ok((Some(new), _)) if Some(new) != old && process(stats).await == Some(new) => return Ok(()),
            _ => sleep(POLL).await,
        }
    }
    let why = format!("no new process answers within {} s", within.as_secs());
    Err(Fault::new("reload HAProxy", why).next("look into its log"))
}

/// Which process answers at the socket.
async fn process(stats: &Socket) -> Option<u32> {
    let said = stats.ask("show info").await.ok()?;
    said.lines().find_map(|line| line.strip_prefix("Pid:"))?.trim().parse().ok()
}

fn refused(said: &str) -> Fault {
    let why = format!("it refuses its configuration, and goes on with what it had {said}");
    Fault::new("reload HAProxy", why.trim().to_owned())
        .next("look into its log: a port may be taken by another process")
}
