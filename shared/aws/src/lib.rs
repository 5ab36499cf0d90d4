//! What the agents that speak to AWS have in common: the `[agent.aws]` part of their configuration, how fast they may ask, and what an
//! error of the SDK means.
//!
//! **Where the right to do it comes from** is never in the database and never in Shoal's own files: the SDK's usual chain is asked
//! (environment, `AWS_SHARED_CREDENTIALS_FILE`, web identity, container, instance), and a role is assumed with that where one is
//! named. Nothing is executed for it.
//!
//! **An error** is told apart by what is known of the call's effect ([`Kind`]), which is all that an agent decides by. That a call was not
//! answered is no sign that it was not done: the SDK asks again by itself, unless it is told
//! not to ([`OnlyWhenRefused`]).
//!
//! One TLS library: rustls with ring, as everywhere in Shoal, with the trust anchors of the machine (`SSL_CERT_FILE`).

mod error;
mod halves;
mod held;
mod pace;
mod settings;

pub use aws_config::SdkConfig;
pub use error::{Failed, Kind, OnlyWhenRefused, UnlessFor};
pub use halves::Halves;
pub use held::while_held;
pub use pace::Pace;
pub use settings::AwsSettings;
