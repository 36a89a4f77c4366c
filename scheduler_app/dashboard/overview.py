"""Does it keep up? What fails? What is late?"""

from flask import Response

from scheduler_app.access import needs
from scheduler_app.dashboard.frame import blp, page
from scheduler_app.database import clock
from scheduler_app.models import Scope


@blp.get("/", strict_slashes=True)  # its cookies are sent only below the slash
@needs(Scope.READ)
def overview() -> Response:
    return page("overview.html", here="overview", now=clock())
