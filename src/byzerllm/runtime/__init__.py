"""Where engines live, and which of them takes a call."""
