"""What can be wrong with a source. Each message says what was wanted and what came, and fits a terminal."""


class FeedError(Exception):
    """A source that cannot be used."""


class DataError(FeedError):
    """A file that does not hold what its config says: columns, types, order, impossible values."""


class OfflineError(FeedError):
    """The source could not be reached at all."""


class RateLimitError(FeedError):
    """The source answered that it was asked too often."""


class UnknownSymbolError(FeedError):
    """The source, or the file, has no such symbol."""
