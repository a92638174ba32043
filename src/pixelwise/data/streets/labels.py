"""The Cityscapes labels that drawn streets use: ids as in cityscapesScripts' `labels.py`, with the official colours."""

from enum import IntEnum


class Label(IntEnum):
    """Cityscapes label ids; the things among them carry instance ids."""

    EGO_VEHICLE = 1  # void
    ROAD = 7
    SIDEWALK = 8
    BUILDING = 11
    POLE = 17
    TRAFFIC_LIGHT = 19
    TRAFFIC_SIGN = 20
    VEGETATION = 21
    SKY = 23
    PERSON = 24
    RIDER = 25
    CAR = 26
    BICYCLE = 33


THINGS = frozenset({Label.PERSON, Label.RIDER, Label.CAR, Label.BICYCLE})

COLOURS: dict[int, tuple[int, int, int]] = {
    Label.EGO_VEHICLE: (0, 0, 0),
    Label.ROAD: (128, 64, 128),
    Label.SIDEWALK: (244, 35, 232),
    Label.BUILDING: (70, 70, 70),
    Label.POLE: (153, 153, 153),
    Label.TRAFFIC_LIGHT: (250, 170, 30),
    Label.TRAFFIC_SIGN: (220, 220, 0),
    Label.VEGETATION: (107, 142, 35),
    Label.SKY: (70, 130, 180),
    Label.PERSON: (220, 20, 60),
    Label.RIDER: (255, 0, 0),
    Label.CAR: (0, 0, 142),
    Label.BICYCLE: (119, 11, 32),
}
