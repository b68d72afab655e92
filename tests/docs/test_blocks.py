"""README and documentation: every block of code and every command runs as it stands there, and links lead somewhere.

Python blocks of a page run one after the other in one namespace. A block after "Save this as `NAME`" becomes that file.
Commands run from a folder that looks like the root of a checkout, with fewer epochs and examples.
"""

import json
import os
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest

import train.__main__
import train.compare
import train.data.__main__
import train.export.__main__
import train.flags
import train.study.__main__

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [page for page in PAGES if not {"_build", "_extra", "results"} & set(page.relative_to(ROOT).parts)]
SMALL = ["--config.train_examples=64", "--config.test_examples=32", "--config.devices=1"]
# Commands that are not run but read: data that is not at hand, more devices or processes (tests/train runs such).
PARSED = ("cifar", "--coordinator_address", "local_steps", "seeds_per_program")
PROCESSES = ("--coordinator_address", "--num_processes", "--process_id")


def name(page):
    return str(page.relative_to(ROOT))


def blocks(page, *kinds):
    """(kind, code, file name or "") of each block of these kinds."""
    text = page.read_text(encoding="utf-8")
    for found in BLOCK.finditer(text):
        before = text[: found.start()].rstrip().rpartition("\n\n")[2]
        saved = re.search(r"Save this as\s+`([\w.]+)`", before)
        if found[1] in kinds:
            yield found[1], found[2], saved[1] if saved else ""


def pages_with(*kinds):
    return [pytest.param(page, id=name(page)) for page in PAGES if list(blocks(page, *kinds))]


@pytest.mark.parametrize("page", pages_with("python"))
def test_python_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "__main__"}
    for _, code, saved in blocks(page, "python"):
        if not saved:
            exec(compile(code, name(page), "exec"), namespace)


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A folder with the configs and examples of the checkout, and nothing else."""
    for part in ("configs", "examples"):
        (tmp_path / part).symlink_to(ROOT / part)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_train(words):
    if any(word in " ".join(words) for word in PARSED):
        train.flags.parse([word for word in words if not word.startswith(PROCESSES)])
        return
    epochs = [f"--config.epochs={2 if '--config.epochs=' in ' '.join(words) else 1}"]
    assert train.__main__.main([*words, *SMALL, *epochs]) == 0


def run_study(words):
    if "/shared" in " ".join(words):
        train.study.__main__.parse(words)  # a cluster
        return
    if "configs/studies/report.py" in " ".join(words):
        words = [*words, "--dry_run", "--only=2.6.2"]
    else:
        file = Path(next(word for word in words if word.startswith("--study=")).partition("=")[2])
        small = "epochs=1, train_examples=64, test_examples=32, devices=1, "
        file.write_text(re.sub(r"epochs=\d+, ", small, file.read_text()))
        words = [*words, "--seeds=1"]
    assert train.study.__main__.main(words) == 0


def extras():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def run(command):
    """Runs a command line of a page, or checks what only `make package` can run."""
    words = shlex.split(command.partition(" | ")[0], comments=True)
    while "=" in words[0]:  # variables of the environment
        words.pop(0)
    if words[:2] == ["pip", "install"]:
        named = re.search(r"\[([\w,]+)\]", words[-1])
        assert words[-1] == "." or (named and set(named[1].split(",")) <= extras().keys())
    elif words == ["source", ".venv/bin/activate"] or words == ["python", "-m", "venv", ".venv"]:
        pass
    elif words[:3] == ["python", "-m", "train"]:
        run_train(words[3:])
    elif words[:3] == ["python", "-m", "train.study"]:
        run_study(words[3:])
    elif words[:3] == ["python", "-m", "train.compare"]:
        assert train.compare.main(words[3:]) == 0
    elif words[:3] == ["python", "-m", "train.export"]:
        assert train.export.__main__.main(words[3:]) == 0
    elif words[:3] == ["python", "-m", "train.data"]:
        assert train.data.__main__.main(words[3:]) == 0
    elif words[-1].startswith("examples/"):
        assert Path(words[-1]).is_file()  # tests/examples runs it
    else:
        raise AssertionError(f"no test for the command {command!r}")


def own_runs():
    """Pages whose commands train, each by itself; some go on with the runs of training.md."""
    tutorial = ROOT / "docs" / "tutorials" / "training.md"
    going_on = [ROOT / "docs" / "howto" / f"{page}.md" for page in ("compare", "export", "more_epochs")]
    for page in (param.values[0] for param in pages_with("sh")):
        if page not in going_on:
            yield pytest.param([page, *going_on] if page == tutorial else [page], id=name(page))


@pytest.mark.parametrize("pages", list(own_runs()))
def test_commands_run(pages, checkout):
    for page in pages:
        for _, code, saved in blocks(page, "python"):
            if saved:
                Path(saved).write_text(code)
        for _, code, _ in blocks(page, "sh"):
            for command in code.replace("\\\n", " ").splitlines():
                run(command)


@pytest.mark.parametrize("page", [pytest.param(page, id=name(page)) for page in PAGES])
def test_every_block_says_what_it_is(page):
    opened = re.findall(r"^```(.*)", page.read_text(encoding="utf-8"), re.MULTILINE)[::2]
    assert [kind for kind in opened if kind not in ("python", "sh", "bash", "text") and not kind.startswith("{")] == []


def test_commands_in_the_text_are_known():
    found = {
        re.sub(r"\s+", " ", command)
        for page in PAGES
        for command in re.findall(r"`((?:python -m|make) [^`]+)`", BLOCK.sub("", page.read_text(encoding="utf-8")))
    }
    assert len(found) > 10
    targets = re.search(r"\.PHONY: (.*)", (ROOT / "Makefile").read_text())[1].split()
    for command in sorted(found):
        words = shlex.split(command)
        if words[0] == "make":
            assert words[1] in targets, command
        else:
            path = ROOT.joinpath(*words[2].split("."))
            assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), command


def test_the_script_for_slurm_requeues_a_run_that_was_stopped_and_no_other(tmp_path):
    ((_, script, _),) = blocks(ROOT / "docs" / "howto" / "slurm.md", "bash")
    stub = "#!/bin/bash\ntrap 'sleep 0.3; exit 75' USR1\ntouch started\nfor i in $(seq 200); do sleep 0.05; done\n"
    for program, text in (("python", stub), ("scontrol", "#!/bin/bash\necho $* > requeued\n")):
        (tmp_path / program).write_text(text)
        (tmp_path / program).chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "17"}
    job = subprocess.Popen(["bash", "-c", script], cwd=tmp_path, env=environment)
    while not (tmp_path / "started").exists():
        assert job.poll() is None
    job.send_signal(10)  # SIGUSR1, as --signal=B: sends it to the script
    job.wait(30)
    assert (tmp_path / "requeued").read_text() == "requeue 17\n"
    (tmp_path / "requeued").unlink()
    (tmp_path / "python").write_text("#!/bin/bash\nexit 1\n")
    subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment, check=False, timeout=30)
    assert not (tmp_path / "requeued").exists()


@pytest.mark.parametrize(
    "page", [pytest.param(page, id=name(page)) for page in [*PAGES, ROOT / "examples" / "README.md"]]
)
def test_links_to_files_lead_somewhere(page):
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    links = re.findall(r"\]\(([^)\s]+)\)|srcset=\"([^\"]+)\"|src=\"([^\"]+)\"", text)
    for link in (next(filter(None, found)) for found in links):
        if "://" in link or link.startswith("#"):
            continue
        assert (page.parent / link.partition("#")[0]).exists(), link


def test_the_notebook_runs(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    import matplotlib.pyplot as plt

    notebook = json.loads((ROOT / "docs" / "explanation" / "noisy_quadratic.ipynb").read_text(encoding="utf-8"))
    code = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    namespace = {}
    monkeypatch.setattr(plt, "show", lambda: None)
    for cell in code:
        exec(cell, namespace)  # it compares the formula with the library itself
    drawn = [plt.figure(number).axes[0].lines for number in plt.get_fignums()]
    plt.close("all")
    assert [len(lines) for lines in drawn] == [4, 2]
    sgd, ours = namespace["best"].values()
    assert ours[-1] < sgd[-1]
