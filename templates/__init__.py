"""The Jinja2 templates shipped with hpcpipe, as package data."""
