"""How fast cplxnet is beside the other libraries and beside the machine: `make bench`."""
