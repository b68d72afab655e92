"""What our runs of the report's recipes have to agree with, and whether they do.

Training losses of the first epochs (perplexities for the language model), relative to the report's own, which is one
seed. The CNN saw other images than the report's, so nothing is demanded of it but to have been run.
"""

import dataclasses
from collections.abc import Sequence

from train.reproduction.logs import report_curves
from train.reproduction.runs import FiledRun

HOLDS, NOT_RUN = "holds", "not run"
INNER = {"sgd": "SGD", "adam": "Adam", "radam": "RAdam"}
CIFAR = {"CIFAR-10": "", "CIFAR-100": "_cifar100"}
PTB, CNN = {"nlp_no": "RAdam", "nlp_yes": "Lookahead(RAdam)"}, {"cnn_no": "RAdam", "cnn_yes": "Lookahead(RAdam)"}
CNN_EPOCHS = 10


@dataclasses.dataclass(frozen=True)
class Expectation:
    """What a recipe of ours has to agree with.

    Attributes:
      name: of the report's run.
      quantity: the column that is compared.
      epochs: at which.
      tolerance: largest relative difference from the report.
      seeds: how many runs there must be.
      title: of the row.
    """

    name: str
    quantity: str
    epochs: tuple[int, ...]
    tolerance: float
    seeds: int
    title: str

    def report(self, epoch: int) -> float:
        """The report's value."""
        return report_curves()[self.name][epoch - 1][self.quantity]

    def difference(self, run: FiledRun, epoch: int) -> float | None:
        """(ours - report) / report; None where the run did not come so far."""
        ours = run.value(epoch, self.quantity)
        return None if ours is None else ours / self.report(epoch) - 1

    def verdict(self, run: FiledRun) -> str:
        """ "holds"; or which epochs miss the tolerance; or which were not run."""
        differences = {epoch: self.difference(run, epoch) for epoch in self.epochs}
        missed = [epoch for epoch, d in differences.items() if d is not None and not abs(d) <= self.tolerance]
        absent = [epoch for epoch, d in differences.items() if d is None]
        parts = [f"**misses** at epoch {_listed(missed)}"] if missed else []
        parts += [f"epoch {_listed(absent)} {NOT_RUN}"] if absent else []
        return "; ".join(parts) or HOLDS


def _listed(epochs: Sequence[int]) -> str:
    return ", ".join(map(str, epochs))


def cifar_expectations(suffix: str) -> list[Expectation]:
    """The six runs of a CIFAR set. The log of sgd_no_cifar100 is at fault from epoch 3 on."""
    found = []
    for inner, word in INNER.items():
        tolerance, seeds = (0.08, 2) if inner == "radam" else (0.04, 1)
        for which, title in (("no", word), ("yes", f"Lookahead({word})")):
            name = f"{inner}_{which}{suffix}"
            epochs = (1, 2) if name == "sgd_no_cifar100" else (1, 2, 3)
            found.append(Expectation(name, "train_loss", epochs, tolerance, seeds, title))
    return found


def ptb_expectations() -> list[Expectation]:
    """The two language models, by validation perplexity."""
    return [Expectation(name, "test_perplexity", (5, 10), 0.06, 1, title) for name, title in PTB.items()]


def runs_of(runs: Sequence[FiledRun], name: str) -> list[FiledRun]:
    return [run for run in runs if run.name == name]


def failures(runs: Sequence[FiledRun]) -> list[str]:
    """One line for each comparison that does not hold, "not run" included; empty where all do."""
    lines = []
    for dataset, suffix in (*CIFAR.items(), ("PTB", None)):
        for expected in ptb_expectations() if suffix is None else cifar_expectations(suffix):
            found = runs_of(runs, expected.name)
            for run in found:
                verdict = expected.verdict(run).replace("*", "")
                if verdict != HOLDS:
                    lines.append(f"{dataset}, {expected.title}, seed {run.seed}: {verdict}")
            if len(found) < expected.seeds:
                lines.append(
                    f"{dataset}, {expected.title}: {expected.seeds - len(found)} of {expected.seeds} {NOT_RUN}"
                )
    for name, title in CNN.items():
        if not any(len(run.rows) >= CNN_EPOCHS for run in runs_of(runs, name)):
            lines.append(f"CNN, {title}: {CNN_EPOCHS} epochs {NOT_RUN}")
    return lines
