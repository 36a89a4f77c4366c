"""Why a request is not sent."""


class Refused(Exception):
    """The request is not allowed, and would not be however often it were sent."""


class SecretsUnreadable(Exception):
    """The file of secrets cannot be used as it is now; one line says why and shows none of its values."""
