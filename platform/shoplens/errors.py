"""Errors that the user can fix. They are printed as one sentence, without a stack trace."""


class ShoplensError(Exception):
    """A request that cannot be carried out. The message says what was wrong and what to do."""
