"""A memory published: as a PEFT adapter, inside a model of its own, with a README."""
