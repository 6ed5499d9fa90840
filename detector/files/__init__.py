"""Files whole or not at all: atomic writes, safe YAML, folders, downloads, archives, locks."""
