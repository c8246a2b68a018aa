"""A git repository of a user's."""

import pytest

from tests.pipeline.project import git


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A git repository with data/raw and what a data set needs to be chosen."""
    (tmp_path / "data/raw/calls").mkdir(parents=True)
    (tmp_path / "data/raw/mine.jsonl").write_text("{}\n")
    (tmp_path / "data/raw/calls/a b.csv").write_text("case\n")
    git(tmp_path, "init", "--quiet")
    monkeypatch.chdir(tmp_path)
    return tmp_path
