"""State of one learner: low-rank terms on a frozen base, the ledger of its facts, and checkpoints of both."""
