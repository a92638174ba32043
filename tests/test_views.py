"""Views: taken and put back they agree with the image; joined they are an output like any other."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from pixelwise.core.classes import Classes
from pixelwise.core.outputs import Dense, Frame, Output
from pixelwise.core.registry import create_model
from pixelwise.core.sizes import SizeRule
from pixelwise.errors import ConfigError
from pixelwise.tasks import Panoptic, Semantic
from pixelwise.views import NAMED, View, join, look, parse


class Pointwise(nn.Module):
    """Sees one pixel at a time, so every view must agree with the plain one exactly; remembers what it was shown."""

    min_size = 8

    def __init__(self, activation="softmax"):
        super().__init__()
        self.activation, self.seen = activation, []

    def forward(self, images, frames=None, truths=None):
        self.seen.append(images)
        return Dense(torch.cat([images, images[:, :1] * -2], 1), frames, activation=self.activation)


class Lopsided(nn.Module):
    """Prefers class 1 towards the right edge of whatever it is shown: mirrored views disagree."""

    def forward(self, images, frames=None, truths=None):
        ramp = torch.linspace(-3, 3, images.shape[-1]).expand(len(images), 1, *images.shape[-2:])
        return Dense(torch.cat([images[:, :1] * 0, ramp + images[:, :1]], 1), frames)


LIES = ("flip", "vflip", "turn", "dihedral", "flip+turn", "flip+vflip")


@pytest.mark.parametrize("views", LIES)
@pytest.mark.parametrize("size", [(16, 24), (9, 11), (8, 8), (3, 5), (1, 1), (1, 30)])
def test_views_of_a_pointwise_net_change_nothing(size, views):
    images = torch.randn(2, 3, *size)
    plain = look(Pointwise(), images)
    joined = look(Pointwise(), images, parse(views))
    assert joined.frames == plain.frames or 1 in size or size == (3, 5)  # small ones are padded, each view its own way
    assert [f.original for f in joined.frames] == [size, size]
    for i in range(2):
        assert joined.probs(i).shape == (4, *size)
        torch.testing.assert_close(joined.probs(i), plain.probs(i))
        assert torch.equal(joined.class_map(i), plain.class_map(i))
        window = (size[0] // 3, size[1] // 4, size[0] - size[0] // 3, size[1] - size[1] // 2)
        torch.testing.assert_close(joined.probs(i, window), plain.probs(i, window))
        assert torch.equal(joined.class_map(i, window), plain.class_map(i, window))


@pytest.mark.parametrize("views", ["scale", "turn+scale", "dihedral+scale"])
def test_scaled_views_of_a_ramp_change_nothing_inside(views):
    """Resizing by bilinear steps keeps a ramp, but for the borders."""
    y, x = torch.meshgrid(torch.linspace(-2, 2, 41), torch.linspace(-1, 3, 66), indexing="ij")
    images = torch.stack([y, x, y - x])[None]
    plain, joined = look(Pointwise(), images), look(Pointwise(), images, parse(views))
    inside = (slice(None), slice(4, -4), slice(4, -4))
    torch.testing.assert_close(joined.probs(0)[inside], plain.probs(0)[inside], atol=2e-3, rtol=0)
    window = (10, 20, 15, 30)
    torch.testing.assert_close(joined.probs(0, window), joined.probs(0)[:, 10:25, 20:50])


def test_mean_of_probabilities_by_hand():
    images = torch.randn(1, 3, 8, 12)
    net = create_model("unet", classes=5, width=4, depth=2).eval()
    with torch.no_grad():
        joined = look(net, images, parse("flip"))
        straight = net(images).logits.softmax(1)
        mirrored = net(images.flip(3)).logits.softmax(1).flip(3)
    expected = (straight + mirrored)[0] / 2
    torch.testing.assert_close(joined.probs(0), expected)
    assert torch.equal(joined.class_map(0), expected.argmax(0))


def test_probabilities_and_not_logits_are_averaged():
    """Logits (0, 1) and (8, 5) in the two views: the mean of logits says class 0 by far, so does the sure view's
    probability; with (0, 4), (5, 2) the two rules part."""
    a, b = torch.tensor([0.0, 4.0]), torch.tensor([5.0, 0.5])
    outputs = tuple(Dense(v.view(1, 2, 1, 1).expand(1, 2, 8, 8)) for v in (a, b))
    joined = join(zip((View(), View(mirrored=True)), outputs), 2)
    assert int((a + b).argmax()) == 0
    expected = (a.softmax(0) + b.softmax(0)) / 2
    torch.testing.assert_close(joined.probs(0)[:, 3, 3], expected)
    assert int(joined.class_map(0)[0, 0]) == int(expected.argmax())


def test_scaled_views_against_torch():
    images = torch.randn(1, 3, 20, 31)
    net = create_model("unet", classes=3, width=4, depth=2).eval()
    views = (View(scale=0.75), View(scale=1.25, mirrored=True))
    with torch.no_grad():
        joined = look(net, images, views)
        total = torch.zeros(1, 3, 20, 31)
        for size, flip, antialias in (((15, 23), False, True), ((25, 39), True, False)):
            x = F.interpolate(images, size=size, mode="bilinear", antialias=antialias)
            x = net(x.flip(3) if flip else x).logits
            p = F.interpolate(x, size=(20, 31), mode="bilinear").softmax(1)
            total += p.flip(3) if flip else p
    torch.testing.assert_close(joined.probs(0), total[0] / 2, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("views", NAMED)
def test_windows_are_parts_of_the_whole(views):
    joined = look(Lopsided(), torch.randn(1, 3, 13, 22), parse(views))
    whole, labels = joined.probs(0), joined.class_map(0)
    for top, left, height, width in ((0, 0, 13, 22), (2, 3, 4, 5), (5, 0, 8, 22), (12, 21, 1, 1)):
        window = (top, left, height, width)
        torch.testing.assert_close(joined.probs(0, window), whole[:, top : top + height, left : left + width])
        assert torch.equal(joined.class_map(0, window), labels[top : top + height, left : left + width])


def test_a_view_that_disagrees_is_put_back_the_right_way():
    joined = look(Lopsided(), torch.zeros(1, 3, 8, 20), parse("flip"))
    probs = joined.probs(0)
    torch.testing.assert_close(probs, probs.flip(-1))  # left and right cancel
    alone = look(Lopsided(), torch.zeros(1, 3, 8, 20), (View(mirrored=True),))
    assert alone.probs(0)[1, 0, 0] > 0.9  # what the net prefers on the right lies on the left


SIDES = {(False, 1): "bottom", (False, 2): "left", (False, 3): "top", (True, 0): "left", (True, 2): "right",
         (True, 1): "bottom", (True, 3): "top"}  # fmt: skip


@pytest.mark.parametrize(("mirrored", "turns"), SIDES)
def test_a_turned_view_that_prefers_its_right_edge(mirrored, turns):
    """Class 1 is likely where the view's right edge lies in the image."""
    probs = look(Lopsided(), torch.zeros(1, 3, 9, 20), (View(mirrored, turns=turns),)).probs(0)[1]
    edges = {"top": probs[0], "bottom": probs[-1], "left": probs[:, 0], "right": probs[:, -1]}
    assert max(edges, key=lambda side: float(edges[side].mean())) == SIDES[mirrored, turns]
    assert float(edges[SIDES[mirrored, turns]].min()) > 0.9


def test_all_eight_by_hand():
    images = torch.randn(1, 3, 16, 24)
    net = create_model("unet", classes=5, width=4, depth=2).eval()
    with torch.no_grad():
        joined = look(net, images, parse("dihedral"))
        total = torch.zeros(5, 16, 24)
        for flip in (False, True):
            for k in range(4):
                seen = torch.rot90(images.flip(3) if flip else images, k, (2, 3))
                back = torch.rot90(net(seen).logits.softmax(1), -k, (2, 3))
                total += (back.flip(3) if flip else back)[0]
    torch.testing.assert_close(joined.probs(0), total / 8)


def test_joined_is_an_output_and_tasks_read_it():
    classes = Classes(names=["a", "b", "c", "d"], things=["b"])
    images = torch.randn(1, 3, 16, 16)
    joined = look(Pointwise(), images, parse("flip"))
    plain = look(Pointwise(), images)
    assert isinstance(joined, Output)
    assert torch.equal(Semantic(classes).decode(joined, 0).ids, Semantic(classes).decode(plain, 0).ids)
    one, other = Panoptic(classes).decode(joined, 0), Panoptic(classes).decode(plain, 0)
    assert torch.equal(one.ids, other.ids)
    torch.testing.assert_close(one.scores, other.scores)


def test_candidates_cover_the_class_map():
    joined = look(Lopsided(), torch.randn(1, 3, 12, 18), parse("flip+scale"))
    found, labels = joined.candidates(0), joined.class_map(0).numpy()
    painted = np.full(labels.shape, -1)
    for (x0, y0, x1, y1), crop, scores in zip(found.boxes, found.crops, found.scores):
        painted[y0:y1, x0:x1][crop] = scores.argmax()
    assert np.array_equal(painted, labels)
    assert ((found.scores.max(1) > 0.5) & (found.scores.max(1) <= 1)).all()


def test_sigmoid_outputs_know_nothing():
    images = torch.full((1, 3, 8, 8), -4.0)
    images[:, 0] = 4.0  # the fourth class is -2 of it
    joined = look(Pointwise("sigmoid"), images, (View(), View(mirrored=True)))
    assert (joined.class_map(0) == 0).all()
    joined = look(Pointwise("sigmoid"), images * 0, (View(), View(mirrored=True)))
    assert (joined.class_map(0) == 4).all()
    assert len(joined.candidates(0).crops) == 0


# -- padding to the least size ----------------------------------------------------------------------------------------


def test_small_images_reach_the_net_at_its_least_size():
    net = Pointwise()
    output = look(net, torch.rand(1, 3, 2, 30))
    assert net.seen[0].shape == (1, 3, 8, 30)
    assert output.frames == (Frame((2, 30), (8, 30), (0, 0, 2, 30)),)
    net.min_size = 32
    look(net, torch.rand(1, 3, 2, 30))
    assert net.seen[1].shape == (1, 3, 32, 32)


def test_large_images_are_not_touched():
    net, images = Pointwise(), torch.rand(2, 3, 9, 8)
    look(net, images)
    assert torch.equal(net.seen[0], images)
    assert net.seen[0].is_contiguous(memory_format=torch.channels_last)


# -- the size a net expects -------------------------------------------------------------------------------------------

SIZES = [(37, 90), (90, 37), (64, 64), (300, 200), (20, 200)]


@pytest.mark.parametrize("size", SIZES)
def test_a_rule_resizes_as_torchvisions_detectors(size):
    net, images = Pointwise(), torch.rand(2, 3, *size)
    look(net, images, rule=SizeRule(short=80, long=133, rounding="floor", antialias=False))
    theirs, _ = GeneralizedRCNNTransform(80, 133, [0.0] * 3, [1.0] * 3, size_divisible=1)(list(images))
    assert torch.allclose(net.seen[0], theirs.tensors, atol=1e-6)


@pytest.mark.parametrize("size", SIZES)
def test_a_rule_that_filters_resizes_as_pillow_does_for_detectron2(size):
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    net, rule = Pointwise(), SizeRule(short=80, long=133)
    look(net, torch.from_numpy(pixels).permute(2, 0, 1)[None].float(), rule=rule)
    height, width = rule(*size)
    theirs = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))
    assert np.abs(net.seen[0][0].permute(1, 2, 0).numpy() - theirs).max() <= 1.01  # Pillow rounds after each axis


def test_answers_are_at_the_original_size_under_a_rule():
    net, images = Pointwise(), torch.rand(1, 3, 40, 60)
    output = look(net, images, rule=SizeRule(short=20, long=100))
    assert output.frames == (Frame((40, 60), (20, 30), (0, 0, 20, 30)),)
    assert output.probs(0).shape == (4, 40, 60)


def test_a_rule_and_a_views_scale_are_one_step():
    net, images = Pointwise(), torch.rand(1, 3, 40, 60)
    look(net, images, (View(scale=1.5, mirrored=True),), SizeRule(short=80, long=200))
    once = F.interpolate(images, size=(120, 180), mode="bilinear").flip(-1)
    assert torch.allclose(net.seen[0], once, atol=1e-6)


# -- names ------------------------------------------------------------------------------------------------------------


def test_parse():
    assert parse(None) == parse("none") == (View(),)
    assert parse("scale+flip") == parse("flip+scale")
    assert len(parse("flip+scale")) == len(set(parse("flip+scale"))) == 6
    assert all(views[0] == View() for views in NAMED.values())
    assert parse([View(scale=2)]) == (View(scale=2),)
    assert len(parse("turn")) == 4
    assert len(parse("dihedral")) == len(parse("flip+turn")) == 8
    assert set(parse("flip+turn")) == set(parse("dihedral+flip")) == set(NAMED["dihedral"])
    assert parse("flip+vflip")[-1] == View(turns=2)  # left and right, top and bottom: half a turn
    assert parse("none+flip+flip") == parse("flip")


@pytest.mark.parametrize(
    ("views", "said"),
    [
        ("flop", "did you mean 'flip'"),
        ("flip+trun", "'trun' in 'flip.trun'; did you mean 'turn'"),
        ("", "known: dihedral"),
        ([], "at least one View"),
        ([1], "View"),
    ],
)
def test_parse_refuses(views, said):
    with pytest.raises(ConfigError, match=said):
        parse(views)


def test_absurd_scale():
    with pytest.raises(ConfigError, match=r"0\.1\.\.8"):
        View(scale=0)
