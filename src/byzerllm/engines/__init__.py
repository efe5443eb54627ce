"""Engines that run models on this machine, and the wire they share with hosted ones."""
