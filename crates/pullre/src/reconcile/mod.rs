//! One tick: [`observe`] what is true, [`plan`](mod@plan) what follows, [`apply`] it.

pub mod apply;
pub mod lock;
pub mod observe;
pub mod plan;
