"""The non-local net: its block against the formula, the net against mmsegmentation."""

from __future__ import annotations

import importlib

import pytest
import torch
from torch import nn

from pixelwise.checkpoints import from_checkpoint, load_weights
from pixelwise.core.registry import create_model
from pixelwise.errors import ConfigError, ModelFileError

nonlocal_net = importlib.import_module("pixelwise.models.nonlocal")  # a word of the language, as a name in an import


@pytest.mark.parametrize(("variant", "count"), [("nonlocal", 50_023_814), ("nonlocal-r101", 69_015_942)])
def test_parameters(variant, count):
    with torch.device("meta"):
        assert sum(p.numel() for p in create_model(variant, classes=19).parameters()) == count


@torch.no_grad()
@pytest.mark.parametrize("scaled", [True, False])
def test_block_against_its_formula(scaled):
    torch.manual_seed(0)
    block = nonlocal_net.NonLocalBlock(6, 4, scaled).double().eval()
    x = torch.randn(2, 6, 3, 4, dtype=torch.float64)
    assert torch.equal(block(x), x)  # the norm begins with zeros
    for parameter in block.parameters():
        nn.init.normal_(parameter)
    found = block(x)
    for b in range(2):
        theta, phi, g = (conv(x)[b].flatten(1) for conv in (block.theta, block.phi, block.g))  # [4, 12]
        y = torch.empty(4, 12, dtype=torch.float64)
        for i in range(12):
            weights = torch.stack([torch.exp(theta[:, i] @ phi[:, j] / (2 if scaled else 1)) for j in range(12)])
            y[:, i] = sum(weights[j] * g[:, j] for j in range(12)) / weights.sum()
        torch.testing.assert_close(found[b], x[b] + block.out(y.view(1, 4, 3, 4))[0])


@pytest.mark.parametrize(("options", "message"), [
    ({"aux": -1}, "aux is -1"), ({"inner": 0}, "inner is 0"), ({"width": 0}, "width is 0"), ({"dropout": 1}, "dropout"),
    ({"output_stride": 4}, "8, 16, 32"), ({"scaled": 1}, "true or false"), ({"scale": 1}, "'scaled'"),
])  # fmt: skip
def test_refused_options(options, message):
    with pytest.raises(ConfigError, match=message):
        create_model("nonlocal", classes=3, **options)


def test_answers_are_those_of_mmsegmentation(frozen_mmseg, assert_frozen):
    assert_frozen("nonlocal", "mmseg", *frozen_mmseg("nonlocal"), encoder="resnet50c", aux=0.4, width=512, inner=256)


@pytest.mark.parametrize(("change", "said"), [
    ({"decode_head.nl_block.g.conv.bias": None}, r"1 missing: block\.g\.bias"),
    ({"decode_head.more.weight": [1]}, r"1 left over: decode_head\.more\.weight"),
    ({"decode_head.conv_seg.bias": [6]}, r"of another shape: head\.bias"),
])  # fmt: skip
def test_weights_that_do_not_fit_are_refused(change, said, frozen_mmseg, on_meta):
    shapes, _ = frozen_mmseg("nonlocal")
    with torch.device("meta"):
        net = create_model("nonlocal", **nonlocal_net.KEYS["mmseg"].options(on_meta(shapes)))
    given = {key: shape for key, shape in (shapes | change).items() if shape is not None}
    with pytest.raises(ModelFileError, match=said):
        load_weights(net, on_meta(given))


@pytest.mark.slow
def test_mmseg_answers_the_same(mmseg_net, mmseg_logits, stir, waves, assert_agree, tmp_path):
    torch.manual_seed(0)
    theirs = stir(mmseg_net("nonlocal_r50-d8", 19))
    torch.save({"meta": {}, "state_dict": theirs.state_dict()}, tmp_path / "a.pth")
    ours, card = from_checkpoint(tmp_path / "a.pth")
    assert card.architecture == "nonlocal"
    with torch.no_grad():
        for size in ((64, 96), (65, 91)):
            images = waves(*size)
            assert_agree(ours(images).full(), mmseg_logits(theirs, images))
    for module in (*ours.train().modules(), *theirs.train().modules()):
        if isinstance(module, nn.Dropout | nn.Dropout2d):
            module.p = 0.0
    images = waves(49, 57)
    with torch.no_grad():
        maps, output = theirs.extract_feat(images), ours(images)
        assert_agree(output.logits, theirs.decode_head(maps))
        assert_agree(output.aux[0][2].logits, theirs.auxiliary_head(maps))
