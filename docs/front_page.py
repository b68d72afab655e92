"""The front page's picture and table, from the published study: run it whenever results/report has changed.

    python -m docs.front_page

Draws docs/images/study-light.svg and study-dark.svg, and writes what lies between `<!-- results -->` and
`<!-- /results -->` in README.md. Drawn again from the same runs, both are the same byte for byte.
"""

import collections
import io
from pathlib import Path

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from train.run.figures import own_style
from train.study.execution.checks import identified
from train.study.page.figures import curve
from train.study.page.summary import Summary, summarise
from train.study.plan import load_study, planned_runs
from train.study.results.facts import read_facts
from train.study.results.published import read_runs
from train.study.results.records import StudyResults
from train.study.verdicts.judge import assemble
from train.study.verdicts.wording import NONE, gain_words

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "results" / "report"
BEGIN, END = "<!-- results -->", "<!-- /results -->"
# Section of the study: its data set in words.
TABLE = {
    "2.4:cifar10": "CIFAR-10",
    "2.4:cifar100": "CIFAR-100",
    "2.6.1:hw2": "20 classes of images",
    "2.6.2:ptb": "Penn Treebank (perplexity)",
    "imdb:imdb": "IMDB reviews",
}
PANELS = {"2.1:cifar10": "CIFAR-10", "2.1:cifar100": "CIFAR-100", "2.6.2:ptb": "Penn Treebank"}
PAIR = ("RAdam", "Lookahead(RAdam)")
# Theme: text and axes, then a colour for each of the pair (Okabe and Ito's; lighter ones on dark).
THEMES = {"light": ("#1f2328", "#D55E00", "#0072B2"), "dark": ("#e6edf3", "#E69F00", "#56B4E9")}


def read_results() -> StudyResults:
    """The published study with its verdicts."""
    runs, facts = read_runs(OUT), read_facts(OUT)
    study = identified(load_study(ROOT / "configs" / "studies" / "report.py", scale=facts["scale"]), {}, runs)
    return assemble(study, runs, facts)


def draw(results: StudyResults, theme: str) -> bytes:
    """The picture as SVG: RAdam with and without Lookahead, with a band from the lowest seed to the highest."""
    ink, *colours = THEMES[theme]
    style = {"text.color": ink, "axes.labelcolor": ink, "axes.edgecolor": ink, "xtick.color": ink, "ytick.color": ink}
    with own_style(), rc_context({**style, "font.size": 12, "svg.hashsalt": "lookahead_jax"}):
        figure = Figure(figsize=(10, 3.4), layout="constrained")
        FigureCanvasAgg(figure)
        sections = [next(s for s in results.study.sections if s.ref == ref) for ref in PANELS]
        for axis, section, title in zip(figure.subplots(1, 3), sections, PANELS.values(), strict=True):
            quantity = "test_perplexity" if section.language_model else "test_accuracy"
            for name, colour in zip(PAIR, colours, strict=True):
                found = curve(results.by_variant(section, name), quantity)
                if found is None:
                    continue
                axis.plot(found.epochs, found.mean, color=colour, linewidth=2, label=name)
                axis.fill_between(found.epochs, found.low, found.high, color=colour, alpha=0.25, linewidth=0)
            axis.set_title(title, color=ink)
            axis.set(xlabel="epoch", ylabel="validation perplexity" if section.language_model else "test accuracy, %")
            if section.language_model:
                axis.set_ylim(top=350)
            axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            axis.grid(alpha=0.25)
            axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False, labelcolor=ink)
        data = io.BytesIO()
        figure.savefig(data, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return data.getvalue()


def _row(title: str, record: Summary, alone: Summary) -> str:
    def mean(value: float | None) -> str:
        if value is None:
            return NONE
        return f"{value:.1f}" if "perplexity" in record.quantity else f"{100 * value:.2f} %"

    gain = gain_words(record.quantity, record.gain, record.gain_low, record.gain_high)
    return f"| {title} | {record.against} | {record.pairs} | {mean(alone.mean)} | {mean(record.mean)} | {gain} |"


def block(results: StudyResults) -> str:
    """What stands between the markers: how far the study is, its verdicts, and the table."""
    planned = {run.id for run in planned_runs(results.study)}
    done = sum(run.status == "finished" for run in results.runs.values() if run.id in planned)
    verdicts = [verdict for verdict in results.verdicts if verdict.claim.source == "report"]
    counts = collections.Counter(verdict.words for verdict in verdicts)
    words = [f"{counts[name]} {name}" for name in ("supported", "contradicted", "not resolved") if counts[name]]
    waiting = counts["partly run"] + counts["not run"]
    words += [f"{waiting} still waiting for runs"] if waiting else []
    more = len(results.runs.keys() - planned)
    seeds = f", plus {more} runs with additional seeds for claims that more seeds could decide" if more else ""
    claims = f"Of the report's {len(verdicts)} claims: {', '.join(words)}."
    lines = [
        f"{done} of {len(planned)} planned runs are published{seeds}. {claims}",
        "",
        "| data | optimizer | seeds | alone | with Lookahead | gain, paired by seed [95 % interval] |",
        "|---|---|---|---|---|---|",
    ]
    records = {(record.section, record.variant, record.quantity): record for record in summarise(results)}
    for (section, variant, quantity), record in records.items():
        if section in TABLE and quantity in ("late_accuracy", "late_perplexity") and variant.startswith("Lookahead"):
            lines.append(_row(TABLE[section], record, records[section, record.against, quantity]))
    return "\n".join(lines)


def with_block(readme: str, text: str) -> str:
    """README.md with the text between its markers."""
    before, rest = readme.split(BEGIN)
    return f"{before}{BEGIN}\n{text}\n{END}{rest.split(END)[1]}"


def main() -> None:
    results = read_results()
    for theme in THEMES:
        (ROOT / "docs" / "images" / f"study-{theme}.svg").write_bytes(draw(results, theme))
    path = ROOT / "README.md"
    path.write_text(with_block(path.read_text(encoding="utf-8"), block(results)), encoding="utf-8")


if __name__ == "__main__":
    main()
