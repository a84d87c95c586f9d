"""The formulas of `nn` at the machine's speed: nothing here computes what the plain formula does not."""
