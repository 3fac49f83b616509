"""The settings of a cluster file describe themselves."""

from __future__ import annotations

import pytest

from serve_apps.settings import Batching, Experiment, Limits, ServedArm, Settings
from shoplens.config import Config


@pytest.mark.parametrize("config", [Settings, Limits, Batching, Experiment, ServedArm])
def test_every_setting_is_described(config: type[Config]) -> None:
    own = {name: field for name, field in config.model_fields.items() if name in config.__annotations__}
    assert own
    assert [name for name, field in own.items() if not field.description] == []


def test_models_may_be_left_out_and_not_be_empty() -> None:
    assert Settings().models is None
    with pytest.raises(ValueError, match="at least 1 item"):
        Settings.model_validate({"models": []})
