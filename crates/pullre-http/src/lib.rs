//! What pullre says over HTTP: reading GitHub, and probing what staging servers serve.
//!
//! Everything blocks; call it from a thread of its own where there is an async runtime. A client
//! is built at its first request: a process that asks nothing pays nothing.

pub mod chat;
mod client;
pub mod github;
pub mod metadata;
pub mod probe;
