"""Training in several processes: the group, its launch, and what it hands back; see docs/scale.md."""
