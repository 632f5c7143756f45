"""The environment: actions, observation, reward, clock and stream around a sleeping language model."""
