"""What tests share beyond fixtures: drawn files, watchers, settings of a quick training."""
