"""The error for everything that a user can fix."""


class UserError(ValueError):
    """Says in its message what was found, what was expected and what to do."""
