"""Errors that are shown to a user as one sentence."""


class UserError(ValueError):
    """A mistake in a config, a command or a file, with what would be right.

    The command-line tools print its message without a traceback and exit with status 1.
    """


class SameCropsError(UserError):
    """Several crops of an image that would be the same one: each is as large as the image."""
