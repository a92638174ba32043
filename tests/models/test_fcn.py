"""FCN against torchvision and, frozen in a file, torchfcn (wkentaro), pytorch-semseg (meetps) and mmsegmentation.

The frozen answers are those of their own code at a sixteenth of its widths.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import nn

from pixelwise.checkpoints import from_checkpoint, load_weights
from pixelwise.checkpoints.dialects import dialects, recognise
from pixelwise.core.registry import create_model
from pixelwise.errors import ConfigError, ModelFileError
from pixelwise.models.fcn import THIN, VARIANTS
from pixelwise.nn.upsample import bilinear_kernel

FROZEN = Path(__file__).parent / "data" / "fcn.json"
PORTS = ["32s-wkentaro", "16s-wkentaro", "8s-wkentaro", "8s-atonce", "32s-meetps", "16s-meetps", "8s-meetps",
         "8s-meetps-nearest"]  # fmt: skip


@pytest.fixture(scope="module")
def frozen() -> dict[str, Any]:
    return json.loads(FROZEN.read_text(encoding="utf-8"))


@pytest.fixture
def saved(frozen, random_weight, tmp_path):
    """saved(port, **more) -> a file of the port's weights; more: {name: tensor, or None to leave it out}"""

    def save(port: str, **more: torch.Tensor | None) -> Path:
        tensors = {n: random_weight(n, s) for n, s in frozen[port]["keys"].items()} | more
        torch.save({n: t for n, t in tensors.items() if t is not None}, tmp_path / "w.pth")
        return tmp_path / "w.pth"

    return save


# -- the net ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("variant", "classes", "count"), [
    ("", 21, 134_489_759), ("-8s", 21, 134_489_759), ("-16s", 21, 134_815_994), ("-32s", 21, 136_152_917),
    ("-8s-atonce", 21, 134_489_759), ("-8s-wkentaro", 21, 134_489_759), ("-8s-meetps", 21, 134_489_759),
    ("-resnet50", 21, 35_322_218), ("-resnet101", 21, 54_314_346), ("-resnet50-mmseg", 19, 49_497_734),
    ("-resnet50-mmseg-d6", 19, 49_497_734),
])  # fmt: skip
def test_parameters(variant, classes, count):
    with torch.device("meta"):
        net = create_model(f"fcn{variant}", classes=classes)
    assert sum(p.numel() for p in net.parameters()) == count


def test_parameters_without_the_auxiliary_head():
    with torch.device("meta"):
        net = create_model("fcn-resnet50", classes=21, aux=0.0)
    assert sum(p.numel() for p in net.parameters()) == 32_957_013


@pytest.mark.parametrize(("variant", "learned"), [
    ("", [True, True, False]), ("-32s", [False]), ("-16s", [True, False]), ("-8s-wkentaro", [False] * 3),
    ("-8s-meetps", [True] * 3),
])  # fmt: skip
def test_enlarging_begins_bilinear_and_learns_as_the_variant_says(variant, learned):
    net = create_model(f"fcn{variant}", classes=3, **THIN)
    assert [up.weight.requires_grad for up in net.ups] == learned
    for up in net.ups:
        expected = torch.eye(3)[:, :, None, None] * bilinear_kernel(up.kernel_size[0])
        assert torch.equal(up.weight, expected)


@torch.no_grad()
@pytest.mark.parametrize("stride", [32, 16, 8])
@pytest.mark.parametrize("size", [(1, 1), (33, 65), (224, 224)])
def test_scores_land_on_their_pixels(stride, size):
    """What a unit at the deepest map adds is centred where that unit looks, at any size of image."""
    net = create_model("fcn", classes=1, stride=stride, **THIN).eval()
    pool5 = net.vgg(torch.zeros(1, 3, *size))[-1]
    bump = torch.zeros(1, 1, pool5.shape[2] - 6, pool5.shape[3] - 6)
    bump[0, 0, 0, 0] = 1
    y = bump
    for step, up in enumerate(net.ups):
        y = up(y)
        at = net.offsets[step] if step == len(net.ups) - 1 else 0
    rows = torch.arange(y.shape[2]) - at
    centre = float((y[0, 0].sum(1) * rows).sum() / y.sum())
    # fc6 looks at pixels 32 i .. 32 i + 7 x 32 - 1 of the padded image, which the first convolution shifts by 100 - 1
    assert centre == pytest.approx((7 * 32 - 1) / 2 - 99, abs=1.0)
    assert net(torch.zeros(1, 3, *size)).full().shape == (1, 1, *size)


@torch.no_grad()
def test_scores_that_are_not_zero_are_exported_and_kept_in_any_memory_format(waves):
    """The net begins with scores of zero, of which every promise holds."""
    torch.manual_seed(0)
    net = create_model("fcn", classes=3, **THIN).eval()
    for layer in (net.score, *net.skips):
        nn.init.normal_(layer.weight)
    both = waves(33, 65)
    wanted = net(both).logits
    assert float(wanted.std()) > 0.01
    torch.testing.assert_close(net(both[:1]).logits, wanted[:1], rtol=1e-4, atol=1e-5)
    exported = torch.export.export(net, (both,)).module()
    torch.testing.assert_close(exported(both).logits, wanted, rtol=1e-4, atol=1e-5)
    last = net.to(memory_format=torch.channels_last)(both.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(last.logits, wanted, rtol=1e-4, atol=1e-5)


def test_dropout_takes_values_or_maps():
    kinds = {v: type(create_model(f"fcn-{v}", classes=2, **THIN).fc6[2]) for v in ("8s", "8s-wkentaro", "8s-meetps")}
    assert kinds == {"8s": nn.Dropout, "8s-wkentaro": nn.Dropout2d, "8s-meetps": nn.Dropout2d}


def test_imagenet_weights_fill_the_fully_connected_layers(monkeypatch):
    class Stem(nn.Module):  # timm's VGG-16, of which only what is copied
        def __init__(self) -> None:
            super().__init__()
            self.features = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["D"])
            self.pre_logits = nn.Module()
            self.pre_logits.fc1, self.pre_logits.fc2 = nn.Conv2d(512, 4096, 7), nn.Conv2d(4096, 4096, 1)

    with torch.device("meta"):
        theirs = Stem()
        monkeypatch.setattr(timm, "create_model", lambda name, pretrained, in_chans: theirs)
        net = create_model("fcn", classes=2, pretrained=True)
    assert net.fc6[0].weight.shape == theirs.pre_logits.fc1.weight.shape


# -- other people's files ---------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("port", PORTS)
def test_ports_answer_the_same(port, frozen, saved, waves):
    more = {"at_once": True} if port == "8s-atonce" else {}
    net, card = from_checkpoint(saved(port), **more)
    assert card.architecture == "fcn"
    if port.endswith(("wkentaro", "meetps")):
        told = {"stride": 8, **VARIANTS[port]}
        assert {name: card.options[name] for name in told} == told
    for case in frozen[port]["outputs"]:
        images = waves(*case["size"], batch=1)
        assert_as_saved(net(images).full(), case)


def assert_as_saved(found: torch.Tensor, case: dict[str, Any], head: str = "") -> None:
    values = torch.tensor(case[f"{head}values"])
    assert list(found.shape) == case["shape"]
    places = torch.linspace(0, found.numel() - 1, len(values), dtype=torch.float64).long()
    assert float((found.flatten()[places] - values).abs().max()) <= 1e-4 * case[f"{head}range"]


@torch.no_grad()
def test_frozen_answers_depend_on_the_image(frozen, saved, waves):
    """Or they would agree whatever the layers do."""
    for port in PORTS:
        net, _ = from_checkpoint(saved(port))
        images = waves(33, 65, batch=1)
        moved = (net(images).full() - net(images * 0).full()).abs().max()
        assert float(moved) > 0.01 * frozen[port]["outputs"][0]["range"]


def test_colours_and_names_come_along(saved):
    _, wkentaro = from_checkpoint(saved("8s-wkentaro"))
    red = torch.tensor([255, 0, 0], dtype=torch.uint8).view(1, 3, 1, 1)
    expected = torch.tensor([0 - 104.00698793, 0 - 116.66876762, 255 - 122.67891434])
    torch.testing.assert_close(wkentaro.preprocessing(red).flatten(), expected)
    more = {f"score_{n}.{p}": torch.zeros(21, c, 1, 1) if p == "weight" else torch.zeros(21)
            for n, c in (("fr", 256), ("pool4", 32), ("pool3", 16)) for p in ("weight", "bias")}  # fmt: skip
    ups = {"upscore2.weight": 4, "upscore_pool4.weight": 4, "upscore8.weight": 16}
    more |= {name: torch.zeros(21, 21, side, side) for name, side in ups.items()}
    _, voc = from_checkpoint(saved("8s-wkentaro", **more))
    assert voc.classes.names[15] == "person"


@pytest.mark.parametrize("port", ["8s-wkentaro", "8s-meetps"])
def test_what_does_not_fit_is_refused(port, frozen, saved):
    victim = [n for n in frozen[port]["keys"] if n.endswith("weight")][3]
    with pytest.raises(ModelFileError, match="1 missing"):
        from_checkpoint(saved(port, **{victim: None}))
    with pytest.raises(ModelFileError, match="1 left over"):
        from_checkpoint(saved(port, **{"further.weight": torch.zeros(3)}))
    with pytest.raises(ModelFileError, match="of another shape"):
        from_checkpoint(saved(port, **{victim: torch.zeros(7, 7)}))


@torch.no_grad()
def test_torchvision_answers_the_same(tmp_path, stir, waves, assert_agree):
    make = torchvision.models.segmentation.fcn_resnet50
    theirs = stir(make(weights=None, weights_backbone=None, num_classes=21, aux_loss=True))
    state = theirs.state_dict()
    torch.save(state, tmp_path / "w.pth")
    ours, card = from_checkpoint(tmp_path / "w.pth")
    assert (card.architecture, card.options["aux"], card.preprocessing.size.short) == ("fcn", 0.5, 520)
    assert card.classes.names[15] == "person"
    ours.training = theirs.training = True  # the auxiliary heads answer, norms and dropout stay as they are
    for size in ((33, 65), (64, 96)):
        images = waves(*size, batch=1)
        found, wanted = ours(images), theirs(images)
        assert_agree(found.full(), wanted["out"])
        ((name, weight, head),) = found.aux
        assert (name, weight) == ("aux", 0.5)
        assert_agree(head.full(), wanted["aux"])
    del state["classifier.4.bias"]
    with pytest.raises(ModelFileError, match="1 missing"):
        load_weights(ours, state)


def test_torchvision_without_the_auxiliary_head_is_recognised():
    with torch.device("meta"):
        make = torchvision.models.segmentation.fcn_resnet101
        state = make(weights=None, weights_backbone=None, num_classes=4, aux_loss=False).state_dict()
        found = recognise(state, "it", dialects())
        options = found.dialect.options(state)
        net = create_model("fcn", **options)
    assert (str(found), options["encoder"], options["aux"]) == ("fcn (torchvision)", "resnet101", 0.0)
    shapes = {name: tensor.shape for name, tensor in net.state_dict().items()}
    assert {name: tensor.shape for name, tensor in found.dialect.translate(state).tensors.items()} == shapes


@torch.no_grad()
def test_mmsegmentation_answered_the_same(frozen, on_meta, random_weight, waves):
    told = frozen["mmseg"]
    backbone = json.loads((FROZEN.parent / "mmseg_r50_d8.json").read_text(encoding="utf-8"))["backbone"]
    keys = {f"backbone.{name}": shape for name, shape in backbone.items()} | told["keys"]
    found = recognise(on_meta(keys), "it", dialects())
    options = found.dialect.options(on_meta(keys))
    assert (str(found), options["encoder"], options["aux"]) == ("fcn (mmseg)", "resnet50c", 0.4)
    with torch.device("meta"):  # takes the weights as they are, without drawing its own first
        net = create_model("fcn", **options).eval()
    new = found.dialect.translate({name: random_weight(name, shape) for name, shape in keys.items()})
    assert (new.left, new.dropped) == ((), ())
    counters = {n: torch.tensor(1) for n in net.state_dict() if n.endswith("num_batches_tracked")}
    net.load_state_dict(new.tensors | counters, assign=True)
    net.training = True  # the auxiliary head answers, norms and dropout stay as they are
    for case in told["outputs"]:
        output = net(waves(*case["size"], batch=1))
        assert_as_saved(output.full(), case)
        assert_as_saved(output.aux[0][2].full(), case, "aux_")
    foreign = on_meta(keys)
    del foreign["decode_head.conv_cat.bn.weight"]
    with pytest.raises(ModelFileError, match=r"1 missing: head\.join\.1\.weight"):
        load_weights(net, foreign)


@torch.no_grad()
@pytest.mark.slow
@pytest.mark.parametrize("d6", [False, True])
def test_mmsegmentation_answers_the_same(d6, mmseg_net, mmseg_logits, tmp_path, stir, waves, assert_agree):
    backbone, options = {}, {}
    if d6:
        backbone = {"strides": (1, 2, 2, 1), "dilations": (1, 1, 1, 2)}
        options = {name: VARIANTS["resnet50-mmseg-d6"][name] for name in ("stride", "head_dilation")}
    theirs = stir(mmseg_net("fcn_r50-d8", classes=19, **backbone))
    if d6:
        for part in theirs.decode_head.convs:
            part.conv.dilation = part.conv.padding = (6, 6)
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    ours, card = from_checkpoint(tmp_path / "w.pth", **options)
    assert (card.architecture, card.options["encoder"], card.classes.names[0]) == ("fcn", "resnet50c", "road")
    for size in ((64, 96), (65, 97)):
        assert_agree(ours(waves(*size)).full(), mmseg_logits(theirs, waves(*size)))


# -- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("options", "message"), [
    ({"stride": 4}, "stride is 4; it can be 8, 16, 32"), ({"upsampling": "cubic"}, "upsampling is 'cubic'"),
    ({"aux": 0.4}, "aux would do nothing on vgg16"), ({"head": "concat"}, "head would do nothing on vgg16"),
    ({"encoder": "resnet18", "at_once": True}, "at_once would do nothing on the dilated form"),
    ({"encoder": "resnet18", "fc": 64}, "fc would do nothing"), ({"stride": 32, "at_once": True}, "they add nothing"),
    ({"encoder": "resnet18", "upsampling": "fixed"}, "upsampling would do nothing"), ({"width": 0}, "width is 0"),
    ({"dropout": 1.0}, "dropout is 1.0"), ({"drop_maps": 1}, "drop_maps is 1"), ({"aux": -1}, "aux is -1"),
    ({"pretrained": True, "fc": 64}, "fc=4096, not 64"), ({"pretrained": True, "width": 4}, "64 wide, not 4"),
    ({"encoder": "resnet1"}, "no encoder 'resnet1'"), ({"head": "deep"}, "head is 'deep'"),
    ({"head_dilation": 2}, "head_dilation would do nothing on vgg16"), ({"head_dilation": 0}, "head_dilation is 0"),
    ({"align_corners": True}, "align_corners would do nothing on vgg16"),
])  # fmt: skip
def test_refused_options(options, message):
    with torch.device("meta"), pytest.raises(ConfigError, match=message):
        create_model("fcn", classes=3, **options)
