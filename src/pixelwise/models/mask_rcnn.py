"""Mask R-CNN (He, Gkioxari, Dollar, Girshick 2017, 1703.06870) on a feature pyramid (Lin et al. 2016, 1612.03144).

A region proposal network finds boxes that may hold an object (Faster R-CNN, Ren et al. 2015, 1506.01497); for each a
head says its class and refines it, another draws a mask in it for every class. Anchors, RoIAlign, suppression and the
heads are torchvision's; any encoder with a pyramid serves.

`resnet50_fpn` and `resnet50_fpn_v2` (Li et al. 2021, 2111.11429) are torchvision's nets, whose files load. `small` is
for training from nothing on a CPU: group norm, without which small batches do not train (He et al. 2018, 1811.08883).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import pixelwise.losses.regions  # noqa: F401  # registers the loss
from pixelwise.core.keys import Dialect
from pixelwise.core.outputs import Dense, Frame, Merge
from pixelwise.core.regions import BACKGROUND, UNSAMPLED, Regions, Sampled
from pixelwise.core.sample import Preprocessing
from pixelwise.core.segments import Segments
from pixelwise.core.sizes import SizeRule
from pixelwise.errors import ConfigError, ModelFileError
from pixelwise.models import _detectron2

PAPER = {"title": "Mask R-CNN", "year": 2017, "arxiv": "1703.06870"}
TASKS = ("instance",)
LOSS = None  # it has losses of its own

VARIANTS: dict[str, dict[str, Any]] = {
    "": {},
    "small": {"encoder": "resnet18", "encoder_norm": "group", "norm": "group", "width": 64, "box_width": 256,
              "before_nms": 300, "after_nms": 200, "drawn_boxes": 128},
    "detectron2_r50_fpn": _detectron2.LAYOUT,
    "resnet50_fpn": {"spare": True, "aligned": False},
    "resnet50_fpn_v2": {"spare": True, "aligned": False, "norm": "batch", "rpn_convs": 2, "box_convs": 4},
}  # fmt: skip
THIN = {
    "encoder": "resnet10t",
    "width": 8,
    "box_width": 16,
    "before_nms": 60,
    "after_nms": 40,
    "drawn_boxes": 32,
    "keep": 20,
}
DRAWS = True  # in training it draws what to learn from by the truth: validation, without it, has no loss
NOT_EXPORTED = {"openvino": "torchvision.nms"}

MASKS_AT_ONCE = 128  # that pass the mask head together when predicting


class MaskRCNN(nn.Module):
    """net(images [B, C, H, W], frames, truths) -> Regions; any H, W.

    backbone   `nn.pyramid.Pyramid`: images -> {level: features}
    rpn        torchvision's RegionProposalNetwork      roi_heads  torchvision's RoIHeads, with a mask branch
    channels   how many labels there are               things     those the heads tell apart, in their outputs' order;
               the heads' background is the last of their outputs
    semantic   features -> [B, S+1, h, w] logits of the labels that are no things, then of all things; or None
    In training `truths` choose the anchors and boxes to learn from; the loss is `losses.regions`. Raises ConfigError in
    training without truths.
    """

    def __init__(self, *, backbone: Any, rpn: Any, roi_heads: Any, channels: int, things: Sequence[int],
                 aligned: bool, semantic: nn.Module | None = None, merge: Merge | None = None) -> None:  # fmt: skip
        super().__init__()
        self.backbone, self.rpn, self.roi_heads, self.semantic = backbone, rpn, roi_heads, semantic
        self.channels, self.things, self.aligned = channels, tuple(things), aligned
        self.merge = merge or Merge("paint", overlap=0.5, score=0.5, stuff_area=4096)

    def forward(self, images: Tensor, frames: tuple[Frame, ...] | None = None,
                truths: Sequence[Segments] | None = None) -> Regions:  # fmt: skip
        if self.training and not truths:
            raise ConfigError("Mask R-CNN chooses what it learns from by the truth: call it with `truths` in training.")
        frames = frames or (Frame.whole(*images.shape[-2:]),) * len(images)
        images = self._pad(images, frames)
        features: dict[str, Tensor] = self.backbone(images)
        anchors, objectness, deltas, proposals = self._propose(images, features, frames)
        logits = None if self.semantic is None else self.semantic(features)
        features = {name: m.float() for name, m in features.items()}  # RoIAlign is not made for half precision
        sampled = None
        if truths:
            sampled = self._sample(features, anchors, objectness, deltas, proposals, truths)
        boxes, scores, labels, masks = ((),) * 4 if self.training else self._detect(features, proposals, frames)
        semantic = None
        if logits is not None:
            size = int(images.shape[-2]), int(images.shape[-1])
            semantic = Dense(logits, tuple(replace(frame, padded=size) for frame in frames))
        return Regions(boxes, scores, labels, masks, frames, self.things, self.channels, aligned=self.aligned,
                       semantic=semantic, sampled=sampled, merge=self.merge)  # fmt: skip

    def flat(self) -> nn.Module:
        """The net in evaluation for other runtimes: see `nn.traced_detector`."""
        from pixelwise.nn.traced_detector import TracedDetector

        return TracedDetector(self)

    def _pad(self, images: Tensor, frames: Sequence[Frame]) -> Tensor:
        """[B, C, h, w] with sides that are multiples of the coarsest stride; zero around what shows the image."""
        m = int(self.backbone.multiple)
        height, width = (max(2, -(-n // m)) * m for n in images.shape[-2:])
        padded = images.new_zeros(*images.shape[:2], height, width).contiguous(memory_format=torch.channels_last)
        for image, to, frame in zip(images, padded, frames):
            top, left, h, w = frame.window
            to[:, top : top + h, left : left + w] = image[:, top : top + h, left : left + w]
        return padded

    def _propose(self, images: Tensor, features: dict[str, Tensor],
                 frames: Sequence[Frame]) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:  # fmt: skip
        """Anchors [A, 4], their logits [B, A] and offsets [B, A, 4], and the proposals [R, 4] of each image."""
        from torchvision.models.detection.image_list import ImageList
        from torchvision.models.detection.rpn import concat_box_prediction_layers

        maps = list(features.values())
        scores, offsets = self.rpn.head(maps)
        per_level = [score[0].numel() for score in scores]
        scores, offsets = concat_box_prediction_layers(scores, offsets)
        objectness, deltas = scores.float().view(len(images), -1), offsets.float().view(len(images), -1, 4)
        shapes = [images.new_zeros(1, dtype=torch.float32).expand(m.shape) for m in maps]  # float32 under autocast too
        ends = _ends(frames)
        anchors = self.rpn.anchor_generator(ImageList(images, ends), shapes)
        with torch.no_grad():
            boxes = self.rpn.box_coder.decode(deltas.flatten(0, 1), anchors).view(len(images), -1, 4)
            proposals, _ = self.rpn.filter_proposals(boxes, objectness, ends, per_level)
        return anchors[0], objectness, deltas, proposals

    def _sample(self, features: dict[str, Tensor], anchors: Tensor, objectness: Tensor, deltas: Tensor,
                proposals: Sequence[Tensor], truths: Sequence[Segments]) -> Sampled:  # fmt: skip
        """Draws anchors and boxes, and runs the heads on the boxes."""
        from pixelwise.nn.proposals import draw, objects

        with torch.no_grad():
            found = [objects(truth, self.things) for truth in truths]
            rows = [draw(anchors, truth, self.rpn.proposal_matcher, self.rpn.fg_bg_sampler) for truth in found]
            candidates = [torch.cat([boxes, truth.boxes]) for boxes, truth in zip(proposals, found)]
            drawn = [draw(boxes, truth, self.roi_heads.proposal_matcher, self.roi_heads.fg_bg_sampler)
                     for boxes, truth in zip(candidates, found)]  # fmt: skip
            boxes = [boxes[row != UNSAMPLED] for boxes, row in zip(candidates, drawn)]
            drawn = [row[row != UNSAMPLED] for row in drawn]
        logits, box_deltas = self._classify(features, boxes)
        masks = self._draw_masks(features, [b[row != BACKGROUND] for b, row in zip(boxes, drawn)])
        return Sampled(anchors, torch.stack(rows), objectness, deltas, tuple(boxes), tuple(drawn), logits, box_deltas,
                       masks)  # fmt: skip

    def _classify(self, features: dict[str, Tensor], boxes: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Class logits [P, T+1] and offsets [P, T, 4] of boxes, float32."""
        heads = self.roi_heads
        pooled, count = self._pool(heads.box_roi_pool, features, boxes)
        logits, deltas = heads.box_predictor(heads.box_head(pooled))
        return logits[:count].float(), deltas[:count].float().unflatten(1, (-1, 4))[:, : len(self.things)]

    def _draw_masks(self, features: dict[str, Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """Mask logits [P, T, m, m] in boxes, float32."""
        heads = self.roi_heads
        pooled, count = self._pool(heads.mask_roi_pool, features, boxes)
        masks = heads.mask_predictor(heads.mask_head(pooled))
        return masks[:count].float()[:, : len(self.things)]

    def _pool(self, pool: nn.Module, features: dict[str, Tensor], boxes: Sequence[Tensor]) -> tuple[Tensor, int]:
        """[P, D, s, s] float32 features in boxes, and P. Where there is no box one stands in, to be cut off after the
        heads: their norms cannot do without, and every weight keeps a gradient."""
        count = sum(map(len, boxes))
        if count == 0:
            boxes = [boxes[0].new_tensor([[0.0, 0.0, 32.0, 32.0]]), *boxes[1:]]
        shapes = [(32, 32)] * len(boxes)  # not used: the pools know their strides
        with torch.autocast(boxes[0].device.type, enabled=False):
            return pool(features, list(boxes), shapes), count

    def _detect(self, features: dict[str, Tensor], proposals: Sequence[Tensor],
                frames: Sequence[Frame]) -> tuple[tuple[Tensor, ...], ...]:  # fmt: skip
        """Boxes, scores, labels and masks of each image, as `Regions` has them."""
        logits, deltas = self._classify(features, proposals)
        # torchvision has the background first, with a box of its own
        first, padded = logits.roll(1, 1), F.pad(deltas.flatten(1), (4, 0))
        boxes, scores, columns = self.roi_heads.postprocess_detections(first, padded, proposals, _ends(frames))
        labels = torch.tensor(self.things, device=logits.device)
        masks = []
        for i, (box, column) in enumerate(zip(boxes, columns)):
            parts = []
            for rows in torch.arange(len(box), device=box.device).split(MASKS_AT_ONCE):
                some = {name: m[i : i + 1] for name, m in features.items()}
                drawn = self._draw_masks(some, [box[rows]])
                parts.append(drawn[torch.arange(len(rows)), column[rows] - 1].sigmoid())
            cells = 2 * self.roi_heads.mask_roi_pool.output_size[0]
            masks.append(torch.cat(parts) if parts else box.new_zeros(0, cells, cells))
        return tuple(boxes), tuple(scores), tuple(labels[column - 1] for column in columns), tuple(masks)


def _ends(frames: Sequence[Frame]) -> list[tuple[int, int]]:
    """Where each image ends in the padded input (bottom, right): boxes are cut there."""
    return [(f.window[0] + f.window[2], f.window[1] + f.window[3]) for f in frames]


def build(*, classes: int, things: Sequence[int] | None = None, channels: int = 3, encoder: str = "resnet50",
          pretrained: bool = False, frozen_norm: bool = False, norm_eps: float | None = None,
          encoder_norm: str = "batch", stride_in_1x1: bool = False, norm: str = "none", width: int = 256,
          rpn_convs: int = 1, box_convs: int = 0, box_width: int = 1024, mask_convs: int = 4, spare: bool = False,
          aligned: bool = True, sampling: int = 2, anchor: int = 32, ratios: Sequence[float] = (0.5, 1.0, 2.0),
          before_nms: int = 1000, after_nms: int = 1000, drawn_anchors: int = 256, drawn_boxes: int = 512,
          score: float = 0.05, overlap: float = 0.5, keep: int = 100) -> MaskRCNN:  # fmt: skip
    """Mask R-CNN with numbers.

    things         labels that are objects; None: all but the last, which is background (the task instance)
    encoder        any of `pixelwise list encoders`    channels  of the image     pretrained  timm's weights
    frozen_norm    the encoder's batch norms stay as they are, with `norm_eps` (None: their own)
    encoder_norm   batch, or group: instead of batch norms     stride_in_1x1  ResNets strided as in detectron2's files
    norm           of the pyramid and the heads: none, batch or group      width  channels of the pyramid and the heads
    rpn_convs, box_convs, mask_convs   3x3 convolutions before each head's outputs; without, the box head has two
                   layers of `box_width`, with, one
    spare          box and mask outputs for background too, as torchvision has, which nothing uses
    aligned        RoIAlign, anchors and masks lie as pixels do (detectron2); false: as in torchvision
    sampling       points a side read in a cell of RoIAlign; 0: one a pixel
    anchor         side in pixels on the finest level, doubled from level to level     ratios  height / width
    before_nms, after_nms   proposals kept a level and an image, in training twice as many
    drawn_anchors, drawn_boxes   an image, to learn from
    score, overlap, keep   least score of a detection, overlap above which the worse of two goes, how many at most;
                   for nuclei, which come in hundreds, e.g. keep=500, after_nms=1000 and anchor=8
    Raises ConfigError for what cannot be.
    """
    from pixelwise.nn.detector import make_heads, make_proposals
    from pixelwise.nn.encoder import frozen_batch_norm, make_encoder
    from pixelwise.nn.encoder import stride_in_1x1 as move_stride
    from pixelwise.nn.pyramid import Pyramid, group_norms

    numbers = {"width": width, "box_width": box_width, "rpn_convs": rpn_convs, "anchor": anchor, "keep": keep,
               "before_nms": before_nms, "after_nms": after_nms, "drawn_anchors": drawn_anchors,
               "drawn_boxes": drawn_boxes}  # fmt: skip
    _check({**numbers, "channels": channels}, {"box_convs": box_convs, "mask_convs": mask_convs, "sampling": sampling},
           {"score": score, "overlap": overlap},
           {"pretrained": pretrained, "frozen_norm": frozen_norm, "stride_in_1x1": stride_in_1x1, "spare": spare,
            "aligned": aligned})  # fmt: skip
    _check_norms(encoder_norm, frozen_norm, norm_eps)
    if not isinstance(ratios, list | tuple) or not ratios or not all(_is_number(r) and r > 0 for r in ratios):
        raise ConfigError(f"Mask R-CNN: ratios is {ratios!r}; it must be a list of numbers above 0.")
    labels = _things(classes, things)
    if keep > after_nms * len(labels):
        raise ConfigError(
            f"Mask R-CNN: keep={keep} objects cannot come of after_nms={after_nms} proposals: raise both."
        )
    body = make_encoder(encoder, channels=channels, pretrained=pretrained)
    if frozen_norm:
        frozen_batch_norm(body, norm_eps)
    if encoder_norm == "group":
        if not any(isinstance(module, nn.BatchNorm2d) for module in body.modules()):
            raise ConfigError(f"Mask R-CNN: {encoder} has no batch norms that encoder_norm='group' could replace: take "
                              "encoder_norm=batch, which keeps its norms.")  # fmt: skip
        group_norms(body)
    if stride_in_1x1:
        move_stride(body.body)
    pyramid = Pyramid(body, width, norm)
    rpn = make_proposals(pyramid, convs=rpn_convs, anchor=anchor, ratios=ratios, aligned=aligned,
                         before_nms=before_nms, after_nms=after_nms, drawn=drawn_anchors)  # fmt: skip
    heads = make_heads(pyramid, len(labels), norm=norm, box_convs=box_convs, box_width=box_width, mask_convs=mask_convs,
                       spare=spare, aligned=aligned, sampling=sampling, drawn=drawn_boxes, score=score,
                       overlap=overlap, keep=keep)  # fmt: skip
    return MaskRCNN(backbone=pyramid, rpn=rpn, roi_heads=heads, channels=classes, things=labels, aligned=aligned)


def _things(classes: int, things: Sequence[int] | None) -> tuple[int, ...]:
    """The labels that are objects. Raises ConfigError where there is none, or one that is no label."""
    labels = tuple(range(classes - 1)) if things is None else tuple(things)
    whole = all(isinstance(label, int) and not isinstance(label, bool) for label in labels)
    if not labels or not whole or list(labels) != sorted(set(labels)) or not 0 <= labels[0] <= labels[-1] < classes:
        raise ConfigError(
            f"Mask R-CNN: things is {things!r} with {classes} classes; it must be rising labels below that, at least "
            "one. With things=None the last class is background, so there must be two."
        )
    return labels


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check(numbers: dict[str, int], counts: dict[str, int], shares: dict[str, float], words: dict[str, bool]) -> None:
    """Raises ConfigError, naming it, for an option that is out of bounds."""
    for least, group in ((1, numbers), (0, counts)):
        for name, value in group.items():
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ConfigError(f"Mask R-CNN: {name} is {value!r}; it must be a whole number from {least} up.")
    for name, share in shares.items():
        if not _is_number(share) or not 0 <= share <= 1:
            raise ConfigError(f"Mask R-CNN: {name} is {share!r}; it must be a number in 0..1.")
    for name, word in words.items():
        if not isinstance(word, bool):
            raise ConfigError(f"Mask R-CNN: {name} is {word!r}; it can be true or false.")


def _check_norms(encoder_norm: str, frozen_norm: bool, norm_eps: float | None) -> None:
    """Raises ConfigError for options of the encoder's norms that do not go together."""
    if encoder_norm not in ("batch", "group"):
        raise ConfigError(f"Mask R-CNN: encoder_norm is {encoder_norm!r}; it can be batch, group.")
    if encoder_norm == "group" and frozen_norm:
        raise ConfigError("Mask R-CNN: frozen_norm keeps batch norms; it does not go with encoder_norm='group'.")
    if norm_eps is not None and not (frozen_norm and _is_number(norm_eps) and norm_eps >= 0):
        raise ConfigError(f"Mask R-CNN: norm_eps is {norm_eps!r}; it is that of frozen norms, a number from 0 up, and "
                          "goes with frozen_norm=true only.")  # fmt: skip


def _torchvision_options(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Options of `build` from the shapes in torchvision's files. Frozen norms, as published, have no epsilon."""
    frozen = "backbone.body.bn1.num_batches_tracked" not in tensors
    stages = [name.split(".")[3] for name in tensors if name.startswith("backbone.body.layer3.")]
    deep = "backbone.body.layer1.0.conv3.weight" in tensors
    encoders = {(True, 6): "resnet50", (True, 23): "resnet101", (True, 36): "resnet152", (False, 2): "resnet18",
                (False, 6): "resnet34"}  # fmt: skip
    encoder = encoders.get((deep, len(set(stages))))
    if encoder is None:
        raise ModelFileError(f"its backbone is no ResNet of torchvision's: layer3 has {len(set(stages))} blocks.")
    return {
        "classes": len(tensors["roi_heads.box_predictor.cls_score.bias"]),
        "encoder": encoder,
        "width": len(tensors["roi_heads.mask_predictor.conv5_mask.bias"]),
        "norm": "batch" if "backbone.fpn.inner_blocks.0.1.weight" in tensors else "none",
        "rpn_convs": sum(bool(re.fullmatch(r"rpn\.head\.conv\.(\d\.0\.)?weight", name)) for name in tensors),
        "box_convs": sum(bool(re.fullmatch(r"roi_heads\.box_head\.\d\.0\.weight", name)) for name in tensors),
        "spare": True, "aligned": False,
        **({"frozen_norm": True, "norm_eps": 0.0} if frozen else {}),
    }  # fmt: skip


def _background_last(name: str, tensor: Tensor) -> Tensor:
    """torchvision's background is the first of the heads' outputs, ours the last."""
    if not re.search(r"roi_heads\.(box_predictor|mask_predictor\.mask_fcn_logits)", name):
        return tensor
    return tensor.roll(-4 if "bbox_pred" in name else -1, 0)


KEYS = {
    "detectron2": _detectron2.DIALECT,
    "torchvision": Dialect(
        signs=(r"^backbone\.body\.layer4\.", r"^backbone\.fpn\.inner_blocks\.", r"^rpn\.head\.cls_logits\.",
               r"^roi_heads\.mask_predictor\."),
        rules=(
            (r"backbone\.body\.(.+)", r"backbone.encoder.body.\1"),
            (r"(backbone\.fpn\.\w+_blocks\.\d)\.(weight|bias)", r"\1.0.\2"),  # as the published files have them
            (r"rpn\.head\.conv\.(weight|bias)", r"rpn.head.conv.0.0.\1"),
            *((rf"roi_heads\.mask_head\.mask_fcn{i + 1}\.(.+)", rf"roi_heads.mask_head.{i}.0.\1") for i in range(4)),
            (r"((backbone\.fpn|rpn|roi_heads)\..+)", r"\1"),
        ),
        options=_torchvision_options,
        preprocessing=Preprocessing(size=SizeRule(short=800, long=1333, rounding="floor", antialias=False)),
        task="instance",
        labels={91: "coco-90"},
        change=_background_last,
    ),
}  # fmt: skip
