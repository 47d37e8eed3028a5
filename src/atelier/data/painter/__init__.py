"""The painter: a deterministic, seeded world of artworks and photographs with known truth.

A subject is set up as lit shapes (``subjects``, ``stage``, ``lights``), turned into arrays (``canvas``), painted in a
style by an artist (``styles``) or photographed (``photographs``), graded by an emotion (``moods``) and put into words
(``words``). ``works`` makes one picture, ``world`` many.
"""

from atelier.data.annotations import EMOTIONS
from atelier.data.painter.styles import STYLES
from atelier.data.painter.subjects import SUBJECTS
from atelier.data.painter.works import Photograph, Work, paint_photograph, paint_work, subject_mask
from atelier.data.painter.world import VERSION, paint_corpus, png, write_world

__all__ = [
    "EMOTIONS",
    "STYLES",
    "SUBJECTS",
    "VERSION",
    "Photograph",
    "Work",
    "paint_corpus",
    "paint_photograph",
    "paint_work",
    "png",
    "subject_mask",
    "write_world",
]
