"""What run.json says of the code that ran."""

import subprocess

from train.run import provenance


def test_the_commit_is_dirty_where_python_files_changed_and_not_where_results_did(tmp_path, monkeypatch):
    def git(*arguments):
        identity = ["-c", "user.name=A Test", "-c", "user.email=test@example.org"]
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    source, result = tmp_path / "train" / "run" / "provenance.py", tmp_path / "results.csv"
    monkeypatch.setattr(provenance, "__file__", str(source))
    source.parent.mkdir(parents=True)
    source.write_text("1\n")
    result.write_text("1\n")
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "--message=first")
    commit = git("rev-parse", "HEAD")
    assert provenance.source_commit() == commit
    result.write_text("2\n")
    assert provenance.source_commit() == commit
    source.write_text("2\n")
    assert provenance.source_commit() == f"{commit}-dirty"


def test_outside_git_the_commit_is_unknown(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "train" / "run" / "provenance.py"))
    assert provenance.source_commit() == "unknown"
