"""Results of a study that never ran: plausible curves, for what draws and writes them."""

import dataclasses
import math

import numpy as np

from train.config import Config, ModelConfig, OptimizerConfig
from train.reproduction.logs import reference
from train.study.plan import Claim, Comparison, Pair, Picture, Section, Study, Variant
from train.study.results.records import Beside, ComparisonResult, Reading, RunRecord, SeedsNeeded, StudyResults, Verdict

SOURCES = {"report": "What the report claims", "control": "What this study adds", "own": "What this study claims"}
PROVENANCE = {"date": "2026-01-02T03:04:05+0000", "machine": "a machine", "python": "3.11.2"}


def config(inner="radam", k=0, *, dataset="cifar10", epochs=12, rate=0.1, model="resnet18"):
    lookahead = {"lookahead": True, "sync_period": k} if k else {"lookahead": False}
    optimizer = OptimizerConfig(name=inner, learning_rate=rate, weight_decay=5e-4, decay_epochs=(4, 7, 10), **lookahead)
    return Config(dataset=dataset, epochs=epochs, model=ModelConfig(name=model), optimizer=optimizer)


def rows(config, seed):
    """A run's rows: an exponential approach with drops, a little luck, and slow weights that are a little better."""
    offset = 0.1 * len(config.optimizer.name) + 0.3 * config.optimizer.lookahead + config.optimizer.learning_rate
    noise = np.random.default_rng([seed, int(1000 * offset)])
    text, made = config.model.name == "gru", []
    for epoch in range(1, config.epochs + 1):
        done = 1 - math.exp(-3 * epoch / config.epochs)
        loss = (6.5 if text else 2.3) * (1 - (0.3 if text else 0.7 + 0.1 * offset) * done) + 0.03 * noise.normal()
        accuracy = 0.2 + (0.5 + 0.1 * offset) * done + 0.01 * noise.normal()
        row = {
            "epoch": epoch,
            "step": 100 * epoch,
            "learning_rate": 0.1,
            "train_loss": loss,
            "train_accuracy": accuracy,
            "test_loss": loss + 0.1,
            "test_accuracy": accuracy - 0.02,
            "slow_test_loss": loss + 0.05 if config.optimizer.lookahead else None,
            "slow_test_accuracy": accuracy if config.optimizer.lookahead else None,
            "examples_per_second": 1000.0,
            "seconds": 60.0,
        }
        if text:
            for name in ("train", "test", "slow_test"):
                value = row[f"{name}_loss"]
                row[f"{name}_perplexity"] = None if value is None else math.exp(value)
        made.append(row)
    return made


def record(variant, seed, *, scale, status="finished"):
    settings = variant.at(seed)
    return RunRecord(
        id=f"{variant.id[:8]}{seed:04d}",
        variant_id=variant.id,
        data=variant.data,
        scale=scale,
        config=dataclasses.asdict(settings),
        seed=seed,
        rows=rows(settings, seed) if status == "finished" else [],
        status=status,
        seconds=720.0 if status == "finished" else 0.0,
        log=f"runs/{variant.id[:8]}{seed:04d}/log.txt" if status != "missing" else "",
        provenance=PROVENANCE if status != "missing" else {},
    )


def results(sections, claims=(), *, seeds=3, scale="mini", outcomes=("supported", "contradicted", "not resolved")):
    """Every run of the sections finished; verdicts in turn; the last claim without numbers."""
    study = Study(
        name="made-up",
        title="A made-up study",
        sections=sections,
        claims=claims,
        seeds=seeds,
        scale=scale,
        reference="the report",
        sources=SOURCES,
        pictures=[
            Picture("own", "A picture of its own", "What another program drew"),
            Picture("none", "Lost", "Not there"),
        ],
    )
    runs = {}
    for section in study.sections:
        for variant in section.variants:
            for seed in range(seeds):
                made = record(variant, seed, scale=scale)
                runs[made.id] = made
    verdicts = []
    for index, claim in enumerate(study.claims):
        outcome = outcomes[index % len(outcomes)]
        tests = tuple(comparison_result(comparison, outcome, seeds) for comparison in claim.comparisons)
        needed = (12, 1001) if outcome == "not resolved" else (None, None)
        verdicts.append(Verdict(claim, outcome, "not resolved", tests, 0.012, claim.note, scale, 1, "run", *needed))
    facts = {
        "command": "python -m train.study --study=configs/studies/made_up.py --out=results/made_up --scale=mini",
        "date": "2026-01-02T03:04:05+0000",
        "sessions": [
            {
                "date": "2026-01-02T03:04:05+0000",
                "command": "python -m train.study --study=configs/studies/made_up.py --only=2.1 --jobs=2",
                "machine": "2 cores of an x86 machine",
                "commit": "abc",
                "seconds": 12000.0,
                "finished": 30,
                "failed": 1,
            }
        ],
        "machine": "2 cores of an x86 machine",
        "versions": {"jax": "0.10.2", "flax": "0.12.8"},
    }
    return StudyResults(study, runs, tuple(verdicts), facts)


def comparison_result(comparison, outcome, n):
    first, second = (0.8712, 0.8655) if "accuracy" in comparison.quantity else (0.5213, 0.5871)
    needed = (SeedsNeeded(12, 40), SeedsNeeded(1001, 1001)) if outcome == "not resolved" else (None, None)
    beside = None
    if comparison.beside:
        beside = Beside(comparison.beside, 0.8731, 0.8655, 0.0076, -0.00001, 0.0152, 0.8688, 0.8677, 0.0011)
    return ComparisonResult(
        comparison,
        comparison.pair.variant,
        comparison.pair.baseline,
        n,
        "accuracy" not in comparison.quantity,
        first,
        second,
        0.0057,
        Reading(outcome, 0.0021, 0.0093, 0.0004, 0.012, 0.0015, 9.3, n),
        Reading("not resolved", -0.0019, 0.0133, 0.04, 0.9, 0.0031, 2, n),
        beside,
        *needed,
        0.8688,
        0.8677,
        0.0011,
    )


def base_section(dataset="cifar10", key="2.1", *, epochs=12, report=False, names=("RAdam", "Lookahead(RAdam)")):
    """RAdam with and without Lookahead."""
    suffix = "_cifar100" if dataset == "cifar100" else ""
    variants = (
        Variant(names[0], config(dataset=dataset, epochs=epochs), reference=reference("radam_no" + suffix)),
        Variant(names[1], config(k=5, dataset=dataset, epochs=epochs), reference=reference("radam_yes" + suffix)),
    )
    title = f"{dataset.upper()}: RAdam with and without Lookahead"
    budget = f"12,800 training images, {epochs} epochs"
    return Section(
        key=key,
        dataset=dataset,
        title=title,
        variants=variants,
        figure=f"{dataset}_base",
        budget=budget,
        same_budget=report,
    )


def pairs_section(dataset="cifar100", *, epochs=12):
    """Three optimizers, each with and without Lookahead."""
    variants = []
    for inner, name in (("radam", "RAdam"), ("sgd", "SGD"), ("adam", "Adam")):
        variants.append(
            Variant(name, config(inner, dataset=dataset, epochs=epochs), reference=reference(f"{inner}_no_cifar100"))
        )
        lookahead = config(inner, 5, dataset=dataset, epochs=epochs)
        variants.append(
            Variant(f"Lookahead({name})", lookahead, against=name, reference=reference(f"{inner}_yes_cifar100"))
        )
    title = f"{dataset.upper()}: inner optimizers"
    return Section(key="2.4", dataset=dataset, title=title, variants=variants, figure=f"{dataset}_ablation")


def text_section(*, epochs=100):
    """The language model, at the report's budget."""
    plain, lookahead = (config(k=k, dataset="ptb", epochs=epochs, rate=0.001, model="gru") for k in (0, 5))
    variants = (
        Variant("RAdam", plain, reference=reference("nlp_no")),
        Variant("Lookahead(RAdam)", lookahead, reference=reference("nlp_yes")),
    )
    title = "Penn Treebank: GRU language model"
    return Section(key="2.6.2", title=title, variants=variants, figure="nlp", budget="100 epochs", same_budget=True)


def claims(section="2.1:cifar10"):
    """One of each kind of reading."""
    pair = Pair(section, "Lookahead(RAdam)", "RAdam")
    return (
        Claim(
            "1a",
            "On CIFAR-10, Lookahead(RAdam) converges faster than RAdam.",
            (
                Comparison(pair, "better", "loss_area", 0.02),
                Comparison(pair, "better", "epochs_to_loss", 0.02),
            ),
            source="report",
        ),
        Claim(
            "2a",
            "On CIFAR-10 the final accuracies are equal.",
            (Comparison(pair, "equal", "late_accuracy", 0.005, beside="final_accuracy"),),
            source="report",
            note="The report has one seed; its difference is 0.11 points.",
        ),
        Claim(
            "2b",
            "On CIFAR-100 Lookahead is more accurate.",
            (Comparison(pair, "better", "late_accuracy", 0.005, beside="final_accuracy"),),
            source="report",
        ),
        Claim(
            "c1",
            "The gain remains over the best learning rate.",
            (Comparison(pair, "better", "final_accuracy", 0.005),),
            source="control",
        ),
    )
