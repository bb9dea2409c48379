//! How a MySQL server is reached: app.ini's words, made into options of the driver once.

use std::fmt;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use mysql::consts::CapabilityFlags;
use mysql::{ClientIdentity, Conn, DriverError, Opts, OptsBuilder, SslOpts};

use super::super::backend::StoreError;
use super::{io_error, store_error};
use crate::config::DatabaseConfig;
use crate::domain::SchemaName;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the server may take to answer, or to take, one statement. Longer than it lets a
/// statement wait for a lock, so that its own words reach us.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Said once to each connection.
///
/// READ COMMITTED: every decision is a compare-and-set on the row itself, so nothing needs a view
/// of the past, and the gap locks of REPEATABLE READ would let chains that work side by side
/// collide on rows that neither touches. The mode is strict, so that a text that does not fit is
/// an error and not a shorter text; it allows zero dates, since an ancestor's row may hold one. A
/// connection that is silent while a clone takes its time is tried before it is used, from ten
/// seconds on: no server may cut it off before.
const SESSION: [&str; 2] = [
    "SET NAMES utf8mb4, @@SESSION.autocommit = 1, @@SESSION.time_zone = '+00:00',
        @@SESSION.sql_mode = 'STRICT_TRANS_TABLES,NO_ENGINE_SUBSTITUTION',
        @@SESSION.innodb_lock_wait_timeout = 10, @@SESSION.lock_wait_timeout = 10,
        @@SESSION.wait_timeout = GREATEST(@@SESSION.wait_timeout, 60)",
    "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
];

/// MySQL's own words for how much TLS is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SslMode {
    Disabled,
    /// TLS where the server offers it, whatever its certificate; else plain.
    Preferred,
    Required,
    /// The certificate must come from a known authority: the public ones and `ssl_ca`.
    VerifyCa,
    /// And be the one of this host.
    VerifyIdentity,
}

/// Everything that is needed to connect. Shows no password.
#[derive(Clone)]
pub struct MysqlAccess {
    opts: OptsBuilder,
    mode: SslMode,
    /// `host:port` or the socket, for errors.
    place: String,
    user: String,
    database: SchemaName,
}

impl fmt::Debug for MysqlAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MysqlAccess")
            .field("place", &self.place)
            .field("user", &self.user)
            .field("database", &self.database)
            .field("mode", &self.mode)
            .finish()
    }
}

impl MysqlAccess {
    /// Connects to nothing yet. What `mysql_additional` holds that means nothing to us comes back
    /// as warnings; a known word with a wrong value is an error.
    pub fn new(config: &DatabaseConfig) -> Result<(MysqlAccess, Vec<String>), StoreError> {
        let DatabaseConfig::Mysql { host, port, user, password, name, additional } = config else {
            return Err(StoreError::Setup("app.ini describes no MySQL database".into()));
        };
        let mut warnings = Vec::new();
        let words = Additional::parse(additional, &mut warnings)?;
        let socket = words.socket.or_else(|| host.starts_with('/').then(|| host.clone()));
        // The driver wants IPv6 in brackets.
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let host = match bare.parse::<std::net::Ipv6Addr>() {
            Ok(address) => format!("[{address}]"),
            Err(_) => host.clone(),
        };
        let place = socket.clone().unwrap_or_else(|| format!("{host}:{port}"));
        let mut ssl = SslOpts::default().with_root_cert_path(words.ca);
        if let Some((certificate, key)) = words.identity {
            ssl = ssl.with_client_identity(Some(ClientIdentity::new(certificate, key)));
        }
        ssl = match words.mode {
            SslMode::Disabled | SslMode::Preferred | SslMode::Required => {
                ssl.with_danger_accept_invalid_certs(true)
            }
            SslMode::VerifyCa => ssl.with_danger_skip_domain_validation(true),
            SslMode::VerifyIdentity => ssl,
        };
        let opts = OptsBuilder::new()
            .ip_or_hostname(Some(host))
            .tcp_port(*port)
            .socket(socket)
            .prefer_socket(false)
            .user(Some(user))
            .pass(Some(password.expose()).filter(|password| !password.is_empty()))
            .db_name(Some(name.as_str()))
            .tcp_connect_timeout(Some(words.connect_timeout.unwrap_or(CONNECT_TIMEOUT)))
            .read_timeout(Some(ANSWER_TIMEOUT))
            .write_timeout(Some(ANSWER_TIMEOUT))
            .tcp_keepalive_time_ms(Some(30_000))
            // Asking the server for its limit would cost a round trip at each connection.
            .max_allowed_packet(Some(16 << 20))
            .stmt_cache_size(64)
            .additional_capabilities(CapabilityFlags::CLIENT_FOUND_ROWS)
            .init(SESSION.to_vec())
            .ssl_opts((words.mode != SslMode::Disabled).then_some(ssl));
        let (user, database) = (user.clone(), name.clone());
        Ok((MysqlAccess { opts, mode: words.mode, place, user, database }, warnings))
    }

    /// The schema that holds the control tables.
    pub fn database(&self) -> &str {
        self.database.as_str()
    }

    /// The schema of the control tables.
    pub fn control_schema(&self) -> &SchemaName {
        &self.database
    }

    /// Whether the server is reached at this machine, which a tunnel or a container is too.
    pub(crate) fn is_near(&self) -> bool {
        let near = ["/", "localhost:", "127.", "[::1]:", "::1:"];
        near.iter().any(|start| self.place.starts_with(start))
    }

    /// `host:port` or the socket.
    pub fn place(&self) -> &str {
        &self.place
    }

    pub(crate) fn connect(&self) -> Result<Conn, StoreError> {
        self.connect_with(self.opts.clone())
    }

    /// A connection that does nothing but hold something: short time-outs, and an end set by the
    /// server if it falls silent.
    pub(crate) fn connect_holding(&self, wait_timeout: Duration) -> Result<Conn, StoreError> {
        let answer = wait_timeout / 4;
        let mut conn = self.connect_with(
            self.opts.clone().read_timeout(Some(answer)).write_timeout(Some(answer)),
        )?;
        let sql = format!("SET @@SESSION.wait_timeout = {}", wait_timeout.as_secs());
        mysql::prelude::Queryable::query_drop(&mut conn, sql).map_err(|e| self.error(e))?;
        Ok(conn)
    }

    /// A connection to no database, for work that takes long: `answer` is how long one statement
    /// may take; `init` is said once, and in place of what the control database's connections say.
    pub(crate) fn connect_for_work(
        &self,
        answer: Duration,
        init: Vec<String>,
    ) -> Result<Conn, StoreError> {
        self.connect_with(
            self.opts
                .clone()
                .db_name(None::<String>)
                .read_timeout(Some(answer))
                .write_timeout(Some(answer))
                .stmt_cache_size(0)
                .init(init),
        )
    }

    fn connect_with(&self, opts: OptsBuilder) -> Result<Conn, StoreError> {
        let connected = match Conn::new(Opts::from(opts.clone())) {
            Err(mysql::Error::DriverError(DriverError::TlsNotSupported))
                if self.mode == SslMode::Preferred =>
            {
                Conn::new(Opts::from(opts.ssl_opts(None)))
            }
            other => other,
        };
        connected.map_err(|e| self.connect_error(e))
    }

    /// Says which of app.ini's words to look at.
    fn connect_error(&self, error: mysql::Error) -> StoreError {
        let MysqlAccess { place, user, database, .. } = self;
        match &error {
            mysql::Error::MySqlError(e) => match e.code {
                1045 | 1698 => StoreError::Setup(format!(
                    "the MySQL server {place} refuses the login {user}: check `mysql_user` and \
                     `mysql_pw` in app.ini, and from which hosts the login may come ({})",
                    e.message
                )),
                1044 => StoreError::Setup(format!(
                    "the MySQL login {user} may not use the database {database}: check `mysql_db` \
                     in app.ini, or grant it what `update-pull grants` prints"
                )),
                1049 => StoreError::Setup(format!(
                    "the MySQL server {place} has no database {database}: correct `mysql_db` in \
                     app.ini, or create it: CREATE DATABASE `{}` CHARACTER SET utf8mb4",
                    database.as_str().replace('`', "``")
                )),
                1130 => StoreError::Setup(format!(
                    "the MySQL server {place} takes no connections from this host: {}",
                    e.message
                )),
                _ => self.error(error),
            },
            mysql::Error::DriverError(DriverError::TlsNotSupported) => StoreError::Setup(format!(
                "the MySQL server {place} offers no TLS, and `ssl_mode` in `mysql_additional` \
                 demands it"
            )),
            mysql::Error::DriverError(
                DriverError::UnknownAuthPlugin(_)
                | DriverError::OldMysqlPasswordDisabled
                | DriverError::CleartextPluginDisabled,
            ) => StoreError::Setup(format!(
                "the login {user} at {place} uses a way to log in that pullre does not know \
                 ({error}): use caching_sha2_password or mysql_native_password"
            )),
            mysql::Error::TlsError(_) => self.tls_error(&error.to_string()),
            // A handshake happens at the first byte that is written; what it refuses comes as an
            // invalid answer.
            _ => match io_error(&error) {
                Some(io) if io.kind() == ErrorKind::InvalidData => self.tls_error(&io.to_string()),
                Some(io) if io.kind() == ErrorKind::NotFound => StoreError::Setup(format!(
                    "MySQL server {place}, its socket or a file of TLS: {io}"
                )),
                _ => self.error(error),
            },
        }
    }

    fn tls_error(&self, why: &str) -> StoreError {
        StoreError::Setup(format!(
            "no TLS with the MySQL server {}: {why}. Name its authority with `ssl_ca=FILE` in \
             `mysql_additional`, or ask for less with `ssl_mode`",
            self.place
        ))
    }

    /// An error with the place that it came from.
    pub(super) fn error(&self, error: mysql::Error) -> StoreError {
        match store_error(error) {
            StoreError::Unavailable(why) => {
                StoreError::Unavailable(format!("MySQL server {}: {why}", self.place))
            }
            other => other,
        }
    }
}

/// `mysql_additional`, as it stands in a URL of SQLAlchemy: `?charset=utf8mb4&ssl_mode=REQUIRED`.
struct Additional {
    mode: SslMode,
    ca: Option<PathBuf>,
    /// Certificate and key.
    identity: Option<(PathBuf, PathBuf)>,
    socket: Option<String>,
    connect_timeout: Option<Duration>,
}

impl Additional {
    fn parse(text: &str, warnings: &mut Vec<String>) -> Result<Additional, StoreError> {
        let wrong = |key: &str, value: &str, expected: &str| {
            StoreError::Setup(format!(
                "`mysql_additional` in app.ini: {key} is {value:?} and not {expected}"
            ))
        };
        let mut mode = None;
        let (mut ca, mut certificate, mut key_file, mut socket) = (None, None, None, None);
        let mut connect_timeout = None;
        let text = text.trim().trim_start_matches('?');
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decoded(value).ok_or_else(|| wrong(key, value, "percent-encoded UTF-8"))?;
            let flag = || match value.to_ascii_lowercase().as_str() {
                "true" | "1" | "yes" => Ok(true),
                "false" | "0" | "no" => Ok(false),
                _ => Err(wrong(key, &value, "true or false")),
            };
            match key {
                "charset" => {
                    if !value.to_ascii_lowercase().starts_with("utf8") {
                        warnings.push(format!(
                            "`mysql_additional`: charset={value} is left out; pullre always speaks utf8mb4"
                        ));
                    }
                }
                "ssl_mode" | "ssl-mode" => {
                    mode = Some(match value.to_ascii_uppercase().as_str() {
                        "DISABLED" => SslMode::Disabled,
                        "PREFERRED" => SslMode::Preferred,
                        "REQUIRED" => SslMode::Required,
                        "VERIFY_CA" => SslMode::VerifyCa,
                        "VERIFY_IDENTITY" => SslMode::VerifyIdentity,
                        _ => {
                            let expected =
                                "DISABLED, PREFERRED, REQUIRED, VERIFY_CA or VERIFY_IDENTITY";
                            return Err(wrong(key, &value, expected));
                        }
                    });
                }
                // As pullre-kun's driver says the same.
                "ssl_disabled" if flag()? => mode = Some(SslMode::Disabled),
                "ssl_verify_identity" if flag()? => mode = Some(SslMode::VerifyIdentity),
                "ssl_verify_cert" if flag()? => mode = mode.or(Some(SslMode::VerifyCa)),
                "ssl_disabled" | "ssl_verify_identity" | "ssl_verify_cert" => {}
                "ssl_ca" => ca = Some(PathBuf::from(value)),
                "ssl_cert" => certificate = Some(PathBuf::from(value)),
                "ssl_key" => key_file = Some(PathBuf::from(value)),
                "unix_socket" => socket = Some(value),
                "connection_timeout" | "connect_timeout" => {
                    let seconds = value.parse().ok().filter(|s| (1..=3600).contains(s));
                    let seconds = seconds.ok_or_else(|| wrong(key, &value, "1 to 3600 seconds"))?;
                    connect_timeout = Some(Duration::from_secs(seconds));
                }
                _ => warnings.push(format!(
                    "`mysql_additional`: {key:?} means nothing to pullre and is left out"
                )),
            }
        }
        let identity = match (certificate, key_file) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(_), None) => return Err(wrong("ssl_key", "", "set, as ssl_cert is")),
            (None, Some(_)) => return Err(wrong("ssl_cert", "", "set, as ssl_key is")),
        };
        // Who names an authority wants it to be asked; MySQL's own clients do the same.
        let default = if ca.is_some() { SslMode::VerifyCa } else { SslMode::Preferred };
        let mode = mode.unwrap_or(default);
        Ok(Additional { mode, ca, identity, socket, connect_timeout })
    }
}

/// Undoes percent-encoding.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    fn config(host: &str, additional: &str) -> DatabaseConfig {
        DatabaseConfig::Mysql {
            host: host.into(),
            port: 3307,
            user: "me".into(),
            password: Secret::new("s3cr3t's \"%\\"),
            name: "db`1".parse().unwrap(),
            additional: additional.into(),
        }
    }

    fn access(host: &str, additional: &str) -> (MysqlAccess, Vec<String>) {
        MysqlAccess::new(&config(host, additional)).unwrap()
    }

    #[test]
    fn a_host_is_a_name_an_address_or_a_socket() {
        let opts = |host: &str| Opts::from(access(host, "").0.opts);
        for (host, shown) in [
            ("db.example.com", "db.example.com"),
            ("10.0.0.7", "10.0.0.7"),
            ("::1", "[::1]"),
            ("[fe80::7]", "[fe80::7]"),
        ] {
            assert_eq!(opts(host).get_ip_or_hostname(), shown);
            assert_eq!((opts(host).get_tcp_port(), opts(host).get_socket()), (3307, None));
        }
        assert_eq!(opts("/run/mysqld/mysqld.sock").get_socket(), Some("/run/mysqld/mysqld.sock"));
    }

    #[test]
    fn the_ancestors_additions_are_understood() {
        let mode = |additional: &str| access("h", additional).0.mode;
        assert_eq!(mode(""), SslMode::Preferred);
        assert_eq!(mode("?charset=utf8mb4"), SslMode::Preferred);
        assert_eq!(mode("?charset=utf8mb4&ssl_mode=required"), SslMode::Required);
        assert_eq!(mode("ssl_disabled=True"), SslMode::Disabled);
        assert_eq!(mode("?ssl_ca=/etc/ssl/my%20ca.pem"), SslMode::VerifyCa);
        assert_eq!(
            mode("?ssl_ca=/x&ssl_verify_cert=true&ssl_verify_identity=true"),
            SslMode::VerifyIdentity
        );
        assert!(
            access("h", "?charset=utf8mb4&ssl_ca=/x&unix_socket=/y&connection_timeout=3")
                .1
                .is_empty()
        );
        assert_eq!(decoded("/etc/my%20ca.pem").as_deref(), Some("/etc/my ca.pem"));
    }

    #[test]
    fn what_means_nothing_is_named_and_what_is_wrong_is_refused() {
        let (_, warnings) = access("h", "?charset=latin1&use_pure=True&ssl_mode=DISABLED");
        assert_eq!(warnings.len(), 2);
        assert!(warnings[0].contains("latin1") && warnings[1].contains("use_pure"), "{warnings:?}");
        for wrong in [
            "ssl_mode=maybe",
            "connection_timeout=soon",
            "ssl_cert=/x",
            "ssl_ca=%f",
            "ssl_disabled=x",
        ] {
            MysqlAccess::new(&config("h", wrong)).unwrap_err();
        }
    }

    #[test]
    fn a_password_is_never_shown() {
        let (access, _) = access("h", "");
        assert!(!format!("{access:?}").contains("s3cr3t"));
    }
}
