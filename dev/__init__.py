"""The local cluster and the images: everything between a bare machine and a kubeconfig."""
