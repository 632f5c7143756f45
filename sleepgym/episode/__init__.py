"""An episode without Gymnasium: card, stream, clock, actions, examiner, score, snapshots."""
