"""The report's claims, and our own about its controls, as comparisons of the variants that `report.py` names.

Margins, the same at every scale: .005 of accuracy (half a point); 2 % of the area under the training loss curve; 1 % of
perplexity. "Equal", "not better" and "not worse" mean within them; "better" and "worse" mean any gain shown to be
above or below zero, and are refuted if the gain is shown to be smaller than the margin. For claims about the final
accuracy or perplexity, the late one is tested (`train.study.plan.quantities`) and the final one is shown next to it
without a verdict: see `results/report/analysis_plan.md`.
"""

import dataclasses
from collections.abc import Iterable, Mapping

from train.study.plan.claims import Claim, Comparison, Pair

MARGINS = {
    "late_accuracy": 0.005,
    "slow_accuracy_area": 0.005,
    "loss_area": 0.02,
    "late_perplexity": 0.01,
    "slow_perplexity_area": 0.01,
}
FASTER, ACCURACY, PERPLEXITY = "loss_area", "late_accuracy", "late_perplexity"
BESIDE = {ACCURACY: "final_accuracy", PERPLEXITY: "perplexity"}
C10, C100 = "cifar10", "cifar100"
BASE = ("Lookahead(RAdam)", "RAdam")
# Pairs (variant, baseline) of section 2.2: the k and α of the base runs, and two more settings.
K_ALPHA = tuple((name, "RAdam") for name in ("k=5, α=0.8", "k=10, α=0.8", "k=5, α=0.5"))


def at_rate(name: str, rate: float) -> str:
    """Name of a variant in the learning-rate grid."""
    return f"{name}, rate {rate:g}"


def compare_pair(pair: Pair, kind: str, quantity: str, than: Pair | None = None) -> Comparison:
    """A comparison with its quantity's margin, and the quantity shown next to it."""
    return Comparison(pair, kind, quantity, MARGINS[quantity], than=than, beside=BESIDE.get(quantity, ""))


def compare(section: str, kind: str, quantity: str, *pairs: tuple[str, str]) -> tuple[Comparison, ...]:
    """The same comparison for several pairs (variant, baseline)."""
    return tuple(compare_pair(Pair(section, *pair), kind, quantity) for pair in pairs)


def greater_gain(quantity: str, pair: Pair, than: Pair) -> Comparison:
    """The gain of one pair is greater than that of another."""
    return compare_pair(pair, "better", quantity, than)


def with_lookahead(*inner: str) -> tuple[tuple[str, str], ...]:
    """Pairs (Lookahead around an optimizer, that optimizer)."""
    return tuple((f"Lookahead({name})", name) for name in inner)


def claims(grids: Mapping[str, Iterable[float]]) -> tuple[Claim, ...]:
    """All claims.

    Args:
      grids: the rates of each inner optimizer of the section lr-grid.
    """
    reported = (*_base(), *_hyperparameters(), *_inner(), *_batch_and_small_tasks(), *_overall())
    return (*(dataclasses.replace(claim, source="report") for claim in reported), *_controls(grids))


def _gains(section: str) -> tuple[Pair, Pair]:
    """Lookahead's gain over RAdam on CIFAR-100 and on CIFAR-10."""
    return Pair(f"{section}:{C100}", *BASE), Pair(f"{section}:{C10}", *BASE)


def _base() -> tuple[Claim, ...]:
    return (
        Claim(
            "1a",
            "On CIFAR-10 Lookahead(RAdam) converges faster than RAdam.",
            compare("2.1:cifar10", "better", FASTER, BASE),
        ),
        Claim(
            "1b",
            "On CIFAR-100 Lookahead(RAdam) converges faster than RAdam.",
            compare("2.1:cifar100", "better", FASTER, BASE),
        ),
        Claim(
            "1c", "The gain in speed is greater on CIFAR-100 than on CIFAR-10.", (greater_gain(FASTER, *_gains("2.1")),)
        ),
        Claim("2a", "On CIFAR-10 the final accuracies are equal.", compare("2.1:cifar10", "equal", ACCURACY, BASE)),
        Claim(
            "2b",
            "On CIFAR-100 Lookahead's final accuracy is higher.",
            compare("2.1:cifar100", "better", ACCURACY, BASE),
        ),
    )


def _hyperparameters() -> tuple[Claim, ...]:
    return (
        Claim(
            "3a",
            "On CIFAR-10 Lookahead is faster than RAdam for every k and α.",
            compare("2.2:cifar10", "better", FASTER, *K_ALPHA),
        ),
        Claim(
            "3b",
            "On CIFAR-100 Lookahead is faster than RAdam for every k and α.",
            compare("2.2:cifar100", "better", FASTER, *K_ALPHA),
        ),
        Claim(
            "3c",
            "On CIFAR-100 its accuracy is higher for every k and α.",
            compare("2.2:cifar100", "better", ACCURACY, *K_ALPHA),
        ),
        Claim(
            "4a",
            "At learning rate 0.01 on CIFAR-10 Lookahead gains nothing, neither in loss nor in accuracy.",
            compare("2.3.1:cifar10", "not_better", FASTER, BASE)
            + compare("2.3.1:cifar10", "not_better", ACCURACY, BASE),
        ),
        Claim(
            "4b",
            "At learning rate 0.01 on CIFAR-100 Lookahead is faster, and its accuracy higher.",
            compare("2.3.1:cifar100", "better", FASTER, BASE) + compare("2.3.1:cifar100", "better", ACCURACY, BASE),
        ),
        Claim(
            "5a",
            "With the rate dropped early, on CIFAR-10 the accuracies are equal and Lookahead's loss falls more slowly.",
            compare("2.3.2:cifar10", "equal", ACCURACY, BASE) + compare("2.3.2:cifar10", "worse", FASTER, BASE),
        ),
        Claim(
            "5b",
            "With the rate dropped early, on CIFAR-100 Lookahead is faster, and its accuracy higher.",
            compare("2.3.2:cifar100", "better", FASTER, BASE) + compare("2.3.2:cifar100", "better", ACCURACY, BASE),
        ),
    )


def _inner() -> tuple[Claim, ...]:
    c10, c100 = f"2.4:{C10}", f"2.4:{C100}"
    sgd_gain = Pair(c100, "Lookahead(SGD)", "SGD")
    return (
        Claim(
            "6a",
            "On CIFAR-10 SGD is faster than Adam, and Adam faster than RAdam.",
            compare(c10, "better", FASTER, ("SGD", "Adam"), ("Adam", "RAdam")),
        ),
        Claim(
            "6b",
            "On CIFAR-10 Lookahead makes Adam and RAdam faster, but not SGD.",
            compare(c10, "better", FASTER, *with_lookahead("Adam", "RAdam"))
            + compare(c10, "not_better", FASTER, *with_lookahead("SGD")),
        ),
        Claim(
            "6c",
            "On CIFAR-10 Lookahead does not change the final accuracies of SGD, Adam and RAdam.",
            compare(c10, "equal", ACCURACY, *with_lookahead("SGD", "Adam", "RAdam")),
        ),
        Claim(
            "6d",
            "On CIFAR-100 Adam ends with a higher accuracy than RAdam and than SGD.",
            compare(c100, "better", ACCURACY, ("Adam", "RAdam"), ("Adam", "SGD")),
        ),
        Claim(
            "6e",
            "On CIFAR-100 Lookahead makes SGD, Adam and RAdam faster.",
            compare(c100, "better", FASTER, *with_lookahead("SGD", "Adam", "RAdam")),
        ),
        Claim(
            "6f",
            "On CIFAR-100 Lookahead speeds up SGD more than Adam and RAdam.",
            tuple(
                greater_gain(FASTER, sgd_gain, Pair(c100, f"Lookahead({other})", other)) for other in ("Adam", "RAdam")
            ),
        ),
        Claim(
            "6g",
            "On CIFAR-100 Lookahead raises the accuracy of RAdam and SGD, but not that of Adam.",
            compare(c100, "better", ACCURACY, *with_lookahead("RAdam", "SGD"))
            + compare(c100, "not_better", ACCURACY, *with_lookahead("Adam")),
        ),
    )


def _batch_and_small_tasks() -> tuple[Claim, ...]:
    base = "k=5, batch 128"
    pairs = (("k=2, batch 320", base), ("k=10, batch 64", base), ("k=10, batch 64", "k=2, batch 320"))
    designed = "The report's design has unequal steps and no baselines at batch 64 and 320: see c2a to c3b."
    return (
        *(
            Claim(
                f"7{part}",
                f"On {title} the runs with k × batch = 640 differ, so the gain is not just that of a larger batch.",
                compare(f"2.5:{dataset}", "differs", ACCURACY, *pairs),
                note=designed,
                any_of=True,  # a larger batch would make all three equal
            )
            for part, dataset, title in (("a", C10, "CIFAR-10"), ("b", C100, "CIFAR-100"))
        ),
        Claim(
            "8a",
            "On the small image task Lookahead gains nothing, neither in loss nor in accuracy.",
            compare("2.6.1:hw2", "not_better", FASTER, BASE) + compare("2.6.1:hw2", "not_better", ACCURACY, BASE),
        ),
        Claim(
            "8b",
            "On the small language model Lookahead gains nothing, neither in loss nor in perplexity.",
            compare("2.6.2:ptb", "not_better", FASTER, BASE) + compare("2.6.2:ptb", "not_better", PERPLEXITY, BASE),
        ),
    )


def _overall() -> tuple[Claim, ...]:
    robust: tuple[Comparison, ...] = ()
    for dataset in (C10, C100):
        robust += compare(f"2.2:{dataset}", "not_worse", ACCURACY, *K_ALPHA)
        robust += compare(f"2.3.1:{dataset}", "not_worse", ACCURACY, BASE)
        robust += compare(f"2.3.2:{dataset}", "not_worse", ACCURACY, BASE)
    harder, easier = _gains("2.1")
    small = Pair("2.6.1:hw2", *BASE)
    return (
        Claim(
            "9a",
            "Lookahead is robust to its hyper-parameters: for none of them is its accuracy lower than RAdam's.",
            robust,
        ),
        Claim(
            "9b",
            "The gain grows with the difficulty of the task: from the small task to CIFAR-10 to CIFAR-100.",
            (
                greater_gain(ACCURACY, harder, easier),
                greater_gain(FASTER, harder, easier),
                greater_gain(FASTER, easier, small),
            ),
        ),
    )


def _slow_better(section: str, quantity: str) -> Comparison:
    """The slow weights of Lookahead(RAdam) against the live ones of the same runs."""
    slow = f"slow_{quantity}"
    return Comparison(Pair(section, BASE[0], BASE[0]), "better", slow, MARGINS[slow], baseline_quantity=quantity)


def _controls(grids: Mapping[str, Iterable[float]]) -> tuple[Claim, ...]:
    found = [
        Claim(
            "c1",
            "Between syncs the slow weights score higher than the live ones, which the report tested.",
            (
                _slow_better("2.6.1:hw2", "accuracy_area"),
                _slow_better("2.6.2:ptb", "perplexity_area"),
            ),
            source="control",
            note="Means over all epochs, of which four in five end between two syncs. At mini scale every epoch of the "
            "CIFAR runs ends on a sync, so live and slow weights are the same.",
        )
    ]
    for dataset, title in ((C10, "CIFAR-10"), (C100, "CIFAR-100")):
        part = "a" if dataset == C10 else "b"
        section = f"2.5-controls:{dataset}"
        pairs = [(f"k={k}, batch {batch}", f"RAdam, batch {batch}") for batch, k in ((128, 5), (64, 10), (320, 2))]
        equal_steps = [(f"{variant}, equal steps", f"{baseline}, equal steps") for variant, baseline in pairs[1:]]
        found += [
            Claim(
                f"c2{part}",
                f"On {title} Lookahead is faster than RAdam at each batch size, with the same number of epochs.",
                compare(section, "better", FASTER, *pairs),
                source="control",
            ),
            Claim(
                f"c3{part}",
                f"On {title} Lookahead's accuracy is higher than RAdam's at each batch size, at equal steps.",
                compare(section, "better", ACCURACY, pairs[0], *equal_steps),
                source="control",
            ),
        ]
        for letter, (inner, rates) in zip("45", grids.items(), strict=True):
            plain = tuple(at_rate(inner, rate) for rate in rates)
            best = Pair(f"lr-grid:{dataset}", tuple(f"Lookahead({name})" for name in plain), plain)
            found.append(
                Claim(
                    f"c{letter}{part}",
                    f"On {title} Lookahead({inner}) at its best rate is more accurate than {inner} at its best rate.",
                    (compare_pair(best, "better", ACCURACY),),
                    source="control",
                    note="Best: the highest mean late accuracy in the grid, chosen on the scores that are compared.",
                )
            )
    return tuple(found)
