"""Shepherd: a Responses API server between agents and models."""
