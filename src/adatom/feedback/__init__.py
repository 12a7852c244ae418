"""Feedback: score the uncertainty of defects and regions, and advise the next action."""

from adatom.feedback.choose import AdviceOptions, advice_to_json, advise
from adatom.feedback.damage import SiteDamage, choose_voltage
from adatom.feedback.manipulate import Jump, ManipulateOptions, advise_jumps, plan_jump
from adatom.feedback.score import (
    Score,
    ScoreOptions,
    element_entropy,
    energy_spread,
    existence_entropy,
    missing_position_nats,
    position_gain,
    score_defects,
    score_disagreement,
)

__all__ = [
    "AdviceOptions",
    "Jump",
    "ManipulateOptions",
    "Score",
    "ScoreOptions",
    "SiteDamage",
    "advice_to_json",
    "advise",
    "advise_jumps",
    "choose_voltage",
    "element_entropy",
    "energy_spread",
    "existence_entropy",
    "missing_position_nats",
    "plan_jump",
    "position_gain",
    "score_defects",
    "score_disagreement",
]
