"""Recordings of episodes, and their replay for verification."""

from sleepgym.record.recording import Recorder, Recording, RecordingError

__all__ = ["Recorder", "Recording", "RecordingError"]
