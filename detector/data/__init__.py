"""Data: formats, samples, augmentation, loading, sources."""
