"""The engines: train, val, predict, and what they stand on."""
