"""The error that a user can fix."""


class UserError(ValueError):
    """Something that the user can mend; the message says what was found, what was expected and what to do."""
