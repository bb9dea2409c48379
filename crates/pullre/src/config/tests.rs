use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use tracing::Level;

use super::*;

struct Ini {
    folder: TempDir,
    env: Vec<(String, String)>,
}

/// An app.ini with this text.
fn ini(text: impl AsRef<[u8]>) -> Ini {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("app.ini"), text).unwrap();
    Ini { folder, env: Vec::new() }
}

impl Ini {
    fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
    fn load(&self) -> Result<RawConfig, ConfigErrors> {
        RawConfig::load(&self.path("app.ini"), self.env.clone())
    }
    fn raw(&self) -> RawConfig {
        self.load().unwrap()
    }
    fn value(&self, key: &str) -> Option<String> {
        self.raw().get(key).map(|(value, _)| value.to_owned())
    }
    fn controller(&self) -> Result<ControllerConfig, ConfigErrors> {
        ControllerConfig::from_raw(&self.raw())
    }
    fn client(&self) -> Result<ClientConfig, ConfigErrors> {
        ClientConfig::from_raw(&self.raw())
    }
}

const CONTROLLER: &str = "owner = acme\nrepo = shop\ntoken = ghp_0123456789\n";
const CLIENT: &str =
    "owner = acme\nrepo = shop\ntarget_dir = /srv/acme/shop\nexec_command = ./run\n";

fn controller(more: &str) -> ControllerConfig {
    ini(format!("{CONTROLLER}{more}")).controller().unwrap()
}

fn client(more: &str) -> ClientConfig {
    ini(format!("{CLIENT}{more}")).client().unwrap()
}

/// What the error says, with the folder's name replaced.
fn said<T: std::fmt::Debug>(ini: &Ini, result: Result<T, ConfigErrors>) -> String {
    let folder = ini.folder.path().display().to_string();
    result.unwrap_err().to_string().replace(&folder, "DIR")
}

fn keys_of<T: std::fmt::Debug>(result: Result<T, ConfigErrors>) -> Vec<&'static str> {
    let errors = result.unwrap_err();
    errors.problems().iter().filter_map(|p| p.key).collect()
}

#[test]
fn everything_after_the_first_equals_sign_is_the_value() {
    for value in [
        r"back\slash and \n and \x41",
        r"ends with a backslash\",
        r"\",
        r#""quoted""#,
        r#"one " quote"#,
        "'single'",
        "it's",
        "# not a comment",
        "pass#word;more # still",
        ";",
        "a=b==c",
        "http://host:80/?a=b",
        "key:value",
        "${VAR} %(x)s $1",
        "日本語 🚀",
        "[half",
        "half]",
        "[a] and [b] c",
        "two  spaces\tand a tab",
    ] {
        for (before, after) in [(" = ", "\n"), ("=", "\r\n"), ("\t=\t", " \t\n"), (" =", "")] {
            let text = format!("owner = acme\nmysql_pw{before}{value}{after}");
            let read = ini(&text);
            assert_eq!(read.value("mysql_pw").as_deref(), Some(value), "{text:?}");
            assert_eq!(read.value("owner").as_deref(), Some("acme"));
        }
        let text = format!("mysql_pw = {value}\nrepo = shop\n");
        assert_eq!(ini(&text).value("repo").as_deref(), Some("shop"), "{text:?}");
        assert_eq!(ini(&text).value("mysql_pw").as_deref(), Some(value));
    }
}

#[test]
fn a_byte_order_mark_windows_line_ends_comments_and_indents_are_accepted() {
    let text = "\u{feff}owner = acme\r\n\r\n# owner = x\r\n  ; owner = y\r\n\t repo = shop\r\n";
    let read = ini(text);
    assert_eq!(read.value("owner").as_deref(), Some("acme"));
    assert_eq!(read.value("repo").as_deref(), Some("shop"));
    assert_eq!(read.raw().warnings(), [] as [String; 0]);
}

#[test]
fn an_empty_file_sets_nothing() {
    assert_eq!(ini("").raw().warnings(), [] as [String; 0]);
    assert_eq!(ini("\u{feff}").value("owner"), None);
}

#[test]
fn lines_that_are_no_setting_are_all_named_without_their_text() {
    let broken =
        ini(b"[pullre]\nowner = acme\nhunter2\ntoken: hunter2 = x\n = hunter2\nrepo = \xff\n");
    insta::assert_snapshot!(said(&broken, broken.load()), @r"
    DIR/app.ini:1: app.ini has no [sections]: remove this line
    DIR/app.ini:3: this line has no `=`: write `key = value`, or `#` in front of a comment
    DIR/app.ini:4: `:` does not separate a key from its value: write `key = value`
    DIR/app.ini:5: there is no key in front of the separator: write `key = value`
    DIR/app.ini:6: this line is not UTF-8: save the file as UTF-8
    ");
}

#[test]
fn a_missing_file_says_what_to_copy_where() {
    let none = ini("");
    fs::remove_file(none.path("app.ini")).unwrap();
    insta::assert_snapshot!(said(&none, none.load()), @"DIR/app.ini: there is no such file: copy app.ini.default to that place and fill it in, or name another file by --config");
}

#[test]
fn the_environment_wins_over_the_file() {
    let read = ini("owner = acme\nAWS_SECRET_KEY = file")
        .env("PULLRE_OWNER", "globex")
        .env("PULLRE_AWS_SECRET_KEY", "env")
        .env("OWNER", "no")
        .env("PULLRE_owner", "no")
        .env("PULLRE_CONFIG", "elsewhere.ini")
        .env("PULLRE_PR", "7");
    assert_eq!(read.value("owner").as_deref(), Some("globex"));
    assert_eq!(read.value("AWS_SECRET_KEY").as_deref(), Some("env"));
    assert_eq!(read.raw().warnings(), [] as [String; 0]);
}

#[test]
fn an_environment_that_is_not_utf8_is_an_error_only_for_our_keys() {
    let read = ini("");
    let load = |name: &str| {
        let value = OsString::from_vec(vec![0xff]);
        RawConfig::load(&read.path("app.ini"), [(OsString::from(name), value)])
    };
    load("HOME").unwrap();
    insta::assert_snapshot!(said(&read, load("PULLRE_TOKEN")), @"PULLRE_TOKEN: the environment's value is not UTF-8: correct or unset it");
}

#[test]
fn empty_and_bracketed_values_are_not_set() {
    let read = ini("owner = [github owner]\nrepo =\ntoken = [x]\nmysql_host = db")
        .env("PULLRE_TOKEN", "abcdef")
        .env("PULLRE_MYSQL_HOST", "[database host]");
    assert_eq!(read.value("owner"), None);
    assert_eq!(read.value("repo"), None);
    assert_eq!(read.value("token").as_deref(), Some("abcdef"));
    assert_eq!(read.value("mysql_host").as_deref(), Some("db"));
}

#[test]
fn unknown_keys_are_warned_of_with_the_nearest_known_one() {
    let read = ini("onwer = acme\naws_secret_key = x\nTOKEN = y\ntarget_dri = /srv\n");
    let folder = read.folder.path().display().to_string();
    insta::assert_snapshot!(read.raw().warnings().join("\n").replace(&folder, "DIR"), @r"
    DIR/app.ini:1: unknown key `onwer`, ignored; the nearest known one is `owner`
    DIR/app.ini:2: unknown key `aws_secret_key`, ignored; the nearest known one is `AWS_SECRET_KEY`
    DIR/app.ini:3: unknown key `TOKEN`, ignored; the nearest known one is `token`
    DIR/app.ini:4: unknown key `target_dri`, ignored; the nearest known one is `target_dir`
    ");
    assert_eq!(read.value("AWS_SECRET_KEY"), None);
}

#[test]
fn of_a_key_that_stands_twice_the_last_counts_with_a_warning() {
    let read = ini("owner = acme\nrepo = shop\nowner = globex\nrepo = [unset again]\n");
    assert_eq!(read.value("owner").as_deref(), Some("globex"));
    assert_eq!(read.value("repo"), None);
    let folder = read.folder.path().display().to_string();
    insta::assert_snapshot!(read.raw().warnings().join("\n").replace(&folder, "DIR"), @r"
    DIR/app.ini:3: `owner` stands in line 1 too; line 3 counts, remove one
    DIR/app.ini:4: `repo` stands in line 2 too; line 4 counts, remove one
    ");
}

#[test]
fn all_that_is_missing_or_malformed_is_said_at_once_and_no_secret_is() {
    let bad = ini("token = hunter2 with spaces\nkeep_days = ninety\ndatabase = oracle\n\
         base_branches = main, rel*ease\n\
         github_api_url = https://user:hunter2@ghe/\nAWS_SECRET_KEY = hunter2\n")
    .env("PULLRE_GRACE", "-1");
    insta::assert_snapshot!(said(&bad, bad.controller()), @r#"
    DIR/app.ini: `owner` is not set, expected the GitHub account that owns the repository: write `owner = ...` there, or set PULLRE_OWNER
    DIR/app.ini: `repo` is not set, expected the GitHub repository's name, without its owner: write `repo = ...` there, or set PULLRE_REPO
    DIR/app.ini:1: `token` is malformed (not shown), expected a GitHub token (one word) that may read the repository, or a GitHub App (github_app_id): correct it
    DIR/app.ini:3: `database` is "oracle", expected `mysql` or `sqlite`: correct it
    DIR/app.ini: `AWS_ACCESS_KEY_ID` is not set, expected the id of AWS_SECRET_KEY: write `AWS_ACCESS_KEY_ID = ...` there, or set PULLRE_AWS_ACCESS_KEY_ID
    DIR/app.ini:5: `github_api_url` is malformed (not shown), expected a URL that starts with https:// or http://: correct it
    DIR/app.ini:2: `keep_days` is "ninety", expected days, a whole number from 1 to 3650: correct it
    environment, PULLRE_GRACE: `grace` is "-1", expected seconds, a whole number from 1 to 2592000: correct it
    DIR/app.ini:4: `base_branches` is "main, rel*ease", expected names of branches, with a `*` at the end alone: correct it
    "#);
}

#[test]
fn the_controllers_defaults() {
    let ini = ini(CONTROLLER);
    let c = ini.controller().unwrap();
    assert_eq!((c.owner.as_str(), c.repo.as_str()), ("acme", "shop"));
    assert_eq!(c.login, GithubLogin::Token(Secret::new("ghp_0123456789")));
    assert_eq!(c.github_api_url, "https://api.github.com");
    assert_eq!((c.protocol.as_str(), c.domain), ("https://", None));
    let database =
        DatabaseConfig::Sqlite { path: ini.path("pullre.db"), schema_dir: ini.path("schemas") };
    assert_eq!(c.database, database);
    assert_eq!(c.compute, ComputeKind::Local);
    assert_eq!(c.aws_region, "ap-northeast-1");
    assert_eq!(c.state_dir, ini.path(".pullre"));
    assert_eq!((c.keep_days, c.max_changes), (90, 10));
    let seconds = [c.start_timeout, c.agent_timeout, c.clone.cloning.timeout, c.grace];
    assert_eq!(seconds.map(|d| d.as_secs()), [600, 600, 3600, 3600]);
    assert_eq!(c.logging_level, Level::INFO);
}

#[test]
fn a_mysql_host_chooses_mysql_and_ec2_unless_the_file_says_otherwise() {
    let mysql = "mysql_host = db\nmysql_user = u\nmysql_pw = p\\w\nmysql_db = pullre\n";
    let c = controller(mysql);
    let database = DatabaseConfig::Mysql {
        host: "db".into(),
        port: 3306,
        user: "u".into(),
        password: Secret::new("p\\w"),
        name: "pullre".parse().unwrap(),
        additional: String::new(),
    };
    assert_eq!(c.database, database);
    assert_eq!(c.compute, ComputeKind::Ec2);

    let c = controller(&format!("{mysql}compute = local\n"));
    assert_eq!(c.compute, ComputeKind::Local);
    let c = controller(&format!("{mysql}database = sqlite\n"));
    assert!(matches!(c.database, DatabaseConfig::Sqlite { .. }));
    let incomplete = ini(format!("{CONTROLLER}database = mysql\nmysql_db = mysql\n"));
    assert_eq!(keys_of(incomplete.controller()), ["mysql_host", "mysql_user", "mysql_db"]);
}

#[test]
fn numbers_have_bounds() {
    for bad in [
        "keep_days = 0",
        "start_timeout = 0",
        "agent_timeout = 86401",
        "clone_timeout = 1h",
        "grace = 1.5",
        "max_changes = +3",
        "mysql_host = db\nmysql_user = u\nmysql_db = d\nmysql_port = 65536",
    ] {
        let keys = keys_of(ini(format!("{CONTROLLER}{bad}\n")).controller());
        assert!(bad.contains(keys[0]) && keys.len() == 1, "{bad}: {keys:?}");
    }
    for bad in [
        "check_timeout = 0",
        "step_timeout = 99999999999999999999",
        "stop_timeout = 601",
        "poll_seconds = 56",
    ] {
        let keys = keys_of(ini(format!("{CLIENT}{bad}\n")).client());
        assert!(bad.contains(keys[0]) && keys.len() == 1, "{bad}: {keys:?}");
    }
}

#[test]
fn urls_names_and_levels_are_checked() {
    for bad in [
        "github_api_url = api.github.com",
        "github_api_url = ftp://x",
        "github_api_url = https://",
        "github_api_url = https://ghe/?x",
        "aws_endpoint_url = localhost:5000",
        "aws_region = Tokyo",
        "protocol = gopher://",
        "domain = https://x/",
        "compute = azure",
        "logging_level = LOUD",
        "owner = a/b",
        "repo = ..",
        "sqlite_path = ~/pullre.db",
    ] {
        let keys = keys_of(ini(format!("{CONTROLLER}{bad}\n")).controller());
        assert!(bad.contains(keys[0]) && keys.len() == 1, "{bad}: {keys:?}");
    }
    let c = controller("github_api_url = http://127.0.0.1:4000/api/v3/\nprotocol = http\n");
    assert_eq!(c.github_api_url, "http://127.0.0.1:4000/api/v3");
    assert_eq!(c.protocol, "http://");
    for (text, level) in [
        ("DEBUG", Level::DEBUG),
        ("info", Level::INFO),
        ("WARNING", Level::WARN),
        ("warn", Level::WARN),
        ("Error", Level::ERROR),
        ("CRITICAL", Level::ERROR),
        ("trace", Level::TRACE),
    ] {
        assert_eq!(controller(&format!("logging_level = {text}\n")).logging_level, level);
    }
}

#[test]
fn relative_paths_start_at_the_files_folder() {
    let text =
        format!("{CONTROLLER}base_dir = base\nsqlite_path = data/x.db\nschema_dir = /var/s\n");
    let i = ini(text);
    let c = i.controller().unwrap();
    assert_eq!(c.state_dir, i.path("base/.pullre"));
    let DatabaseConfig::Sqlite { path, schema_dir } = c.database else {
        panic!("not SQLite");
    };
    assert_eq!((path, schema_dir.as_path()), (i.path("data/x.db"), Path::new("/var/s")));

    // A schema named `pullre` would be the control database's file.
    let wrong = ini(format!("{CONTROLLER}schema_dir = .\n")).controller().unwrap_err();
    assert!(wrong.to_string().contains("schema_dir"), "{wrong}");

    let i = ini(format!("{CONTROLLER}base_dir = /opt/base\nstate_dir = state\n"));
    assert_eq!(i.controller().unwrap().state_dir, i.path("state"));
}

#[test]
fn one_aws_key_asks_for_the_other() {
    let one = ini(format!("{CONTROLLER}AWS_ACCESS_KEY_ID = AKIA\n"));
    assert_eq!(keys_of(one.controller()), ["AWS_SECRET_KEY"]);
    let other = ini(format!("{CONTROLLER}AWS_SECRET_KEY = x\n"));
    assert_eq!(keys_of(other.controller()), ["AWS_ACCESS_KEY_ID"]);
}

#[test]
fn the_clients_defaults() {
    let c = client("");
    assert_eq!(c.exec_command, "./run");
    let seconds = [c.check_timeout, c.step_timeout, c.stop_timeout].map(|d| d.as_secs());
    assert_eq!(seconds, [60, 900, 10]);
    assert_eq!(c.poll_seconds, 0);
    assert_eq!(c.migrate_command, None);
    assert_eq!(client("stop_timeout = 1\n").stop_timeout, Duration::from_secs(1));
}

#[test]
fn a_git_url_carries_no_password() {
    for good in ["git@github.com:acme/shop.git", "ssh://git@host:22/x", "/srv/a:b@c", "https://h/x"]
    {
        assert_eq!(client(&format!("git_url = {good}\n")).git_url.as_deref(), Some(good));
    }
    for bad in ["--upload-pack=x", "https://me:hunter2@host/x"] {
        let i = ini(format!("{CLIENT}git_url = {bad}\n"));
        assert_eq!(keys_of(i.client()), ["git_url"]);
        assert!(!said(&i, i.client()).contains("hunter2"));
    }
}

#[test]
fn target_dir_gives_each_server_a_folder_of_its_own() {
    let c = client("target_dir = /srv/{server}/acme/shop\n");
    assert!(c.target_dir.is_per_server());
    let dir = c.target_dir.for_server("stg 1").unwrap();
    assert_eq!(dir, Path::new("/srv/stg 1/acme/shop"));
    for bad in ["", ".", "..", "a/b", "/", "../x", "a\0b"] {
        c.target_dir.for_server(bad).unwrap_err();
    }
    // One folder for all: no name becomes part of it.
    let c = client("");
    assert!(!c.target_dir.is_per_server());
    let dir = c.target_dir.for_server("a/b").unwrap();
    assert_eq!(dir, Path::new("/srv/acme/shop"));

    let i = ini(format!("{CLIENT}target_dir = work/{{server}}\n"));
    let dir = i.client().unwrap().target_dir.for_server("s").unwrap();
    assert_eq!(dir, i.path("work/s"));
    let typo = ini(format!("{CLIENT}target_dir = /srv/{{sever}}\n"));
    assert_eq!(keys_of(typo.client()), ["target_dir"]);
}

#[test]
fn the_client_knows_every_secret_that_its_files_hold() {
    let c = ini(format!(
        "{CLIENT}token = tok-file\nmysql_pw = a-long-password\nwebhook_secret = abc\n\
         slack_url = https://hooks/T1\nbasic_user = admin\n"
    ))
    .env("PULLRE_TOKEN", "tok-env1")
    .client()
    .unwrap();
    let expected = ["https://hooks/T1", "a-long-password", "tok-env1", "tok-file"];
    let mut secrets = c.secrets();
    assert!(secrets.is_sorted_by(|a, b| a.len() >= b.len()), "longest first");
    secrets.sort_by_key(|s| expected.iter().position(|e| e == s));
    assert_eq!(secrets, expected);
}

#[test]
fn no_secret_is_in_debug_output() {
    let text = format!(
        "{CONTROLLER}mysql_host = h\nmysql_user = u\nmysql_db = d\nmysql_pw = hunter2\n\
         AWS_ACCESS_KEY_ID = hunter2\nAWS_SECRET_KEY = hunter2\napp_secret_key = hunter2\n{CLIENT}"
    )
    .replace("ghp_0123456789", "hunter2");
    let i = ini(text);
    let all = format!("{:?} {:?} {:?}", i.raw(), i.controller(), i.client());
    assert!(!all.contains("hunter2"), "{all}");
    assert!(all.contains("***"));
    assert_eq!(Secret::new("hunter2").to_string(), "***");
}

fn template() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../app.ini.default");
    fs::read_to_string(path).unwrap()
}

#[test]
fn app_ini_default_explains_every_key_once_and_says_which_are_not_used_yet() {
    let template = template();
    let lines: Vec<&str> = template.lines().collect();
    let mut named = Vec::new();
    for pair in lines.windows(2) {
        let Some((name, _)) = pair[1].split_once('=').filter(|_| !pair[1].starts_with('#')) else {
            continue;
        };
        let key = keys::find(name.trim()).unwrap_or_else(|| panic!("{name}is not known"));
        assert!(pair[0].starts_with("# "), "{} is not explained", key.name);
        assert_eq!(pair[0].contains("not used yet"), !key.used, "{}", key.name);
        named.push(key.name);
    }
    let known: Vec<&str> = KEYS.iter().map(|key| key.name).collect();
    assert_eq!(named, known);
    assert_eq!(ini(&template).raw().warnings(), [] as [String; 0]);
}

#[test]
fn app_ini_default_as_it_is_lacks_exactly_what_only_the_user_knows() {
    let untouched = ini(template());
    assert_eq!(keys_of(untouched.controller()), ["owner", "repo", "token"]);
    assert_eq!(keys_of(untouched.client()), ["target_dir", "owner", "repo", "exec_command"]);
}

#[test]
fn app_ini_default_filled_in_is_one_machine_with_sqlite_and_states_the_defaults() {
    let mut filled = ini(template());
    for (key, value) in [
        ("OWNER", "acme"),
        ("REPO", "shop"),
        ("TOKEN", "ghp_0123456789"),
        ("TARGET_DIR", "work/{server}/acme/shop"),
        ("EXEC_COMMAND", "./run"),
    ] {
        filled = filled.env(&format!("PULLRE_{key}"), value);
    }
    let c = filled.controller().unwrap();
    assert_eq!(c.compute, ComputeKind::Local);
    // What the template states as defaults are the defaults.
    let bare = ini(CONTROLLER);
    let show =
        |ini: &Ini, debug: String| debug.replace(&ini.folder.path().display().to_string(), "DIR");
    assert_eq!(
        show(&filled, format!("{c:?}")),
        show(&bare, format!("{:?}", bare.controller().unwrap()))
    );
    let mut bare = ini(CLIENT);
    bare = bare.env("PULLRE_TARGET_DIR", "work/{server}/acme/shop");
    // The token is among what the client masks.
    bare = bare.env("PULLRE_TOKEN", "ghp_0123456789");
    assert_eq!(
        show(&filled, format!("{:?}", filled.client().unwrap())),
        show(&bare, format!("{:?}", bare.client().unwrap()))
    );
}
