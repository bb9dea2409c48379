//! The rules of `mask_file`: what of a source its clones must not hold.
//!
//! One rule a line: `table.column = SQL expression`, `*.column = SQL expression`, `table = skip`,
//! `table = where SQL condition`. Names with odd characters stand in backticks. Rules are applied
//! while rows are read, so that what they hide is never written.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::stable_hash;

/// Whose words the expressions are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dialect {
    #[default]
    Mysql,
    Sqlite,
}

/// All rules. Without any, a clone is what its source is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mask {
    rules: Vec<Rule>,
    digest: Option<String>,
}

/// Hides nothing.
pub static NO_MASK: Mask = Mask { rules: Vec::new(), digest: None };

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    line: usize,
    /// As it was written.
    text: String,
    /// None: every table.
    table: Option<String>,
    what: What,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Column { name: String, expression: String },
    Skip,
    Where(String),
}

/// What is wrong with one line, or with one rule and the source that it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    pub line: usize,
    pub rule: String,
    pub why: String,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, `{}`: {}", self.line, self.rule, self.why)
    }
}

/// A table of the source, as far as rules are about it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape<'a> {
    pub name: &'a str,
    /// Those that take a value.
    pub columns: &'a [String],
    pub generated: &'a [String],
    /// Why its rows are not ours to mask, if so.
    pub elsewhere: Option<&'a str>,
}

/// What the rules make of one table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct TableMask {
    /// By the column's place: the expression that gives its value.
    pub columns: BTreeMap<usize, Expression>,
    pub rows: Rows,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) enum Rows {
    #[default]
    All,
    None,
    Where(Expression),
}

/// Checked to be closed in itself: in parentheses it cannot become anything else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Expression {
    pub sql: String,
    /// Where it stands, for what is told.
    pub rule: usize,
}

impl TableMask {
    /// The table's rows are not its source's.
    pub fn changes(&self) -> bool {
        !self.columns.is_empty() || self.rows != Rows::All
    }

    pub fn skips(&self) -> bool {
        self.rows == Rows::None
    }

    pub fn expressions(&self) -> impl Iterator<Item = &Expression> {
        let condition = match &self.rows {
            Rows::Where(condition) => Some(condition),
            Rows::All | Rows::None => None,
        };
        self.columns.values().chain(condition)
    }
}

impl Mask {
    /// Fails with everything that is wrong.
    pub fn parse(text: &str, dialect: Dialect) -> Result<Mask, Vec<Wrong>> {
        let (mut rules, mut wrong): (Vec<Rule>, Vec<Wrong>) = (Vec::new(), Vec::new());
        for (index, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            let (line, number) = (line.trim(), index + 1);
            if line.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            let rule = parse_rule(line, dialect).map(|(table, what)| Rule {
                line: number,
                text: line.to_owned(),
                table,
                what,
            });
            let rule = rule.and_then(|rule| match rules.iter().find(|r| r.is_about_same(&rule)) {
                Some(other) => Err(format!("line {} says something else of the same", other.line)),
                None => Ok(rule),
            });
            match rule {
                Ok(rule) => rules.push(rule),
                Err(why) => wrong.push(Wrong { line: number, rule: line.to_owned(), why }),
            }
        }
        if !wrong.is_empty() {
            return Err(wrong);
        }
        let said: BTreeSet<_> = rules.iter().map(|rule| (&rule.table, &rule.what)).collect();
        let digest = format!("{:016x}", stable_hash(&format!("{said:?}")));
        let digest = (!rules.is_empty()).then_some(digest);
        Ok(Mask { rules, digest })
    }

    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Tells masks apart: a clone that was made under another one is not what it should be.
    /// Comments, order and spaces do not count. None where nothing is hidden.
    pub fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    pub(super) fn wrong(&self, rule: usize, why: impl Into<String>) -> Wrong {
        let rule = &self.rules[rule];
        Wrong { line: rule.line, rule: rule.text.clone(), why: why.into() }
    }

    /// What the rules make of these tables, in their order. A rule that is about none is wrong.
    pub(super) fn fit(&self, tables: &[Shape<'_>]) -> Result<Vec<TableMask>, Wrong> {
        let mut masks = vec![TableMask::default(); tables.len()];
        // What names a table comes after what names all, and wins.
        let mut order: Vec<_> = (0..self.rules.len()).collect();
        order.sort_by_key(|index| self.rules[*index].table.is_some());
        for index in order {
            let rule = &self.rules[index];
            let fail = |why: String| self.wrong(index, why);
            let named = self.tables_of(rule, tables);
            if named.is_empty() {
                let name = rule.table.as_deref().unwrap_or("*");
                return Err(fail(format!("the source has no table `{name}`")));
            }
            match &rule.what {
                What::Skip => named.iter().for_each(|at| masks[*at].rows = Rows::None),
                What::Where(condition) => {
                    for at in named {
                        if let Some(why) = tables[at].elsewhere {
                            return Err(fail(format!("`{}` {why}", tables[at].name)));
                        }
                        let condition = Expression { sql: condition.clone(), rule: index };
                        masks[at].rows = Rows::Where(condition);
                    }
                }
                What::Column { name, expression } => {
                    let mut found = false;
                    for at in named {
                        let table = &tables[at];
                        let same = |column: &String| column.to_lowercase() == name.to_lowercase();
                        if table.generated.iter().any(same) {
                            return Err(fail(format!(
                                "`{name}` of table `{}` is a generated column: mask those that it is \
                                 computed from",
                                table.name
                            )));
                        }
                        let Some(column) = table.columns.iter().position(same) else { continue };
                        if let Some(why) = table.elsewhere {
                            return Err(fail(format!("`{}` {why}", table.name)));
                        }
                        found = true;
                        let expression = Expression { sql: expression.clone(), rule: index };
                        masks[at].columns.insert(column, expression);
                    }
                    if !found {
                        return Err(fail(match &rule.table {
                            Some(table) => format!("table `{table}` has no column `{name}`"),
                            None => format!("no table of the source has a column `{name}`"),
                        }));
                    }
                }
            }
        }
        Ok(masks)
    }

    fn tables_of(&self, rule: &Rule, tables: &[Shape<'_>]) -> Vec<usize> {
        let Some(name) = &rule.table else { return (0..tables.len()).collect() };
        let exact = tables.iter().position(|table| table.name == name);
        // Servers differ in whether the case of a table's name counts.
        let alike = || {
            let same = |t: &Shape<'_>| t.name.to_lowercase() == name.to_lowercase();
            let found: Vec<_> = (0..tables.len()).filter(|at| same(&tables[*at])).collect();
            if found.len() == 1 { found.first().copied() } else { None }
        };
        exact.or_else(alike).into_iter().collect()
    }
}

impl Rule {
    fn is_about_same(&self, other: &Rule) -> bool {
        let fold = |name: &Option<String>| name.as_ref().map(|name| name.to_lowercase());
        fold(&self.table) == fold(&other.table)
            && match (&self.what, &other.what) {
                (What::Column { name: a, .. }, What::Column { name: b, .. }) => {
                    a.to_lowercase() == b.to_lowercase()
                }
                (What::Skip | What::Where(_), What::Skip | What::Where(_)) => true,
                _ => false,
            }
    }
}

fn parse_rule(line: &str, dialect: Dialect) -> Result<(Option<String>, What), String> {
    const FORMS: &str = "expected `table.column = SQL expression`, `*.column = SQL expression`, \
                         `table = skip` or `table = where SQL condition`";
    let (table, rest) = parse_name(line).ok_or(FORMS)?;
    let (column, rest) = match rest.strip_prefix('.') {
        Some(rest) => parse_name(rest.trim_start()).map(|(name, rest)| (Some(name), rest)),
        None => Some((None, rest)),
    }
    .ok_or(FORMS)?;
    let value = rest.strip_prefix('=').ok_or(FORMS)?.trim();
    if value.is_empty() {
        return Err(FORMS.to_owned());
    }
    let all = table == "*" && !line.starts_with('`');
    let table = (!all).then_some(table);
    let Some(name) = column else {
        if table.is_none() {
            return Err(format!("`*` stands for all tables only before a column; {FORMS}"));
        }
        if value.eq_ignore_ascii_case("skip") {
            return Ok((table, What::Skip));
        }
        let condition = value.split_at_checked(5).filter(|(word, rest)| {
            word.eq_ignore_ascii_case("where") && rest.starts_with([' ', '\t', '('])
        });
        let condition = condition.map(|(_, rest)| rest.trim()).ok_or(FORMS)?;
        one_expression(condition, dialect)?;
        return Ok((table, What::Where(condition.to_owned())));
    };
    if name == "*" {
        return Err("name each column; to leave out all rows write `table = skip`".to_owned());
    }
    one_expression(value, dialect)?;
    Ok((table, What::Column { name, expression: value.to_owned() }))
}

/// A name, and what comes after it and after spaces.
fn parse_name(text: &str) -> Option<(String, &str)> {
    if let Some(quoted) = text.strip_prefix('`') {
        let mut name = String::new();
        let mut rest = quoted;
        loop {
            let at = rest.find('`')?;
            name.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            match rest.strip_prefix('`') {
                Some(more) => {
                    name.push('`');
                    rest = more;
                }
                None => return (!name.is_empty()).then_some((name, rest.trim_start())),
            }
        }
    }
    let end = text.find(|c: char| c.is_whitespace() || ".=`'\"".contains(c))?;
    (end > 0).then(|| (text[..end].to_owned(), text[end..].trim_start()))
}

/// Whether the text, put into parentheses, stays in them: it cannot end the statement that it
/// becomes part of, nor read another table. Whether it means something only the server knows.
fn one_expression(text: &str, dialect: Dialect) -> Result<(), String> {
    let bytes = text.as_bytes();
    let (mut depth, mut i) = (0_i32, 0);
    let fail = |why: &str| Err(format!("{why}: write one SQL expression"));
    while i < bytes.len() {
        let rest = &bytes[i..];
        if let Some(end) = past_name(text, i, dialect) {
            if let Some(why) = forbidden(text, i, end, dialect) {
                return Err(why);
            }
            i = end;
            continue;
        }
        match bytes[i] {
            0 => return fail("a NUL character"),
            b';' => return fail("`;` outside of quotes"),
            b'#' if dialect == Dialect::Mysql => return fail("a comment in the middle"),
            _ if rest.starts_with(b"--") || rest.starts_with(b"/*") || rest.starts_with(b"*/") => {
                return fail("a comment in the middle");
            }
            b'(' => depth += 1,
            b')' => {
                depth -= 1;
                if depth < 0 {
                    return fail("a `)` without its `(`");
                }
            }
            quote @ (b'\'' | b'"' | b'`') => {
                match end_of_quotes(bytes, i, quote, dialect) {
                    Some(end) => i = end,
                    None => return fail("a quote without its end"),
                }
                continue;
            }
            b'[' if dialect == Dialect::Sqlite => match text[i..].find(']') {
                Some(length) => {
                    i += length + 1;
                    continue;
                }
                None => return fail("a `[` without its `]`"),
            },
            _ => {}
        }
        i += 1;
    }
    if depth == 0 { Ok(()) } else { fail("a `(` without its `)`") }
}

/// Where the name, word or number that begins at `at` ends.
fn past_name(text: &str, at: usize, dialect: Dialect) -> Option<usize> {
    let bytes = text.as_bytes();
    match *bytes.get(at)? {
        quote @ (b'`' | b'"') => end_of_quotes(bytes, at, quote, dialect),
        b'[' if dialect == Dialect::Sqlite => text[at..].find(']').map(|length| at + length + 1),
        _ => {
            let is_word = |c: &&u8| c.is_ascii_alphanumeric() || b"_$".contains(c) || **c >= 0x80;
            let length = bytes[at..].iter().take_while(is_word).count();
            (length > 0).then_some(at + length)
        }
    }
}

/// Why the name from `at` to `end` must not stand there.
fn forbidden(text: &str, at: usize, end: usize, dialect: Dialect) -> Option<String> {
    const SEQUENCES: [&str; 3] = ["NEXTVAL", "SETVAL", "LASTVAL"];
    let quotes = ['`', '"', '[', ']'];
    let is_bare = !text[at..end].starts_with(quotes);
    let word = text[at..end].trim_matches(quotes).to_ascii_uppercase();
    let rest = text[end..].trim_start();
    if is_bare && ["SELECT", "VALUES", "TABLE", "INTO"].contains(&word.as_str()) {
        return Some(format!("{word} in it: an expression sees the columns of its own row only"));
    }
    // `x IN t` reads the table. MySQL has no such form, and uses IN in `position(a IN b)`.
    if dialect == Dialect::Sqlite && is_bare && word == "IN" && !rest.starts_with('(') {
        return Some("IN without its list: an expression reads no other table".to_owned());
    }
    let next = past_name(rest, 0, dialect).map(|end| &rest[..end]);
    let value = next.is_some_and(|next| next.eq_ignore_ascii_case("value"));
    let draws = ["NEXT", "PREVIOUS"].contains(&word.as_str()) && is_bare && value;
    if draws || (SEQUENCES.contains(&word.as_str()) && rest.starts_with('(')) {
        return Some(format!("{word} in it: an expression must not draw from a sequence"));
    }
    // A stored function of somebody's schema, which may do anything. Unqualified, none is found.
    let function = rest.strip_prefix('.').map(str::trim_start).and_then(|rest| {
        let end = past_name(rest, 0, dialect)?;
        rest[end..].trim_start().starts_with('(').then(|| &rest[..end])
    });
    let is_number = word.bytes().all(|c| c.is_ascii_digit());
    match function {
        Some(name) if !is_number => Some(format!(
            "{}.{name}() in it: a stored function may write; use the server's own",
            &text[at..end]
        )),
        _ => None,
    }
}

fn end_of_quotes(bytes: &[u8], start: usize, quote: u8, dialect: Dialect) -> Option<usize> {
    let mut i = start + 1;
    while i < bytes.len() {
        match bytes[i] {
            b'\\' if dialect == Dialect::Mysql && quote != b'`' => i += 2,
            // A doubled one ends and begins a piece, which comes to the same.
            c if c == quote => return Some(i + 1),
            _ => i += 1,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(text: &str) -> Mask {
        Mask::parse(text, Dialect::Mysql).unwrap()
    }

    fn refused(text: &str) -> String {
        let wrong = Mask::parse(text, Dialect::Mysql).unwrap_err();
        wrong.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn rules_are_read_with_their_lines() {
        let read = mask(
            "# what nobody may see\n\n users.email = concat('user', id, '@example.com')\r\n\
             *.phone=null\nlogs = SKIP\n`odd.table`.`a``=b` = 'x;)'\norders = where id < 10 -1\n",
        );
        let lines: Vec<_> = read.rules.iter().map(|rule| rule.line).collect();
        assert_eq!(lines, [3, 4, 5, 6, 7]);
        assert_eq!(read.rules[1].table, None);
        assert_eq!(read.rules[3].table.as_deref(), Some("odd.table"));
        assert!(matches!(&read.rules[3].what, What::Column { name, .. } if name == "a`=b"));
        assert_eq!(read.rules[4].what, What::Where("id < 10 -1".into()));
    }

    #[test]
    fn what_is_no_rule_is_named_with_its_line() {
        insta::assert_snapshot!(refused(
            "users\nusers.email\n= x\nusers = delete\n* = skip\nusers.* = 1\nu.a = 1\nU.A = 2\nu.b ="
        ), @"
        line 1, `users`: expected `table.column = SQL expression`, `*.column = SQL expression`, `table = skip` or `table = where SQL condition`
        line 2, `users.email`: expected `table.column = SQL expression`, `*.column = SQL expression`, `table = skip` or `table = where SQL condition`
        line 3, `= x`: expected `table.column = SQL expression`, `*.column = SQL expression`, `table = skip` or `table = where SQL condition`
        line 4, `users = delete`: expected `table.column = SQL expression`, `*.column = SQL expression`, `table = skip` or `table = where SQL condition`
        line 5, `* = skip`: `*` stands for all tables only before a column; expected `table.column = SQL expression`, `*.column = SQL expression`, `table = skip` or `table = where SQL condition`
        line 6, `users.* = 1`: name each column; to leave out all rows write `table = skip`
        line 8, `U.A = 2`: line 7 says something else of the same
        line 9, `u.b =`: expected `table.column = SQL expression`, `*.column = SQL expression`, `table = skip` or `table = where SQL condition`
        ");
    }

    #[test]
    fn an_expression_cannot_leave_its_place() {
        for bad in [
            "1); DROP TABLE x; --",
            "1) , (2",
            "'a",
            "\"a\\\"",
            "`a",
            "(1",
            "1 # x",
            "1 -- x",
            "1 /*! , 2 */",
            "(select pw from mysql.user)",
            "1 into outfile 'x'",
            "(table t)",
            "dev.anon(email)",
            "concat('x', `dev` . `anon` (email))",
            "dev.`anon`\t(email)",
            "\"dev\".\"anon\"(email)",
            "1dev.1anon(1)",
            "nextval(s)",
            "NextVal (s)",
            "`setval`(s, 1)",
            "lastval(s)",
            "next  value for s",
            "previous value for dev.s",
        ] {
            assert!(Mask::parse(&format!("t.c = {bad}"), Dialect::Mysql).is_err(), "{bad}");
        }
        for good in [
            "u.id in (1, 2)",
            "`u`.`id` in (1)",
            "1.5 * (id)",
            "nextval + 1",
            "u.next",
            "t.value",
            "';'",
            "\"--\"",
            "concat('(', `a;b`, ')')",
            "'it''s \\' (x'",
            "trim(both 'x' from a)",
        ] {
            assert!(Mask::parse(&format!("t.c = {good}"), Dialect::Mysql).is_ok(), "{good}");
        }
        // A backslash is a letter there: the quote ends.
        assert!(Mask::parse("t.c = 'a\\') || ('", Dialect::Mysql).is_ok());
        assert!(Mask::parse("t.c = 'a\\') || ('", Dialect::Sqlite).is_err());
        assert!(Mask::parse("t.c = [a)b] || '\\'", Dialect::Sqlite).is_ok());
        for bad in ["a in other", "a IN main.other", "a not in[other]", "a in\t\"other\""] {
            assert!(Mask::parse(&format!("t.c = {bad}"), Dialect::Sqlite).is_err(), "{bad}");
        }
        assert!(Mask::parse("t.c = a in (1) or \"in\" > [in]", Dialect::Sqlite).is_ok());
        assert!(Mask::parse("t.c = position('a' in b)", Dialect::Mysql).is_ok());
    }

    #[test]
    fn only_what_rules_say_makes_masks_differ() {
        let one = mask("a.b = 1\nc = skip");
        assert_eq!(one.digest(), mask("# x\nc = skip\n\na.b =  1").digest());
        assert_ne!(one.digest(), mask("a.b = 2\nc = skip").digest());
        assert_eq!(mask("# nothing").digest(), None);
    }

    #[test]
    fn a_rule_that_names_nothing_is_wrong_and_what_names_a_table_wins() {
        let (users, logs) = (["id".to_owned(), "Phone".to_owned()], ["phone".to_owned()]);
        let (generated, none) = (["up".to_owned()], []);
        let tables = [
            Shape { name: "users", columns: &users, generated: &generated, elsewhere: None },
            Shape { name: "logs", columns: &logs, generated: &none, elsewhere: None },
            Shape {
                name: "far",
                columns: &users[..1],
                generated: &none,
                elsewhere: Some("is far"),
            },
        ];
        let masks = mask("users.phone = 'x'\n*.phone = null\nLOGS = where 1").fit(&tables).unwrap();
        assert_eq!(masks[0].columns[&1].sql, "'x'");
        assert_eq!(masks[1].columns[&0].sql, "null");
        assert!(matches!(&masks[1].rows, Rows::Where(e) if e.sql == "1"));
        assert!(!masks[2].changes());
        let wrong: Vec<_> =
            ["user.id = 1", "users.fone = 1", "*.fone = 1", "users.up = 1", "*.id = 1"]
                .iter()
                .map(|text| mask(text).fit(&tables).unwrap_err().to_string())
                .collect();
        insta::assert_snapshot!(wrong.join("\n"), @"
        line 1, `user.id = 1`: the source has no table `user`
        line 1, `users.fone = 1`: table `users` has no column `fone`
        line 1, `*.fone = 1`: no table of the source has a column `fone`
        line 1, `users.up = 1`: `up` of table `users` is a generated column: mask those that it is computed from
        line 1, `*.id = 1`: `far` is far
        ");
    }
}
