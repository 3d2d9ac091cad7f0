"""Views: load the run, compute what the view shows, and return it as text and picture."""

from lens.request import VIEWS, Request
from lens.seen import Seen


def look(request: Request) -> Seen:
    """The requested view of the network. Raises UserError if the run or its data is unavailable."""
    match VIEWS[request.view].kind:
        case "demo":
            from lens.views import demos as views
        case "digit":
            from lens.views import digits as views
        case "text" if request.view in ("attention", "logit-lens", "surprise"):
            from lens.views import text as views
        case "text":
            from lens.views import circuits as views
        case "any" if request.view == "parameters":
            from lens.views import parameters as views
        case _:
            from lens.views import runs as views
    return views.VIEWS[request.view](request)
