//! What can go wrong between a client and GitHub, on demand.

use std::time::Duration;

/// One way to fail. A fault comes instead of the answer, unless it says otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// This status with a short JSON message: 500, 502, 503, ...
    Status(u16),
    /// 401, whatever the token.
    Unauthorized,
    /// A plain 403 with this message.
    Forbidden(String),
    /// 403 with `x-ratelimit-remaining: 0` and a reset so many seconds from now.
    RateLimited { reset_in: u64 },
    /// 403 or 429 with `Retry-After`, as for GitHub's secondary limits.
    RetryAfter { status: u16, seconds: u64 },
    /// 200 with this body instead of the right one.
    Body(String),
    /// 200 with the right length, half of the body, and then the connection is cut.
    CutBody,
    /// It is done as asked for, and then the connection is cut without an answer.
    DoneAndCut,
    /// The right answer, late.
    Delay(Duration),
    /// 301 to this place.
    Redirect(String),
    /// The right answer, but the next page is said to be at this URL.
    NextPage(String),
    /// The right answer without its ETag, as some proxies leave it.
    NoEtag,
}
