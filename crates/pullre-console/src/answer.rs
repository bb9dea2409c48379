//! What goes back to a browser.

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, LOCATION};
use axum::http::{HeaderValue, Response, StatusCode};
use maud::Markup;
use pullre::ops::OpsError;
use pullre::store::StoreError;

/// An answer that is no page.
pub fn text(status: StatusCode, text: impl Into<String>) -> Response<Body> {
    typed(status, "text/plain; charset=utf-8", text.into())
}

pub fn html(status: StatusCode, page: Markup) -> Response<Body> {
    typed(status, "text/html; charset=utf-8", page.into_string())
}

pub fn typed(status: StatusCode, kind: &'static str, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// Sends the browser to another page, whatever the method was.
pub fn see_other(path: &str) -> Response<Body> {
    to(StatusCode::SEE_OTHER, path)
}

pub fn to(status: StatusCode, place: &str) -> Response<Body> {
    match HeaderValue::from_str(place) {
        Ok(place) => {
            let mut response = text(status, "");
            response.headers_mut().insert(LOCATION, place);
            response
        }
        Err(_) => text(StatusCode::BAD_REQUEST, "this address cannot be redirected\n"),
    }
}

/// What status an operation's failure has.
pub fn status_of(error: &OpsError) -> StatusCode {
    match error {
        OpsError::Usage(_) => StatusCode::BAD_REQUEST,
        OpsError::Refused(_) | OpsError::Compute(_) | OpsError::Clone(_) => StatusCode::CONFLICT,
        OpsError::Store(StoreError::Conflict(_)) => StatusCode::CONFLICT,
        OpsError::Store(
            StoreError::Unavailable(_)
            | StoreError::Deadlock(_)
            | StoreError::Setup(_)
            | StoreError::NotInitialized,
        ) => StatusCode::SERVICE_UNAVAILABLE,
        OpsError::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_go_well_a_moment_later_is_unavailable_now() {
        let status = |error: StoreError| status_of(&error.into()).as_u16();
        assert_eq!(status(StoreError::Deadlock("two waited for each other".into())), 503);
        assert_eq!(status(StoreError::Unavailable("the server is away".into())), 503);
        assert_eq!(status(StoreError::Conflict("somebody was faster".into())), 409);
        assert_eq!(status(StoreError::Row("nonsense".into())), 500);
    }
}
