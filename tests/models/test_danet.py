"""DANet: its attentions against their formulas, the net against mmsegmentation."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pixelwise.checkpoints import from_checkpoint, load_weights
from pixelwise.core.registry import create_model
from pixelwise.errors import ConfigError, ModelFileError
from pixelwise.models.danet import KEYS, THIN, ChannelAttention, PositionAttention


@pytest.mark.parametrize(("variant", "count"), [("danet", 49_846_574), ("danet-r101", 68_838_702)])
def test_parameters(variant, count):
    with torch.device("meta"):
        assert sum(p.numel() for p in create_model(variant, classes=19).parameters()) == count


@torch.no_grad()
def test_position_attention_against_its_formula():
    torch.manual_seed(0)
    block, x = PositionAttention(6, 2).double(), torch.randn(2, 6, 3, 4, dtype=torch.float64)
    assert torch.equal(block(x), x)  # gamma begins with 0
    block.gamma.fill_(0.7)
    found = block(x)
    for b in range(2):
        b_, c_, d_ = (conv(x)[b].flatten(1) for conv in (block.query, block.key, block.value))  # [., 12]
        for j in range(12):
            weights = torch.stack([torch.exp(b_[:, j] @ c_[:, i]) for i in range(12)])
            gathered = sum(weights[i] / weights.sum() * d_[:, i] for i in range(12))
            torch.testing.assert_close(found[b].flatten(1)[:, j], 0.7 * gathered + x[b].flatten(1)[:, j])


@torch.no_grad()
@pytest.mark.parametrize("size", [0.3, 30.0])  # the sums grow with its square
def test_channel_attention_against_its_formula(size):
    torch.manual_seed(0)
    block, x = ChannelAttention().double(), size * torch.randn(2, 5, 3, 4, dtype=torch.float64)
    block.gamma.fill_(0.7)
    found = block(x)
    for b in range(2):
        rows = x[b].flatten(1)
        for j in range(5):
            alike = torch.stack([rows[j] @ rows[i] for i in range(5)])
            weights = torch.exp(alike.max() - alike - (alike.max() - alike).max())  # the last, so that none overflows
            gathered = sum(weights[i] / weights.sum() * rows[i] for i in range(5))
            torch.testing.assert_close(found[b, j].flatten(), 0.7 * gathered + rows[j])


def test_sums_over_positions_are_not_taken_in_half_precision():
    torch.manual_seed(0)
    block = ChannelAttention()
    nn.init.ones_(block.gamma)
    x = torch.randn(1, 8, 32, 32)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        found = block(x.bfloat16())
    with torch.no_grad():
        torch.testing.assert_close(found.float(), block(x.bfloat16().float()), rtol=0.02, atol=0.02)


def test_branches_have_heads_in_training_only():
    images = torch.randn(2, 3, 33, 49)
    net = create_model("danet", classes=3, branches=0.5, **THIN)
    assert [(name, weight, out.logits.shape[1]) for name, weight, out in net(images).aux] == [
        ("position", 0.5, 3), ("channel", 0.5, 3), ("aux", 0.4, 3)]  # fmt: skip
    assert net.eval()(images).aux == ()
    plain = create_model("danet", classes=3, branches=0.0, aux=0.0, **THIN)
    assert plain(images).aux == ()
    assert not [name for name, _ in plain.named_parameters() if "n.head" in name or "l.head" in name or "aux" in name]


@pytest.mark.parametrize(("options", "message"), [
    ({"aux": "a"}, "aux is 'a'"), ({"branches": -1}, "branches is -1"), ({"keys": 0}, "keys is 0"),
    ({"width": 1.5}, "width is 1.5"), ({"output_stride": 4}, "8, 16, 32"), ({"dropout": 1}, "dropout"),
    ({"align_corners": 1}, "true or false"), ({"brunches": 1}, "'branches'"),
])  # fmt: skip
def test_refused_options(options, message):
    with pytest.raises(ConfigError, match=message):
        create_model("danet", classes=3, **options)


def test_answers_are_those_of_mmsegmentation(frozen_mmseg, assert_frozen):
    assert_frozen("danet", "mmseg", *frozen_mmseg("danet"), encoder="resnet50c", aux=0.4, width=512, keys=64)


@pytest.mark.parametrize(("change", "said"), [
    ({"decode_head.cam_out_conv.bn.bias": None}, r"1 missing: channel\.after\.1\.bias"),
    ({"decode_head.more.weight": [1]}, r"1 left over: decode_head\.more\.weight"),
    ({"decode_head.cam_conv_seg.bias": [6]}, r"of another shape: channel\.head\.1\.bias"),
])  # fmt: skip
def test_weights_that_do_not_fit_are_refused(change, said, frozen_mmseg, on_meta):
    shapes, _ = frozen_mmseg("danet")
    with torch.device("meta"):
        net = create_model("danet", **KEYS["mmseg"].options(on_meta(shapes)))
    given = {key: shape for key, shape in (shapes | change).items() if shape is not None}
    with pytest.raises(ModelFileError, match=said):
        load_weights(net, on_meta(given))


@pytest.mark.slow
@pytest.mark.parametrize("depth", [50, 101])
def test_mmseg_answers_the_same(depth, mmseg_net, mmseg_logits, stir, waves, assert_agree, tmp_path):
    torch.manual_seed(0)
    theirs = stir(mmseg_net("danet_r50-d8", 19, depth=depth))
    with torch.no_grad():
        theirs.decode_head.pam.gamma.scale.fill_(0.7)
        theirs.decode_head.cam.gamma.scale.fill_(-0.4)
    torch.save({"meta": {}, "state_dict": theirs.state_dict()}, tmp_path / "a.pth")
    ours, card = from_checkpoint(tmp_path / "a.pth")
    assert card.options["encoder"] == f"resnet{depth}c"
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
        both, position, channel = theirs.decode_head(maps)
        wanted = {"position": position, "channel": channel, "aux": theirs.auxiliary_head(maps)}
    assert_agree(output.logits, both)
    for name, _, out in output.aux:
        assert_agree(out.logits, wanted[name])
