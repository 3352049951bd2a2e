"""The site-configs shipped with hpcpipe, as package data."""
