"""A network or an exported file, ready to run behind one interface."""
