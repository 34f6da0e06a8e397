"""From a package to where it runs: a Bento of `serve/` and one package, and manifests for a cluster."""
