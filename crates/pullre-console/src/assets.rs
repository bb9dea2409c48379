//! The style sheet, the script and the icon: nothing comes from anywhere else.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::LazyLock;

use axum::body::Body;
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderValue, Response, StatusCode};

use crate::answer;

const STYLE: &str = include_str!("../assets/console.css");
const SCRIPT: &str = include_str!("../assets/console.js");
const ICON: &str = include_str!("../assets/icon.svg");

/// Changes with the files, so that browsers may keep them.
pub static VERSION: LazyLock<String> = LazyLock::new(|| {
    let mut hasher = DefaultHasher::new();
    (STYLE, SCRIPT, ICON).hash(&mut hasher);
    format!("{:016x}", hasher.finish())
});

pub fn asset(name: &str) -> Response<Body> {
    let (kind, text) = match name {
        "console.css" => ("text/css; charset=utf-8", STYLE),
        "console.js" => ("text/javascript; charset=utf-8", SCRIPT),
        "icon.svg" => ("image/svg+xml", ICON),
        _ => return answer::text(StatusCode::NOT_FOUND, "there is no such file\n"),
    };
    let mut response = answer::typed(StatusCode::OK, kind, text);
    let keep = HeaderValue::from_static("public, max-age=604800, immutable");
    response.headers_mut().insert(CACHE_CONTROL, keep);
    response
}
