//! Before every answer: where the visitor comes from, who it is, and whether a change was really
//! meant. Behind it no page has to ask.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, RETRY_AFTER, SET_COOKIE,
    WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use axum::middleware::Next;
use pullre::store::Role;

use crate::auth::{Denied, Person};
use crate::pages::{problem, read_only};
use crate::visitor::{self, Visitor};
use crate::{Console, answer, session};

/// The other end of the connection.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub IpAddr);

/// What is known of whoever asks for a page, once they are let in.
#[derive(Debug, Clone)]
pub struct Visit {
    pub person: Person,
    pub session: String,
    /// What its forms carry.
    pub token: String,
}

impl Visit {
    pub fn may_change(&self) -> bool {
        self.person.role == Role::Operator
    }
}

/// The fields of a form that was checked to be ours.
#[derive(Debug, Clone, Default)]
pub struct Form(pub Vec<(String, String)>);

impl Form {
    pub fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }
}

/// The field that holds a form's token.
pub const TOKEN: &str = "token";
/// Set while a visitor is sent to https, so that it happens once.
const REDIRECTED: &str = "pullre_redirected";

const LARGEST_FORM: usize = 1024 * 1024;
const SLOWEST_FORM: Duration = Duration::from_secs(20);

const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; \
                      connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

pub async fn guard(
    State(console): State<Arc<Console>>,
    request: Request,
    next: Next,
) -> Response<Body> {
    let began = Instant::now();
    let peer = request.extensions().get::<Peer>().map_or([0, 0, 0, 0].into(), |peer| peer.0);
    let visitor = Visitor::of(peer, request.headers(), &console.site.config.trusted_proxies);
    let method = request.method().clone();
    // Without the query: a person may have typed anything into a search.
    let path: String = request.uri().path().chars().take(200).collect();
    let (mut response, who) = admit(&console, &visitor, request, next).await;
    protect(response.headers_mut());
    let (status, took) = (response.status().as_u16(), began.elapsed().as_millis());
    let who = who.unwrap_or_else(|| "-".into());
    let address = visitor.address;
    match status {
        500.. => tracing::warn!("{address} {who:?} {method} {path} {status} {took} ms"),
        _ if matches!(path.as_str(), "/healthz" | "/metrics") => {
            tracing::debug!("{address} {who:?} {method} {path} {status} {took} ms");
        }
        _ => tracing::info!("{address} {who:?} {method} {path} {status} {took} ms"),
    }
    response
}

fn protect(headers: &mut HeaderMap) {
    let fixed: [(HeaderName, &'static str); 6] = [
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_FRAME_OPTIONS, "DENY"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
}

fn is_public(path: &str) -> bool {
    matches!(path, "/" | "/healthz" | "/webhook/push" | "/favicon.ico" | "/robots.txt")
        || path.starts_with("/assets/")
}

/// The answer, and who asked if that is known.
async fn admit(
    console: &Arc<Console>,
    visitor: &Visitor,
    mut request: Request,
    next: Next,
) -> (Response<Body>, Option<String>) {
    let path = request.uri().path().to_owned();
    let whole = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let again = session::cookie(request.headers(), REDIRECTED).is_some();
    let site = &console.site;
    if let Some(place) =
        visitor::redirect(visitor, &site.protocol, site.domain.as_deref(), whole, again)
    {
        // 307 keeps method and body.
        let mut response = answer::to(StatusCode::TEMPORARY_REDIRECT, &place);
        let once = HeaderValue::from_static("pullre_redirected=1; Path=/; Max-Age=10; HttpOnly");
        response.headers_mut().insert(SET_COOKIE, once);
        return (response, None);
    }
    if is_public(&path) {
        return (next.run(request).await, None);
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD | Method::POST) {
        let says = answer::text(StatusCode::METHOD_NOT_ALLOWED, "only GET, HEAD and POST\n");
        return (says, None);
    }
    let person = match console.auth.check(request.headers(), visitor.place(), &console.stores).await
    {
        Ok(person) => person,
        Err(denied) => return (refuse(denied), None),
    };
    let who = Some(person.name.clone());
    let https = visitor.https == Some(true);
    let named = console.sessions.named(request.headers(), https);
    let is_new = named.is_none();
    let session = match named.map_or_else(|| console.sessions.fresh(), Ok) {
        Ok(session) => session,
        Err(e) => return (problem(StatusCode::INTERNAL_SERVER_ERROR, &format!("{e:#}")), who),
    };
    let token = console.sessions.token(&session, &person.name);
    let visit = Visit { person, session, token };
    if *request.method() == Method::POST {
        request = match meant(console, &visit, is_new, request).await {
            Ok(request) => request,
            Err(refused) => return (refused, who),
        };
    }
    let session = visit.session.clone();
    request.extensions_mut().insert(visit);
    let mut response = next.run(request).await;
    let is_page = response
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"));
    if is_new
        && is_page
        && let Ok(cookie) = HeaderValue::from_str(&console.sessions.set_cookie(&session, https))
    {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
    (response, who)
}

/// A change that an operator made with one of our forms; the form comes along.
async fn meant(
    console: &Console,
    visit: &Visit,
    session_is_new: bool,
    request: Request,
) -> Result<Request, Response<Body>> {
    if !visit.may_change() {
        return Err(read_only());
    }
    let (parts, body) = request.into_parts();
    let text = |name: &HeaderName| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let is_form = text(&CONTENT_TYPE).is_some_and(|kind| {
        let kind = kind.split(';').next().unwrap_or_default().trim();
        kind.eq_ignore_ascii_case("application/x-www-form-urlencoded")
    });
    if !is_form {
        return Err(problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, "This takes only forms."));
    }
    let foreign = text(&HeaderName::from_static("sec-fetch-site"))
        .is_some_and(|site| !matches!(site, "same-origin" | "none"));
    let read = tokio::time::timeout(SLOWEST_FORM, axum::body::to_bytes(body, LARGEST_FORM));
    let body = match read.await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => {
            let says = "This form is larger than 1 MB, or it broke off.";
            return Err(problem(StatusCode::PAYLOAD_TOO_LARGE, says));
        }
        Err(_) => return Err(problem(StatusCode::REQUEST_TIMEOUT, "The form came too slowly.")),
    };
    let mut form: Vec<(String, String)> =
        form_urlencoded::parse(&body).map(|(k, v)| (k.into_owned(), v.into_owned())).collect();
    let token = form.iter().find(|(name, _)| name == TOKEN).map(|(_, value)| value.as_str());
    let good = token
        .is_some_and(|token| console.sessions.is_token(token, &visit.session, &visit.person.name));
    if foreign || session_is_new || !good {
        return Err(problem(
            StatusCode::FORBIDDEN,
            "This form is not from your session: it is too old, or another site sent it. Nothing was \
             changed. Go back, load the page again, and try once more.",
        ));
    }
    form.retain(|(name, _)| name != TOKEN);
    let mut request = Request::from_parts(parts, Body::empty());
    request.extensions_mut().insert(Form(form));
    Ok(request)
}

fn refuse(denied: Denied) -> Response<Body> {
    let seconds;
    let (status, header, says) = match denied {
        Denied::NobodyIsSet => (
            StatusCode::FORBIDDEN,
            None,
            "The console has no user yet. Set `basic_user` and `basic_password` in app.ini (the latter \
             to what `update-pull hash-token` prints) and start it again, or add one with \
             `update-pull console-user add NAME`."
                .to_owned(),
        ),
        Denied::NoCredentials | Denied::Wrong => (
            StatusCode::UNAUTHORIZED,
            Some((WWW_AUTHENTICATE, "Basic realm=\"pullre\", charset=\"UTF-8\"")),
            "This page asks for a name and a password. If you have none, ask whoever runs pullre here."
                .to_owned(),
        ),
        Denied::TooMany(wait) => {
            seconds = wait.as_secs().max(1).to_string();
            (
                StatusCode::TOO_MANY_REQUESTS,
                Some((RETRY_AFTER, seconds.as_str())),
                format!("Too many wrong passwords came from your address. Try again in {seconds} s."),
            )
        }
        Denied::Failed(e) => (answer::status_of(&e), None, format!("{e}.")),
    };
    let mut response = problem(status, &says);
    if let Some((name, value)) = header
        && let Ok(value) = HeaderValue::from_str(value)
    {
        response.headers_mut().insert(name, value);
    }
    response
}
