//! What the login may do where a swap puts things, tried before anything is copied. A right that is
//! missed later would be missed where views and triggers have been taken away, perhaps of somebody
//! in whose name this login cannot make them again.

use std::collections::BTreeSet;

use super::ddl::quoted;
use super::fault::Fault;
use super::leftovers::{State, state};
use super::session::Session;
use super::source::{Kind, Schema};
use super::{Job, names, swap};

const MAKING: &str = "making views, routines, triggers and events";
const MOVING: &str = "putting the clone in place";
const REWRITING: &str = "rewriting the tables that differ";
const CLEARING: &str = "removing the old clone";
const KEEPING: &str = "keeping the previous clone";

/// The kinds of what is to be made and to be taken away.
pub(super) fn kinds<'a>(schemas: impl IntoIterator<Item = &'a Schema>) -> BTreeSet<Kind> {
    schemas.into_iter().flat_map(|schema| &schema.programs).map(|program| program.kind).collect()
}

/// Whether a clone with these that is made beside the destination can take its place, and what is
/// there can stay as the previous clone.
pub(super) fn may_swap(
    job: &Job<'_>,
    control: &mut Session,
    kinds: &BTreeSet<Kind>,
    keeps: bool,
) -> Result<(), Fault> {
    let destination = job.destination.as_str();
    let (building, outgoing) = names::beside(destination);
    // Nothing is tried in a stranger's schema.
    swap::has_room(job, control)?;
    tried(control, MOVING, vec![rename(destination, &outgoing), rename(&building, destination)])?;
    // Of the old tables, once they are out.
    tried(control, CLEARING, vec![format!("DROP TABLE {}.`pullre~none`", quoted(&outgoing))])?;
    for kind in kinds {
        tried(control, MAKING, trials(*kind, destination))?;
    }
    if !keeps {
        return Ok(());
    }
    let previous = names::previous(destination);
    if state(control, &previous)? == Some(State::Full) {
        return Err(job.in_the_way(&previous));
    }
    let moves = vec![
        rename(&outgoing, &previous),
        // To undo it, and to forget it.
        rename(&previous, destination),
        rename(&previous, &previous),
        // Its mark is replaced.
        format!("DELETE FROM {}.`pullre~none`", quoted(&previous)),
    ];
    tried(control, KEEPING, moves)?;
    for kind in kinds {
        tried(control, KEEPING, trials(*kind, &previous))?;
    }
    Ok(())
}

/// Whether some tables with these can be exchanged, and rows of the others written anew; or else the
/// exchange be taken back.
pub(super) fn may_exchange(
    job: &Job<'_>,
    control: &mut Session,
    kinds: &BTreeSet<Kind>,
) -> Result<(), Fault> {
    may_swap(job, control, kinds, false)?;
    let destination = job.destination.as_str();
    let (building, outgoing) = names::beside(destination);
    tried(control, MOVING, vec![rename(&outgoing, destination), rename(destination, &building)])?;
    let none = format!("{}.`pullre~none`", quoted(destination));
    let insert = format!("INSERT INTO {none} SELECT 1");
    tried(control, REWRITING, vec![format!("DELETE FROM {none}"), insert])
}

/// Finds nothing to move.
fn rename(from: &str, to: &str) -> String {
    format!("RENAME TABLE {}.`pullre~none` TO {}.`pullre~none~too`", quoted(from), quoted(to))
}

/// Statements that take the rights that making one of this kind takes. They find nothing, or leave
/// nothing but for a kill: a routine that it leaves goes with the next swap.
fn trials(kind: Kind, schema: &str) -> Vec<String> {
    let none = format!("{}.`pullre~none`", quoted(schema));
    match kind {
        Kind::View => vec![format!("ALTER VIEW {none} AS SELECT 1")],
        Kind::Trigger => vec![format!(
            "CREATE TRIGGER {none} BEFORE INSERT ON {none} FOR EACH ROW SET @pullre = 1"
        )],
        Kind::Event => vec![format!("DROP EVENT {none}")],
        Kind::Function | Kind::Procedure | Kind::Package | Kind::PackageBody => vec![
            // Whoever made one may alter it.
            format!("ALTER PROCEDURE {none} COMMENT ''"),
            format!("CREATE PROCEDURE {none}() DO 1"),
            format!("DROP PROCEDURE IF EXISTS {none}"),
        ],
    }
}

fn tried(control: &mut Session, doing: &'static str, trials: Vec<String>) -> Result<(), Fault> {
    for sql in trials {
        match control.run(doing, sql) {
            Err(e) if e.is_forbidden() || e.is_lost() => return Err(e),
            _ => {}
        }
    }
    Ok(())
}
