"""The scripted provider, for every test here."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))

from wire_server import wire  # noqa: F401  # a fixture, found by the line above
