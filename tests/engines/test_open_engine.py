"""The door to the engines: names, precisions, what every engine promises."""

from __future__ import annotations

import pytest
import torch

from pixelwise.core.outputs import Frame
from pixelwise.core.registry import create_model
from pixelwise.engines import engines, open_engine
from pixelwise.errors import ConfigError


@pytest.fixture
def net():
    torch.manual_seed(0)
    return create_model("unet", classes=3, width=4, depth=2)


def test_eager_is_the_net(net):
    engine = open_engine("eager", net, device="cpu")
    x, frames = torch.randn(2, 3, 32, 48), (Frame((64, 96), (32, 48), (0, 0, 32, 48)),) * 2
    with torch.no_grad():
        output = engine(x, frames)
        expected = net.eval()(x, frames)
    assert (engine.name, engine.min_size) == ("eager", 8)
    assert not net.training
    assert output.frames == frames
    torch.testing.assert_close(output.logits, expected.logits, rtol=1e-4, atol=1e-5)


def test_precision_is_the_engine_s_own_business(net):
    with torch.no_grad():
        assert open_engine("eager", net, device="cpu", precision="bf16")(torch.randn(1, 3, 32, 32)).logits.dtype == (
            torch.bfloat16
        )


def test_wrong_words_are_refused(net):
    with pytest.raises(ConfigError, match=r"no engine 'eagre'.*did you mean 'eager'"):
        open_engine("eagre", net, device="cpu")
    with pytest.raises(ConfigError, match=r"no precision 'fp23'; did you mean 'fp32'"):
        open_engine("eager", net, device="cpu", precision="fp23")
    assert "eager" in engines()
