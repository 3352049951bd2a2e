"""The law of adapters and the promises to users, kept on real schedulers."""
