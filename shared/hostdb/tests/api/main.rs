//! The server over real HTTP: each test starts its own on a free port and stops it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by them")]

mod access;
mod answers;
mod apart;
mod clock;
mod codings;
mod crowds;
mod far;
mod faults;
mod harness;
mod hostdb_v1;
mod mistaken;
mod openapi;
mod process;
mod protocol;
mod reads;
mod recipes;
mod rows;
mod tls;
mod v1_past;
mod writes;
