"""Audits that are killed again and again, at random instants."""
