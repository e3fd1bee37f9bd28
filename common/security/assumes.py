"""What every length rests on beyond its numbers, as sentences for the ledger. Source: `README.md`, Assumptions."""

from __future__ import annotations

import math

from common.security.budget import EpsilonBudget
from common.security.tallies import ProtocolSettings

DEGREE_HIDES = math.sin(math.radians(0.5))
"""Phase error rate that a state may hide which is one degree off on the Poincare sphere: its trace distance."""
SINGLE = (
    "A1: in no slot is the light above `source`; where the emitter is driven resonantly, its phase is random in every "
    "slot as well"
)
WEAK = "A1: every pulse has exactly the stated mean photon number, and a random phase"
STATES = (
    "A2: the states are exactly H, V and R (and L), and symbols are drawn as stated: preparation tolerance 0; each "
    f"degree that a state is off on the Poincare sphere may hide {100.0 * DEGREE_HIDES:.2f} percentage points of phase "
    "errors"
)
RECEIVER = (
    "A3: loss lies before the splitter, the four detectors are blanked together, and splitter and efficiencies are "
    "within `receiver` in every slot, whatever light comes"
)
STATIONS = "A4: both stations are trusted, and the classical channel is authenticated"
STOPPING = "nobody chooses where the block ends in the light of what was revealed: these tails do not cover it"
PAPER = "paper accounting: no composable claim"


def sentences(settings: ProtocolSettings, budget: EpsilonBudget) -> tuple[str, ...]:
    """The assumptions of one ledger, most important first."""
    light = WEAK if settings.protocol == "decoy-bb84" else SINGLE
    stopping = () if budget.tails == "anytime" else (STOPPING,)
    paper = () if budget.accounting == "composable" else (PAPER,)
    return (*paper, light, STATES, RECEIVER, STATIONS, *stopping)
