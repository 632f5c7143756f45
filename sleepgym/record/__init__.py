"""Episodes written down, and played again to check them."""

from sleepgym.record.recording import Recorder, Recording, RecordingError

__all__ = ["Recorder", "Recording", "RecordingError"]
