"""Published architectures, one file each; `registry` creates, saves and loads them by name."""
