"""Many runs: a folder of manifests on the devices of one machine or of a cluster."""
