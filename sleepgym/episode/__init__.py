"""Episodes without Gymnasium: card, stream, state, operators, reward, score and snapshots."""
