"""Why a request is not sent."""


class Refused(Exception):
    """The request is not allowed. Sending it again would not help."""


class SecretsUnreadable(Exception):
    """The file of secrets cannot be used as it is. The message is one line that says why, without any of its values."""
