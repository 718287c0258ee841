"""The one exception for what a user can mend: a single line that names the field or file, what was expected, what was found."""


class UserError(Exception):
    """A mistake in a command, file or artefact; the command line prints it as one line and exits with status 2."""


class StartError(Exception):
    """Nothing can run shards: the sweep ends at once, with the cause and exit status 1."""


class StoreError(Exception):
    """Results cannot be written (a full disk, say): the sweep ends at once; what is finished stays, exit status 1."""
