//! What is done to the server's own DDL texts, as bytes.

use super::literals::sayable;

/// A quoted identifier.
pub(super) fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// A quoted string, under a `sql_mode` that knows backslashes.
pub(super) fn text(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "''"))
}

pub(super) use crate::schema_clone::stable_hash as hash;

/// Where the quoted piece that begins at `at` ends; `at + 1` where none begins there.
pub(super) fn past_quotes(sql: &[u8], at: usize) -> usize {
    let quote = sql[at];
    if !matches!(quote, b'`' | b'\'' | b'"') {
        return at + 1;
    }
    let mut i = at + 1;
    while i < sql.len() {
        match sql[i] {
            b'\\' if quote != b'`' => i += 2,
            // A doubled one ends and begins a piece, which comes to the same.
            c if c == quote => return i + 1,
            _ => i += 1,
        }
    }
    sql.len()
}

/// Where `word` stands outside of quotes, from `from` on.
fn find(sql: &[u8], word: &[u8], from: usize) -> Option<usize> {
    let mut i = from;
    while i < sql.len() {
        // A word may itself begin with a quote.
        if sql[i..].starts_with(word) {
            return Some(i);
        }
        i = past_quotes(sql, i);
    }
    None
}

/// A `CREATE TABLE`, cut where keys can be taken out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    head: Vec<u8>,
    items: Vec<Vec<u8>>,
    tail: Vec<u8>,
}

impl Table {
    /// None for a text of another form.
    pub fn parse(sql: &[u8]) -> Option<Table> {
        let sql = &*sayable(sql);
        let open = find(sql, b"(", 0)?;
        let (mut depth, mut start, mut items) = (0_usize, open + 1, Vec::new());
        let mut i = open;
        while i < sql.len() {
            match sql[i] {
                b'(' => depth += 1,
                b')' => {
                    depth -= 1;
                    if depth == 0 {
                        items.push(sql[start..i].trim_ascii().to_vec());
                        let (head, tail) = (sql[..open].to_vec(), sql[i..].to_vec());
                        return Some(Table { head, items, tail });
                    }
                }
                b',' if depth == 1 => {
                    items.push(sql[start..i].trim_ascii().to_vec());
                    start = i + 1;
                }
                _ => {}
            }
            i = past_quotes(sql, i);
        }
        None
    }

    fn sql(&self, items: &[&Vec<u8>]) -> Vec<u8> {
        let mut sql = self.head.clone();
        sql.extend_from_slice(b"(\n");
        for (index, item) in items.iter().enumerate() {
            sql.extend_from_slice(if index == 0 { b"  " } else { b",\n  " });
            sql.extend_from_slice(item);
        }
        sql.push(b'\n');
        sql.extend_from_slice(&self.tail);
        sql
    }

    /// The columns that take a value, and those that are generated.
    pub fn columns(&self) -> (Vec<String>, Vec<String>) {
        let (mut values, mut generated) = (Vec::new(), Vec::new());
        for item in &self.items {
            let Some((name, _)) = identifier(item, 0) else { continue };
            let is_generated = find(item, b" GENERATED ALWAYS AS ", 0).is_some();
            if is_generated { generated.push(name) } else { values.push(name) }
        }
        (values, generated)
    }

    /// The tables of the same schema that foreign keys lead to.
    pub fn parents(&self) -> Vec<String> {
        self.items.iter().filter_map(|item| reference(item)?.into_parent()).collect()
    }

    /// Those that lead to a table of the same schema.
    pub fn foreign_keys(&self) -> Vec<ForeignKey> {
        self.items.iter().filter_map(|item| foreign_key(item)).collect()
    }

    /// Whether a key of it begins with these columns, as a foreign key to them needs.
    pub fn has_key_on(&self, columns: &[String]) -> bool {
        let keys =
            self.items.iter().filter(|item| is_key(item) || item.starts_with(b"PRIMARY KEY "));
        keys.filter_map(|item| Some(names(item, find(item, b" (", 0)? + 1))).any(|(key, _)| {
            key.len() >= columns.len()
                && key.iter().zip(columns).all(|(a, b)| a.eq_ignore_ascii_case(b))
        })
    }

    /// The foreign keys that lead to `schema`: the quoted name of each, and its text without it.
    pub fn links_into(&self, schema: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
        let (mut found, word) = (Vec::new(), format!("REFERENCES {}.", quoted(schema)));
        for item in &self.items {
            let leads = reference(item).is_some_and(|r| r.schema.as_deref() == Some(schema));
            let start = b"CONSTRAINT ".len();
            if let (true, Some(at), Some((_, end))) =
                (leads, find(item, word.as_bytes(), 0), identifier(item, start))
            {
                let text = [&item[..at], b"REFERENCES ", &item[at + word.len()..]].concat();
                found.push((item[start..end].to_vec(), text));
            }
        }
        found
    }

    /// Whether a foreign key leads to another schema.
    pub fn leads_outside(&self) -> bool {
        self.items.iter().any(|item| reference(item).is_some_and(|r| r.schema.is_some()))
    }

    /// Whether its secondary keys may be added later and all is the same then. An AUTO_INCREMENT
    /// that leads no primary key needs its own, and keys by hash or period are rebuilt.
    pub fn keys_can_wait(&self) -> bool {
        let counting = self.items.iter().find(|item| find(item, b" AUTO_INCREMENT", 0).is_some());
        let leads = |column: &Vec<u8>| {
            let name = &column[..past_quotes(column, 0)];
            let key = [b"PRIMARY KEY (".as_slice(), name].concat();
            self.items.iter().any(|item| item.starts_with(&key))
        };
        counting.is_none_or(leads)
            && find(&self.tail, b"ENGINE=InnoDB", 0).is_some()
            && find(&self.tail, b"WITH SYSTEM VERSIONING", 0).is_none()
            && !self.items.iter().any(|item| {
                item.starts_with(b"PERIOD FOR")
                    || (is_key(item) && find(item, b"USING HASH", 0).is_some())
            })
    }

    /// The statements that make it: the table; its keys, each an `ALTER` of its own; its foreign
    /// keys. `wait`: keys come after the rows. `link`: foreign keys come with the table.
    pub fn statements(&self, into: &str, wait: bool, link: bool) -> Statements {
        let wait = wait && self.keys_can_wait();
        let is_link = |item: &Vec<u8>| reference(item).is_some();
        let now: Vec<&Vec<u8>> = self
            .items
            .iter()
            .filter(|item| if is_link(item) { link } else { !(wait && is_key(item)) })
            .collect();
        let create = self.sql(&now);
        let later = |pick: &dyn Fn(&Vec<u8>) -> bool| -> Vec<Vec<u8>> {
            self.items.iter().filter(|item| pick(item)).cloned().collect()
        };
        let mut keys = Vec::new();
        if wait {
            let plain = later(&|item| is_key(item) && !item.starts_with(b"FULLTEXT"));
            keys.extend((!plain.is_empty()).then(|| alter(into, &plain)));
            // The server adds one of them at a time.
            for item in later(&|item| item.starts_with(b"FULLTEXT")) {
                keys.push(alter(into, &[item]));
            }
        }
        let links = if link { Vec::new() } else { later(&is_link) };
        let links = (!links.is_empty()).then(|| alter(into, &links));
        Statements { create, keys, links }
    }

    /// The columns, as written, in whose definition `word` stands.
    pub fn columns_with(&self, word: &str) -> Vec<Vec<u8>> {
        let has =
            |item: &&Vec<u8>| item.starts_with(b"`") && find(item, word.as_bytes(), 0).is_some();
        self.items.iter().filter(has).cloned().collect()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Statements {
    pub create: Vec<u8>,
    pub keys: Vec<Vec<u8>>,
    pub links: Option<Vec<u8>>,
}

fn alter(table: &str, items: &[Vec<u8>]) -> Vec<u8> {
    let mut sql = format!("ALTER TABLE {table} ADD ").into_bytes();
    sql.extend_from_slice(&items.join(&b", ADD "[..]));
    sql
}

/// A secondary key.
fn is_key(item: &[u8]) -> bool {
    [&b"KEY "[..], b"UNIQUE KEY ", b"FULLTEXT KEY ", b"SPATIAL KEY "]
        .iter()
        .any(|start| item.starts_with(start))
}

/// From columns of a table to columns of another one in the same schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ForeignKey {
    pub name: String,
    pub columns: Vec<String>,
    pub parent: String,
    pub parent_columns: Vec<String>,
}

fn foreign_key(item: &[u8]) -> Option<ForeignKey> {
    let parent = reference(item)?.into_parent()?;
    let (name, end) = identifier(item, b"CONSTRAINT ".len())?;
    let (columns, end) = names(item, find(item, b"(", end)?);
    let (parent_columns, _) = names(item, find(item, b"(", end)?);
    Some(ForeignKey { name, columns, parent, parent_columns })
}

/// The names in a list that begins at `open`, and where it ends.
fn names(item: &[u8], open: usize) -> (Vec<String>, usize) {
    let (mut found, mut depth, mut i) = (Vec::new(), 0_usize, open);
    while i < item.len() {
        match item[i] {
            b'(' => depth += 1,
            b')' if depth <= 1 => return (found, i + 1),
            b')' => depth -= 1,
            b'`' => {
                let Some((name, end)) = identifier(item, i) else { break };
                found.push(name);
                i = end;
                continue;
            }
            _ => {}
        }
        i += 1;
    }
    (found, item.len())
}

/// What a foreign key leads to.
struct Reference {
    schema: Option<String>,
    table: String,
}

impl Reference {
    fn into_parent(self) -> Option<String> {
        self.schema.is_none().then_some(self.table)
    }
}

fn reference(item: &[u8]) -> Option<Reference> {
    if !item.starts_with(b"CONSTRAINT ") {
        return None;
    }
    let after_name = past_quotes(item, b"CONSTRAINT ".len());
    if !item[after_name..].trim_ascii_start().starts_with(b"FOREIGN KEY") {
        return None;
    }
    let at = find(item, b"REFERENCES `", 0)? + b"REFERENCES ".len();
    let (first, rest) = identifier(item, at)?;
    if item.get(rest) == Some(&b'.') {
        let (table, _) = identifier(item, rest + 1)?;
        return Some(Reference { schema: Some(first), table });
    }
    Some(Reference { schema: None, table: first })
}

/// The quoted identifier at `at`, and where it ends.
fn identifier(sql: &[u8], at: usize) -> Option<(String, usize)> {
    if sql.get(at) != Some(&b'`') {
        return None;
    }
    let mut end = past_quotes(sql, at);
    while sql.get(end) == Some(&b'`') {
        end = past_quotes(sql, end);
    }
    let name = std::str::from_utf8(&sql[at + 1..end - 1]).ok()?;
    Some((name.replace("``", "`"), end))
}

/// Defaults that draw from a sequence name its schema, always.
pub(super) fn move_sequences(sql: &[u8], from: &str, to: &str) -> Vec<u8> {
    let mut moved = Vec::with_capacity(sql.len());
    let (from, to) = (format!("val({}.", quoted(from)), format!("val({}.", quoted(to)));
    let mut rest = 0;
    while let Some(at) = find(sql, from.as_bytes(), rest) {
        moved.extend_from_slice(&sql[rest..at]);
        moved.extend_from_slice(to.as_bytes());
        rest = at + from.len();
    }
    moved.extend_from_slice(&sql[rest..]);
    moved
}

/// The table's text without what may differ between a table and its copy: the counter, which goes
/// on, and the folder.
pub(super) fn comparable(sql: &[u8]) -> Vec<u8> {
    let mut sql = sql.to_vec();
    for (word, ends) in [
        (&b" AUTO_INCREMENT="[..], &b" \n"[..]),
        (b" DATA DIRECTORY=", b" \n"),
        (b" INDEX DIRECTORY=", b" \n"),
        (b" DATA DIRECTORY = ", b" \n,)"),
        (b" INDEX DIRECTORY = ", b" \n,)"),
    ] {
        while let Some(at) = find(&sql, word, 0) {
            let mut end = at + word.len();
            while end < sql.len() && !ends.contains(&sql[end]) {
                end = past_quotes(&sql, end);
            }
            sql.drain(at..end);
        }
    }
    sql
}

/// The next value of its counter; None where it has none, or stands at its beginning.
pub(super) fn counter(sql: &[u8]) -> Option<u64> {
    const WORD: &[u8] = b" AUTO_INCREMENT=";
    let rest = &sql[find(sql, WORD, 0)? + WORD.len()..];
    let digits: Vec<u8> = rest.iter().copied().take_while(u8::is_ascii_digit).collect();
    std::str::from_utf8(&digits).ok()?.parse().ok()
}

/// Whether it lies in a folder of its own.
pub(super) fn has_folder(sql: &[u8]) -> bool {
    find(sql, b" DATA DIRECTORY", 0).or_else(|| find(sql, b" INDEX DIRECTORY", 0)).is_some()
}

/// The text without its `DEFINER`, which then is whoever runs it.
pub(super) fn without_definer(sql: &[u8]) -> Vec<u8> {
    const WORD: &[u8] = b" DEFINER=";
    let Some(at) = find(sql, WORD, 0) else { return sql.to_vec() };
    let mut end = at + WORD.len();
    while end < sql.len() && sql[end] != b' ' {
        end = past_quotes(sql, end);
    }
    [&sql[..at], &sql[end..]].concat()
}

/// The event's text, so that it does not fire. None for a text of another form.
pub(super) fn disabled(sql: &[u8]) -> Option<Vec<u8>> {
    const STATES: [&[u8]; 3] = [b" ENABLE", b" DISABLE ON SLAVE", b" DISABLE"];
    // The first word outside of quotes that says it: name, login and schedule come before it.
    let keep = find(sql, b" ON COMPLETION ", 0)?;
    let at = find(sql, b" PRESERVE", keep)? + b" PRESERVE".len();
    let state = STATES.iter().find(|state| sql[at..].starts_with(state))?;
    Some([&sql[..at], b" DISABLE", &sql[at + state.len()..]].concat())
}

/// Whether a name in it stands behind another name and a dot.
pub(super) fn is_qualified(sql: &[u8]) -> bool {
    let mut i = 0;
    while i < sql.len() {
        let rest = &sql[i..];
        let comment = [(&b"/*"[..], &b"*/"[..]), (b"-- ", b"\n"), (b"#", b"\n")];
        if let Some((_, end)) = comment.iter().find(|(start, _)| rest.starts_with(start)) {
            let length = rest[1..].windows(end.len()).position(|part| part == *end);
            i += length.map_or(rest.len(), |length| 1 + length + end.len());
            continue;
        }
        if sql[i] == b'.' {
            return true;
        }
        i = past_quotes(sql, i);
    }
    false
}

/// Whether a body names this schema.
pub(super) fn names_schema(sql: &[u8], schema: &str) -> bool {
    let sql = String::from_utf8_lossy(sql).to_lowercase();
    let schema = schema.to_lowercase();
    let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
    sql.contains(&format!("{}.", quoted(&schema)))
        || sql.match_indices(&format!("{schema}.")).any(|(at, _)| {
            let before = sql[..at].chars().next_back();
            before.is_none_or(|c| !is_word(c) && c != '`' && c != '.')
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str = "CREATE TABLE `a``(,b` (
  `id` int(11) NOT NULL AUTO_INCREMENT,
  `x` varchar(9) DEFAULT 'it''s, (\\'KEY' COMMENT 'a),KEY `k` (`x`)',
  `s` bigint DEFAULT nextval(`src`.`sq`),
  `g``1` int(11) GENERATED ALWAYS AS (`id` + 1) VIRTUAL,
  PRIMARY KEY (`id`),
  UNIQUE KEY `u` (`x`),
  FULLTEXT KEY `f1` (`x`),
  FULLTEXT KEY `f2` (`x`),
  CONSTRAINT `self` FOREIGN KEY (`s`) REFERENCES `a``(,b` (`id`) ON DELETE CASCADE,
  CONSTRAINT `far` FOREIGN KEY (`s`) REFERENCES `other`.`t` (`id`),
  CONSTRAINT `c,c` CHECK (`x` <> 'FOREIGN KEY')
) ENGINE=InnoDB AUTO_INCREMENT=7 DEFAULT CHARSET=utf8mb4 DATA DIRECTORY='/x, y/' COMMENT=' AUTO_INCREMENT=9'";

    fn table() -> Table {
        Table::parse(HOSTILE.as_bytes()).unwrap()
    }

    fn shown(sql: &[u8]) -> &str {
        std::str::from_utf8(sql).unwrap()
    }

    #[test]
    fn a_table_is_put_together_as_it_was() {
        let whole = table().statements("t", false, true);
        assert_eq!(shown(&whole.create), HOSTILE);
        assert_eq!((whole.keys, whole.links), (vec![], None));
    }

    #[test]
    fn columns_are_told_apart() {
        let sql = HOSTILE.replace("'a),KEY `k` (`x`)'", "' GENERATED ALWAYS AS '");
        let (values, generated) = Table::parse(sql.as_bytes()).unwrap().columns();
        assert_eq!((values.join(" "), generated), ("id x s".into(), vec!["g`1".to_owned()]));
    }

    #[test]
    fn keys_and_foreign_keys_can_come_later() {
        let s = table().statements("`b`.`t`", true, false);
        assert!(!shown(&s.create).contains("UNIQUE") && shown(&s.create).contains("CHECK"));
        let keys: Vec<_> = s.keys.iter().map(|sql| shown(sql)).collect();
        assert_eq!(
            keys,
            [
                "ALTER TABLE `b`.`t` ADD UNIQUE KEY `u` (`x`)",
                "ALTER TABLE `b`.`t` ADD FULLTEXT KEY `f1` (`x`)",
                "ALTER TABLE `b`.`t` ADD FULLTEXT KEY `f2` (`x`)",
            ]
        );
        let links = s.links.unwrap();
        assert!(shown(&links).starts_with("ALTER TABLE `b`.`t` ADD CONSTRAINT `self` FOREIGN"));
        assert!(shown(&links).contains(", ADD CONSTRAINT `far` FOREIGN"));
        let far = b"CONSTRAINT `far` FOREIGN KEY (`s`) REFERENCES `t` (`id`)".to_vec();
        assert_eq!(table().links_into("other"), [(b"`far`".to_vec(), far)]);
        assert_eq!(table().parents(), ["a`(,b"]);
        let own = ForeignKey {
            name: "self".into(),
            columns: vec!["s".into()],
            parent: "a`(,b".into(),
            parent_columns: vec!["id".into()],
        };
        assert_eq!(table().foreign_keys(), [own]);
        let keyed = |column: &str| table().has_key_on(&[column.to_owned()]);
        assert!(keyed("ID") && keyed("x") && !keyed("s"));
        assert!(table().leads_outside());
    }

    #[test]
    fn a_counter_that_leads_no_primary_key_keeps_its_key() {
        let sql = HOSTILE.replace("PRIMARY KEY (`id`)", "PRIMARY KEY (`x`,`id`)");
        let table = Table::parse(sql.as_bytes()).unwrap();
        assert!(!table.keys_can_wait());
        assert!(table.statements("t", true, true).keys.is_empty());
    }

    #[test]
    fn sequences_move_along_but_for_texts_that_look_alike() {
        let sql = "`a` DEFAULT nextval(`src`.`s`) COMMENT 'nextval(`src`.`s`)'";
        assert_eq!(
            shown(&move_sequences(sql.as_bytes(), "src", "d`t")),
            "`a` DEFAULT nextval(`d``t`.`s`) COMMENT 'nextval(`src`.`s`)'"
        );
        assert_eq!(table().columns_with("val(`src`.").len(), 1);
    }

    #[test]
    fn counters_and_folders_do_not_count() {
        let end = shown(&comparable(HOSTILE.as_bytes())).rsplit_once(')').unwrap().1.to_owned();
        assert_eq!(end, " ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COMMENT=' AUTO_INCREMENT=9'");
    }

    #[test]
    fn a_counter_is_read() {
        assert_eq!(counter(HOSTILE.as_bytes()), Some(7));
        assert_eq!(counter(b"CREATE TABLE `t` (\n) COMMENT=' AUTO_INCREMENT=9'"), None);
    }

    #[test]
    fn definers_go_and_events_sleep() {
        let sql = b"CREATE DEFINER=`a b`@`%` EVENT `e ON COMPLETION PRESERVE ENABLE` ON SCHEDULE EVERY 1 DAY ON COMPLETION NOT PRESERVE ENABLE COMMENT 'x' DO SELECT ' ENABLE'";
        assert_eq!(
            shown(&disabled(&without_definer(sql)).unwrap()),
            "CREATE EVENT `e ON COMPLETION PRESERVE ENABLE` ON SCHEDULE EVERY 1 DAY ON COMPLETION NOT PRESERVE DISABLE COMMENT 'x' DO SELECT ' ENABLE'"
        );
        let view =
            b"CREATE ALGORITHM=UNDEFINED DEFINER=`r` SQL SECURITY DEFINER VIEW `v` AS select 1";
        assert_eq!(
            shown(&without_definer(view)),
            "CREATE ALGORITHM=UNDEFINED SQL SECURITY DEFINER VIEW `v` AS select 1"
        );
    }

    #[test]
    fn bodies_that_name_the_source_are_found() {
        for body in ["select 1 from src.t", "call `Src`.p()", "insert into SRC.t values (1)"] {
            assert!(names_schema(body.as_bytes(), "src"), "{body}");
        }
        for body in ["select x_src.t", "select a.src.b", "select src", "`xsrc`.t"] {
            assert!(!names_schema(body.as_bytes(), "src"), "{body}");
        }
    }

    #[test]
    fn a_qualified_name_is_known_however_it_is_written() {
        for sql in
            ["T `s`.`x`", "T s . x", "T /* a */ s/* . */ . x", "T \"s\".\"x\"", "T x # '\n ON s.t"]
        {
            assert!(is_qualified(sql.as_bytes()), "{sql}");
        }
        for sql in [
            "DEFINER=`a.b`@`10.0.0.1` T `x.y`",
            "T /* a.b */ x ON t",
            "T x -- a.b\n ON t",
            "T x # a.b",
        ] {
            assert!(!is_qualified(sql.as_bytes()), "{sql}");
        }
    }
}
