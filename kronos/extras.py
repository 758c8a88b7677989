"""What a part of this project that is not installed says of itself."""


class MissingExtra(ImportError):
    """An optional dependency is absent; the message says which command installs it."""
