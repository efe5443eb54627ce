"""The scripted provider, for every test here."""

from wire_server import wire  # noqa: F401  # a fixture
