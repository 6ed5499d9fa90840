"""What the trainer is made of: optimizers, schedule, EMA, saving and resuming."""
