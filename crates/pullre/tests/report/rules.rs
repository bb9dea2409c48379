//! The operator's rules about who gets an environment, and what their pull requests say of it.

use insta::assert_snapshot;
use pullre::admission::Forks;
use pullre::domain::{Login, PullRequest};
use pullre::stage::{Stage, standing};
use testkit::world::World;

use super::{ONE, checks, ready, seen, visible};

/// What the check run of a pull request says that was changed like this.
fn said(rule: impl FnOnce(&mut World), edit: impl FnOnce(&mut PullRequest)) -> String {
    let mut world = World::new(1).speaks();
    rule(&mut world);
    world.hub.open("dev1", false, world.now);
    world.hub.edit(ONE, world.now, edit);
    world.tick();
    let told = world.hub.told();
    assert_eq!(told.comments.len(), 0, "a rule is no reason to write a comment");
    let (_, run) = told.checks.values().next().unwrap();
    let conclusion = run.state.words().1.unwrap_or("-");
    visible(&format!("{conclusion}: {}", run.summary.lines().last().unwrap_or_default()))
}

#[test]
fn every_exclusion_is_explained() {
    let draft = said(|w| w.policy.admission.skip_drafts = true, |pull| pull.is_draft = true);
    assert_snapshot!(draft, @"neutral: It is a draft (`skip_drafts`).");
    let only = |w: &mut World| w.policy.admission.only_labels = vec!["staging".into(), "qa".into()];
    assert_snapshot!(said(only, |_| {}), @"neutral: It has none of the labels that give one (`only_labels`): staging, qa.");
    let skip = |w: &mut World| w.policy.admission.skip_labels = vec!["no-staging".into()];
    let labelled = |pull: &mut PullRequest| pull.labels = vec!["No-Staging".into()];
    assert_snapshot!(said(skip, labelled), @"neutral: Its label keeps it from one (`skip_labels`): no-staging.");
    let base =
        |w: &mut World| w.policy.admission.base_branches = vec!["main".into(), "release/*".into()];
    assert_snapshot!(said(base, |pull| pull.base_ref = "<b>@x`".into()), @r"neutral: It goes into \<b\>@{zero width}x\`, and only these branches give one (\`base\_branches\`): main, release/\*.");
    let bots =
        |w: &mut World| w.policy.admission.skip_authors = vec![Login("dependabot[bot]".into())];
    let bot = |pull: &mut PullRequest| pull.author = Some(Login("Dependabot[bot]".into()));
    assert_snapshot!(said(bots, bot), @r"neutral: Pull requests of Dependabot\[bot\] get none (`skip_authors`).");
    let forks = |w: &mut World| w.policy.admission.forks = Forks::Deny;
    assert_snapshot!(said(forks, |pull| pull.is_fork = true), @"neutral: It comes from a fork, and forks get none (`forks`).");
}

#[test]
fn what_a_rule_lets_in_gets_its_environment() {
    let mut world = World::new(1).speaks();
    world.policy.admission.base_branches = vec!["release/*".into()];
    world.policy.admission.only_labels = vec!["Staging".into()];
    world.hub.open("dev1", false, world.now);
    world.hub.edit(ONE, world.now, |pull| {
        pull.base_ref = "release/7".into();
        pull.labels = vec!["staging".into()];
    });
    world.minutes(4);
    assert_snapshot!(checks(&world).join("\n"), @"1:9e3779b success: Ready on stg1");
}

#[test]
fn what_becomes_ineligible_keeps_its_server_for_the_grace_and_then_gives_it_back() {
    let mut world = ready();
    world.policy.admission.skip_labels = vec!["wip".into()];
    world.hub.edit(ONE, world.now, |pull| pull.labels = vec!["wip".into()]);
    world.minutes(1);
    let stage = |world: &World| {
        let pull = world.store().pull(ONE).unwrap().unwrap();
        standing(&pull, &world.facts(), &world.policy, world.now).stage
    };
    assert_eq!(stage(&world), Stage::Ineligible);
    assert_eq!(world.facts().assignments.len(), 1, "for the grace");
    assert_snapshot!(seen(&world), @r#"
    [pullre of 1:9e3779b900000000000000000000000000000001] success: Ready on stg1
        Pull request #1 at `9e3779b`.

        stg1 serves `9e3779b`.

        - URL: <http://stg1.example:8000/health?x=1>
        - Server: stg1
        - Database: `stg1`, a copy of `dev1` made 2026-11-22 12:00 UTC (8 kB in TIME)
        details: http://stg1.example:8000/health?x=1
    [comment on #1 by ""]
        <!-- pullre:1 -->
        **Staging: ineligible**

        Its label keeps it from one (`skip_labels`): wip.

        Its server keeps 9e3779b until 2026-11-22 13:04 UTC.

        - Commit: `9e3779b`
        - Server: stg1
        - Still serves: `9e3779b` at <http://stg1.example:8000/health?x=1>
        - Database: `stg1`, a copy of `dev1` made 2026-11-22 12:00 UTC (8 kB in TIME)

        <sub>People with write access can comment with a line `/pullre redeploy`, `reset-db`, `hold`, `release`, `stop` or `explain`.</sub>
    "#);
    world.advance(3700);
    world.minutes(2);
    assert_eq!(world.facts().assignments.len(), 0);
    assert_snapshot!(checks(&world).join("\n"), @"1:9e3779b success: Ready on stg1");
}
