"""PASCAL VOC 2012 segmentation (Everingham et al., IJCV 2010): 20 things and background, boundaries 255 are void."""

from __future__ import annotations

from pixelwise.core.classes import Classes
from pixelwise.data.formats.folder import Format
from pixelwise.data.layout import Layout

DESCRIPTION = "PASCAL VOC: JPEGImages/ SegmentationClass/ SegmentationObject/ ImageSets/Segmentation/*.txt, void 255"

THINGS = ("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
          "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor")  # fmt: skip

CLASSES = Classes(
    names=("background", *THINGS),
    things=THINGS,
    colours=((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128), (0, 128, 128),
             (128, 128, 128), (64, 0, 0), (192, 0, 0), (64, 128, 0), (192, 128, 0), (64, 0, 128), (192, 0, 128),
             (64, 128, 128), (192, 128, 128), (0, 64, 0), (128, 64, 0), (0, 192, 0), (128, 192, 0), (0, 64, 128)),
    void=(255,),
)  # fmt: skip
VOID_COLOUR = (224, 224, 192)

FORMAT = Format(
    name="voc",
    layout=Layout(
        images=("JPEGImages",),
        masks=("SegmentationClass",),
        instances=("SegmentationObject",),
        lists=("ImageSets/Segmentation",),
    ),
    known=CLASSES,
    object_void=(255,),
    void_colours=(VOID_COLOUR,),
    all_things=True,
    signs=(("JPEGImages", "SegmentationClass"),),
)
recognise = FORMAT.recognise
open = FORMAT.open
