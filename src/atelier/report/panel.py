"""The panel of an explore notebook: presets, controls, and what they say."""

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import ipywidgets as widgets

RESET = "reset"
WIDTH = "360px"  # of a control


class Panel(ABC):
    """Controls by name, so that a notebook's cell can set them, too; a change of any shows anew what they say.

    ``presets``: by name, what differs from the values that the controls have at first; ``RESET`` brings those back.
    A panel says what its controls mean in ``show``.
    """

    def __init__(self, controls: Mapping[str, widgets.Widget], presets: Mapping[str, Mapping[str, Any]]) -> None:
        self.controls = dict(controls)
        first = self.values()
        self.presets = {RESET: first} | {name: first | dict(changed) for name, changed in presets.items()}
        self.time = widgets.Label()
        self._held = False  # while several controls change at once, and while one change brings another
        for control in self.controls.values():
            control.observe(self.update, "value")
        self.update()

    @abstractmethod
    def show(self) -> None:
        """Show what the controls say."""

    def values(self) -> dict[str, Any]:
        """What each control says."""
        return {name: control.value for name, control in self.controls.items()}

    def choose(self, preset: str) -> None:
        """Set all controls as a preset has them, and show that once."""
        self._held = True
        try:
            for name, value in self.presets[preset].items():
                self.controls[name].value = value
        finally:
            self._held = False
        self.update()

    def update(self, _: Any = None) -> None:
        """Show what the controls say, and how long that took."""
        if self._held:
            return
        self._held, start = True, time.perf_counter()
        try:
            self.show()
        finally:
            self._held = False
        self.time.value = f"answered in {time.perf_counter() - start:.1f} s"

    def column(self, *below: widgets.Widget) -> widgets.Widget:
        """The left of a panel: a button a preset, all controls, what a panel has below them, and the time."""
        buttons = [widgets.Button(description=name, layout=widgets.Layout(width="auto")) for name in self.presets]
        for button in buttons:
            button.on_click(lambda clicked: self.choose(clicked.description))
        above = widgets.HBox(buttons, layout=widgets.Layout(flex_flow="row wrap", width=WIDTH))
        listed = [above, *self.controls.values(), *below, self.time]
        return widgets.VBox(listed, layout=widgets.Layout(flex="0 0 auto"))


def wide() -> dict[str, Any]:
    """How wide a control is, and its label, so that none is cut."""
    return {"layout": widgets.Layout(width=WIDTH), "style": {"description_width": "90px"}}


def late() -> dict[str, Any]:
    """As wide, and silent until the mouse lets go, where an answer takes a while."""
    return {"continuous_update": False, **wide()}
