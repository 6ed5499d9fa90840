"""Callbacks: the registry, the class form and the ready-made ones."""
