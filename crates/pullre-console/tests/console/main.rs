//! The console as a browser, a proxy, GitHub and a stranger meet it: over real connections.

#![allow(clippy::unwrap_used)]

mod browser;
mod cdp;
mod entry;
mod forms;
mod fuzz;
mod http;
mod live;
mod oddities;
mod pages;
mod proxies;
mod served;
mod webhook;
