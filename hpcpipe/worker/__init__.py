"""Runs on the compute node: claims a task, runs it in a child process, writes its outcome.

A thousand elements pay for every import here, so it imports next to nothing, not even `typing`.
"""
