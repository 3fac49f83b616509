from __future__ import annotations

from pathlib import Path

import pytest

from shoplens.config import Config, ConfigError, override, read_yaml, validate


class Inner(Config):
    learning_rate: float = 1.0


class Outer(Config):
    training: Inner = Inner()
    name: str = "x"


def test_a_misspelt_key_is_refused_with_the_nearest_known_one() -> None:
    with pytest.raises(ConfigError, match=r"training\.learning_rat: unknown key; did you mean learning_rate\?"):
        validate(Outer, {"training": {"learning_rat": 2}}, "a.yaml")


def test_every_mistake_is_named() -> None:
    with pytest.raises(ConfigError) as caught:
        validate(Outer, {"training": {"learning_rate": "fast"}, "nam": 1}, "a.yaml")
    assert "a.yaml cannot be used" in str(caught.value)
    assert "training.learning_rate" in str(caught.value)
    assert "did you mean name?" in str(caught.value)


def test_assignments_reach_into_sections_and_leave_the_source_alone() -> None:
    tree = {"training": {"learning_rate": 1.0}, "splits": None}
    changed = override(tree, ["training.learning_rate=1e-4", "name=[a, b]", "splits.x=true"])
    assert changed == {"training": {"learning_rate": "1e-4"}, "name": ["a", "b"], "splits": {"x": True}}
    assert tree == {"training": {"learning_rate": 1.0}, "splits": None}
    assert validate(Outer, {"training": changed["training"]}, "a").training.learning_rate == 1e-4


@pytest.mark.parametrize("assignment", ["training", "=3", "training.learning_rate.x=1"])
def test_a_bad_assignment_is_said(assignment: str) -> None:
    with pytest.raises(ConfigError):
        override({"training": {"learning_rate": 1.0}}, [assignment])


def test_a_missing_and_a_broken_file_are_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no file"):
        read_yaml(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("a: [1")
    with pytest.raises(ConfigError, match="is not YAML"):
        read_yaml(tmp_path / "bad.yaml")
