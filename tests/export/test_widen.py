"""A widened network computes what the smaller one did, and all of it can learn."""

from __future__ import annotations

import pytest
import torch

from export.widen import widened_state
from idm_rt.errors import ConfigError
from idm_rt.network import DenoiserConfig, DenoiserNet


def network(seed, channels, blocks):
    torch.manual_seed(seed)
    net = DenoiserNet(DenoiserConfig(channels=channels, blocks=blocks))
    for parameter in net.parameters():  # nothing at zero, or equality would say little
        if seed == 1:
            torch.nn.init.normal_(parameter, 0.0, 0.05)
    return net


@pytest.mark.parametrize(("channels", "blocks"), [((32, 16), (1, 1)), ((16, 24), (2, 3)), ((24, 32), (1, 2))])
def test_nothing_changes_at_first_and_every_weight_then_learns(channels, blocks):
    small, large = network(1, (16, 16), (1, 1)), network(2, channels, blocks)
    large.load_state_dict(widened_state(small.state_dict(), large))
    y, t = torch.rand(2, 3, 32, 32) * 2 - 1, torch.tensor([1.0, 0.5])
    x = y + 0.1 * torch.randn_like(y)
    with torch.no_grad():
        torch.testing.assert_close(large(x, y, t), small(x, y, t), rtol=1e-4, atol=1e-4)
    before = {name: value.clone() for name, value in large.state_dict().items()}
    optimizer = torch.optim.Adam(large.parameters(), 1e-3)
    for _ in range(4):
        optimizer.zero_grad()
        (large(x, y, t) - torch.rand_like(y)).square().mean().backward()
        optimizer.step()
    still = [name for name, value in large.state_dict().items() if torch.equal(value, before[name])]
    assert not still


def test_a_network_that_does_not_fit_is_refused():
    small = network(1, (16, 32), (1, 2)).state_dict()
    with pytest.raises(ConfigError, match="as many levels and blocks"):
        widened_state(small, network(2, (16, 32), (1, 1)))
    with pytest.raises(ConfigError, match="does not fit into"):
        widened_state(small, network(2, (16, 24), (1, 2)))
    folded = DenoiserNet(DenoiserConfig(channels=(16, 32), blocks=(1, 2), fold=2))
    with pytest.raises(ConfigError, match="does not fit into"):
        widened_state(small, folded)
