"""The page of a study: what it says without a script, and how it behaves in a real browser."""

import dataclasses
import html.parser
import json
import os
import re
import shutil

import numpy as np
import PIL.Image
import pytest
import scipy.stats

from tests.train.study import made_up
from train.study.page.data import page_data, rounded, script_json
from train.study.page.figures import draw_all
from train.study.page.write import page_html, write_page
from train.study.verdicts.wording import gain_number, gain_words

EVIL = '<script>document.title="hacked"</script>'
BROWSER = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser") or ""
# Nothing that a browser does for itself may reach for the network.
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]


@pytest.fixture(scope="module")
def results():
    sections = [
        made_up.base_section(epochs=200, report=True),
        made_up.base_section("cifar100"),
        made_up.pairs_section(),
        made_up.text_section(),
    ]
    return made_up.results(sections, made_up.claims())


class Text(html.parser.HTMLParser):
    """What a reader sees, and the elements, without running anything."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.words, self.ids, self._skip = [], [], [], 0
        self.feed(page)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.ids += [dict(attrs)["id"]] if "id" in dict(attrs) else []
        self._skip += tag in ("script", "style")

    def handle_endtag(self, tag):
        self._skip -= tag in ("script", "style")

    def handle_data(self, data):
        self.words += [] if self._skip else [data]


# Without a browser


def test_verdicts_stand_first_and_carry_scale_seeds_interval_and_the_reports_figures(results, tmp_path):
    text = Text(page_html(results, tmp_path)).text
    assert text.index("Verdicts") < text.index("2.1 CIFAR10: RAdam with and without Lookahead")
    assert "✓ 2 supported ✗ 1 contradicted ? 1 not resolved" in text
    assert "Measured at mini scale: the verdicts apply only to that budget." in text
    claim = text[text.index("2a On CIFAR-10 the final") : text.index("2b On CIFAR-100")]
    assert "+0.6 [+0.2, +0.9] % 0.5213 / 0.5871" in text
    assert "✗ contradicted at mini scale, n = 3 seeds plain t-test: not resolved" in claim
    assert "late accuracy: Lookahead(RAdam) equal, within 0.50 points, to RAdam, 2.1 CIFAR-10" in claim
    gain = "+0.57 [+0.21, +0.93] points final accuracy: +0.76 [0.00, +1.52] points"
    means = "87.12 / 86.55 % final accuracy: 87.31 / 86.55 %"
    report = "+0.11 points (86.88 / 86.77 %) final accuracy: +0.11 points (86.88 / 86.77 %)"
    assert f"{gain} {means} 0.012 plain: 0.900 – {report}" in claim
    unresolved = text[text.index("2b On CIFAR-100") : text.index("What this study adds")]
    assert (
        "? not resolved at mini scale, n = 3 seeds plain t-test: not resolved seeds needed: 12 / > 1000" in unresolved
    )
    assert "The report has one seed; its difference is 0.11 points." in claim


def test_a_studys_findings_stand_before_its_verdicts_and_its_outlook_after_them(results, tmp_path):
    study = dataclasses.replace(results.study, findings=["It helps & costs."], outlook=["More epochs may differ."])
    text = Text(page_html(dataclasses.replace(results, study=study), tmp_path)).text
    places = ["? 1 not resolved", "It helps & costs.", "How to read the verdicts", "2a On", "More epochs may differ."]
    assert sorted(map(text.index, places)) == list(map(text.index, places))


def test_seeds_are_those_of_each_test_and_each_comparison(results, tmp_path):
    """A claim whose comparisons have three and eight seeds, and whose plain test was resolved at the second look."""
    *known, last = results.verdicts
    (test,) = last.tests
    seen = dataclasses.replace(test, n=8, moderated=dataclasses.replace(test.moderated, n=8))
    plain = dataclasses.replace(test, plain=dataclasses.replace(test.plain, n=8))
    last = dataclasses.replace(last, tests=(seen, plain))
    text = Text(page_html(dataclasses.replace(results, verdicts=(*known, last)), tmp_path)).text
    assert "at mini scale, n = 3 to 8 seeds" in text
    assert f"plain, 8 seeds: {test.plain.p_holm:.3f}" in text
    last = dataclasses.replace(last, tests=(plain,))
    text = Text(page_html(dataclasses.replace(results, verdicts=(*known, last)), tmp_path)).text
    assert f"n = 3 seeds plain t-test: {last.plain} with 8 seeds" in text


def test_machines_are_those_of_the_runs(results, tmp_path):
    runs = {key: dataclasses.replace(run, provenance={}) for key, run in results.runs.items()}
    places = {"H100, Xeon, 2 cores": "flax 0.12, jax 0.11.2", "EPYC, 2 cores": "jax 0.10.2, jaxlib 0.10.1"}
    for number, run in enumerate(list(runs.values())[:3]):
        machine = list(places)[number > 1]
        provenance = {"machine": machine, "versions": places[machine]}
        runs[run.id] = dataclasses.replace(run, status="finished", provenance=provenance)
    text = Text(page_html(dataclasses.replace(results, runs=runs), tmp_path)).text
    assert "runs 2 on H100 (jax 0.11.2), 1 on EPYC (jax 0.10.2) wall time of all sessions 3 h 20 min" in text


def test_claims_that_were_not_run_stand_apart(results, tmp_path):
    *known, last = results.verdicts
    last = dataclasses.replace(last, verdict="not resolved", progress="not run")
    text = Text(page_html(dataclasses.replace(results, verdicts=(*known, last)), tmp_path)).text
    assert "✓ 1 supported ✗ 1 contradicted ? 1 not resolved – 1 not run" in text
    assert text.count(last.claim.text) == 1
    assert text.index("1 claim not run") < text.index(last.claim.text)


def test_a_claim_that_was_run_in_part_says_so_and_no_claim_of_ours_passes_for_the_reports(results, tmp_path):
    *known, last = results.verdicts
    claim = dataclasses.replace(last.claim, source="own")
    last = dataclasses.replace(last, claim=claim, verdict="not resolved", progress="partly run")
    text = Text(page_html(dataclasses.replace(results, verdicts=(*known, last)), tmp_path)).text
    assert "✓ 1 supported ✗ 1 contradicted ? 1 not resolved … 1 partly run" in text
    theirs, ours = text.index("What the report claims"), text.index("What this study claims")
    assert theirs < text.index("2b On CIFAR-100") < ours < text.index(claim.text) < text.index("… partly run at mini")
    alone = Text(page_html(dataclasses.replace(results, verdicts=(last,)), tmp_path)).text
    assert "What the report claims" not in alone


@pytest.mark.parametrize("quantity", ["late_accuracy", "loss_area", "epochs_to_loss"])
@pytest.mark.parametrize("gain", [-1e-9, 0.0, 1e-9])
def test_a_gain_that_rounds_to_nothing_has_no_sign(quantity, gain):
    assert gain_number(quantity, gain) in ("0.0", "0.00")


def test_a_small_gain_whose_interval_excludes_zero_is_written_out():
    assert gain_words("perplexity_area", 0.0003, 0.00024, 0.00035) == "+0.030 [+0.024, +0.035] %"
    assert gain_words("late_accuracy", 0.001, 0.00003, 0.002) == "+0.1000 [+0.0030, +0.2000] points"
    assert gain_words("perplexity_area", 0.0003, -0.0001, 0.00035) == "0.0 [0.0, 0.0] %"
    assert gain_words("late_accuracy", 0.01, 0.005, 0.015) == "+1.00 [+0.50, +1.50] points"


def test_last_epoch_is_mean_and_deviation_over_the_seeds(results, tmp_path):
    runs = results.by_variant(results.study.sections[2], "Lookahead(SGD)")
    last = 100 * np.array([run.rows[-1]["slow_test_accuracy"] for run in runs])
    text = Text(page_html(results, tmp_path)).text
    assert f"{last.mean():.2f} ± {last.std(ddof=1):.2g}" in text


@pytest.mark.parametrize("same_budget", [True, False])
def test_a_fault_of_a_reference_stands_once_where_its_curve_is_shown(same_budget, tmp_path):
    section = dataclasses.replace(made_up.pairs_section(), same_budget=same_budget)
    faults = {variant.reference.fault for variant in section.variants} - {""}
    assert len(faults) == 1
    text = Text(page_html(made_up.results([section], seeds=1), tmp_path)).text
    assert text.count(faults.pop()) == same_budget


def test_gains_of_each_section_stand_with_their_intervals(results, tmp_path):
    section = results.study.sections[2]
    ours, theirs = (results.by_variant(section, name) for name in ("Lookahead(SGD)", "SGD"))
    gains = [
        100 * (a.rows[-1]["test_accuracy"] - b.rows[-1]["test_accuracy"]) for a, b in zip(ours, theirs, strict=True)
    ]
    interval = scipy.stats.t.interval(0.95, len(gains) - 1, np.mean(gains), scipy.stats.sem(gains))
    mean, low, high = (f"{value:+.2f}".replace("-", "−") for value in (np.mean(gains), *interval))
    text = Text(page_html(results, tmp_path)).text
    table = text[text.index("2.4 CIFAR100: inner optimizers", text.index("Last epoch, mean")) :]
    table = table[table.index("Gains, paired by seed") :]
    assert "variant against seeds late accuracy final accuracy" in table[:200]
    assert "epochs to a loss both reach" in table[:300]
    row = table[table.index(f"Lookahead(SGD) SGD {len(gains)} ") :]
    assert row[: row.index(" %")].count(f" {mean} [{low}, {high}] points ") == 1


def test_every_run_has_its_log_and_the_page_says_how_to_reproduce_it(results, tmp_path):
    page = Text(page_html(results, tmp_path))
    links = {attributes.get("href") for tag, attributes in page.tags if tag == "a"}
    assert {f"./{run.log}" for run in results.runs.values()} <= links
    assert results.facts["command"] in page.text
    (session,) = results.facts["sessions"]
    assert f"30 runs finished, 1 failed in 3 h 20 min: {session['command']}" in page.text
    assert "0.10.2" in page.text
    targets = {link[1:] for link in links if link and link.startswith("#")}
    assert targets <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))


def test_names_from_a_study_file_stay_text(tmp_path):
    section = made_up.base_section(names=(EVIL, "a & b"))
    results = made_up.results([section], seeds=1)
    run = next(iter(results.runs))
    object.__setattr__(results.runs[run], "log", "javascript:alert(1)//<b>")
    page = page_html(results, tmp_path)
    assert EVIL not in page
    parsed = Text(page)
    assert EVIL in parsed.text
    assert sum(tag == "script" for tag, _ in parsed.tags) == 3
    links = [attributes["href"] for tag, attributes in parsed.tags if tag == "a" and "href" in attributes]
    assert "./javascript%3Aalert%281%29//%3Cb%3E" in links
    assert all(link.startswith(("#", "./")) for link in links)


def test_json_cannot_end_its_script():
    text = script_json({"label": EVIL})
    assert "<" not in text
    assert json.loads(text) == {"label": EVIL}


def test_nothing_is_loaded(results, tmp_path):
    parsed = Text(page_html(results, tmp_path))
    sources = [attributes[name] for _, attributes in parsed.tags for name in ("src", "href") if name in attributes]
    assert not [source for source in sources if re.match(r"\w+:|//", source)]
    assert not [tag for tag, _ in parsed.tags if tag in ("link", "iframe", "base")]


def test_curves_are_what_the_runs_logged_and_shared_ones_are_stored_once(results):
    data = page_data(results)
    section = results.study.sections[1]
    index = data["sections"][1]["variants"][1]["curve"]
    stored = data["curves"][index]["test_accuracy"]
    runs = results.by_variant(section, "Lookahead(RAdam)")
    columns = 100 * np.array([[row["test_accuracy"] for row in run.rows] for run in runs])
    np.testing.assert_allclose(stored["mean"], columns.mean(0), rtol=1e-4)
    width = np.ptp(columns, axis=0).max()
    np.testing.assert_allclose(np.subtract(stored["mean"], stored["below"]), columns.min(0), atol=0.03 * width)
    np.testing.assert_allclose(np.add(stored["mean"], stored["above"]), columns.max(0), atol=0.03 * width)
    # Section 2.4 compares the run of 2.1 again.
    assert data["sections"][2]["variants"][1]["curve"] == index
    assert [v["reference"] for v in data["sections"][1]["variants"]] == [None, None]


def test_numbers_are_short():
    assert rounded(np.array([1 / 3, 12345.678, 100.0, np.nan])) == [0.33333, 12346, 100, None]


def test_a_study_without_runs_and_claims_has_a_page(tmp_path):
    results = made_up.results([made_up.base_section()], seeds=1)
    for run in results.runs.values():
        object.__setattr__(run, "status", "missing")
    text = Text(page_html(results, tmp_path)).text
    assert "This study tests no claims" in text
    assert "No run of this section has finished yet." in text


# In a browser


@pytest.fixture(scope="module")
def browser():
    if not BROWSER:
        pytest.skip("no Chromium: apt install chromium, or set CHROMIUM to its path")
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install playwright"
    )
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=BROWSER, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def path(results, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    draw_all(made_up.results(results.study.sections[1:2]), folder / "figures")
    PIL.Image.linear_gradient("L").convert("RGB").save(folder / "figures" / "own.png")
    write_page(results, folder / "index.html")
    return folder / "index.html"


@pytest.fixture
def opened(browser, path):
    """A function that opens the page; at the end nothing may have been said or asked for."""
    contexts, said, asked = [], [], []

    def open_page(width=1400, *, file=path, **how):
        context = browser.new_context(viewport={"width": width, "height": 900}, **how)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(file.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert said == []
    assert all(url.startswith("file:") for url in asked)


def chart(page, section, side):
    return page.locator(f"#charts-section-{section} .chart").nth(side)


def series(page, section, side=0, what="series"):
    return json.loads(chart(page, section, side).get_attribute(f"data-{what}"))


def ink(page, section, side, colour):
    """How many pixels of a chart have about that colour."""
    canvas = chart(page, section, side).locator("canvas")
    return canvas.evaluate(
        """(canvas, [r, g, b]) => {
            const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
            let count = 0;
            for (let i = 0; i < data.length; i += 4) {
                const near = Math.abs(data[i] - r) + Math.abs(data[i + 1] - g) + Math.abs(data[i + 2] - b) < 12;
                if (near && data[i + 3] > 200) count++;
            }
            return count;
        }""",
        colour,
    )


ORANGE = [0xD5, 0x5E, 0x00]


def test_it_opens_without_a_word_or_a_request(opened, path):
    page = opened()
    assert page.locator(".chart canvas").count() == 8
    assert page.title() == "A made-up study"
    assert path.stat().st_size < 500_000


def test_a_studys_own_picture_is_in_the_file_itself(opened, path, tmp_path):
    alone = tmp_path / "index.html"
    shutil.copy(path, alone)
    page = opened(file=alone)
    assert page.get_by_role("heading", name="A picture of its own").count() == 1
    assert page.get_by_role("heading", name="Lost").count() == 0
    picture = page.get_by_alt_text("What another program drew")
    assert picture.evaluate("image => [image.complete, image.naturalWidth, image.naturalHeight]") == [True, 256, 256]


def test_a_variant_that_is_switched_off_is_gone_from_both_charts(opened):
    page = opened()
    assert series(page, 2) == ["RAdam", "Lookahead(RAdam)"]
    assert ink(page, 2, 0, ORANGE) > 100
    page.locator("#charts-section-2").get_by_label("Lookahead(RAdam)").uncheck()
    for side in (0, 1):
        assert series(page, 2, side) == ["RAdam"]
        assert ink(page, 2, side, ORANGE) == 0
    assert len(series(page, 3)) == 6, "another section is left as it was"
    page.locator("#charts-section-2").get_by_label("Lookahead(RAdam)").check()
    assert ink(page, 2, 0, ORANGE) > 100


def test_the_loss_axis_switches_and_accuracy_stays_linear(opened):
    page = opened()
    assert chart(page, 1, 0).get_attribute("data-scale") == "log"
    before = chart(page, 1, 0).locator("canvas").evaluate("canvas => canvas.toDataURL()")
    page.locator("#charts-section-1").get_by_label("linear").check()
    assert chart(page, 1, 0).get_attribute("data-scale") == "linear"
    assert chart(page, 1, 0).locator("canvas").evaluate("canvas => canvas.toDataURL()") != before
    assert chart(page, 1, 1).get_attribute("data-scale") == "linear"
    page.locator("#charts-section-1").get_by_label("test loss").check()
    assert chart(page, 1, 1).get_attribute("data-quantity") == "test_loss"


def hover(page, section, side, share=0.999):
    over = chart(page, section, side).locator(".u-over")
    over.scroll_into_view_if_needed()
    box = over.bounding_box()
    page.mouse.move(box["x"] + share * box["width"], box["y"] + box["height"] / 2)
    return chart(page, section, side).locator(".tooltip")


def test_hovering_shows_the_values_of_live_and_slow_weights(opened, results):
    page = opened()
    runs = results.by_variant(results.study.sections[1], "Lookahead(RAdam)")
    for name, quantity in (("live", "test_accuracy"), ("slow", "slow_test_accuracy")):
        page.locator("#charts-section-2").get_by_label(name).check()
        last = 100 * np.array([run.rows[-1][quantity] for run in runs])
        shown = hover(page, 2, 1).inner_text()
        assert "epoch 12" in shown
        found = re.search(r"Lookahead\(RAdam\)\s+([\d.]+)\s+([\d.]+) – ([\d.]+)", shown)
        assert found, shown
        assert [float(x) for x in found.groups()] == pytest.approx([last.mean(), last.min(), last.max()], abs=0.02)
    # The other chart shows the same epoch.
    assert "epoch 12" in chart(page, 2, 0).locator(".tooltip").inner_text()


def test_the_reports_curves_switch(opened):
    page = opened()
    assert series(page, 1, 0, "references") == ["RAdam", "Lookahead(RAdam)"]
    assert "report" in hover(page, 1, 0, 0.5).inner_text()
    page.locator("#charts-section-1 .reference input").uncheck()
    assert series(page, 1, 0, "references") == []
    assert page.locator("#charts-section-2 .reference").count() == 0


def test_it_can_be_used_by_keyboard(opened):
    page = opened()
    first = page.locator("#charts-section-1 .variants input").first
    first.focus()
    page.keyboard.press("Space")
    assert series(page, 1) == ["Lookahead(RAdam)"]
    chart(page, 1, 0).focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    assert "epoch 2" in chart(page, 1, 0).locator(".tooltip").inner_text()
    page.keyboard.press("Escape")
    assert not chart(page, 1, 0).locator(".tooltip").is_visible()


@pytest.mark.parametrize("width", [400, 1400])
def test_nothing_is_wider_than_the_window(opened, width):
    page = opened(width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for side in (0, 1):
        box = chart(page, 1, side).locator("canvas").bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
    for share in (0.02, 0.3, 0.49, 0.6, 0.98):
        tooltip = hover(page, 1, 1, share).bounding_box()
        assert tooltip["x"] >= 0
        assert tooltip["x"] + tooltip["width"] <= width
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_charts_follow_the_window(opened):
    page = opened(1400)
    page.set_viewport_size({"width": 700, "height": 900})
    page.wait_for_function("document.querySelector('.chart canvas').getBoundingClientRect().right <= 700")


def luminance(colour):
    parts = [int(x) / 255 for x in re.findall(r"\d+", colour)[:3]]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_has_contrast_in_both_themes(opened, theme):
    page = opened(color_scheme=theme)
    behind = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (luminance(behind) < 0.1) == (theme == "dark")
    for place in ("body", ".lead", ".hint", ".test", "a", ".supported", ".contradicted", ".not-resolved"):
        colour, own = page.locator(place).first.evaluate(
            "e => [getComputedStyle(e).color, getComputedStyle(e).backgroundColor]"
        )
        ground = behind if re.search(r", 0\)$", own) else own
        low, high = sorted((luminance(colour), luminance(ground)))
        assert (high + 0.05) / (low + 0.05) >= 4.5, place


def test_without_javascript_tables_and_pictures_are_there(opened, path):
    page = opened(java_script_enabled=False)
    assert page.locator(".verdicts tbody").count() == 4
    picture = page.locator("#section-2 ~ noscript img").first
    picture.scroll_into_view_if_needed()
    assert (path.parent / picture.get_attribute("src")).exists()
    assert picture.bounding_box()["height"] > 100
    page.locator("summary", has_text="Runs:").first.click()
    assert page.get_by_role("link", name="log", exact=True).first.is_visible()


def test_a_script_in_a_name_does_not_run(opened, tmp_path):
    write_page(made_up.results([made_up.base_section(names=(EVIL, "b"))], seeds=2), tmp_path / "index.html")
    page = opened(file=tmp_path / "index.html")
    assert page.title() == "A made-up study"
    assert page.get_by_label(EVIL).is_checked()
    assert EVIL in hover(page, 1, 0).inner_text()
