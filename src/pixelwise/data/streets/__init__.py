"""Drawn streets: seeded street scenes with panoptic truth in the layout of Cityscapes, for the demo and the tests.

What a pixel is cannot be told from its colour: walls, cars, clothes and surfaces share one palette, and the light
differs from scene to scene. `benchmarks/streets_colour.py` measures how far colour alone gets.
"""

from pixelwise.data.streets.cityscapes import colour_map, write_scene, write_streets
from pixelwise.data.streets.labels import COLOURS, THINGS, Label
from pixelwise.data.streets.scene import Scene, draw_scene
from pixelwise.data.streets.sheet import contact_sheet, overlay

__all__ = [
    "COLOURS",
    "THINGS",
    "Label",
    "Scene",
    "colour_map",
    "contact_sheet",
    "draw_scene",
    "overlay",
    "write_scene",
    "write_streets",
]
