"""index.html of a study: one file that opens from the disk, with verdicts, interactive curves, settings and runs.

Nothing is loaded from anywhere: style, script, chart library (uPlot, see `page/README.md`), curves and the picture of
`train.insight` are in the file, and its Content-Security-Policy admits these scripts by their hashes and nothing
else. Without JavaScript all tables are there, and the sections show their figures, where those lie beside the page.
"""

import base64
import hashlib
import importlib.resources
import io
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

from train.files import write_atomic
from train.study.page.data import page_data, script_json, section_id
from train.study.page.markup import Element, link, render, tag
from train.study.page.summary import Summary, summarise
from train.study.page.tables import final_table, gains_table, runs_table, settings
from train.study.page.verdicts import scale_words, verdict_counts, verdict_table
from train.study.plan import Section
from train.study.results.records import StudyResults

FIGURES = "figures"

READING = (
    "A claim is a set of comparisons between runs with the same seed: the same initial weights and the same order of "
    "the data (gains on two data sets are compared unpaired). It is supported if every comparison is shown at the 5 % "
    "level, contradicted if one is refuted, and otherwise not resolved. Better means any gain above zero; equal, not "
    "better and not worse are meant within the stated margin. Gains are positive where the first of the two is better; "
    "their 95 % interval is in brackets. Gains of losses, perplexities and epochs are the per cent by which the first "
    "is lower.",
    "The t-tests use moderated variances (Smyth 2004): with few seeds, the variance of a comparison is shrunk towards "
    "those of the other comparisons on its data set. The plain paired t-test, which does without, stands beside them. "
    "p-values are doubled, because a claim may be looked at twice (a second time with more seeds), and corrected by "
    "Holm's method over all claims of the same source. A claim that is resolved at the first look keeps that verdict. "
    "Seeds needed: the number of seeds that would resolve a comparison with power 0.8, if the true gain is the one "
    "seen / if it is at the edge of the margin (zero, for equal, not better and not worse).",
)
# Of the picture's files in figures/, which `python -m train.insight` writes.
STEM = "insight"


def _asset(name: str) -> str:
    return (importlib.resources.files("train.study.page") / "assets" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


def _header(results: StudyResults) -> list[Element]:
    study, runs = results.study, results.runs.values()
    done = sum(run.status == "finished" for run in runs)
    seeds = sorted({run.seed for run in runs if run.status == "finished"})
    facts = [
        f"study {study.name}",
        f"{study.scale} scale" if study.scale else "",
        f"{done} of {len(runs)} runs finished",
    ]
    facts += [f"{len(seeds)} seed{'s' * (len(seeds) != 1)}", str(results.facts.get("date", ""))[:10]]
    return [tag("h1", study.title), tag("p", " · ".join(filter(None, facts)), class_="lead")]


def _verdicts(results: StudyResults) -> list[Element]:
    if not results.verdicts:
        return [tag("h2", "Verdicts", id="verdicts"), tag("p", "This study states no claims.")]
    made = [tag("h2", "Verdicts", id="verdicts"), verdict_counts(results.verdicts)]
    made += [tag("p", words, class_="lead") for words in READING]
    scales = {verdict.scale for verdict in results.verdicts}
    for scale in sorted(scales - {"full"}):
        made.append(
            tag("p", tag("strong", f"Measured {scale_words(scale)}: "), "the verdicts speak of that budget alone.")
        )
    for source in dict.fromkeys(verdict.claim.source for verdict in results.verdicts):
        claims = [verdict for verdict in results.verdicts if verdict.claim.source == source]
        made.append(tag("h3", results.study.sources[source]))
        if found := [verdict for verdict in claims if not verdict.waits]:
            made.append(verdict_table(found, results.study))
        if waiting := [verdict for verdict in claims if verdict.waits]:
            words = f"{len(waiting)} claim{'s' * (len(waiting) != 1)} not run"
            made.append(tag("details", tag("summary", words), verdict_table(waiting, results.study)))
    return made


def _contents(results: StudyResults) -> Element:
    items = [
        tag("li", tag("a", f"{section.key}  {section.title}", href=f"#{section_id(index)}"))
        for index, section in enumerate(results.study.sections)
    ]
    return tag("nav", tag("ul", *items), aria_label="Sections")


def _section(
    section: Section,
    index: int,
    results: StudyResults,
    records: Mapping[tuple[str, str, str], Summary],
    folder: Path,
) -> Element:
    identity = section_id(index)
    made = tag("section", tag("h3", f"{section.key}  {section.title}", id=identity), aria_labelledby=identity)
    if section.budget:
        made.append(tag("p", section.budget, class_="lead"))
    runs = [run for variant in section.variants for run in results.by_variant(section, variant.name)]
    if runs:
        made.append(tag("div", id=f"charts-{identity}"))
        made.extend(_figures(section, folder))
        made.append(tag("h4", "Last epoch, mean ± standard deviation over the seeds"))
        made.append(final_table(section, results))
        if (gains := gains_table(section, records)) is not None:
            made.append(
                tag("h4", "Gains, paired by seed, with their 95 % interval; positive where the variant is better")
            )
            made.append(gains)
    else:
        made.append(tag("p", "No run of this section has finished yet.", class_="lead"))
    made.append(settings(section))
    made.append(runs_table(section, results))
    return made


def _figures(section: Section, folder: Path) -> list[Element]:
    """The figures' files where they lie beside the page: links, and pictures for readers without JavaScript."""
    endings = ("train", "test") if section.language_model else ("loss", "acc")
    files = [f"{FIGURES}/{section.figure}_{ending}.svg" for ending in endings]
    files = [file for file in files if (folder / file).exists()]
    if not files:
        return []
    pictures = [tag("img", src=file, alt=f"{section.title}: curves", loading="lazy") for file in files]
    links = tag("p", "Figures: ", class_="hint")
    for file in files:
        for path in (file.removesuffix("svg") + "png", file):
            links.append(link(path, Path(path).name))
            links[-1].tail = " "
    return [tag("noscript", *pictures), links]


def _insight(folder: Path) -> list[Element]:
    picture = folder / FIGURES / f"{STEM}.png"
    if not picture.exists():
        return []
    data = base64.b64encode(_smaller(picture)).decode()
    caption = (
        "Test accuracy in the plane through the start, the middle and the end of one cycle's fast weights, BatchNorm "
        "re-estimated at each point; on it, projected, the paths of the same run with and without Lookahead."
    )
    image = tag("img", src=f"data:image/png;base64,{data}", alt=caption)
    return [tag("h2", "Lookahead in the plane of one cycle"), image, tag("p", caption, class_="hint")]


def _smaller(picture: Path) -> bytes:
    """A PNG in 128 colours: a quarter of the size, and the eye sees no difference."""
    from PIL import Image

    data = io.BytesIO()
    with Image.open(picture) as image:
        few = image.convert("RGB").quantize(128, dither=Image.Dither.NONE)
        few.save(data, format="png", optimize=True)
    return data.getvalue()


def _reproduce(results: StudyResults) -> list[Element]:
    facts = {name: value for name, value in results.facts.items() if name not in ("name", "title", "scale")}
    made = [tag("h2", "How to reproduce", id="reproduce")]
    if command := facts.pop("command", ""):
        made.append(tag("pre", tag("code", str(command))))
        again = (
            "It runs what is missing of the whole plan; runs that are there already are not run again. --only picks "
            "sections, --seeds sets their number, --jobs the runs at once, --data_dir where prepared data lies."
        )
        made.append(tag("p", again, class_="hint"))
    sessions = facts.pop("sessions", [])
    if sessions:
        facts["wall time of all sessions"] = _duration(sum(session["seconds"] for session in sessions))
    items: list[Element] = []
    for name, value in facts.items():
        pairs = value.items() if isinstance(value, dict) else [(name.replace("_", " "), value)]
        items += [tag("div", tag("dt", str(key)), tag("dd", str(text))) for key, text in pairs]
    made += [tag("dl", *items)] if items else []
    if sessions:
        listed = tag("ul", *(tag("li", *_session(session)) for session in sessions), class_="hint")
        made.append(tag("details", tag("summary", f"{len(sessions)} session{'s' * (len(sessions) != 1)}"), listed))
    return made


def _session(session: dict[str, Any]) -> list[Element | str]:
    """A session of study.json (`train.study.execution.session.SessionFacts`) in a line."""
    failed = f", {session['failed']} failed" if session["failed"] else ""
    finished = f"{session['finished']} run{'s' * (session['finished'] != 1)} finished{failed}"
    said = f"{session['date'][:16]}, {session['machine']}: {finished} in {_duration(session['seconds'])}: "
    return [said, tag("code", session["command"])]


def _duration(seconds: float) -> str:
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def page_html(results: StudyResults, folder: Path) -> str:
    """The page as text; `folder` is where it will lie, for what lies beside it."""
    records = {(record.section, record.variant, record.quantity): record for record in summarise(results)}
    body = [
        tag("header", *_header(results)),
        tag(
            "main",
            *_verdicts(results),
            *_insight(folder),
            tag("h2", "Sections"),
            _contents(results),
            *(_section(section, i, results, records, folder) for i, section in enumerate(results.study.sections)),
            *_reproduce(results),
        ),
    ]
    library = f"/*\n{_asset('uPlot.LICENSE')}\n*/\n{_asset('uPlot.iife.min.js')}"
    style, script = _asset("uPlot.min.css") + _asset("style.css"), _asset("page.js")
    policy = (
        f"default-src 'none'; script-src {_hash(library)} {_hash(script)}; style-src {_hash(style)}; "
        "img-src 'self' file: data:; base-uri 'none'; form-action 'none'"
    )
    return Template(_asset("template.html")).substitute(
        policy=policy,
        title=render([tag("title", results.study.title)]).removeprefix("<title>").removesuffix("</title>"),
        style=style,
        body=render(body),
        data=script_json(page_data(results)),
        library=library,
        script=script,
    )


def write_page(results: StudyResults, path: Path) -> None:
    """Writes the page; figures/ beside it is used where it is there, so draw before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, page_html(results, path.parent))
