//! Which tables of a clone can stay where they are, with other rows at most, and which have to be
//! made anew beside it. Decided from what was read of both sides, and from nothing else.

use std::collections::BTreeSet;

use super::ddl;
use super::source::{self, Kind, Program, Schema, Table};

/// A clone that is brought up to date, cut in two.
#[derive(Debug)]
pub(super) struct Parts {
    /// The same tables in the same order, but for their rows: of the source, and of the clone.
    pub from: Schema,
    pub old: Schema,
    /// Of the source: what is made anew, with its triggers.
    pub coming: Schema,
    /// Of the clone: what goes for it.
    pub going: Schema,
}

impl Parts {
    /// Whether every table stays.
    pub fn all_stay(&self) -> bool {
        self.coming.tables.is_empty() && self.going.tables.is_empty()
    }
}

/// None where everything has to be made anew.
pub(super) fn parts(from: &Schema, old: &Schema) -> Option<Parts> {
    let same_defaults = (&from.charset, &from.collation) == (&old.charset, &old.collation);
    if !same_defaults || !from.unreadable.is_empty() || !same_sequences(from, old) {
        return None;
    }
    let wanted = asleep(&from.programs)?;
    if !others(&wanted).eq(others(&old.programs)) {
        return None;
    }
    let mut moved = BTreeSet::new();
    for table in from.tables.iter().chain(&old.tables) {
        let find = |schema: &Schema| schema.tables.iter().position(|t| t.name == table.name);
        let same = match (find(from), find(old)) {
            (Some(a), Some(b)) => {
                source::same_definition(from, &from.tables[a], old, &old.tables[b])
                    && triggers(&wanted, &table.name).eq(triggers(&old.programs, &table.name))
            }
            _ => false,
        };
        if !same {
            moved.insert(table.name.to_lowercase());
        }
    }
    take_children_along(&mut moved, from.tables.iter().chain(&old.tables))?;
    let coming = from.part(|name| moved.contains(&name.to_lowercase()));
    let going = old.part(|name| moved.contains(&name.to_lowercase()));
    // What is made anew is compared with the source at the moment of the rest; of what a mask lets
    // through nothing can be compared, and a sequence is drawn from across both parts.
    let can_be_compared = |table: &Table| table.has_snapshots() && !table.mask.changes();
    let no_way = !old.unreadable.is_empty()
        || !from.sequences.is_empty()
        || !coming.tables.iter().all(can_be_compared)
        || coming.tables.len() == from.tables.len();
    if !moved.is_empty() && no_way {
        return None;
    }
    let stays = |schema: &Schema| {
        let mut stays = schema.clone();
        stays.tables.retain(|table| !moved.contains(&table.name.to_lowercase()));
        stays
    };
    Some(Parts { from: stays(from), old: stays(old), coming, going })
}

fn same_sequences(from: &Schema, old: &Schema) -> bool {
    let names = |schema: &Schema| -> Vec<String> {
        schema.sequences.iter().map(|sequence| sequence.name.clone()).collect()
    };
    names(from) == names(old)
}

/// As a clone has them: events disabled. None where the text of one is of no known form.
fn asleep(programs: &[Program]) -> Option<Vec<Program>> {
    let asleep = |program: &Program| {
        let mut program = program.clone();
        if program.kind == Kind::Event {
            program.sql = ddl::disabled(&program.sql)?;
        }
        Some(program)
    };
    programs.iter().map(asleep).collect()
}

fn others(programs: &[Program]) -> impl Iterator<Item = &Program> {
    programs.iter().filter(|program| program.kind != Kind::Trigger)
}

fn triggers<'a>(programs: &'a [Program], table: &'a str) -> impl Iterator<Item = &'a Program> {
    let of = move |p: &&Program| p.kind == Kind::Trigger && p.table == table;
    programs.iter().filter(of)
}

/// A foreign key follows its parent wherever that goes, so children go where their parents go.
/// None where a definition is of no known form.
fn take_children_along<'a>(
    moved: &mut BTreeSet<String>,
    tables: impl Iterator<Item = &'a Table>,
) -> Option<()> {
    let mut children = Vec::new();
    for table in tables {
        let parents = ddl::Table::parse(&table.ddl)?.parents();
        let parents: Vec<_> = parents.iter().map(|name| name.to_lowercase()).collect();
        children.push((table.name.to_lowercase(), parents));
    }
    loop {
        let before = moved.len();
        for (child, parents) in &children {
            if parents.iter().any(|parent| moved.contains(parent)) {
                moved.insert(child.clone());
            }
        }
        if moved.len() == before {
            return Some(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema_clone::mask::{Rows, TableMask};

    fn table(name: &str, columns: &str) -> Table {
        Table {
            name: name.to_owned(),
            engine: "InnoDB".to_owned(),
            bytes: 16384,
            versioned: false,
            columns: vec!["id".to_owned()],
            generated: Vec::new(),
            ddl: format!("CREATE TABLE `{name}` (\n  {columns}\n) ENGINE=InnoDB").into_bytes(),
            mask: TableMask::default(),
        }
    }

    fn child(name: &str, parent: &str) -> Table {
        let key = format!("CONSTRAINT `f_{name}` FOREIGN KEY (`id`) REFERENCES `{parent}` (`id`)");
        table(name, &format!("`id` int(11) NOT NULL,\n  {key}"))
    }

    fn plain(name: &str) -> Table {
        table(name, "`id` int(11) NOT NULL")
    }

    fn wider(name: &str) -> Table {
        table(name, "`id` bigint(20) NOT NULL")
    }

    fn program(kind: Kind, name: &str, on: &str, sql: &str) -> Program {
        Program {
            kind,
            name: name.to_owned(),
            table: on.to_owned(),
            mode: String::new(),
            client: String::new(),
            connection: String::new(),
            collation: String::new(),
            time_zone: String::new(),
            sql: sql.as_bytes().to_vec(),
        }
    }

    fn schema(name: &str, tables: Vec<Table>) -> Schema {
        Schema {
            name: name.to_owned(),
            charset: "utf8mb4".to_owned(),
            collation: "utf8mb4_bin".to_owned(),
            tables,
            sequences: Vec::new(),
            programs: Vec::new(),
            unreadable: Vec::new(),
            is_part: false,
        }
    }

    fn names(schema: &Schema) -> Vec<&str> {
        schema.tables.iter().map(|table| table.name.as_str()).collect()
    }

    /// What stays, what comes, what goes.
    fn cut(from: Vec<Table>, old: Vec<Table>) -> Option<[Vec<String>; 3]> {
        let parts = parts(&schema("dev", from), &schema("stg", old))?;
        assert_eq!(names(&parts.from), names(&parts.old));
        let owned = |schema| names(schema).into_iter().map(str::to_owned).collect();
        Some([owned(&parts.from), owned(&parts.coming), owned(&parts.going)])
    }

    fn owned(names: [&[&str]; 3]) -> Option<[Vec<String>; 3]> {
        Some(names.map(|names| names.iter().map(|name| (*name).to_owned()).collect()))
    }

    #[test]
    fn what_is_the_same_stays() {
        let tables = || vec![plain("a"), child("b", "a")];
        assert_eq!(cut(tables(), tables()), owned([&["a", "b"], &[], &[]]));
    }

    #[test]
    fn a_table_that_only_one_of_them_has_comes_or_goes_alone_though_it_leads_to_others() {
        let (less, more) = (vec![plain("a")], vec![plain("a"), child("b", "a")]);
        assert_eq!(cut(less.clone(), more.clone()), owned([&["a"], &[], &["b"]]));
        assert_eq!(cut(more, less), owned([&["a"], &["b"], &[]]));
    }

    #[test]
    fn a_table_that_is_defined_in_two_ways_takes_all_along_that_lead_to_it() {
        let with =
            |a: Table| vec![a, child("b", "A"), child("c", "b"), plain("d"), child("e", "d")];
        let moved: &[&str] = &["a", "b", "c"];
        assert_eq!(cut(with(wider("a")), with(plain("a"))), owned([&["d", "e"], moved, moved]));
        // What leads to it does not move with it where it is a child itself.
        let with = |e: Table| vec![plain("d"), e];
        let other = table("e", "`id` bigint(20) NOT NULL");
        assert_eq!(cut(with(other), with(child("e", "d"))), owned([&["d"], &["e"], &["e"]]));
    }

    #[test]
    fn a_trigger_that_differs_moves_its_table() {
        let with = |body: &str| Schema {
            programs: vec![
                program(Kind::Trigger, "x", "a", body),
                program(Kind::Trigger, "y", "b", "SET @y = 1"),
            ],
            ..schema("dev", vec![plain("a"), plain("b")])
        };
        let parts = parts(&with("SET @x = 1"), &with("SET @x = 2")).unwrap();
        assert_eq!((names(&parts.from), names(&parts.coming)), (vec!["b"], vec!["a"]));
        let triggers = |schema: &Schema| -> Vec<String> {
            schema.programs.iter().map(|program| program.name.clone()).collect()
        };
        assert_eq!([triggers(&parts.coming), triggers(&parts.going)], [["x"], ["x"]]);
    }

    #[test]
    fn everything_is_made_anew_where_the_rest_would_not_fit() {
        let base = || schema("dev", vec![plain("a"), plain("b")]);
        let altered = || schema("stg", vec![plain("a"), wider("b")]);
        assert!(parts(&base(), &altered()).is_some());

        let mut masked = base();
        masked.tables[1].mask.rows = Rows::None;
        let view = Schema { programs: vec![program(Kind::View, "v", "", "…")], ..base() };
        let hidden = Schema { unreadable: vec![(Kind::Event, "e".to_owned())], ..base() };
        let latin = Schema { charset: "latin1".to_owned(), ..base() };
        let engine = {
            let mut engine = base();
            engine.tables[1].engine = "MyISAM".to_owned();
            engine
        };
        for from in [masked, view, hidden, latin, engine] {
            assert!(parts(&from, &altered()).is_none(), "{from:?}");
        }
        let all = schema("stg", vec![wider("a"), wider("b")]);
        assert!(parts(&base(), &all).is_none());
    }
}
