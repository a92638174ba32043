"""The two stages of a detector over a `Pyramid`, with numbers: torchvision's proposal network and region heads.

The last of the heads' outputs is background. Bounds of overlap and shares are those of Faster R-CNN on a pyramid
(Lin et al. 2016, 1612.03144), in torchvision and detectron2 alike.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead

from pixelwise.core.regions import BOX_WEIGHTS
from pixelwise.nn.proposals import Anchors
from pixelwise.nn.pyramid import Pyramid, RoIAlign, norm_layer

BOX_CELLS, MASK_CELLS = 7, 14  # a side, of the features pooled in a box
RPN_BOUNDS, BOX_BOUNDS = (0.7, 0.3), (0.5, 0.5)  # overlap from which positive, below which background
RPN_SHARE, BOX_SHARE = 0.5, 0.25  # of those drawn that are to be positive
RPN_OVERLAP = 0.7  # above it the worse of two proposals goes


def make_proposals(pyramid: Pyramid, *, convs: int = 1, anchor: int = 32, ratios: Sequence[float] = (0.5, 1.0, 2.0),
                   aligned: bool = True, before_nms: int = 1000, after_nms: int = 1000,
                   drawn: int = 256) -> RegionProposalNetwork:  # fmt: skip
    """The proposal network.

    convs    3x3 convolutions before its outputs
    anchor   side in pixels on the finest level, doubled from level to level      ratios   height / width
    aligned  anchors of exact size at exact strides; false: rounded as torchvision's are
    before_nms, after_nms   proposals kept a level and an image; in training twice as many
    drawn    anchors an image to learn from
    """
    sizes = [anchor * stride // pyramid.strides[0] for stride in pyramid.strides]
    if aligned:
        anchors: AnchorGenerator = Anchors(sizes, ratios, pyramid.strides)
    else:
        anchors = AnchorGenerator(tuple((s,) for s in sizes), (tuple(ratios),) * len(sizes))
    before, after = ({"training": 2 * n, "testing": n} for n in (before_nms, after_nms))
    head = RPNHead(pyramid.width, len(ratios), conv_depth=convs)
    return RegionProposalNetwork(anchors, head, *RPN_BOUNDS, drawn, RPN_SHARE, before, after, RPN_OVERLAP)


def make_heads(pyramid: Pyramid, things: int, *, norm: str = "none", box_convs: int = 0, box_width: int = 1024,
               mask_convs: int = 4, spare: bool = False, aligned: bool = True, sampling: int = 2, drawn: int = 512,
               score: float = 0.05, overlap: float = 0.5, keep: int = 100) -> RoIHeads:  # fmt: skip
    """The box head and the mask head for `things` classes; see `models.mask_rcnn.build` for the numbers."""
    width, layer = pyramid.width, norm_layer(norm)
    levels = dict(zip(pyramid.names[:-1], pyramid.strides))  # boxes are not pooled from the coarsest
    pools = [RoIAlign(levels, n, sampling=sampling, aligned=aligned) for n in (BOX_CELLS, MASK_CELLS)]
    if box_convs:
        box_head: nn.Module = FastRCNNConvFCHead((width, BOX_CELLS, BOX_CELLS), [width] * box_convs, [box_width], layer)
    else:
        box_head = TwoMLPHead(width * BOX_CELLS**2, box_width)
    predictor = FastRCNNPredictor(box_width, things + 1)
    outputs = things + 1 if spare else things
    predictor.bbox_pred = nn.Linear(box_width, 4 * outputs)
    for output, deviation in ((predictor.cls_score, 0.01), (predictor.bbox_pred, 0.001)):  # Girshick 2015, 1504.08083
        nn.init.normal_(output.weight, std=deviation)
        nn.init.zeros_(output.bias)
    mask_head = MaskRCNNHeads(width, [width] * mask_convs, 1, layer)
    draw = MaskRCNNPredictor(width, width, outputs)
    nn.init.normal_(draw.mask_fcn_logits.weight, std=0.001)  # every pixel starts undecided, as in detectron2
    nn.init.zeros_(draw.mask_fcn_logits.bias)
    return RoIHeads(pools[0], box_head, predictor, *BOX_BOUNDS, drawn, BOX_SHARE, BOX_WEIGHTS, score, overlap, keep,
                    pools[1], mask_head, draw)  # fmt: skip
