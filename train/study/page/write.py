"""index.html of a study: one file that opens from the disk, with verdicts, interactive curves, settings and runs.

Nothing is loaded from anywhere: style, script, chart library (uPlot, see `assets/README.md`), curves and further
pictures are in the file, and its Content-Security-Policy admits these scripts by their hashes and nothing else. Without
JavaScript all tables are there, and the sections show their figures, where those lie beside the page.
"""

import base64
import collections
import hashlib
import importlib.resources
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from train.files import write_atomic
from train.study.page.data import page_data, script_json, section_id
from train.study.page.figures import reference_rows
from train.study.page.summary import Summary, summarise
from train.study.page.tables import final_table, gains_table, runs_table, settings
from train.study.page.tuning import PROFILES, tuning_table
from train.study.page.verdicts import VerdictView, range_words, reach, scale_words, verdict_counts, verdict_view
from train.study.plan import Section
from train.study.results.records import StudyResults

FIGURES = "figures"


def _asset(name: str) -> str:
    return (importlib.resources.files("train.study.page") / "assets" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


def _facts(results: StudyResults) -> list[str]:
    study, runs = results.study, results.runs.values()
    done = sum(run.status == "finished" for run in runs)
    seeds = list(collections.Counter(run.variant_id for run in runs if run.status == "finished").values())
    facts = [f"study {study.name}", f"{study.scale} scale" if study.scale else ""]
    facts += [f"{done} of {len(runs)} runs finished"]
    facts += [range_words(seeds)] if seeds else []
    return [fact for fact in (*facts, str(results.facts.get("date", ""))[:10]) if fact]


def _sources(results: StudyResults) -> list[dict[str, Any]]:
    """The verdicts by the source of their claims: those with runs, and those that wait for theirs."""
    found = []
    for source in dict.fromkeys(verdict.claim.source for verdict in results.verdicts):
        views: dict[bool, list[VerdictView]] = {False: [], True: []}
        for verdict in results.verdicts:
            if verdict.claim.source == source:
                views[verdict.waits].append(verdict_view(verdict, results.study))
        found.append({"heading": results.study.sources[source], "verdicts": views[False], "waiting": views[True]})
    return found


def _section(
    section: Section, index: int, results: StudyResults, records: Mapping[tuple[str, str, str], Summary], folder: Path
) -> dict[str, Any]:
    ran = any(results.by_variant(section, variant.name) for variant in section.variants)
    endings = ("train", "test") if section.language_model else ("loss", "acc")
    pictures = [f"{FIGURES}/{section.figure}_{ending}.svg" for ending in endings]
    runs = runs_table(section, results)
    return {
        "id": section_id(index),
        "key": section.key,
        "title": section.title,
        "budget": section.budget,
        "last_epoch": final_table(section, results) if ran else None,
        "gains": gains_table(section, records) if ran else None,
        "trials": section.trials,
        "tuning": tuning_table(section, results) if section.trials else None,
        "tuning_picture": _embedded(folder, f"{section.figure}_tuning"),
        "faults": _faults(section),
        "pictures": [file for file in pictures if (folder / file).exists()],
        "settings": settings(section),
        "runs": runs,
        "finished": sum(row[2] == "finished" for row in runs.rows),
    }


def _faults(section: Section) -> list[str]:
    """What is wrong with the references whose curves the section shows."""
    shown = [variant.reference for variant in section.variants if reference_rows(section, variant)]
    return list(dict.fromkeys(reference.fault for reference in shown if reference and reference.fault))


def _embedded(folder: Path, stem: str) -> str:
    """A picture of figures/ as base64; "" where there is none."""
    picture = folder / FIGURES / f"{stem}.png"
    return base64.b64encode(_smaller(picture)).decode() if picture.exists() else ""


def _smaller(picture: Path) -> bytes:
    """A PNG in 128 colours: a quarter of the size, and the eye sees no difference."""
    from PIL import Image

    data = io.BytesIO()
    with Image.open(picture) as image:
        few = image.convert("RGB").quantize(128, dither=Image.Dither.NONE)
        few.save(data, format="png", optimize=True)
    return data.getvalue()


def _provenance(facts: Mapping[str, Any]) -> dict[str, str]:
    """What study.json says of the last session, flattened."""
    found: dict[str, str] = {}
    for name, value in facts.items():
        if name in ("name", "title", "scale", "command", "sessions"):
            continue
        pairs = value.items() if isinstance(value, dict) else [(name.replace("_", " "), value)]
        found |= {str(key): str(text) for key, text in pairs}
    return found


def _made_on(results: StudyResults) -> dict[str, str]:
    """The machines and versions of JAX that the finished runs were made with, and the time it took."""
    counts: collections.Counter[str] = collections.Counter()
    for run in results.runs.values():
        machine, versions = run.provenance.get("machine", ""), run.provenance.get("versions", "")
        if run.status == "finished" and machine:
            jax = next((version for version in versions.split(", ") if version.startswith("jax ")), "")
            counts[machine.split(",")[0] + f" ({jax})" * bool(jax)] += 1
    found = {"runs": ", ".join(f"{number} on {words}" for words, number in counts.most_common())} if counts else {}
    if sessions := results.facts.get("sessions"):
        found["wall time of all sessions"] = _duration(sum(session["seconds"] for session in sessions))
    return found


def _duration(seconds: float) -> str:
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def page_html(results: StudyResults, folder: Path) -> str:
    """The page as text; `folder` is where it will lie, for what lies beside it."""
    study = results.study
    records = {(record.section, record.variant, record.quantity): record for record in summarise(results)}
    library = f"/*\n{_asset('uPlot.LICENSE')}\n*/\n{_asset('uPlot.iife.min.js')}"
    style, script = _asset("uPlot.min.css") + _asset("style.css"), _asset("page.js")
    policy = (
        f"default-src 'none'; script-src {_hash(library)} {_hash(script)}; style-src {_hash(style)}; "
        "img-src 'self' file: data:; base-uri 'none'; form-action 'none'"
    )
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("train.study.page"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["duration"] = _duration
    return environment.get_template("page.html").render(
        study=study,
        facts=_facts(results),
        counts=verdict_counts(results.verdicts),
        scales=[scale_words(scale) for scale in sorted({verdict.scale for verdict in results.verdicts} - {"full"})],
        sources=_sources(results),
        reach=reach(results.verdicts),
        reference=study.reference[:1].upper() + study.reference[1:],
        pictures=[(picture, _embedded(folder, picture.stem)) for picture in study.pictures],
        tuned=any(section.trials for section in study.sections),
        profiles=_embedded(folder, PROFILES),
        sections=[_section(section, i, results, records, folder) for i, section in enumerate(study.sections)],
        command=str(results.facts.get("command", "")),
        made_on=_made_on(results),
        provenance=_provenance(results.facts),
        sessions=results.facts.get("sessions", []),
        # The page's own, as they are: a script or style element takes no escapes.
        policy=Markup(policy),
        style=Markup(style),
        library=Markup(library),
        script=Markup(script),
        data=Markup(script_json(page_data(results))),
    )


def write_page(results: StudyResults, path: Path) -> None:
    """Writes the page; figures/ beside it is used where it is there, so draw before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, page_html(results, path.parent))
