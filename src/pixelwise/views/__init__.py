"""Views: several looks at one image, joined into one `Output`: mirrored, turned, scaled, and by several nets.

A view takes the image its own way and puts the net's maps back. Joined views are themselves an output, whose
probabilities are the mean over the views. No task is named here: tasks read the joined output like any other.
"""

from __future__ import annotations

from pixelwise.views.joined import Joined, join
from pixelwise.views.look import look, sights
from pixelwise.views.names import NAMED, PLAIN, parse
from pixelwise.views.renumbered import Renumbered
from pixelwise.views.view import View

__all__ = ["NAMED", "PLAIN", "Joined", "Renumbered", "View", "join", "look", "parse", "sights"]
