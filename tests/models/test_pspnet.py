"""PSPNet against mmsegmentation, its authors' PyTorch code and segmentation_models.pytorch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import segmentation_models_pytorch as smp
import torch
from torch import nn

from pixelwise.checkpoints import from_checkpoint, load_weights
from pixelwise.core.registry import create_model
from pixelwise.core.sizes import SizeRule
from pixelwise.errors import ConfigError, ModelFileError
from pixelwise.models.pspnet import KEYS, THIN
from pixelwise.nn.context import PyramidPooling

DATA = Path(__file__).parent / "data"


def parameters(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def still(*nets: nn.Module) -> None:
    """In training mode, without dropout."""
    for net in nets:
        for module in net.train().modules():
            if isinstance(module, nn.Dropout | nn.Dropout2d):
                module.p = 0.0


@pytest.mark.parametrize(("variant", "classes", "count"), [
    ("pspnet", 19, 48_975_494), ("pspnet-r101", 19, 67_967_622), ("pspnet-smp", 21, 1_593_397),
    ("pspnet-hszhao", 150, 49_180_908), ("pspnet-meetps", 19, 68_072_166),
])  # fmt: skip
def test_parameters(variant, classes, count):
    with torch.device("meta"):
        assert parameters(create_model(variant, classes=classes)) == count


def test_without_auxiliary_head():
    with torch.device("meta"):
        assert parameters(create_model("pspnet", classes=19, aux=0.0)) == 48_975_494 - (1024 * 9 + 2) * 256 - 257 * 19


def test_pyramid_pooling_against_its_definition():
    """Each cell of a grid is the mean of the pixels it touches; a cell is enlarged by the two nearest, by distance."""
    torch.manual_seed(0)
    x = torch.randn(2, 3, 7, 9, dtype=torch.float64)
    block = PyramidPooling(3, 2, (1, 2, 3)).double().eval()
    found = block(x)
    assert found.shape == (2, 3 + 3 * 2, 7, 9)
    assert torch.equal(found[:, :3], x)
    for k, bins in enumerate((1, 2, 3)):
        means = torch.empty(2, 3, bins, bins, dtype=torch.float64)
        for i in range(bins):
            for j in range(bins):
                top, low = i * 7 // bins, -(-(i + 1) * 7 // bins)
                left, right = j * 9 // bins, -(-(j + 1) * 9 // bins)
                means[:, :, i, j] = x[:, :, top:low, left:right].mean((2, 3))
        cells = block.convs[k](means)
        for i in range(7):
            for j in range(9):
                wanted = torch.zeros(2, 2, dtype=torch.float64)
                for a in range(bins):
                    for b in range(bins):
                        y = min(max((i + 0.5) * bins / 7 - 0.5, 0), bins - 1)
                        z = min(max((j + 0.5) * bins / 9 - 0.5, 0), bins - 1)
                        wanted += cells[:, :, a, b] * max(0, 1 - abs(y - a)) * max(0, 1 - abs(z - b))
                torch.testing.assert_close(found[:, 3 + 2 * k : 5 + 2 * k, i, j], wanted)


def test_training_needs_two_images_where_a_norm_stands_behind_the_mean():
    images = torch.randn(1, 3, 33, 33)
    with pytest.raises(ConfigError, match="--batch-size 2"):
        create_model("pspnet", classes=3, **THIN)(images)
    assert create_model("pspnet", classes=3, norm_of_one=False, **THIN)(images).logits.shape == (1, 3, 5, 5)


@pytest.mark.parametrize(("options", "message"), [
    ({"aux": -1}, "aux is -1"), ({"stages": 1}, "stages is 1; it can be 2, 3, 4"), ({"join": 2}, "it can be 1, 3"),
    ({"bins": []}, "bins"), ({"bins": [1, 0]}, "bins"), ({"output_stride": 4}, "8, 16, 32"), ({"width": 0}, "width"),
    ({"dropout": 1}, "dropout"), ({"align_corners": 1}, "true or false"), ({"encoder": "vgg16"}, "dilated"),
    ({"encoder": "densenet121", "even_dilation": True, "output_stride": 32}, "ResNets"), ({"ax": 0}, "'aux'"),
])  # fmt: skip
def test_refused_options(options, message):
    with pytest.raises(ConfigError, match=message):
        create_model("pspnet", classes=3, **{"encoder": "resnet10t", **options})


# -- segmentation_models.pytorch --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def theirs(stir):
    torch.manual_seed(0)
    return stir(smp.PSPNet("resnet18", encoder_weights=None, classes=4, in_channels=2, psp_out_channels=48))


@torch.no_grad()
def test_smp_answers_the_same(theirs, waves, assert_agree, tmp_path):
    torch.save(theirs.state_dict(), tmp_path / "a.pth")
    ours, card = from_checkpoint(tmp_path / "a.pth")
    assert card.architecture == "pspnet"
    assert card.options["encoder"] == "resnet18"
    dropped = card.training["imported"]["dropped"]
    assert sum(theirs.get_parameter(n).numel() for n in dropped if n.endswith(("weight", "bias"))) == (
        parameters(theirs) - parameters(ours)
    )
    for size in ((64, 96), (40, 72), (8, 8)):
        images = waves(*size, channels=2)
        assert_agree(ours(images).full(), theirs(images))


@torch.no_grad()
def test_smp_in_training(theirs, waves, assert_agree):
    state = theirs.state_dict()
    ours = create_model("pspnet-smp", classes=4, channels=2, encoder="resnet18", width=48)
    ours.load_state_dict(KEYS["smp"].translate(state).tensors)
    still(ours, theirs)
    images = waves(40, 72, channels=2)
    assert_agree(ours(images).full(), theirs(images))


@pytest.mark.parametrize(("change", "said"), [
    (lambda s: s.pop("decoder.conv.1.bias"), r"1 missing: join\.1\.bias"),
    (lambda s: s.update({"decoder.more": torch.ones(1)}), r"1 left over: decoder\.more"),
    (lambda s: s.update({"segmentation_head.0.bias": torch.ones(9)}), r"of another shape: head\.bias"),
])  # fmt: skip
def test_smp_files_that_do_not_fit_are_refused(theirs, change, said, tmp_path):
    state = dict(theirs.state_dict())
    change(state)
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(ModelFileError, match=said):
        from_checkpoint(tmp_path / "a.pth")


def test_smp_of_another_depth_is_refused(tmp_path):
    net = smp.PSPNet("resnet18", encoder_weights=None, classes=2, encoder_depth=4, upsampling=16)
    torch.save(net.state_dict(), tmp_path / "a.pth")
    with pytest.raises(ModelFileError, match=r"pools maps of 256 channels.*encoder_depth=3"):
        from_checkpoint(tmp_path / "a.pth")


# -- the authors' code and mmsegmentation, frozen ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def answers(frozen_mmseg):
    """{dialect: (shapes by names, answers)}"""
    found = {"mmseg": frozen_mmseg("pspnet")}
    for name in ("hszhao", "meetps"):
        told = json.loads((DATA / f"{name}_pspnet50.json").read_text(encoding="utf-8"))
        found[name] = (told["keys"], told["outputs"])
    return found


@pytest.mark.parametrize(("name", "encoder"), [
    ("mmseg", "resnet50c"), ("hszhao", "resnet50s"), ("meetps", "resnet50s"),
])  # fmt: skip
def test_answers_are_those_of_the_original(name, encoder, answers, assert_frozen):
    assert_frozen("pspnet", name, *answers[name], encoder=encoder, aux=0.4, classes=5, channels=3)


@pytest.mark.parametrize(("name", "change", "said"), [
    ("hszhao", {"cls.1.bias": None}, r"1 missing: join\.1\.bias"),
    ("hszhao", {"layer1.0.more": [1]}, r"1 left over: encoder\.body\.layer1\.0\.more"),
    ("hszhao", {"aux.4.bias": [7]}, r"of another shape: aux\.4\.bias"),
    ("meetps", {"cbr_final.cbr_unit.1.bias": None}, r"1 missing: join\.1\.bias"),
    ("meetps", {"res_block2.layers.0.more": [1]}, r"1 left over: res_block2\.layers\.0\.more"),
    ("meetps", {"aux_cls.bias": [7]}, r"of another shape: aux\.4\.bias"),
    ("mmseg", {"decode_head.psp_modules.0.1.bn.weight": None}, r"1 missing: context\.convs\.0\.1\.weight"),
    ("mmseg", {"decode_head.lateral_convs.0.conv.weight": [1]}, r"1 left over: decode_head\.lateral_convs"),
    ("mmseg", {"decode_head.conv_seg.weight": [6, 512, 1, 1]}, r"of another shape: head\.weight"),
])  # fmt: skip
def test_weights_that_do_not_fit_are_refused(name, change, said, answers, on_meta):
    shapes = answers[name][0]
    with torch.device("meta"):
        net = create_model("pspnet", **KEYS[name].options(on_meta(shapes)))
    given = {key: shape for key, shape in (shapes | change).items() if shape is not None}
    with pytest.raises(ModelFileError, match=said):
        load_weights(net, on_meta(given))


def test_a_stem_of_unknown_width_is_refused(answers, on_meta):
    shapes = answers["hszhao"][0] | {"layer0.0.weight": [48, 3, 3, 3]}
    with pytest.raises(ModelFileError, match="begins 48 wide"):
        KEYS["hszhao"].options(on_meta(shapes))


def test_an_encoder_of_unknown_depth_is_refused(answers, on_meta):
    shapes = {n: s for n, s in answers["meetps"][0].items() if not n.startswith("res_block4.layers.5.")}
    with pytest.raises(ModelFileError, match="5 blocks in the third stage"):
        KEYS["meetps"].options(on_meta(shapes))


def test_published_files_bring_names_and_sizes():
    for dialect in (KEYS["mmseg"], KEYS["hszhao"], KEYS["meetps"]):
        assert dialect.labels == {19: "cityscapes", 21: "voc", 150: "ade20k"}
        assert dialect.expects(19).size is None
    assert KEYS["mmseg"].expects(150).size == SizeRule(short=512, long=2048, antialias=False)
    assert KEYS["hszhao"].expects(21).size(375, 500) == (384, 512)
    told = KEYS["meetps"].expects(21)
    assert told.order == "BGR"
    pixels = torch.tensor([10, 20, 30], dtype=torch.uint8).view(1, 3, 1, 1)  # red, green, blue
    torch.testing.assert_close(told(pixels).flatten(), torch.tensor([30 - 103.939, 20 - 116.779, 10 - 123.68]))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:When align_corners=True")  # of sides other than 8 n + 1
@pytest.mark.parametrize("align_corners", [False, True])
def test_mmseg_answers_the_same(align_corners, mmseg_net, mmseg_logits, stir, waves, assert_agree, tmp_path):
    torch.manual_seed(0)
    theirs = stir(mmseg_net("pspnet_r50-d8", 19, heads={"decode_head": {"align_corners": align_corners}}))
    assert parameters(theirs) == 48_975_494
    torch.save({"meta": {}, "state_dict": theirs.state_dict()}, tmp_path / "a.pth")
    ours, card = from_checkpoint(tmp_path / "a.pth", align_corners=align_corners)
    assert card.classes.names[0] == "road"
    with torch.no_grad():
        for size in ((64, 96), (65, 91), (33, 47)):
            images = waves(*size)
            assert_agree(ours(images).full(), mmseg_logits(theirs, images))
    still(ours, theirs)
    images = waves(49, 57)
    with torch.no_grad():
        maps, output = theirs.extract_feat(images), ours(images)
        logits, aux = theirs.decode_head(maps), theirs.auxiliary_head(maps)
    assert_agree(output.logits, logits)
    assert_agree(output.aux[0][2].logits, aux)


@torch.no_grad()
@pytest.mark.slow
@pytest.mark.parametrize(("kind", "encoder"), [("ResNetV1c", "resnet18c"), ("ResNet", "resnet18b")])
def test_mmseg_with_basic_blocks(kind, encoder, mmseg_net, mmseg_logits, stir, waves, assert_agree, tmp_path):
    torch.manual_seed(0)
    heads = {
        "decode_head": {"in_channels": 512, "channels": 128},
        "auxiliary_head": {"in_channels": 256, "channels": 64},
    }
    theirs = stir(mmseg_net("pspnet_r50-d8", 7, heads=heads, depth=18, type=kind))
    torch.save({"meta": {"CLASSES": tuple("abcdefg"), "PALETTE": None}, "state_dict": theirs.state_dict()},
               tmp_path / "a.pth")  # fmt: skip
    ours, card = from_checkpoint(tmp_path / "a.pth")
    assert card.options["encoder"] == encoder
    assert card.classes.names == tuple("abcdefg")
    for size in ((64, 96), (65, 91)):
        images = waves(*size)
        assert_agree(ours(images).full(), mmseg_logits(theirs, images))
