"""Workers that a Kubernetes cluster runs: what its objects say, how its API is reached, and how it is kept up with."""
