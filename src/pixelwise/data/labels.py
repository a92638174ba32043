"""Published label sets by name, for weights that were trained on them: COCO's three, Cityscapes' two, VOC, ADE20K,
CamVid's two."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from pixelwise.core.classes import Classes
from pixelwise.errors import ConfigError, nearest

# COCO (Lin et al. 2014, 1405.0312): the category ids of instances_*.json. Ten of 1..90 were never annotated.
COCO_THINGS = """1 person, 2 bicycle, 3 car, 4 motorcycle, 5 airplane, 6 bus, 7 train, 8 truck, 9 boat,
10 traffic light, 11 fire hydrant, 13 stop sign, 14 parking meter, 15 bench, 16 bird, 17 cat, 18 dog, 19 horse,
20 sheep, 21 cow, 22 elephant, 23 bear, 24 zebra, 25 giraffe, 27 backpack, 28 umbrella, 31 handbag, 32 tie,
33 suitcase, 34 frisbee, 35 skis, 36 snowboard, 37 sports ball, 38 kite, 39 baseball bat, 40 baseball glove,
41 skateboard, 42 surfboard, 43 tennis racket, 44 bottle, 46 wine glass, 47 cup, 48 fork, 49 knife, 50 spoon,
51 bowl, 52 banana, 53 apple, 54 sandwich, 55 orange, 56 broccoli, 57 carrot, 58 hot dog, 59 pizza, 60 donut,
61 cake, 62 chair, 63 couch, 64 potted plant, 65 bed, 67 dining table, 70 toilet, 72 tv, 73 laptop, 74 mouse,
75 remote, 76 keyboard, 77 cell phone, 78 microwave, 79 oven, 80 toaster, 81 sink, 82 refrigerator, 84 book,
85 clock, 86 vase, 87 scissors, 88 teddy bear, 89 hair drier, 90 toothbrush"""

# COCO panoptic: the stuff of panoptic_*.json, where classes of COCO-stuff are merged.
COCO_STUFF = """92 banner, 93 blanket, 95 bridge, 100 cardboard, 107 counter, 109 curtain, 112 door-stuff,
118 floor-wood, 119 flower, 122 fruit, 125 gravel, 128 house, 130 light, 133 mirror-stuff, 138 net, 141 pillow,
144 platform, 145 playingfield, 147 railroad, 148 river, 149 road, 151 roof, 154 sand, 155 sea, 156 shelf, 159 snow,
161 stairs, 166 tent, 168 towel, 171 wall-brick, 175 wall-stone, 176 wall-tile, 177 wall-wood, 178 water-other,
180 window-blind, 181 window-other, 184 tree-merged, 185 fence-merged, 186 ceiling-merged, 187 sky-other-merged,
188 cabinet-merged, 189 table-merged, 190 floor-other-merged, 191 pavement-merged, 192 mountain-merged,
193 grass-merged, 194 dirt-merged, 195 paper-merged, 196 food-other-merged, 197 building-other-merged,
198 rock-merged, 199 wall-other-merged, 200 rug-merged"""


@cache
def label_set(name: str) -> Classes:
    """The classes of a published label set, in the order its models number them. Raises ConfigError for another name.

    coco               80 things                          coco-panoptic      these and 53 kinds of stuff
    coco-90            the 90 slots of the category ids, which torchvision's detectors number
    cityscapes         19 classes                         cityscapes-things  the 8 things among them
    voc                background and 20 things           ade20k             150 classes
    camvid             11 classes                         camvid-nothing     and a twelfth channel, for void

    >>> label_set("coco").names[:2], label_set("coco").ids[-1]
    (('person', 'bicycle'), 90)
    """
    if name not in SETS:
        raise ConfigError(f"There is no published label set '{name}'; {nearest(name, SETS)}")
    return SETS[name]()


def _listed(text: str) -> dict[int, str]:
    pairs = (entry.split(maxsplit=1) for entry in text.replace("\n", " ").split(","))
    return {int(key): name for key, name in pairs}


def _coco() -> Classes:
    table = _listed(COCO_THINGS)
    return Classes(names=tuple(table.values()), things=tuple(table.values()), ids=tuple(table), void=())


def _coco_slots() -> Classes:
    """Slots without a category have the name "unused" with their id: nothing is ever annotated so."""
    table = _listed(COCO_THINGS)
    names = tuple(table.get(key, f"unused {key}") for key in range(1, 91))
    return Classes(names=names, things=names, ids=tuple(range(1, 91)), void=())


def _coco_panoptic() -> Classes:
    things, stuff = _listed(COCO_THINGS), _listed(COCO_STUFF)
    return Classes(names=(*things.values(), *stuff.values()), things=tuple(things.values()), ids=(*things, *stuff),
                   void=(0,))  # fmt: skip


def _cityscapes() -> Classes:
    from pixelwise.data.formats.cityscapes import CLASSES

    return CLASSES


def _voc() -> Classes:
    from pixelwise.data.formats.voc import CLASSES

    return CLASSES


def _ade20k() -> Classes:
    from pixelwise.data.formats.ade20k import CLASSES

    return CLASSES


def _camvid() -> Classes:
    from pixelwise.data.formats.camvid import CLASSES

    return CLASSES


def _camvid_nothing() -> Classes:
    return replace(_camvid(), nothing=True)


def _cityscapes_things() -> Classes:
    classes = _cityscapes()
    return classes.only(classes.things)


SETS = {
    "coco": _coco,
    "coco-90": _coco_slots,
    "coco-panoptic": _coco_panoptic,
    "cityscapes": _cityscapes,
    "cityscapes-things": _cityscapes_things,
    "voc": _voc,
    "ade20k": _ade20k,
    "camvid": _camvid,
    "camvid-nothing": _camvid_nothing,
}
