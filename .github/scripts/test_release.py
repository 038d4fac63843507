"""The check of release tags."""

from __future__ import annotations

import re

import pytest
import release


@pytest.fixture
def repository(tmp_path):
    for folder, date in (("shared", "2026-01-31"), ("packages/rld-distill", "unreleased")):
        place = tmp_path / folder
        place.mkdir(parents=True)
        (place / "pyproject.toml").write_text('[project]\nversion = "0.1.0"\n')
        (place / "CHANGELOG.md").write_text(f"# Changelog\n\n## [0.1.0] - {date}\n")
    return tmp_path


def test_a_good_tag(repository):
    assert release.check("papercommons-v0.1.0", repository) == ("papercommons", "shared")


@pytest.mark.parametrize(
    ("tag", "message"),
    [
        ("v0.1.0", "looks like rld-distill-v1.2.3"),
        ("papercommons-v0.1", "looks like rld-distill-v1.2.3"),
        ("nlran-v0.1.0", "there is no packages/nlran/pyproject.toml"),
        ("papercommons-v0.2.0", "says version 0.1.0"),
        ("rld-distill-v0.1.0", "needs a line '## [0.1.0] - YYYY-MM-DD'"),
    ],
)
def test_a_bad_tag(repository, tag, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        release.check(tag, repository)
