"""Probe to Steer's own small package: what every chapter stands on.

Importing it loads nothing: each module is imported by name, so that `python -m utils doctor` also runs
where nothing is installed yet.
"""
