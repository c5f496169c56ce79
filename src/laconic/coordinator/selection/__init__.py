"""Selection: who is asked to work. See docs/selection.md."""

from laconic.coordinator.selection.candidate import Candidate, Context, Strategy
from laconic.coordinator.selection.choosing import Choice, choose, strategy_of
from laconic.coordinator.selection.fairness import jain
from laconic.coordinator.selection.settings import SelectionSection, SelectionSettings, selection_of
from laconic.coordinator.selection.uniform import chosen

__all__ = [
    "Candidate",
    "Choice",
    "Context",
    "SelectionSection",
    "SelectionSettings",
    "Strategy",
    "choose",
    "chosen",
    "jain",
    "selection_of",
    "strategy_of",
]
