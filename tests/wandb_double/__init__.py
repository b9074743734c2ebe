"""A W&B server in memory, with which the real SDK and its core talk over HTTP.

`with Double() as double:` serves it at `double.url`; `wandb_environment` gives the variables that lead the SDK there.
What the SDK asks that the schema does not know ends in `double.problems`; `double.calls` is the log of all requests.
"""

from .double import Double
from .environment import wandb_environment
from .faults import Cut, Hang, Lost, Reply
from .server import Call

__all__ = ["Call", "Cut", "Double", "Hang", "Lost", "Reply", "wandb_environment"]
