"""The state that a run goes on from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from shoplens.training import state


def test_a_checkpoint_restores_weights_optimizer_and_random_states(tmp_path: Path) -> None:
    def made() -> tuple[torch.nn.Linear, torch.optim.AdamW]:
        model = torch.nn.Linear(3, 3)
        return model, torch.optim.AdamW(model.parameters())

    model, optimizer = made()
    model(torch.randn(2, 3)).sum().backward()
    optimizer.step()
    np.random.default_rng()
    state.save(tmp_path, model, optimizer, step=7, rank=0)
    expected = torch.rand(4), np.random.rand(4)
    other, its_optimizer = made()
    assert state.load(tmp_path, other, its_optimizer, rank=0) == 7
    torch.testing.assert_close(torch.rand(4), expected[0], rtol=0, atol=0)
    np.testing.assert_array_equal(np.random.rand(4), expected[1])
    assert torch.equal(other.weight, model.weight)
    assert torch.equal(its_optimizer.state_dict()["state"][0]["exp_avg"], optimizer.state_dict()["state"][0]["exp_avg"])
