"""The one exception a user may see: a single line saying what was found and what to do."""


class UserError(Exception):
    """Something the user can mend. The message is one line; the command prints it and exits."""
