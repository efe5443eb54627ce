"""A person between the program and the model."""

from byzerllm.human.ask import ask_human
from byzerllm.human.desk import DESK, Desk, Ticket
from byzerllm.human.model import HumanModel, Surface
from byzerllm.human.show import shown_request
from byzerllm.human.terminal import TerminalSurface

__all__ = [
    "DESK",
    "Desk",
    "HumanModel",
    "Surface",
    "TerminalSurface",
    "Ticket",
    "ask_human",
    "shown_request",
]
