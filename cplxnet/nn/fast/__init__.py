"""The formulas of `nn` at the speed of the machine; each has its plain formula in `nn`."""
