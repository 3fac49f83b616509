"""Errors that are the user's to mend: printed as one sentence, never as a stack trace."""


class ShoplensError(Exception):
    """Something the user asked for cannot be done; the message says what was wrong and what to do."""
