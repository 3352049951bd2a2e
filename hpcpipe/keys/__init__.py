"""What must run: the key of every task, the digests it is made of, and how code is sent."""
