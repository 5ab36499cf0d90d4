//! End-to-end tests against real servers, and benches: what they share.
//!
//! Everything runs as real processes on free loopback ports in a scratch folder of its own, and ends with the value that
//! stands for it. Waiting is always for a condition, and bounded. The assertions are on the world: what a name server
//! answers, what stands in a file.

pub mod binaries;
pub mod bind;
pub mod crowd;
pub mod dns;
pub mod figure;
pub mod fuzz;
pub mod hostdb;
pub mod link;
pub mod pages;
pub mod ports;
pub mod process;
pub mod served;
pub mod server;
pub mod shape;
pub mod swarm;
pub mod wait;
