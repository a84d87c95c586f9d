"""Training one stage: its epochs, objective, optimiser and early stopping."""
