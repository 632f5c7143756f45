"""Export of a memory, as a PEFT adapter with a README or merged into a standalone model."""
