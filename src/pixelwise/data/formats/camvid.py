"""CamVid, 11 classes and void (Brostow et al., ECCV 2008), also in the folders of SegNet's version."""

from __future__ import annotations

from pixelwise.core.classes import Classes
from pixelwise.data.formats.folder import Format
from pixelwise.data.layout import Layout

DESCRIPTION = "CamVid, 11 classes, void 11: train/ trainannot/ val/ valannot/ ... (SegNet), or images/ masks/ splits/"

CLASSES = Classes(
    names=("Sky", "Building", "Pole", "Road", "Pavement", "Tree", "SignSymbol", "Fence", "Car", "Pedestrian",
           "Bicyclist"),
    colours=((128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222), (128, 128, 0),
             (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192)),
    void=(11,),
)  # fmt: skip

FORMAT = Format(
    name="camvid",
    layout=Layout(by_split=(("{split}", "{split}annot"), ("{split}", "{split}_labels"))),
    known=CLASSES,
    signs=(("train", "trainannot"),),
)
recognise = FORMAT.recognise
open = FORMAT.open
