"""Build the images of `images/`, carry them into the cluster, push them to a registry; docs/images.md explains it."""
