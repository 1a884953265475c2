"""SAP AI Core's resource plans, from plans.toml, and which of them a deployment needs."""

import tomllib
from dataclasses import dataclass
from pathlib import Path

from berth.errors import Exit, failed

_FILE = Path(__file__).with_name("plans.toml")


@dataclass(frozen=True)
class Plan:
    """One resource plan: `cards` GPUs of `card_gb` GB each, or a machine of `memory_gb` GB."""

    id: str
    device: str
    cards: int
    card: str = ""
    card_gb: int = 0
    memory_gb: int = 0

    def words(self) -> str:
        """What stands behind the plan, for a person."""
        if not self.card:
            return f"{self.memory_gb} GB of memory"
        return f"{self.cards} {self.card} of {self.card_gb} GB, {self.cards * self.card_gb} GB in all"


def known() -> tuple[Plan, ...]:
    """All plans of plans.toml, in its order."""
    return tuple(Plan(**row) for row in tomllib.loads(_FILE.read_text(encoding="utf-8"))["plan"])


def smallest(device: str, cards: int) -> Plan:
    """The first plan with that many cards of the device. Raises BerthError (exit code 2) where there is none."""
    of_device = [plan for plan in known() if plan.device == device]
    if not of_device:
        devices = sorted({plan.device for plan in known()})
        raise failed(
            f"SAP AI Core has no resource plan with {device}",
            f"render it for one of: {', '.join(devices)}",
            Exit.BAD_SETTING,
        )
    for plan in sorted(of_device, key=lambda plan: plan.cards):
        if plan.cards >= cards:
            return plan
    most = max(plan.cards for plan in of_device)
    raise failed(
        f"VLLM_TP_SIZE and VLLM_PP_SIZE ask for {cards} cards, and the largest resource plan has {most}",
        "choose a smaller or a quantized model: scripts/berth plan",
        Exit.BAD_SETTING,
    )
