"""Public SSH keys for tests; nobody has their private halves any more."""
ED25519 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMGWhrF1Vyoymb+P7ewy3AddaQ7bdQkNBvc5F88wPq96"
ED25519_PRINT = "SHA256:XbqRvcMBQvFwY9OZxSbM/6x+PoJhuWcij5razDlmtXQ"
ECDSA = ("ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBPMX9MYw7z6uJzq36rBDkl0SbIJkJZhA5CD4RrbA"
         "w5QukxGewh+MalnKLZHICv8rVohqtoEBLietxo58BF3YUvM=")
ECDSA_PRINT = "SHA256:sobmlTyi0ghzkuGzpr5ss2K86KUqYy3m5Rufa14Jxao"
