"""What tests of nets against other people's code share: weights that differ everywhere, images of waves, agreement."""

from __future__ import annotations

import importlib
import json
import sys
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixelwise.checkpoints.dialects import dialects, recognise
from pixelwise.core.registry import create_model


def _stir(net: nn.Module, seed: int = 0) -> nn.Module:
    """Gives every norm other weights, biases and statistics, and every bias another value; for evaluation."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            if name.endswith("num_batches_tracked"):
                continue
            if name.endswith("running_var") or (tensor.ndim == 1 and name.endswith("weight")):
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=draw))
            elif tensor.ndim == 1:  # biases and running means
                tensor.copy_(torch.randn(tensor.shape, generator=draw) * 0.2)
    return net.eval()


def _drawn_weight(name: str, shape: list[int]) -> Tensor:
    """A tensor that is a function of its foreign name and shape alone."""
    if name.endswith("num_batches_tracked"):
        return torch.tensor(1)
    count = int(np.prod(shape))
    wave = torch.sin(torch.arange(count, dtype=torch.float64) * 0.7548776662 + zlib.crc32(name.encode()) % 10007)
    wave = wave.view(shape).float()
    if name.endswith("running_var"):
        return 1.5 + wave
    if len(shape) == 1:
        return 1 + 0.2 * wave if name.endswith("weight") else 0.2 * wave
    return wave * (4 / np.prod(shape[1:])) ** 0.5


def _random_weight(name: str, shape: list[int]) -> Tensor:
    """A function of a tensor's foreign name and shape alone, without the regularity by which `drawn_weight` lets deep
    nets without norms forget the image."""
    if name.endswith("num_batches_tracked"):
        return torch.tensor(1)
    draw = np.random.RandomState(zlib.crc32(name.encode()))
    if name.endswith("running_var"):
        values = draw.uniform(0.5, 1.5, shape)
    elif len(shape) == 1:
        values = draw.standard_normal(shape) * 0.1 + (1 if name.endswith("weight") else 0)
    else:
        values = draw.standard_normal(shape) * (2 / np.prod(shape[1:])) ** 0.5
    return torch.from_numpy(values.astype(np.float32))


def _waves(height: int, width: int, batch: int = 2, channels: int = 3) -> Tensor:
    """[B, C, H, W] of waves."""
    y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in (height, width)), indexing="ij")
    planes = [
        torch.sin(0.31 * y * (c + 1) + 0.17 * x + b) + torch.cos(0.013 * x * y)
        for b in range(batch)
        for c in range(channels)
    ]
    return torch.stack(planes).view(batch, channels, height, width).float()


def _assert_agree(ours: Tensor, theirs: Tensor, tolerance: float = 1e-4) -> None:
    """The largest difference is at most `tolerance` of the range of `theirs`, which is no constant."""
    assert ours.shape == theirs.shape
    ours, theirs = ours.detach(), theirs.detach()
    spread = float(theirs.max() - theirs.min())
    assert spread > 1e-3
    assert float((ours - theirs).abs().max()) <= tolerance * spread


@pytest.fixture(scope="session")
def stir() -> Callable[..., nn.Module]:
    """stir(net, seed=0) -> the net in evaluation mode, with norms and biases that differ everywhere"""
    return _stir


@pytest.fixture(scope="session")
def drawn_weight() -> Callable[[str, list[int]], Tensor]:
    """drawn_weight(name, shape) -> a tensor that is a function of the two alone, for answers kept in a file"""
    return _drawn_weight


@pytest.fixture(scope="session")
def random_weight() -> Callable[[str, list[int]], Tensor]:
    """random_weight(name, shape) -> another such tensor, for nets without norms"""
    return _random_weight


@pytest.fixture(scope="session")
def waves() -> Callable[..., Tensor]:
    """waves(height, width, batch=2, channels=3) -> images [B, C, H, W]"""
    return _waves


@pytest.fixture(scope="session")
def assert_agree() -> Callable[..., None]:
    """assert_agree(ours, theirs, tolerance=1e-4 of the range)"""
    return _assert_agree


@pytest.fixture(scope="session")
def mmseg_net() -> Callable[..., nn.Module]:
    """mmseg_net("pspnet_r50-d8", classes=5, heads={"decode_head": {"channels": 128}}, **of the backbone) -> the net of
    mmsegmentation by its own base configuration"""
    mmseg = pytest.importorskip("mmseg", reason="mmsegmentation, the slow extra, is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in ("mmcv.ops", "mmcv.ops.point_sample"):
            sys.modules.setdefault(name, _Operators(name))
        registry = importlib.import_module("mmseg.registry")
        importlib.import_module("mmseg.models")
        config = importlib.import_module("mmengine.config").Config
    folder = Path(mmseg.__file__).parent / ".mim" / "configs" / "_base_" / "models"

    def make(name: str, classes: int, heads: dict[str, dict[str, Any]] | None = None, **backbone: Any) -> nn.Module:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            told = config.fromfile(folder / f"{name}.py")
            told.model.pretrained = None
            told.model.pop("data_preprocessor", None)
            for part, words in {"backbone": backbone, **(heads or {})}.items():
                told.model[part].update(words)
            for name in ("backbone", "decode_head", "auxiliary_head"):
                found = told.model.get(name, [])
                for part in found if isinstance(found, list) else [found]:  # a list: a cascade of heads
                    part.norm_cfg = {"type": "BN"}
                    if "num_classes" in part:
                        part.num_classes = classes
            return registry.MODELS.build(told.model)

    return make


class _Operators(ModuleType):
    """mmcv-lite lacks compiled operators, whose names mmsegmentation imports; the nets tested here use none."""

    __path__: list[str] = []  # noqa: RUF012  # of a package

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def _mmseg_logits(net: nn.Module, images: Tensor) -> Tensor:
    """[B, K, H, W] as mmsegmentation predicts them."""
    told = [{"ori_shape": images.shape[-2:], "img_shape": images.shape[-2:], "pad_shape": images.shape[-2:]}]
    found = net.encode_decode(images, told * len(images))
    if found.shape[-2:] == images.shape[-2:]:
        return found
    return F.interpolate(found, images.shape[-2:], mode="bilinear", align_corners=net.align_corners)


@pytest.fixture(scope="session")
def mmseg_logits() -> Callable[[nn.Module, Tensor], Tensor]:
    """mmseg_logits(its net, images [B, 3, H, W]) -> [B, K, H, W] as it predicts them"""
    return _mmseg_logits


def _on_meta(shapes: dict[str, list[int]]) -> dict[str, Tensor]:
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


@pytest.fixture(scope="session")
def on_meta() -> Callable[[dict[str, list[int]]], dict[str, Tensor]]:
    """on_meta({name: shape}) -> tensors without memory, of which dialects tell options"""
    return _on_meta


def _frozen_mmseg(net: str) -> tuple[dict[str, list[int]], list[dict[str, Any]]]:
    told = json.loads((Path(__file__).parent / "data" / "mmseg_r50_d8.json").read_text(encoding="utf-8"))
    keys = {f"backbone.{name}": shape for name, shape in told["backbone"].items()}
    return keys | told["nets"][net]["keys"], told["nets"][net]["outputs"]


@pytest.fixture(scope="session")
def frozen_mmseg() -> Callable[[str], tuple[dict[str, list[int]], list[dict[str, Any]]]]:
    """frozen_mmseg("pspnet") -> {name: shape} of mmsegmentation's net for 5 classes, and its answers"""
    return _frozen_mmseg


@torch.no_grad()
def _assert_frozen(architecture: str, name: str, keys: dict[str, list[int]], outputs: list[dict[str, Any]], /,
                   **options: Any) -> None:  # fmt: skip
    found = recognise(_on_meta(keys), "it", dialects())
    assert (found.architecture, found.name) == (architecture, name)
    told = found.dialect.options(_on_meta(keys))
    assert {key: told[key] for key in options} == options
    with torch.device("meta"):  # takes the weights as they are, without drawing its own first
        net = create_model(architecture, **told).eval()
    new = found.dialect.translate({key: _drawn_weight(key, shape) for key, shape in keys.items()})
    assert (new.left, new.dropped) == ((), ())
    counters = {n: torch.tensor(0) for n in net.state_dict() if n.endswith("num_batches_tracked")}
    net.load_state_dict(new.tensors | counters, assign=True)
    for case in outputs:
        full = net(_waves(*case["size"], batch=1)).full().flatten()
        wanted = torch.tensor(case["logits"])
        _assert_agree(full[torch.linspace(0, len(full) - 1, len(wanted), dtype=torch.float64).long()], wanted)


@pytest.fixture(scope="session")
def assert_frozen() -> Callable[..., None]:
    """assert_frozen(architecture, dialect, {name: shape}, [{"size", "logits"}], **options that the shapes tell): for
    `drawn_weight`s the net answers `waves` as was written down"""
    return _assert_frozen
