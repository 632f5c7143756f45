"""What a learner owns: terms on a frozen base, the ledger of its facts, and both on disk."""
