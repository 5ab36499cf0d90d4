//! The engine's rules, one by one, in a model world.

mod adopt;
mod agent;
mod beside;
mod claims;
mod conditional;
mod due;
mod facts;
mod failing;
mod guard;
mod kept;
mod laws;
mod ledger;
mod location;
mod lost;
mod ownership;
mod paused;
mod proportional;
mod races;
mod selection;
mod sharing;
mod status;
mod steps;
mod taking;
mod waking;
