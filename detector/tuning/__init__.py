"""Studies of many trainings: the search space, the storage that processes share, who runs which trial, the report."""
