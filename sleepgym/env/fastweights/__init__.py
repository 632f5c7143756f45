"""FastWeights: an environment in which passes over the context are chosen. Modules are imported on first use."""
