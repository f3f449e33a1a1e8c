"""What happened to an event: received, read, put aside or ignored, applied, and by whom.

model     what a trace says, and the same line by line
messages  where a message is on Kafka, and how far every consumer has come
tracer    puts together what the tables say and what Kafka says
"""

from services.ingest.tracing.messages import UnavailableError
from services.ingest.tracing.model import Step, Trace, timeline
from services.ingest.tracing.tracer import Tracer

__all__ = ["Step", "Trace", "Tracer", "UnavailableError", "timeline"]
