"""The one exception that is the user's to cure."""


class UserError(ValueError):
  """Something the user can put right.

  The message names the thing, what was found, what was expected, and the cure. `main` prints it
  as one line and exits with code 1; any other exception is a fault of the program.
  """
