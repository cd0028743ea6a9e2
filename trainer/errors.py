"""What can go wrong in a training, apart from its config and its data."""


class TrainingError(Exception):
    """A training that cannot go on; the message says where it broke."""
