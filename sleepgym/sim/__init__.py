"""SleepSim: the environment of a card without its model, whose answers a fitted response model gives instead."""
