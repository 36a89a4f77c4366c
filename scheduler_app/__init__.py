"""Backbeat: prioritised tasks and recurring schedules over HTTP."""
