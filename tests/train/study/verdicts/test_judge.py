"""Quantities of a run, and verdicts on claims, from made-up rows."""

import math

import pytest

from train.config import Config, ModelConfig, OptimizerConfig
from train.reproduction.logs import reference
from train.study.page.summary import format_tables, format_verdicts, summarise
from train.study.plan import Section, Study, Variant
from train.study.plan.claims import Claim, Comparison, Pair
from train.study.plan.quantities import QUANTITIES, epochs_to, gain, values_of_pair
from train.study.results.records import RunRecord, StudyResults
from train.study.verdicts.judge import judge
from train.study.verdicts.statistics import holm


def rows(losses, accuracies=None, slow=None):
    accuracies = accuracies or [0.5] * len(losses)
    return [
        {
            "epoch": epoch,
            "train_loss": loss,
            "test_loss": loss + 0.1,
            "test_accuracy": accuracy,
            "slow_test_accuracy": None if slow is None else slow[epoch - 1],
        }
        for epoch, (loss, accuracy) in enumerate(zip(losses, accuracies, strict=True), 1)
    ]


# Quantities


def test_the_quantities_of_a_run_by_hand():
    run = rows([2.0, 1.0, 0.6], [0.4, 0.5, 0.7], slow=[0.5, 0.6, 0.7])
    found = {name: rule.of(run) for name, rule in QUANTITIES.items()}
    assert found["final_accuracy"] == found["late_accuracy"] == 0.7
    assert found["accuracy_area"] == pytest.approx(1.6 / 3)
    assert found["slow_accuracy_area"] == pytest.approx(1.8 / 3)
    assert found["loss_area"] == pytest.approx(1.2)
    assert (found["final_train_loss"], found["final_test_loss"]) == (0.6, 0.7)
    assert found["perplexity"] is None


@pytest.mark.parametrize(("epochs", "first"), [(1, 1), (6, 6), (7, 6), (12, 11), (20, 17), (100, 84), (200, 167)])
def test_late_means_are_of_the_last_sixth_of_the_epochs_rounded_up(epochs, first):
    run = [row | {"test_perplexity": math.exp(row["epoch"] / 100)} for row in rows([1.0] * epochs)]
    run = [row | {"test_accuracy": row["epoch"] / 1000} for row in run]
    mean = (first + epochs) / 2
    assert QUANTITIES["late_accuracy"].of(run) == pytest.approx(mean / 1000)
    assert QUANTITIES["late_perplexity"].of(run) == pytest.approx(math.exp(mean / 100))
    assert QUANTITIES["late_accuracy"].of([*run[:-1], run[-1] | {"test_accuracy": None}]) is None


def test_a_run_without_slow_weights_is_measured_by_its_live_ones():
    assert QUANTITIES["slow_final_accuracy"].of(rows([1.0], [0.3])) == 0.3


def test_epochs_to_a_loss_are_read_between_epochs():
    run = rows([2.0, 1.0, 0.6])
    assert epochs_to(run, 1.5) == 1.5
    assert epochs_to(run, 0.8) == pytest.approx(2.5)
    assert epochs_to(run, 3.0) == 1.0
    assert epochs_to(run, 0.1) is None


def test_the_set_loss_is_one_that_both_runs_reach():
    slow, fast = rows([2.0, 1.6, 1.2, 1.0]), rows([2.0, 1.0, 0.8, 0.5])
    assert values_of_pair(fast, slow, "epochs_to_loss") == (2.0, 4.0)
    assert gain((2.0, 4.0), "epochs_to_loss") == pytest.approx(math.log(2))


def test_a_gain_is_positive_where_the_variant_is_better():
    assert gain((0.6, 0.5), "final_accuracy") == pytest.approx(0.1)
    assert gain((0.5, 1.0), "loss_area") == pytest.approx(math.log(2))
    assert gain((0.0, 1.0), "loss_area") is None


# Verdicts


def section(key, names):
    """Variants that differ in their learning rate alone."""
    variants = []
    for number, name in enumerate(names, 1):
        optimizer = OptimizerConfig(learning_rate=float(number), lookahead=name.startswith("L"))
        config = Config(dataset="digits", batch_size=int(key), optimizer=optimizer, model=ModelConfig("small_cnn"))
        faulty = reference("sgd_no_cifar100") if name == "faulty" else None
        variants.append(Variant(name, config, reference=faulty))
    return Section(key=key, dataset="digits", variants=variants)


def study(*claims, names=("plain", "Look", "Look 2")):
    return Study(
        name="s",
        sections=[section("1", names), section("2", names)],
        claims=claims,
        scale="mini",
        sources=dict.fromkeys(("own", "report", "control"), "Claims"),
    )


def better(variant="Look", quantity="final_accuracy", kind="better", section="1:digits", than=None, baseline="plain"):
    return Comparison(Pair(section, variant, baseline), kind, quantity, 0.005, than=than)


def runs(plan, values):
    """`values`: {(section, variant): accuracies by seed}; None for a run that failed."""
    found = {}
    for (ref, name), accuracies in values.items():
        variant = plan.section(ref).variant(name)
        for seed, accuracy in enumerate(accuracies):
            status, made = ("failed", []) if accuracy is None else ("finished", rows([1.0], [accuracy]))
            found[f"{ref}{name}{seed}"] = RunRecord("x", variant.id, variant.data, "mini", {}, seed, made, status)
    return found


PLAIN = {("1:digits", "plain"): [0.50, 0.60, 0.70], ("2:digits", "plain"): [0.50, 0.60, 0.70]}


def judged(plan, **values):
    return judge(plan, runs(plan, PLAIN | {("1:digits", name): v for name, v in values.items()}))


def test_seeds_are_paired():
    # Seeds differ by ten points, variants by one: only pairing sees it.
    (verdict,) = judged(study(Claim("a", "A.", (better(),))), Look=[0.51, 0.611, 0.71])
    (test,) = verdict.tests
    assert verdict.verdict == "supported"
    assert (test.n, test.estimate) == (3, pytest.approx(0.031 / 3))
    assert 0 < test.plain.low < test.estimate < test.plain.high
    assert (test.variant_mean, test.baseline_mean) == (pytest.approx(1.831 / 3), pytest.approx(0.6))


def test_a_claim_of_several_things_is_supported_where_all_are_and_contradicted_where_one_is_refuted():
    both = (better("Look"), better("Look 2"))
    up, down, unclear = [0.51, 0.611, 0.71], [0.49, 0.589, 0.69], [0.52, 0.60, 0.69]

    def verdict(first, second):
        return judged(study(Claim("a", "A.", both)), **{"Look": first, "Look 2": second})[0].verdict

    assert verdict(up, up) == "supported"
    assert verdict(up, down) == "contradicted"
    assert verdict(up, unclear) == "not resolved"
    assert verdict(unclear, unclear) == "not resolved"


def test_a_claim_that_one_comparison_is_enough_for_is_contradicted_where_all_are_refuted():
    either = (better("Look"), better("Look 2"))
    up, down, unclear = [0.51, 0.611, 0.71], [0.49, 0.589, 0.69], [0.52, 0.60, 0.69]

    def verdict(first, second):
        return judged(study(Claim("a", "A.", either, any_of=True)), **{"Look": first, "Look 2": second})[0]

    assert verdict(up, down).verdict == "supported"
    assert verdict(up, unclear).verdict == "supported"
    assert verdict(down, down).verdict == "contradicted"
    assert verdict(down, unclear).verdict == "not resolved"
    # The one that supports pays for there being two, the ones that contradict do not.
    (alone,) = judged(study(Claim("a", "A.", either[:1])), Look=up)
    assert verdict(up, unclear).p_holm == pytest.approx(2 * alone.p_holm)
    (alone,) = judged(study(Claim("a", "A.", either[:1])), Look=down)
    assert verdict(down, down).p_holm == pytest.approx(alone.p_holm)


def test_one_comparison_that_contradicts_pays_for_the_number_of_them():
    # p = .0003 alone, doubled for two looks; six comparisons make it six times that.
    many = tuple(better(quantity=q) for q in ("final_accuracy", "accuracy_area") * 3)
    alone, together = Claim("a", "A.", many[:1]), Claim("a", "A.", many)
    down = [0.49, 0.5895, 0.69]
    (single,), (six,) = judged(study(alone), Look=down), judged(study(together), Look=down)
    assert six.p_holm == pytest.approx(6 * single.p_holm)
    assert single.tests[0].moderated.p == six.tests[0].moderated.p


def test_holm_runs_over_all_claims_of_a_source_those_without_data_included():
    first = Claim("a", "A.", (better(),))
    second = Claim("b", "B.", (better("Look 2"),))
    ours = Claim("c", "C.", (better("Look 2"),), source="control")
    waiting = Claim("d", "D.", (better(section="2:digits"),))
    values = {"Look": [0.51, 0.611, 0.71], "Look 2": [0.52, 0.60, 0.72]}
    found = {v.claim.key: v for v in judged(study(first, second, ours, waiting), **values)}
    doubled = [2 * found[key].tests[0].moderated.p for key in "ab"]
    assert [found[key].p_holm for key in "ab"] == pytest.approx(holm([*doubled, 1.0])[:2])
    assert found["c"].p_holm == pytest.approx(doubled[1])
    assert found["d"].p_holm is None


def test_a_claim_that_is_resolved_at_the_first_look_keeps_that_verdict():
    plan = study(Claim("a", "A.", (better(),)))
    plain = [0.50, 0.60, 0.70, 0.50, 0.60, 0.70, 0.50, 0.60]
    against = [0.51, 0.611, 0.71, 0.40, 0.50, 0.60, 0.40, 0.50]
    (verdict,) = judge(plan, runs(plan, {("1:digits", "plain"): plain, ("1:digits", "Look"): against}), 8)
    assert (verdict.verdict, verdict.look, verdict.n) == ("supported", 1, 3)
    unclear = [0.52, 0.60, 0.69, 0.51, 0.611, 0.71, 0.51, 0.611]
    (verdict,) = judge(plan, runs(plan, {("1:digits", "plain"): plain, ("1:digits", "Look"): unclear}), 8)
    assert (verdict.verdict, verdict.look, verdict.n) == ("not resolved", 2, 8)


def test_the_second_look_waits_for_all_the_seeds_that_were_added():
    plan = study(Claim("a", "A.", (better(),)))
    plain, unclear = [0.50, 0.60, 0.70] * 3, [0.52, 0.60, 0.69, 0.51, 0.611, 0.71, 0.51, 0.611, 0.71]
    unclear[5] = None  # a run that failed has ended

    def at(seeds, second=8):
        given = {("1:digits", "plain"): plain[:8], ("1:digits", "Look"): unclear[:seeds]}
        (verdict,) = judge(plan, runs(plan, given), second)
        return verdict

    assert [(at(seeds).look, at(seeds).n) for seeds in (3, 4, 7)] == [(1, 3)] * 3
    assert at(4).tests == at(3).tests
    assert (at(8).look, at(8).n) == (2, 7)
    assert (at(9).tests, at(8, second=None).look) == (at(8).tests, 1)


def test_a_gain_held_against_another_is_looked_at_again_when_both_have_more_seeds():
    than = Pair("1:digits", "Look 2", "plain")
    plan = study(Claim("a", "A.", (better(section="2:digits", than=than),)))
    plain, first = [0.50, 0.60, 0.70, 0.50, 0.60], [0.52, 0.60, 0.69, 0.51, 0.611]
    second = [0.51, 0.62, 0.70, 0.52, 0.60]

    def verdict(seeds):
        given = {("2:digits", "plain"): plain, ("2:digits", "Look"): first}
        given |= {("1:digits", "plain"): plain[:seeds], ("1:digits", "Look 2"): second[:seeds]}
        return judge(plan, runs(plan, given), 5)[0]

    assert (verdict(3).look, verdict(3).n) == (1, 3)
    assert (verdict(5).look, verdict(5).n) == (2, 5)


def test_each_side_has_a_correction_of_its_own():
    # Three claims are contradicted by far. A fourth, which nearly is supported, is corrected for all four of them.
    down = [0.40, 0.5001, 0.6002]
    names = ("plain", "Look", "Look 2", "Look 3", "Look 4")
    claims = [Claim(name, "A.", (better(name),)) for name in names[1:]]
    plan = study(*claims, names=names)
    near = [0.51, 0.6115, 0.711]
    given = dict.fromkeys(names[1:4], down) | {"Look 4": near}
    *others, last = judged(plan, **given)
    assert {verdict.verdict for verdict in others} == {"contradicted"}
    assert last.p_holm == pytest.approx(min(1.0, 4 * 2 * last.tests[0].moderated.p))


def test_a_difference_in_either_direction_is_at_the_full_level_and_doubled():
    (differs,), (up,) = (
        judged(study(Claim("a", "A.", (better(kind=kind),))), Look=[0.51, 0.611, 0.71])
        for kind in ("differs", "better")
    )
    assert differs.tests[0].moderated.p == up.tests[0].moderated.p
    assert differs.p_holm == pytest.approx(2 * up.p_holm)


def test_a_comparison_that_is_shown_does_not_contradict_its_claim():
    # Gains of .002 within a margin of .005: "better" is shown and refuted; the other comparison is open.
    small, unclear = [0.502, 0.60201, 0.702], [0.52, 0.60, 0.69]
    both = (better("Look"), better("Look 2"))
    (verdict,) = judged(study(Claim("a", "A.", both)), **{"Look": small, "Look 2": unclear})
    assert [test.outcome for test in verdict.tests] == ["supported", "not resolved"]
    assert verdict.verdict == "not resolved"
    assert verdict.p_holm > 0.05


def test_a_comparison_without_more_seeds_is_not_looked_at_again_with_what_others_have_learned():
    names = ("plain", "Look", "Look 2", "Look 3")
    plan = study(Claim("a", "A.", (better("Look 2"),)), names=names)
    plain = [0.50, 0.60, 0.70, 0.50, 0.60, 0.70]
    first = {"plain": plain[:3], "Look": [0.52, 0.60, 0.69], "Look 2": [0.53, 0.60, 0.71], "Look 3": [0.51, 0.63, 0.70]}
    second = first | {"plain": plain, "Look": [0.52, 0.60, 0.69, 0.10, 0.90, 0.70]}
    before, after = (
        judge(plan, runs(plan, {("1:digits", name): values for name, values in given.items()}), 6)[0]
        for given in (first, second)
    )
    assert before.tests[0].moderated.freedom > 2
    assert after.tests == before.tests
    assert (after.p_holm, after.look) == (before.p_holm, 1)


def test_fewer_than_two_seeds_resolve_nothing_and_print_no_nan():
    plan = study(Claim("a", "A.", (better(),)), Claim("b", "B.", (better("Look 2"),)))
    one, none = judged(plan, Look=[0.9])
    assert (one.verdict, one.n, one.p_holm) == ("not resolved", 1, None)
    assert one.tests[0].estimate == pytest.approx(0.4)
    assert (one.tests[0].moderated.low, one.tests[0].moderated.p) == (None, None)
    assert one.note == "It has fewer than the 3 seeds that this study plans."
    assert (one.words, none.words) == ("partly run", "not run")
    assert (none.verdict, none.n, none.tests[0].estimate, none.note) == ("not resolved", 0, None, "Not run yet.")
    results = StudyResults(plan, runs(plan, PLAIN | {("1:digits", "Look"): [0.9]}), (one, none))
    printed = format_tables(results, plan.sections) + format_verdicts(results.verdicts)
    assert "nan" not in printed.lower()


@pytest.mark.parametrize(("last", "told"), [(0.71, True), (0.7101, False)])
def test_gains_that_are_the_same_in_all_seeds_are_told(last, told):
    (verdict,) = judged(study(Claim("a", "A.", (better(),))), Look=[0.51, 0.61, last])
    assert verdict.verdict == "supported"
    assert ("so its variance cannot be estimated: p = 0 is not certainty." in verdict.note) == told


def test_a_failed_seed_is_no_pair_and_is_told():
    (verdict,) = judged(study(Claim("a", "A.", (better(),))), Look=[0.51, None, 0.72])
    assert verdict.n == 2
    assert verdict.note == "1 run failed and is left out."


def test_the_best_of_several_is_taken_on_either_side():
    grid = better(variant=("Look", "Look 2"), baseline=("plain",))
    (verdict,) = judged(study(Claim("a", "A.", (grid,))), **{"Look": [0.4, 0.5, 0.6], "Look 2": [0.6, 0.7, 0.811]})
    assert (verdict.tests[0].variant, verdict.tests[0].baseline) == ("Look 2", "plain")
    assert verdict.verdict == "supported"


def test_the_best_of_several_waits_for_all_of_them():
    grid = better(variant=("Look", "Look 2"), baseline=("plain",))
    (verdict,) = judged(study(Claim("a", "A.", (grid,))), Look=[0.6, 0.7, 0.811])
    assert (verdict.n, verdict.verdict) == (0, "not resolved")


def test_the_best_of_several_does_not_wait_for_one_that_failed_at_every_seed():
    grid = better(variant=("Look", "Look 2"), baseline=("plain",))
    values = {"Look": [0.6, 0.7, 0.811], "Look 2": [None, None, None]}
    (verdict,) = judged(study(Claim("a", "A.", (grid,))), **values)
    assert (verdict.tests[0].variant, verdict.n, verdict.verdict) == ("Look", 3, "supported")
    assert verdict.note == "3 runs failed and are left out."


def test_a_claim_whose_runs_all_failed_does_not_wait_for_them():
    (verdict,) = judged(study(Claim("a", "A.", (better(),))), Look=[None, None, None])
    note = "With fewer than two seeds there is no interval, so nothing can be resolved. 3 runs failed and are left out."
    assert (verdict.n, verdict.words, verdict.note) == (0, "not resolved", note)
    (verdict,) = judged(study(Claim("a", "A.", (better(),))), Look=[None, None])
    assert (verdict.n, verdict.words) == (0, "partly run")
    (verdict,) = judged(study(Claim("a", "A.", (better(),))))
    assert (verdict.n, verdict.waits, verdict.note) == (0, True, "Not run yet.")


def test_the_best_of_several_waits_seed_by_seed():
    # "Look 2" failed at seed 0, has done seed 1 and is still to run at seed 2.
    grid = better(variant=("Look", "Look 2"), baseline=("plain",))
    values = {"Look": [0.6, 0.7, 0.811], "Look 2": [None, 0.71]}
    (verdict,) = judged(study(Claim("a", "A.", (grid,))), **values)
    assert (verdict.tests[0].variant, verdict.n) == ("Look 2", 1)


def test_the_best_of_several_is_chosen_over_the_seeds_that_all_have():
    # Over its own two seeds "Look 2" would be ahead, as seed 2 is an easy one for both.
    grid = better(variant=("Look", "Look 2"), baseline=("plain",))
    values = {"Look": [0.6, 0.7, 0.811], "Look 2": [None, 0.69, 0.81]}
    (verdict,) = judged(study(Claim("a", "A.", (grid,))), **values)
    assert verdict.tests[0].variant == "Look"


def test_a_gain_may_be_held_against_the_gain_elsewhere():
    comparison = better(than=Pair("2:digits", "Look", "plain"))
    plan = study(Claim("a", "A.", (comparison,)))
    found = runs(
        plan,
        PLAIN | {("1:digits", "Look"): [0.60, 0.701, 0.80], ("2:digits", "Look"): [0.51, 0.611, 0.71]},
    )
    (verdict,) = judge(plan, found)
    assert verdict.tests[0].estimate == pytest.approx(0.09)
    assert verdict.verdict == "supported"


def test_a_claim_on_the_reports_faulty_log_says_so_and_has_its_figures():
    plan = study(
        Claim("a", "A.", (better(baseline="faulty", quantity="loss_area"),)), names=("plain", "Look", "faulty")
    )
    (verdict,) = judge(plan, runs(plan, PLAIN))
    assert "sgd_no_cifar100 stalls from epoch 3" in verdict.note
    assert verdict.tests[0].reference_baseline is None  # its twin has no log here
    comparison = Comparison(Pair("2.4:cifar100", "Lookahead(SGD)", "SGD"), "better", "final_accuracy", 0.005)
    (verdict,) = judge(redone(comparison), {})
    test = verdict.tests[0]
    assert (test.reference_variant, test.reference_baseline) == (0.5563, 0.4155)
    assert test.reference_estimate == pytest.approx(0.1408)


def redone(comparison):
    variants = [
        Variant(
            name,
            Config(optimizer=OptimizerConfig(lookahead=name != "SGD")),
            reference=reference(f"sgd_{word}_cifar100"),
        )
        for name, word in (("SGD", "no"), ("Lookahead(SGD)", "yes"))
    ]
    section = Section(key="2.4", dataset="cifar100", variants=variants)
    return Study(name="s", sections=[section], claims=[Claim("a", "A.", (comparison,))])


def test_the_summary_is_means_spreads_and_paired_gains():
    plan = study()
    found = runs(plan, PLAIN | {("1:digits", "Look"): [0.51, 0.62, 0.73]})
    records = {(r.section, r.variant, r.quantity): r for r in summarise(StudyResults(plan, found, ()))}
    record = records["1:digits", "Look", "final_accuracy"]
    assert (record.n, record.mean, record.sd) == (3, pytest.approx(0.62), pytest.approx(0.11))
    assert (record.against, record.pairs, record.gain) == ("plain", 3, pytest.approx(0.02))
    assert record.gain_low < 0.02 < record.gain_high
    assert records["1:digits", "plain", "final_accuracy"].gain is None
    assert ("1:digits", "plain", "slow_final_accuracy") not in records
    assert ("1:digits", "Look 2", "final_accuracy") not in records
